"""The spool: batches of records on disk, as LMDB segments in slot directories. The only importer of lmdb.

`writer` stores, `reader` reads from any process, `check` finds and mends damage. The format is at the head
of `segment`.
"""
