"""Records, batches, and ways to look at segments without fastpixel."""

import itertools
import os
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import msgpack

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
HERE = Path(__file__).parent

_ids = itertools.count()


def event(received_ns=T0, pad=20, **more):
    time = msgpack.Timestamp.from_unix_nano(received_ns)
    return msgpack.packb({"messageId": f"m{next(_ids)}", "receivedAt": time, "properties": {"p": "x" * pad}, **more})


def reject(received_ns=T0, reason="bad_json"):
    time = msgpack.Timestamp.from_unix_nano(received_ns)
    return msgpack.packb({"receivedAt": time, "protocol": "segment", "reason": reason, "method": "POST"})


def store(writer, times, rejects=0, pad=20):
    """Appends one batch of events with these times; returns (first seq, [event bytes])."""
    events = [event(time, pad) for time in times]
    bad = [reject(times[-1]) for _ in range(rejects)]
    first = writer.append(b"".join(events), len(events), b"".join(bad), rejects, min(times), max(times))
    return first, events


def plain(path, lock=False):
    """A segment as any LMDB and msgpack library reads it: {database: [(key, [records])]}, {meta}."""
    found = {}
    with lmdb.open(str(path), subdir=False, max_dbs=3, readonly=True, lock=lock, map_size=0) as env:
        for name in ("events", "rejects"):
            database = env.open_db(name.encode(), create=False)
            with env.begin(db=database) as txn:
                found[name] = [(struct.unpack(">Q", key)[0], unpack(value)) for key, value in txn.cursor()]
        with env.begin(db=env.open_db(b"meta", create=False)) as txn:
            meta = {key.decode(): msgpack.unpackb(value) for key, value in txn.cursor()}
    return found, meta


def unpack(value):
    unpacker = msgpack.Unpacker()
    unpacker.feed(value)
    return list(unpacker)


def poke(path, name, key, value):
    """Plants a fault: puts a value into a database of a segment, past fastpixel."""
    with lmdb.open(str(path), subdir=False, max_dbs=3, lock=False, map_size=0) as env:
        with env.begin(write=True, db=env.open_db(name.encode())) as txn:
            txn.put(key, value) if value is not None else txn.delete(key)


def ids(batches):
    return [record["messageId"] for batch in batches for record in unpack(batch.value)]


def seqs(batches):
    return [batch.first_seq + index for batch in batches for index in range(batch.count)]


def worker(command, data_dir, mode="fsync", segment_bytes=1 << 20):
    """A process that writes; see spool_worker.py. Its answers are lines on stdout."""
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
    command = [
        sys.executable,
        str(HERE / "spool_worker.py"),
        command,
        str(data_dir),
        mode,
        str(segment_bytes),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
