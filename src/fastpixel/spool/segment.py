"""A segment: one LMDB file that holds the batches of one slot between two rolls.

What lives here: the bytes of format 1, and one open LMDB environment with its three databases. It must not
know who holds a slot, when to roll, or what a record means (`_core.scan` counts records and finds their
times).

Format 1. `<data_dir>/<slot>/<first seq, 20 digits>.mdb` is an LMDB file of data format 1 (any LMDB 0.9)
with three named databases:

    events, rejects   key:    8 bytes, big-endian: the seq of the value's first record
                      value:  the records of one batch, msgpack maps in a row; record i has seq key + i
    meta              format  msgpack int, 1
                      spool   msgpack str, 8 hex digits; the same in every segment of a data directory
                      sealed  msgpack map, once the segment is complete: lastSeq, counts {events, rejects},
                              minReceivedAt and maxReceivedAt (msgpack timestamps)

One counter, from 1, numbers events and rejects; gaps are legal; a value is never changed or deleted. A
file without `meta` never got its first batch. How others read while we write: map size 0, `readonly`, a
writable `-lock` file, read transactions of at most 50 ms; without locks (`lock=False`) only what is
sealed. Not supported: LMDB 1.0 files (data format 3).
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import lmdb
import msgpack
from lmdb.verify import VerifyError
from lmdb.verify import verify as _untyped_verify

from fastpixel._core import scan
from fastpixel.errors import SpoolError
from fastpixel.spool.files import FILE_MODE

FORMAT = 1
FIRST_SEQ = 1
DATABASES = ("events", "rejects")
HEADROOM = 64 << 20
"""Map size above the size at which a segment is rolled, in bytes."""

SEQ_SPAN = 1 << 32
"""More seqs than a segment can use: a record takes more than a byte, and a map is far smaller than 4 GiB."""

KEY = Struct(">Q")
Databases = dict[str, "lmdb._Database"]
_verify: Callable[..., list[str]] = _untyped_verify
_FILE = re.compile(r"\d{20}\.mdb")
_LOCK_BYTES = 8192
CHUNK_VALUES = 512
_CHUNK_BYTES = 4 << 20


def file_name(seq: int) -> str:
    return f"{seq:020d}.mdb"


def first_seq(path: Path) -> int:
    """The number in a segment's name; also in that of `<segment>.damaged`."""
    return int(path.name[:20])


def listing(directory: Path) -> list[Path]:
    """The segments of a slot directory, oldest first; [] if the directory is gone."""
    try:
        return sorted(path for path in directory.iterdir() if _FILE.fullmatch(path.name))
    except FileNotFoundError:
        return []


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + "-lock")


def delete(path: Path) -> None:
    """Removes the files of a segment; a reader that has it open keeps its pages."""
    path.unlink(missing_ok=True)
    lock_path(path).unlink(missing_ok=True)


def verify(path: Path) -> list[str]:
    """What is wrong with the file's structure, found without letting LMDB touch it; [] if it is sound."""
    try:
        return list(_verify(str(path), subdir=False))
    except VerifyError as error:
        return [str(error)]


class Sealed(NamedTuple):
    """What a complete segment says of itself. Times: ns since the epoch, 0 if it holds nothing."""

    last_seq: int
    events: int = 0
    rejects: int = 0
    min_ns: int = 0
    max_ns: int = 0

    def pack(self) -> bytes:
        fields = {
            "lastSeq": self.last_seq,
            "counts": {"events": self.events, "rejects": self.rejects},
            "minReceivedAt": msgpack.Timestamp.from_unix_nano(self.min_ns),
            "maxReceivedAt": msgpack.Timestamp.from_unix_nano(self.max_ns),
        }
        return bytes(msgpack.packb(fields))

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Sealed:
        counts = fields["counts"]
        low, high = fields["minReceivedAt"].to_unix_nano(), fields["maxReceivedAt"].to_unix_nano()
        return cls(fields["lastSeq"], counts["events"], counts["rejects"], low, high)

    def plus(self, last_seq: int, events: int, rejects: int, min_ns: int, max_ns: int) -> Sealed:
        """This and one more batch."""
        if not self.events + self.rejects:
            return Sealed(last_seq, events, rejects, min_ns, max_ns)
        low, high = min(self.min_ns, min_ns), max(self.max_ns, max_ns)
        return Sealed(max(self.last_seq, last_seq), self.events + events, self.rejects + rejects, low, high)


class Batch(NamedTuple):
    """What one commit stores: concatenated records of each kind and how many they are; times in ns."""

    events: bytes | bytearray | memoryview
    event_count: int
    rejects: bytes | bytearray | memoryview
    reject_count: int
    min_ns: int
    max_ns: int

    @property
    def size(self) -> int:
        return len(self.events) + len(self.rejects)


class Segment:
    """One open LMDB environment, shared by everything in the process that uses the file.

    py-lmdb refuses to open an environment twice in a process, so an open segment is found again by its inode
    and counted: each `create`, `reopen` and `share` is ended by one `close`.
    """

    __slots__ = ("_databases", "_inode", "_lazy", "_users", "env", "path")

    def __init__(self, path: Path, env: lmdb.Environment, inode: tuple[int, int], lazy: bool = False) -> None:
        self.path = path
        self.env = env
        self._databases: Databases = {}
        self._inode = inode
        self._lazy = lazy
        self._users = 1

    @classmethod
    def create(cls, path: Path, map_size: int, durable: bool) -> Segment:
        """A new file, without a batch. `durable`: every commit waits for the device."""
        with _guard:
            env = _open_writable(path, map_size, durable)
            return _remember(cls(path, env, _inode(path)))

    @classmethod
    def reopen(cls, path: Path) -> Segment:
        """An existing file, writable, to seal it; the caller holds its slot. Commits wait for the device."""
        with _guard:
            if _inode(path) in _opened:
                raise SpoolError(f"{path} is being read by this process: close its readers first")
            segment = _remember(cls(path, _open_writable(path, 0, True), _inode(path)))
        segment._attach()
        return segment

    @classmethod
    def share(cls, path: Path, locked: bool) -> Segment:
        """The file for reading. `locked`: it may be written. FileNotFoundError: it is gone, or empty."""
        with _guard:
            inode = _inode(path)
            if inode not in _opened:
                return _remember(cls(path, _open_readable(path, locked), inode, lazy=True))
            _opened[inode]._users += 1
            return _opened[inode]

    def close(self) -> None:
        with _guard:
            self._users -= 1
            if not self._users:
                del _opened[self._inode]
                self.env.close()

    def __enter__(self) -> Segment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- writing

    def start(self, spool_id: str, first: int, batch: Batch) -> None:
        """Creates the databases and stores the first batch, in one commit: none is ever there alone."""
        with self.env.begin(write=True) as txn:
            databases = {name: self.env.open_db(name.encode(), txn=txn) for name in (*DATABASES, "meta")}
            txn.put(b"format", msgpack.packb(FORMAT), db=databases["meta"])
            txn.put(b"spool", msgpack.packb(spool_id), db=databases["meta"])
            _put(txn, databases, first, batch)
        self._databases = databases

    def append(self, first: int, batch: Batch) -> None:
        """Stores a batch in one commit. lmdb.Error: it is not stored, or (I/O error) nobody knows."""
        with self.env.begin(write=True) as txn:
            _put(txn, self._databases, first, batch)

    def seal(self, sealed: Sealed) -> None:
        """Says that the segment is complete."""
        with self.env.begin(write=True) as txn:
            txn.put(b"sealed", sealed.pack(), db=self._database("meta"))

    @property
    def used(self) -> int:
        """Bytes of the file in use."""
        return int((self.env.info()["last_pgno"] + 1) * self.env.stat()["psize"])

    # -- reading

    @property
    def started(self) -> bool:
        """Whether the first batch was committed."""
        return self._find("meta") is not None

    def meta(self, key: str) -> Any:
        with self.env.begin() as txn:
            packed = txn.get(key.encode(), db=self._database("meta"))
        return None if packed is None else msgpack.unpackb(packed)

    def sealed(self) -> Sealed | None:
        fields = self.meta("sealed") if self.started else None
        return None if fields is None else Sealed.of(fields)

    def require_format(self) -> None:
        """SpoolError unless the segment is of the format that this release reads and writes."""
        version = self.meta("format")
        if version != FORMAT:
            raise SpoolError(
                f"{self.path} has spool format {version!r}, this fastpixel knows format {FORMAT}: "
                "use the release that wrote it, or move the file away"
            )

    def chunk(self, database: str, seq: int, limit: int = CHUNK_VALUES) -> list[tuple[int, bytes]]:
        """At most `limit` values whose keys are >= seq, in order; [] at the end. One short transaction."""
        handle = self._find(database)
        if handle is None:
            return []
        with self.env.begin(db=handle) as txn, txn.cursor() as cursor:
            return _take(cursor, limit) if cursor.set_range(KEY.pack(seq)) else []

    def values(self, database: str, seq: int = 0) -> Iterator[tuple[int, bytes]]:
        """All values whose keys are >= seq, in order, in as many transactions as it takes."""
        while rows := self.chunk(database, seq):
            yield from rows
            seq = rows[-1][0] + 1

    def before(self, database: str, seq: int) -> tuple[int, bytes] | None:
        """The last value whose key is < seq."""
        handle = self._find(database)
        if handle is None:
            return None
        with self.env.begin(db=handle) as txn, txn.cursor() as cursor:
            found = cursor.prev() if cursor.set_range(KEY.pack(seq)) else cursor.last()
            return (_seq(cursor.key()), cursor.value()) if found else None

    def survey(self) -> Sealed:
        """Reads everything: what `sealed` has to say. ValueError: a value is not whole records."""
        total = Sealed(0)
        for database in DATABASES:
            for key, value in self.values(database):
                count, low, high = scan(value)
                events = count if database == "events" else 0
                total = total.plus(key + count - 1, events, count - events, low, high)
        return total

    def size_of(self, database: str) -> int:
        """Bytes of the pages that a database takes in the file."""
        handle = self._find(database)
        if handle is None:
            return 0
        with self.env.begin() as txn:
            stat = txn.stat(handle)
        return int((stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"]) * stat["psize"])

    def next_seq(self) -> int:
        """The seq after the last stored record, found at the ends of the databases."""
        rows = filter(None, [self.before(database, (1 << 64) - 1) for database in DATABASES])
        return max((key + scan(value)[0] for key, value in rows), default=first_seq(self.path))

    def _database(self, name: str) -> lmdb._Database:
        handle = self._find(name)
        if handle is None:
            raise SpoolError(f"{self.path} has no database {name!r}: it is not a segment, move the file away")
        return handle

    def _find(self, name: str) -> lmdb._Database | None:
        """The database; None before the first commit.

        Where this process writes, only `start` and `reopen` set handles: opening one takes the writer's lock.
        """
        if self._lazy and name not in self._databases:
            self._attach()
        return self._databases.get(name)

    def _attach(self) -> None:
        try:
            for name in (*DATABASES, "meta"):
                self._databases[name] = self.env.open_db(name.encode(), create=False)
        except lmdb.NotFoundError:
            self._databases.clear()


_guard = threading.Lock()
_opened: dict[tuple[int, int], Segment] = {}


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _remember(segment: Segment) -> Segment:
    _opened[segment._inode] = segment
    return segment


def _open_writable(path: Path, map_size: int, durable: bool) -> lmdb.Environment:
    _reserve_lock(path)
    return _open(path, map_size=map_size, sync=durable)


def _open_readable(path: Path, locked: bool) -> lmdb.Environment:
    if not path.stat().st_size:
        raise FileNotFoundError(errno.ENOENT, "segment without a first commit", str(path))
    if locked:
        _reserve_lock(path)
    try:
        return _open(path, map_size=0, readonly=True, lock=locked)
    except lmdb.Error as error:
        if error.code == errno.ENOENT:
            raise FileNotFoundError(errno.ENOENT, "segment was deleted", str(path)) from error
        raise


def _open(path: Path, **options: Any) -> lmdb.Environment:
    return lmdb.open(str(path), subdir=False, max_dbs=3, lib_version=0, mode=FILE_MODE, **options)


def _reserve_lock(path: Path) -> None:
    """Gives the lock file its blocks.

    LMDB extends it sparsely and writes through a map: on a full disk that is a SIGBUS. Here it is an OSError.
    """
    lock = lock_path(path)
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        return
    try:
        os.posix_fallocate(fd, 0, _LOCK_BYTES)
    except OSError:
        lock.unlink()
        raise
    finally:
        os.close(fd)


def _put(txn: lmdb.Transaction[bytes], databases: Databases, first: int, batch: Batch) -> None:
    stored = True
    if batch.event_count:
        stored = txn.put(KEY.pack(first), batch.events, append=True, db=databases["events"])
    if batch.reject_count:
        key = KEY.pack(first + batch.event_count)
        stored = txn.put(key, batch.rejects, append=True, db=databases["rejects"]) and stored
    if not stored:  # put() does not raise for this, and an answer must not follow
        raise lmdb.KeyExistsError(f"seq {first} is not above what the segment holds")


def _take(cursor: lmdb.Cursor[bytes], limit: int) -> list[tuple[int, bytes]]:
    rows: list[tuple[int, bytes]] = []
    size = 0
    for key, value in cursor:
        rows.append((_seq(key), value))
        size += len(value)
        if len(rows) >= limit or size >= _CHUNK_BYTES:
            break
    return rows


def _seq(key: bytes) -> int:
    return int.from_bytes(key, "big")
