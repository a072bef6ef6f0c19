"""Counters: the page of memory that supervisor and workers share, and what /metrics makes of it.

The page has parts, each written by one worker's core alone (`Counter` in `_core.pxd` is the layout) and read by
everybody. The supervisor makes it, and it outlives workers: a restarted worker counts on where the dead one stopped.
On reload two generations of workers overlap, so there are twice as many parts as workers, and generations alternate.
`Counts` knows which parts are whose; what a generation counted is moved out of its parts when its last worker has
ended, because the next one may number protocols in another way.

The other shared memory is `Cells`: the state of the rate limits. Nothing here may block, and no file is involved.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from fastpixel._core import COUNTERS, PAGE_LAYOUT, REASONS

if TYPE_CHECKING:
    from prometheus_client import Metric

WORDS: Final = PAGE_LAYOUT["words"]
STATES: Final = ("starting", "serving", "draining", "ended")
STALE_SECONDS: Final = 5.0  # a heartbeat comes every half second
HELD: Final = ("connections", "inflight_bytes")  # gone with the worker
STATUS: Final = (*HELD, "heartbeat_ms", "state", "storable", "reject_budget")  # how things are; all else has happened


class Page:
    """The shared memory of `parts` workers."""

    def __init__(self, fd: int, parts: int) -> None:
        self.fd = fd
        self.parts = parts
        self._map = mmap.mmap(fd, parts * WORDS * 8)

    @classmethod
    def create(cls, parts: int) -> Page:
        return cls(_memory("fastpixel-page", parts * WORDS * 8), parts)

    def part(self, number: int) -> memoryview:
        """The bytes of one worker, writable."""
        return memoryview(self._map)[number * WORDS * 8 : (number + 1) * WORDS * 8]

    def set(self, part: int, counter: str, value: int) -> None:
        """One of the few words that are the supervisor's to write."""
        self.part(part).cast("Q")[COUNTERS.index(counter)] = value

    def read(self, part: int, protocols: Sequence[str] = ()) -> Snapshot:
        return Snapshot(self.part(part).cast("Q").tolist(), protocols)

    def bury(self, part: int) -> None:
        """The worker has ended, and what it held is gone. What it counted stays."""
        for name in HELD:
            self.set(part, name, 0)
        self.set(part, "state", STATES.index("ended"))


class Cells:
    """A word for each source with a rate_limit, in the order of the sources: shared by the workers of a generation."""

    def __init__(self, fd: int, count: int) -> None:
        self.fd = fd
        self.count = count
        self.view = memoryview(mmap.mmap(fd, count * 8))

    @classmethod
    def create(cls, count: int) -> Cells | None:
        """All zero. None: no source is limited."""
        return cls(_memory("fastpixel-cells", count * 8), count) if count else None

    def close(self) -> None:
        """The memory lives on in the workers that have it."""
        os.close(self.fd)


def _memory(name: str, size: int) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


class Snapshot:
    """One worker's counters at a moment. `protocols`: their names in the order of its Plan."""

    def __init__(self, words: Sequence[int], protocols: Sequence[str] = ()) -> None:
        self._words = words
        self._protocols = protocols

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

    def protocols(self) -> dict[str, int]:
        """Events stored by protocol."""
        start = PAGE_LAYOUT["protocols"]
        return dict(zip(self._protocols, self._words[start : start + len(self._protocols)], strict=True))

    @property
    def stored(self) -> int:
        """Events on disk, of all protocols."""
        return sum(self._words[PAGE_LAYOUT["protocols"] : PAGE_LAYOUT["commit_times"]])

    def buckets(self, name: str) -> list[int]:
        """commit_times (bucket i: below 2**i microseconds) or batch_sizes (below 2**i events)."""
        return list(self._words[PAGE_LAYOUT[name] : PAGE_LAYOUT[name] + PAGE_LAYOUT["buckets"]])


class Counts:
    """The whole service's counters, over generations of workers. The supervisor's; scrapes come in another thread."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._current: Sequence[int] = ()
        self._protocols: dict[int, tuple[str, ...]] = {}  # of the parts in use
        self._ended: dict[tuple[str, ...], list[int]] = {}

    def begin(self, parts: Sequence[int], protocols: Sequence[str]) -> None:
        """A generation is to write these parts, with protocols in this order."""
        with self._lock:
            self._protocols |= dict.fromkeys(parts, tuple(protocols))

    def serve(self, parts: Sequence[int]) -> None:
        """The generation that `workers` tells of."""
        with self._lock:
            self._current = parts

    def end(self, parts: Sequence[int]) -> None:
        """The generation's workers have all ended: their parts are free again, and what they counted stays."""
        with self._lock:
            for part in parts:
                for name in STATUS:
                    self._page.set(part, name, 0)
                words = self._page.part(part).cast("Q")
                before = self._ended.setdefault(self._protocols.pop(part), [0] * WORDS)
                before[:] = map(sum, zip(before, words, strict=True))
                words[:] = memoryview(bytes(8 * WORDS)).cast("Q")

    def workers(self) -> list[Snapshot]:
        """Those that serve, by their number; not those that drain."""
        with self._lock:
            return [self._page.read(part, self._protocols[part]) for part in self._current]

    def all(self) -> list[Snapshot]:
        """Whatever was counted since the start."""
        with self._lock:
            ended = [Snapshot(list(words), protocols) for protocols, words in self._ended.items()]
            return ended + [self._page.read(part, protocols) for part, protocols in self._protocols.items()]


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

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # workers import this module and must stay small

        parts = self._counts.all()
        yield from _series(parts)
        yield from _by_label(parts)
        yield from _histograms(parts)
        up = GaugeMetricFamily("fastpixel_worker_up", "1 while the worker's event loop turns", labels=["worker"])
        for number, part in enumerate(self._counts.workers()):
            up.add_metric([str(number)], float(part.is_alive))
        yield up
        draining = sum(part.state == "draining" for part in parts)
        yield GaugeMetricFamily("fastpixel_workers_draining", "Workers that answer what they have and end", draining)


def _series(parts: Sequence[Snapshot]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for metric, counter, kind, doc in SERIES:
        family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        yield family(f"fastpixel_{metric}", doc, value=sum(part[counter] for part in parts))


def _by_label(parts: Sequence[Snapshot]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    stored = CounterMetricFamily("fastpixel_events_stored", "Events on disk, by protocol", labels=["protocol"])
    by_protocol = [part.protocols() for part in parts]
    for name in dict.fromkeys(name for counts in by_protocol for name in counts):
        stored.add_metric([name], sum(counts.get(name, 0) for counts in by_protocol))
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
