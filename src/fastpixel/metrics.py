"""Counters: the page of memory that supervisor and workers share, and what /metrics makes of it.

The page has one part a worker, written by that worker's core alone (`Counter` in `_core.pxd` is the layout) and read by
everybody. The supervisor makes it, and it outlives workers: a restarted worker counts on where the dead one stopped.
Nothing here may block, and no file is involved.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from fastpixel._core import COUNTERS, PAGE_LAYOUT, REASONS

if TYPE_CHECKING:
    from prometheus_client import Metric

WORDS: Final = PAGE_LAYOUT["words"]
STATES: Final = ("starting", "serving", "draining", "ended")
STALE_SECONDS: Final = 5.0  # a heartbeat comes every half second


class Page:
    """The shared memory of `workers` workers."""

    def __init__(self, fd: int, workers: int) -> None:
        self.fd = fd
        self.workers = workers
        self._map = mmap.mmap(fd, workers * WORDS * 8)

    @classmethod
    def create(cls, workers: int) -> Page:
        fd = os.memfd_create("fastpixel-page", os.MFD_CLOEXEC)
        os.ftruncate(fd, workers * WORDS * 8)
        return cls(fd, workers)

    def part(self, worker: int) -> memoryview:
        """The bytes of one worker, writable."""
        return memoryview(self._map)[worker * WORDS * 8 : (worker + 1) * WORDS * 8]

    def set(self, worker: int, counter: str, value: int) -> None:
        """One of the few words that are the supervisor's to write."""
        self.part(worker).cast("Q")[COUNTERS.index(counter)] = value

    def read(self, worker: int) -> Snapshot:
        return Snapshot(self.part(worker).cast("Q").tolist())

    def all(self) -> list[Snapshot]:
        return [self.read(worker) for worker in range(self.workers)]


class Snapshot:
    """One worker's counters at a moment."""

    def __init__(self, words: Sequence[int]) -> None:
        self._words = words

    def __getitem__(self, name: str) -> int:
        return self._words[COUNTERS.index(name)]

    @property
    def state(self) -> str:
        return STATES[self["state"]]

    @property
    def is_alive(self) -> bool:
        """Whether its event loop turned within the last seconds."""
        return time.time() * 1000 - self["heartbeat_ms"] < STALE_SECONDS * 1000

    @property
    def is_ready(self) -> bool:
        """Serving, alive, and its last commit succeeded."""
        return self.state == "serving" and self.is_alive and bool(self["storable"])

    def reasons(self) -> dict[str, int]:
        start = PAGE_LAYOUT["reasons"]
        return dict(zip(REASONS, self._words[start : start + len(REASONS)], strict=True))

    def protocols(self, names: Sequence[str]) -> dict[str, int]:
        """Events stored by protocol; `names` in the order of the Plan."""
        start = PAGE_LAYOUT["protocols"]
        return dict(zip(names, self._words[start : start + len(names)], strict=True))

    @property
    def stored(self) -> int:
        """Events on disk, of all protocols."""
        return sum(self._words[PAGE_LAYOUT["protocols"] : PAGE_LAYOUT["commit_times"]])

    def buckets(self, name: str) -> list[int]:
        """commit_times (bucket i: below 2**i microseconds) or batch_sizes (below 2**i events)."""
        return list(self._words[PAGE_LAYOUT[name] : PAGE_LAYOUT[name] + PAGE_LAYOUT["buckets"]])


# Metric -> counter, kind, help. `fastpixel_<metric>`; Prometheus appends _total to counters.
SERIES: Final = (
    ("requests", "requests", "counter", "Requests that were whole and well-formed"),
    ("received_bytes", "bytes_in", "counter", "Bytes read from clients"),
    ("sent_bytes", "bytes_out", "counter", "Bytes given to clients"),
    ("event_bytes", "event_bytes", "counter", "Bytes of stored records"),
    ("connections", "connections", "gauge", "Open connections"),
    ("connections_accepted", "connections_total", "counter", "Connections accepted"),
    ("connections_refused", "connections_refused", "counter", "Connections closed because of a limit"),
    ("inflight_bytes", "inflight_bytes", "gauge", "Bytes of bodies and batches that workers hold"),
    ("not_found", "not_found", "counter", "Requests for unknown paths (404)"),
    ("method_not_allowed", "method_not_allowed", "counter", "Requests with another method (405)"),
    ("preflights", "preflights", "counter", "CORS preflights"),
    ("timeouts", "timeouts", "counter", "Connections ended for taking too long"),
    ("skipped_pairs", "skipped_pairs", "counter", "Parameters skipped for a __proto__ in their name"),
    ("rejects_kept", "rejects_kept", "counter", "Refused events kept as rejects"),
    ("rejects_not_kept", "rejects_not_kept", "counter", "Refused events over the caps on rejects"),
    ("commits", "commits", "counter", "Batches stored"),
    ("commit_failures", "commit_failures", "counter", "Batches that could not be stored"),
    ("reading_paused", "paused", "counter", "Times that a connection had to wait for room"),
)


class Collector:
    """What prometheus_client asks at each scrape."""

    def __init__(self, page: Page, protocols: Sequence[str]) -> None:
        self._page = page
        self._protocols = protocols

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # workers import this module and must stay small

        parts = self._page.all()
        yield from _series(parts)
        yield from _by_label(parts, self._protocols)
        yield from _histograms(parts)
        up = GaugeMetricFamily("fastpixel_worker_up", "1 while the worker's event loop turns", labels=["worker"])
        for number, part in enumerate(parts):
            up.add_metric([str(number)], float(part.is_alive))
        yield up


def _series(parts: Sequence[Snapshot]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for metric, counter, kind, doc in SERIES:
        family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        yield family(f"fastpixel_{metric}", doc, value=sum(part[counter] for part in parts))


def _by_label(parts: Sequence[Snapshot], protocols: Sequence[str]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    stored = CounterMetricFamily("fastpixel_events_stored", "Events on disk, by protocol", labels=["protocol"])
    for name in protocols:
        stored.add_metric([name], sum(part.protocols(protocols)[name] for part in parts))
    yield stored
    dropped = CounterMetricFamily("fastpixel_dropped", "Requests refused, by reason", labels=["reason"])
    for reason in REASONS:
        dropped.add_metric([reason], sum(part.reasons()[reason] for part in parts))
    yield dropped


def _histograms(parts: Sequence[Snapshot]) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    seconds = sum(part["commit_nanos"] for part in parts) / 1e9
    yield HistogramMetricFamily(
        "fastpixel_commit_seconds",
        "Duration of a commit",
        buckets=_cumulative((part.buckets("commit_times") for part in parts), lambda power: 1e-6 * 2**power),
        sum_value=seconds,
    )
    yield HistogramMetricFamily(
        "fastpixel_batch_events",
        "Events of a commit",
        buckets=_cumulative((part.buckets("batch_sizes") for part in parts), lambda power: 2.0**power - 1),
        sum_value=sum(part.stored for part in parts),
    )


def _cumulative(buckets: Iterable[Sequence[int]], bound: Callable[[int], float]) -> list[tuple[str, float]]:
    """Bucket i counts values below 2**i; Prometheus wants how many are at most `bound(i)`."""
    total, rows = 0, []
    for power, count in enumerate(map(sum, zip(*buckets, strict=True))):
        total += count
        rows.append((repr(bound(power)), float(total)))
    return [*rows[:-1], ("+Inf", float(total))]
