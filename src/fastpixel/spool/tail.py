"""Tails: positions in slots from which batches are read, from any process, while others write.

What lives here: finding the segment that goes on where the last read stopped. It must not write, and knows no
order between slots.

How it works. Reading goes in chunks of a few MiB, each its own short transaction, because an old snapshot
makes a segment that is being written grow. A slot is listed before a segment is read to its end: a newer
segment in that listing means that nothing is added behind the reader's back. OPEN is read after the
listing, so what it does not name is complete and needs no locks. Segments may be rolled, created and
deleted meanwhile; what was deleted is a gap. A tail keeps one segment open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lmdb

from fastpixel._core import scan, split
from fastpixel.errors import SpoolError
from fastpixel.spool import segment, slots
from fastpixel.spool.segment import Sealed, Segment

Database = Literal["events", "rejects"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records of one slot: record i has seq `first_seq` + i. Times in ns, of receivedAt."""

    slot: str
    first_seq: int
    value: bytes
    count: int
    min_ns: int
    max_ns: int

    @property
    def next_seq(self) -> int:
        return self.first_seq + self.count

    def part(self, records: Iterable[bytes], start: int) -> Batch:
        """A batch of `records`, which are this one's from index `start` on."""
        value = b"".join(records)
        return Batch(self.slot, self.first_seq + start, value, *scan(value))

    def since(self, seq: int) -> Batch:
        """The records from this seq on."""
        skip = max(0, seq - self.first_seq)
        return self.part(split(self.value)[skip:], skip) if skip else self


class Tail:
    """A position in one slot. `read` goes on where the last one stopped and finds what was stored since."""

    def __init__(self, directory: Path, after_seq: int | None = None, database: Database = "events") -> None:
        self.slot = directory.name
        self.next_seq = segment.FIRST_SEQ if after_seq is None else after_seq + 1
        self._directory = directory
        self._database: Database = database
        self._path: Path | None = None
        self._segment: Segment | None = None
        self._aligned = False

    def read(self, limit: int = segment.CHUNK_VALUES, skip: Callable[[Sealed], bool] | None = None) -> list[Batch]:
        """At most `limit` batches, some MiB; [] if nothing is new. `skip`: leaves out complete segments.

        SpoolError: a segment is damaged or of an unknown format.
        """
        paths = segment.listing(self._directory)
        unfinished = slots.unfinished(self._directory, paths)
        for path in self._ahead(paths):
            try:
                batches = self._read_segment(path, path in unfinished, limit, skip)
            except (lmdb.Error, ValueError) as error:
                raise SpoolError(f"{path} cannot be read ({error}): run `fastpixel check`") from error
            if batches:
                return batches
        return []

    def close(self) -> None:
        """Closes the segment; the position stays."""
        self._path = None
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _ahead(self, paths: list[Path]) -> list[Path]:
        """The segment that holds the position, or that was reached, and those after it."""
        reached = self.next_seq if self._path is None else max(self.next_seq, segment.first_seq(self._path))
        below = sum(segment.first_seq(path) <= reached for path in paths)
        return paths[max(0, below - 1) :]

    def _read_segment(self, path: Path, locked: bool, limit: int, skip: Callable[[Sealed], bool] | None) -> list[Batch]:
        opened = self._switch(path, locked)
        if opened is None or not opened.started:
            return []
        if skip is not None:
            sealed = opened.sealed()
            if sealed is not None and skip(sealed):
                return []
        return self._batches(opened, limit)

    def _switch(self, path: Path, locked: bool) -> Segment | None:
        """The segment, opened; None if it was deleted, or has no first commit yet."""
        if self._path == path and self._segment is not None:
            return self._segment
        self.close()
        self._path = path
        try:
            self._segment = Segment.share(path, locked)
        except FileNotFoundError:
            return None
        if self._segment.started:
            self._segment.require_format()
        return self._segment

    def _batches(self, opened: Segment, limit: int) -> list[Batch]:
        batches = []
        for key, value in self._rows(opened, limit):
            batch = Batch(self.slot, key, value, *scan(value)).since(self.next_seq)
            self.next_seq = max(batch.next_seq, key + 1)
            batches.append(batch)
        return batches

    def _rows(self, opened: Segment, limit: int) -> list[tuple[int, bytes]]:
        """Values from the position on; a first position may lie inside a value."""
        rows = opened.chunk(self._database, self.next_seq, limit)
        if not self._aligned:
            self._aligned = True
            before = opened.before(self._database, self.next_seq)
            if before is not None and before[0] + scan(before[1])[0] > self.next_seq:
                return [before, *rows]
        return rows


class Follow:
    """A position in every slot of a spool, slots that appear later included: order is promised per slot."""

    def __init__(self, data_dir: Path, positions: Mapping[str, int], database: Database = "events") -> None:
        """`positions`: the next seq by slot; other slots are read from their start."""
        self._data_dir = data_dir
        self._database: Database = database
        self._tails = {slot: self._tail(slot, seq - 1) for slot, seq in positions.items()}

    @property
    def positions(self) -> dict[str, int]:
        """The next seq by slot, to go on from: what `read` returned lies before it."""
        return {slot: tail.next_seq for slot, tail in self._tails.items()}

    def read(self, limit: int = segment.CHUNK_VALUES) -> list[Batch]:
        """New batches, at most `limit` of each slot; [] if nothing is new."""
        for slot in slots.names(self._data_dir):
            if slot not in self._tails:
                self._tails[slot] = self._tail(slot, None)
        return [batch for tail in self._tails.values() for batch in tail.read(limit)]

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()

    def _tail(self, slot: str, after_seq: int | None) -> Tail:
        return Tail(self._data_dir / slot, after_seq, self._database)
