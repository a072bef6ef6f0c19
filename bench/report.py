"""Measurements -> Markdown. Pure: the same measurements give the same text.

A cell is the median of the rounds with the least and the greatest. A ratio is made within each round, between
runs that lie seconds apart, and their median is taken: a machine that slows down slows both sides.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.scenarios import SCENARIOS, TARGETS, Target
from bench.servers import SERVERS

COLUMNS = (
    "server", "CPU µs/event", "x nginx+log", "x floor", "events per CPU s", "events/s", "p50 ms", "p99 ms",
    "answer bytes", "target",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One run of one server in one scenario. Times in microseconds."""

    scenario: str
    server: str
    round: int
    requests: int
    seconds: float
    cpu_us: float  # server's process tree
    load_cpu_us: float
    busy_us: float  # all cores
    steal_us: float
    p50_us: float
    p99_us: float
    bytes: int

    @property
    def cpu_per_event(self) -> float:
        return self.cpu_us / self.requests

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def others(self) -> float:
        """Cores in use beside server and loader, with kernel threads. Clock ticks are coarse: not below 0."""
        return max(0.0, (self.busy_us - self.cpu_us - self.load_cpu_us) / self.seconds / 1e6)


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


class Table:
    """All measurements, found by scenario and server."""

    def __init__(self, measurements: Iterable[Measurement]) -> None:
        self._runs: dict[tuple[str, str], list[Measurement]] = {}
        for run in measurements:
            self._runs.setdefault((run.scenario, run.server), []).append(run)

    def runs(self, scenario: str, server: str) -> list[Measurement]:
        return self._runs.get((scenario, server), [])

    def ratio(self, scenario: str, server: str, against: str) -> Spread | None:
        """CPU per event of `server` in units of that of `against`; None when one of them was not measured."""
        other = {run.round: run.cpu_per_event for run in self.runs(scenario, against)}
        both = [run for run in self.runs(scenario, server) if run.round in other]
        return Spread.of(run.cpu_per_event / other[run.round] for run in both) if both else None

    def verdict(self, target: Target) -> str | None:
        """What RESULTS.md says of a target; None when it was not measured."""
        cpu = self.ratio(target.scenario, target.server, target.against)
        if cpu is None:
            return None
        # Events per CPU second are the inverse of CPU per event, and so are their ratios.
        value = cpu.middle if target.unit == "cpu" else 1 / cpu.middle
        met = value <= target.limit if target.unit == "cpu" else value >= target.limit
        return f"{wanted(target)}: {'met' if met else 'missed'} ({value:.2f})"


def wanted(target: Target) -> str:
    name = {"nginx": "nginx+log", "floor": "floor"}[target.against]
    if target.unit == "cpu":
        return f"<= {target.limit:g} x {name} CPU"
    return f">= {target.limit:g} x {name} events per CPU s"


def tables(measurements: Iterable[Measurement]) -> str:
    """One Markdown table a scenario, in the order of SCENARIOS."""
    table = Table(measurements)
    parts = []
    for scenario in SCENARIOS:
        rows = [_row(table, scenario.name, name) for name in SERVERS if table.runs(scenario.name, name)]
        if rows:
            parts.append(f"### {scenario.title} (`{scenario.name}`)\n\n{_markdown(COLUMNS, rows)}")
    return "\n\n".join(parts)


def _row(table: Table, scenario: str, server: str) -> list[str]:
    runs = table.runs(scenario, server)
    verdicts = [table.verdict(t) for t in TARGETS if (t.scenario, t.server) == (scenario, server)]
    return [
        SERVERS[server].title,
        Spread.of(run.cpu_per_event for run in runs).text(),
        *(_ratio_text(table, scenario, server, against) for against in ("nginx", "floor")),
        f"{1e6 / median(run.cpu_per_event for run in runs):,.0f}",
        Spread.of(run.rate for run in runs).text(0),
        Spread.of(run.p50_us / 1000 for run in runs).text(),
        Spread.of(run.p99_us / 1000 for run in runs).text(),
        f"{runs[0].bytes / runs[0].requests:.0f}",
        "; ".join(verdict for verdict in verdicts if verdict) or "-",
    ]


def _ratio_text(table: Table, scenario: str, server: str, against: str) -> str:
    ratio = table.ratio(scenario, server, against)
    return "-" if ratio is None or server == against else ratio.text()


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(head) - 2), "---"]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def others(measurements: Iterable[Measurement]) -> str:
    """How quiet the machine was."""
    runs = list(measurements)
    used = Spread.of(run.others for run in runs)
    steal = max(run.steal_us / run.seconds / 1e6 for run in runs)
    return (
        f"beside server and loader {used.middle:.2f} of a core was busy, kernel threads included (median; "
        f"{used.high:.2f} at most); the hypervisor took {steal:.2f} at most"
    )


METHOD = """\
- Every server gets the same bytes: `bench/pixel.http`, a 15-parameter RudderStack pixel with a browser's
  headers, in which each request has its own number. Loopback only.
- {placement}
- {rounds} interleaved round(s): each round measures every server in every scenario, in rotated order, with a
  fresh process and an empty directory: {warmup:g} s of warm-up, then a window of {seconds:g} s.
- CPU per event: user + system time of the server's whole process tree over the window (the kernel's process
  clocks, read by the loader at both ends), divided by the answers of the window. Kernel threads (disk
  write-back) belong to nobody's tree. "Events per CPU s" is its inverse.
- Cells are medians with (least..greatest); ratios are made within a round. p50 and p99 are those of a closed
  loop at full load: as many requests as fit are always waiting, so they follow the rate.
- Every answer is read and must be the GIF without `X-Fastpixel: dropped`. After each run everything answered
  is looked for: `fastpixel export`, or nginx's access log, must hold every number exactly once, or nothing is
  reported. The floor stores nothing.
- The loader costs about as much CPU as the floor, and more where connections are made: there the server waits
  for it, and events/s is the loader's limit. CPU per event is the measure.
- nginx: 1 worker, `bench/nginx.conf`. The floor: `bench/floor.c` counts CRLFCRLF and writes a ready answer.
"""


def document(measurements: Sequence[Measurement], facts: Mapping[str, str], plan: Mapping[str, object]) -> str:
    """RESULTS.md. `plan` has `command`, `placement`, `rounds`, `warmup`, `seconds`, `date`."""
    machine = "\n".join(f"- {name}: {text}" for name, text in facts.items())
    return f"""\
# Benchmark results

Written by `{plan["command"]}` on {plan["date"]}; run it again to measure this machine.

## Numbers

![CPU per event](results.svg)

{tables(measurements)}

## Machine and versions

{machine}
- quiet: {others(measurements)}

## Method

{METHOD.format_map(plan)}"""
