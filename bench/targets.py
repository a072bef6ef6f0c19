"""The targets: one row each, with its limit and where its value is found. The numbers are those of the design.

A row is judged by medians; the report shows the spread beside them. None as a value: it was not measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bench.results import Measurement, Results, Spread
from bench.scenarios import BY_NAME, IDLE
from bench.servers import SERVERS

KIB = 1024
AGAINST = {"nginx": "nginx+log", "floor": "the floor", "commit": "one worker", "fsync": "one worker"}

Number = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    number: int
    title: str
    sense: Literal["<=", ">="]
    limit: float | Number
    unit: str
    value: Number
    reads: tuple[tuple[str, str, int], ...] = ()  # the cases that need all rounds: scenario, server, cores


@dataclass(frozen=True)
class Verdict:
    target: Target
    limit: float | None
    value: float | None

    @property
    def text(self) -> str:
        if self.limit is None or self.value is None:
            return "not measured"
        good = self.value <= self.limit if self.target.sense == "<=" else self.value >= self.limit
        return "met" if good else "missed"

    def cells(self) -> list[str]:
        limit, value = (_figure(number, self.target.unit) for number in (self.limit, self.value))
        return [str(self.target.number), self.target.title, f"{self.target.sense} {limit}", value, self.text]


def _figure(number: float | None, unit: str) -> str:
    if number is None:
        return "-"
    return f"{number:.4g} {unit}" if unit else f"{number:,.0f}"


def judge(results: Results) -> list[Verdict]:
    return [
        Verdict(row, row.limit(results) if callable(row.limit) else row.limit, row.value(results)) for row in TARGETS
    ]


def cpu(number: int, scenario: str, server: str, against: str, limit: float, *, cores: int = 1) -> Target:
    """CPU per event is at most `limit` times that of `against`."""

    def value(results: Results) -> float | None:
        return _middle(results.ratio(scenario, server, against, cores))

    where = f"{BY_NAME[scenario].title}: CPU per event of {SERVERS[server].title}"
    reads = tuple((scenario, name, cores) for name in (server, against))
    return Target(number, where, "<=", limit, f"x {AGAINST[against]}", value, reads)


def per_core(number: int, scenario: str, server: str, against: str, limit: float) -> Target:
    """Events a CPU second are at least `limit` times those of `against`: the inverse of CPU per event."""

    def value(results: Results) -> float | None:
        found = _middle(results.ratio(scenario, server, against))
        return found and 1 / found

    where = f"{BY_NAME[scenario].title}: events per CPU second of {SERVERS[server].title}"
    reads = tuple((scenario, name, 1) for name in (server, against))
    return Target(number, where, ">=", limit, f"x {AGAINST[against]}", value, reads)


def events_a_core(number: int, scenario: str, server: str, limit: float) -> Target:
    """Events a CPU second of the whole process tree, whatever another server does."""

    def value(results: Results) -> float | None:
        return _middle(results.spread(lambda run: 1e6 / run.cpu_per_event, scenario, server))

    where = f"{BY_NAME[scenario].title}: events per CPU second of {SERVERS[server].title}"
    return Target(number, where, ">=", limit, "", value, ((scenario, server, 1),))


def _middle(spread: Spread | None) -> float | None:
    return spread.middle if spread else None


def two_commits_ms(results: Results) -> float | None:
    """The median commit, not its p99: the strict reading."""
    times = results.commit_us()
    return 2 * median(times) / 1000 + 1 if times else None


def p99_at_half_ms(results: Results) -> float | None:
    return _middle(results.spread(lambda run: run.p99_us / 1000, "rate50", "fsync"))


def decode_gain(results: Results) -> float | None:
    return median(row.plain_ns / row.core_ns for row in results.decode) if results.decode else None


def worker_mib(results: Results) -> float | None:
    found = [row.loaded / KIB**2 for row in results.memory if row.server == "commit"]
    return median(found) if found else None


def connection_kib(results: Results) -> float | None:
    found = [row.per_connection / KIB for row in results.memory if row.server == "commit"]
    return median(found) if found else None


def beside_idle(of: Callable[[Measurement], float]) -> Number:
    return lambda results: _middle(results.beside_idle(of, "commit"))


TARGETS = (
    cpu(1, "keepalive", "commit", "nginx", 0.85),
    cpu(1, "keepalive", "commit", "floor", 1.4),
    cpu(2, "keepalive512", "fsync", "nginx", 1.15),
    Target(2, "p99 at 50 % load, fsync: 2 durable LMDB commits + 1 ms", "<=", two_commits_ms, "ms", p99_at_half_ms),
    per_core(3, "pipeline", "commit", "nginx", 4.5),
    cpu(4, "connect", "commit", "nginx", 1.3),
    cpu(4, "connect", "fsync", "nginx", 1.3),
    Target(5, "decode of one request, against the standard library", ">=", 50, "x faster", decode_gain),
    Target(6, "RssAnon of a worker after load", "<=", 40, "MiB", worker_mib),
    Target(6, "RssAnon of an idle connection", "<=", 2.5, "KiB", connection_kib),
    Target(6, f"{IDLE:,} idle connections: CPU per event of the others", "<=", 1.05, "x without",
        beside_idle(lambda run: run.cpu_per_event)),
    Target(6, f"{IDLE:,} idle connections: p99 of the others", "<=", 1.05, "x without",
        beside_idle(lambda run: run.p99_us)),
    cpu(7, "keepalive", "commit2", "commit", 1.1, cores=2),
    cpu(7, "keepalive512", "fsync2", "fsync", 1.1, cores=2),
    events_a_core(8, "tracardi", "commit", 150_000),
    events_a_core(8, "batch", "commit", 60_000),
)  # fmt: skip
READ = frozenset(case for target in TARGETS for case in target.reads)
