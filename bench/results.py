"""Everything that was measured, and how it is looked up. Data only: nothing is started, written or judged here.

A ratio is made within each round, between runs that lie seconds apart, and their median is taken: a machine that
slows down slows both sides. Times are in microseconds and sizes in bytes unless a name says otherwise.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Measurement:
    """One run of one server in one scenario. In open loop the scenario is `rate50`, beside idle ones `idle-held`."""

    scenario: str
    server: str
    cores: int
    round: int
    requests: int
    seconds: float
    cpu_us: float  # server's process tree
    load_cpu_us: float
    busy_us: float  # all cores
    steal_us: float
    p50_us: float
    p99_us: float
    p999_us: float
    unsent: int  # in open loop: due, but no connection was free
    bytes: int
    events: int = 1  # of a request

    @property
    def name(self) -> str:
        return f"{self.scenario}/{self.server}/{self.cores}"

    @property
    def cpu_per_event(self) -> float:
        return self.cpu_us / self.requests / self.events

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.requests * self.events / self.seconds

    @property
    def others(self) -> float:
        """Cores in use beside server and loader, with kernel threads. Clock ticks are coarse: not below 0."""
        return max(0.0, (self.busy_us - self.cpu_us - self.load_cpu_us) / self.seconds / 1e6)


@dataclass(frozen=True)
class Missing:
    """A case without a number, and why."""

    scenario: str
    server: str
    cores: int
    why: str


@dataclass(frozen=True)
class Memory:
    """RssAnon of the process that does the work, in bytes."""

    server: str
    round: int
    start: int
    loaded: int  # after the first load
    held: int  # with the idle connections
    connections: int

    @property
    def per_connection(self) -> float:
        return (self.held - self.loaded) / self.connections


@dataclass(frozen=True)
class Decode:
    """Nanoseconds for one request: in the core, with the standard library, and copying its bytes."""

    core_ns: float
    plain_ns: float
    copy_ns: float


@dataclass(frozen=True)
class Commits:
    """Durable LMDB commits of one round: a value of the size of an average batch, each alone."""

    round: int
    value_bytes: int
    times_us: list[float]


@dataclass(frozen=True)
class Spread:
    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = list(values)
        return cls(median(found), min(found), max(found))

    def text(self, digits: int = 2) -> str:
        low, high = (f"{value:,.{digits}f}" for value in (self.low, self.high))
        return f"{self.middle:,.{digits}f}" + (f" ({low}..{high})" if low != high else "")


@dataclass
class Results:
    runs: list[Measurement] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    commits: list[Commits] = field(default_factory=list)
    decode: list[Decode] = field(default_factory=list)

    def of(self, scenario: str, server: str, cores: int = 1) -> list[Measurement]:
        return [run for run in self.runs if (run.scenario, run.server, run.cores) == (scenario, server, cores)]

    def why_missing(self, scenario: str, server: str, cores: int = 1) -> str | None:
        gaps = self.missing
        return next((m.why for m in gaps if (m.scenario, m.server, m.cores) == (scenario, server, cores)), None)

    def spread(self, of: Callable[[Measurement], float], scenario: str, server: str, cores: int = 1) -> Spread | None:
        runs = self.of(scenario, server, cores)
        return Spread.of(map(of, runs)) if runs else None

    def ratio(self, scenario: str, server: str, against: str, cores: int = 1) -> Spread | None:
        """CPU per event of `server` in units of that of `against`; None when one of them was not measured."""
        other = {run.round: run.cpu_per_event for run in self.of(scenario, against, cores)}
        both = [run for run in self.of(scenario, server, cores) if run.round in other]
        return Spread.of(run.cpu_per_event / other[run.round] for run in both) if both else None

    def beside_idle(self, of: Callable[[Measurement], float], server: str) -> Spread | None:
        """A figure with the idle connections, in units of its mean before and after them."""
        alone: dict[int, list[float]] = {}
        for run in (*self.of("idle-before", server), *self.of("idle-after", server)):
            alone.setdefault(run.round, []).append(of(run))
        held = [run for run in self.of("idle-held", server) if len(alone.get(run.round, ())) == 2]
        return Spread.of(of(run) / (sum(alone[run.round]) / 2) for run in held) if held else None

    def commit_us(self) -> list[float]:
        return sorted(time for probe in self.commits for time in probe.times_us)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Results":
        kinds = {"runs": Measurement, "missing": Missing, "memory": Memory, "commits": Commits, "decode": Decode}
        found = json.loads(path.read_text())
        return cls(**{name: [kind(**row) for row in found[name]] for name, kind in kinds.items()})
