"""The reader: a spool seen from any process, by slot or in order of time.

What lives here: which slots, segments and batches a question needs. How a slot is read while it is written
is in `tail`, how slots are put into one order in `merge`. It must not write anything, nor know what a
record says beyond its receivedAt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import lmdb

from fastpixel._core import scan, split
from fastpixel.errors import SpoolError
from fastpixel.spool import segment, slots
from fastpixel.spool.merge import FOREVER, merge, within
from fastpixel.spool.segment import Sealed, Segment
from fastpixel.spool.tail import Batch, Database, Follow, Tail

__all__ = ["Batch", "Database", "Follow", "Record", "Spool", "Tail"]


class Record(NamedTuple):
    """One record; `received_ns` is its receivedAt, `value` one msgpack map."""

    received_ns: int
    slot: str
    seq: int
    value: bytes


class Spool:
    """A data directory, for reading. SpoolError: it is not a spool."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir
        self.spool_id = slots.spool_id(data_dir)

    def slots(self) -> list[str]:
        return slots.names(self.path)

    def segments(self, slot: str) -> list[Path]:
        """Oldest first."""
        return segment.listing(self.path / slot)

    def sealed(self, path: Path) -> Sealed | None:
        """What a segment says of itself; None if it is not complete, or gone."""
        try:
            with _share(path) as opened:
                return opened.sealed()
        except FileNotFoundError:
            return None

    def size_of(self, database: Database) -> int:
        """Bytes that events or rejects take in all segments. SpoolError: one cannot be read."""
        return sum(_size_of(path, database) for slot in self.slots() for path in self.segments(slot))

    def tail(self, slot: str, after_seq: int | None = None, database: Database = "events") -> Tail:
        """A position in one slot, for polling."""
        return Tail(self.path / slot, after_seq, database)

    def follow(self, positions: Mapping[str, int] | None = None, database: Database = "events") -> Follow:
        """A position in every slot, for polling. `positions`: the next seq by slot, as a cursor keeps it."""
        return Follow(self.path, positions or {}, database)

    def batches(
        self,
        slot: str,
        after_seq: int | None = None,
        database: Database = "events",
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Batch]:
        """The slot's batches in order of seq, up to what is stored when the end is reached.

        With `since_ns` (inclusive) or `until_ns` (exclusive), segments and batches without a record in that
        range are left out; a batch that has one is whole.
        """
        low, high = _range(since_ns, until_ns)
        tail = self.tail(slot, after_seq, database)
        try:
            while batches := tail.read(skip=lambda sealed: sealed.max_ns < low or sealed.min_ns >= high):
                yield from (batch for batch in batches if batch.max_ns >= low and batch.min_ns < high)
        finally:
            tail.close()

    def merged(
        self,
        positions: Mapping[str, int] | None = None,
        database: Database = "events",
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Batch]:
        """All slots in one order: by receivedAt, then slot, then seq; exactly the records in the range.

        `positions`: the first seq by slot. Exact record by record as long as a slot's times rise; within
        a slot the order of commit is kept, and a record whose time lies before that of one before it
        comes right after it. Batches stay whole where no other slot's records come between: with one
        slot all of them.
        """
        starts = positions or {}
        low, high = _range(since_ns, until_ns)
        return merge([self._run(slot, starts.get(slot), database, low, high) for slot in self.slots()])

    def records(
        self,
        positions: Mapping[str, int] | None = None,
        database: Database = "events",
        *,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> Iterator[Record]:
        """As `merged`, record by record."""
        for batch in self.merged(positions, database, since_ns=since_ns, until_ns=until_ns):
            for index, value in enumerate(split(batch.value)):
                yield Record(scan(value)[1], batch.slot, batch.first_seq + index, value)

    def _run(self, slot: str, seq: int | None, database: Database, low: int, high: int) -> Iterator[Batch]:
        after = None if seq is None else seq - 1
        for batch in self.batches(slot, after, database, since_ns=low, until_ns=high):
            yield from within(batch, low, high)


def _share(path: Path) -> Segment:
    return Segment.share(path, locked=bool(slots.unfinished(path.parent, [path])))


def _size_of(path: Path, database: Database) -> int:
    try:
        with _share(path) as opened:
            return opened.size_of(database)
    except FileNotFoundError:  # deleted since it was listed
        return 0
    except (lmdb.Error, ValueError) as error:
        raise SpoolError(f"{path} cannot be read ({error}): run `fastpixel check`") from error


def _range(since_ns: int | None, until_ns: int | None) -> tuple[int, int]:
    return -FOREVER if since_ns is None else since_ns, FOREVER if until_ns is None else until_ns
