"""Merging: the batches of several slots in one order of time.

What lives here: cutting batches into runs. It must not open anything.

Each slot is a stream of batches, whose times nearly rise. The stream with the earliest record gives all
records that are not later than the earliest of any other. If that is the whole batch, and it always is
with one slot, the batch is passed on as it is; only one that overlaps another slot's is cut into its
records.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import accumulate

from fastpixel._core import scan, split
from fastpixel.spool.tail import Batch

FOREVER = 1 << 63


def merge(streams: list[Iterator[Batch]]) -> Iterator[Batch]:
    """Ordered by receivedAt; equal times by stream.

    A stream's own order is kept: a record whose time lies before that of one before it comes right after it.
    """
    heap: list[tuple[int, int, _Run]] = []
    for index, stream in enumerate(streams):
        _push(heap, index, _Run(stream))
    while heap:
        _, index, run = heappop(heap)
        batch = run.take(_bound(heap, index))
        _push(heap, index, run)
        if batch is not None:
            yield batch


def within(batch: Batch, low: int, high: int) -> Iterator[Batch]:
    """The runs of the batch's records whose times lie in [low, high)."""
    if batch.min_ns >= low and batch.max_ns < high:
        yield batch
        return
    records = split(batch.value)
    inside = [low <= scan(record)[1] < high for record in records] + [False]
    start = 0
    for index, kept in enumerate(inside):
        if not kept:
            if index > start:
                yield batch.part(records[start:index], start)
            start = index + 1


class _Run:
    """What is left of a stream's current batch; `time` is its lower bound, exact once it is cut."""

    def __init__(self, stream: Iterator[Batch]) -> None:
        self._stream = stream
        self._next()

    def _next(self) -> None:
        self.batch = next(self._stream, None)
        self._records: list[bytes] = []
        self._times: list[int] = []
        self._start = 0
        self.time = 0 if self.batch is None else self.batch.min_ns

    def take(self, bound: int) -> Batch | None:
        """The leading records that are not later than `bound`; None if it turns out that there are none."""
        assert self.batch is not None
        if self.batch.max_ns <= bound and not self._start:
            batch = self.batch
            self._next()
            return batch
        return self._cut(self.batch, bound)

    def _cut(self, batch: Batch, bound: int) -> Batch | None:
        if not self._records:
            self._records = split(batch.value)
            self._times = list(accumulate((scan(record)[1] for record in self._records), max))
        start, end = self._start, bisect_right(self._times, bound)
        self._start = end
        if end == len(self._records):
            records = self._records
            self._next()
            return batch.part(records[start:], start)
        self.time = self._times[end]
        return batch.part(self._records[start:end], start) if end > start else None


def _push(heap: list[tuple[int, int, _Run]], index: int, run: _Run) -> None:
    if run.batch is not None:
        heappush(heap, (run.time, index, run))


def _bound(heap: list[tuple[int, int, _Run]], index: int) -> int:
    """The latest time that may be given before any other stream's turn."""
    if not heap:
        return FOREVER
    time, other, _ = heap[0]
    return time if index < other else time - 1
