"""The benchmark of whole servers, side by side in one go: `python bench/run.py [--quick]`.

Runs the parts in order: closed.py (CPU per event), latency.py, memory.py, decode.py; then judges the targets and
writes RESULTS.md and its charts. It ends by itself, and only ends processes that it started. A partial run (--quick,
--only, --cores) prints its tables and leaves RESULTS.md alone, unless --output names it. A void run is named in the
report; one of fastpixel, nginx or the floor makes the exit status 1.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import SubprocessError
from typing import NamedTuple

# `python bench/run.py` puts bench/ on the path, not the directory above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import build, chart, closed, decode, idle, latency, machine, memory, report
from bench.errors import BenchError, VoidRun
from bench.results import Measurement, Missing, Results
from bench.scenarios import IDLE, JUDGED, LATENCY, MEMORY, QUICK, fewer
from bench.servers import SERVERS
from bench.trial import WARMUP, Plan

RESULTS = build.HERE / "RESULTS.md"
PARTS = ("latency", "memory", "decode")  # beside the cases of closed.py


class Length(NamedTuple):
    rounds: int
    seconds: float


FULL = Length(5, 1.2)
QUICK_LENGTH = Length(2, 0.5)


class Choice(NamedTuple):
    cases: Sequence[closed.Case]
    parts: Sequence[str]


def chosen(words: Sequence[str], cores: int | None = None, *, quick: bool = False) -> Choice:
    """The cases and parts that match a word of --only, or all of them."""
    cases = [case for case in closed.cases() if cores in (None, case.cores)]
    if quick and not words:
        cases = [case for case in cases if case.cores == 1 and case.key[:2] in QUICK]
        return Choice(cases, ["decode"])
    for word in words:
        if word not in PARTS and not any(case.matches(word) for case in cases):
            known = ", ".join([*(case.name for case in cases), *PARTS])
            raise BenchError(f"--only {word}: no such case; there are {known}")
    if not words:
        return Choice(cases, PARTS if cores != 2 else ())
    return Choice(
        [case for case in cases if any(case.matches(word) for word in words)],
        [part for part in PARTS if part in words],
    )


def prepare(args: argparse.Namespace, choice: Choice) -> Plan:
    """Everything that can be missing is found missing here, before the first run."""
    default = QUICK_LENGTH if args.quick else FULL
    build.program("load")
    build.program("floor")
    if machine.nginx_path() is None and (choice.parts or any(case.server.name == "nginx" for case in choice.cases)):
        raise BenchError("nginx is not installed: apt-get install nginx-light")
    work = args.work_dir.resolve()
    for directory in (work, *(path.parent for path in (args.output, args.json) if path)):
        directory.mkdir(parents=True, exist_ok=True)
    if (room := idle.room(IDLE)) < IDLE and "memory" in choice.parts:
        say(f"only {max(0, room)} of {IDLE} idle connections: the limit of open files is low (ulimit -Hn)")
    return Plan(args.rounds or default.rounds, args.seconds or default.seconds, work)


class Runner:
    """Runs the chosen and keeps what was measured; a void run is kept as missing."""

    def __init__(self, plan: Plan, choice: Choice) -> None:
        self.plan, self.choice, self.results, self.failed = plan, choice, Results(), False

    def run(self) -> Results:
        for number, case in closed.ordered(self.choice.cases, self.plan.rounds):
            self._attempt(case.key, number, lambda n=number, c=case: self._closed(c, n))
        for name, servers, part in (("latency", LATENCY, latency), ("memory", MEMORY, memory)):
            if name in self.choice.parts:
                self._part(name, servers, part.measure)
        if "decode" in self.choice.parts:
            self.results.decode += decode.measure()
        return self.results

    def _part(self, name: str, servers: Sequence[str], measure: Callable[..., None]) -> None:
        for number in range(1, self.plan.rounds + 1):
            for server in servers:
                if number > fewer(self.plan.rounds) and (name, server) not in JUDGED:
                    continue
                self._attempt((name, server, 1), number, lambda s=server, n=number: self._measure(measure, s, n))

    def _measure(self, measure: Callable[..., None], server: str, number: int) -> None:
        before = len(self.results.runs)
        measure(self.plan, server, number, self.results)
        for run in self.results.runs[before:]:
            told(run)

    def _closed(self, case: closed.Case, number: int) -> None:
        self.results.runs.append(closed.measure(self.plan, case, number))
        told(self.results.runs[-1])

    def _attempt(self, key: tuple[str, str, int], number: int, measure: Callable[[], None]) -> None:
        """Does it; a server that is not installed is missing once, a void run each time."""
        server = SERVERS[key[1]]
        try:
            if not server.installed:
                raise VoidRun("not installed")
            measure()
        except (VoidRun, OSError, SubprocessError) as error:  # a server that died takes its /proc entries with it
            if (gap := Missing(*key, str(error))) not in self.results.missing:
                self.results.missing.append(gap)
            self.failed |= not server.module
            say(f"round {number}  {'/'.join(map(str, key))} is void: {error}")


def told(run: Measurement) -> None:
    numbers = f"{run.cpu_per_event:7.2f} us CPU an event  {run.rate:9,.0f} events/s  p99 {run.p99_us / 1000:8.2f} ms"
    say(f"round {run.round}  {run.name:26} {numbers}")


def write(args: argparse.Namespace, plan: Plan, results: Results) -> None:
    """RESULTS.md with its charts, or the tables on stdout; the targets always."""
    partial = args.quick or args.only or args.cores
    output = args.output or (None if partial else RESULTS)
    if args.json:
        results.save(args.json)
    if output is None:
        print(report.tables(results), end="\n\n")
    else:
        output.write_text(report.document(results, machine.facts(plan.work), how(plan)), encoding="utf-8")
        for name, svg in chart.charts(results).items():
            output.with_name(name).write_text(svg, encoding="utf-8")
        say(f"wrote {output} and its charts beside it")
    print(report.targets(results, measured=bool(partial)))
    print(report.warning(results))


def how(plan: Plan) -> dict[str, object]:
    server, loader = (",".join(map(str, sorted(cores))) for cores in machine.places(1))
    placement = f"the server's processes are pinned to core {server}, the loader to core {loader}."
    command = f"python bench/run.py --rounds {plan.rounds} --seconds {plan.seconds:g}"
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"command": command, "placement": placement, "date": date, "warmup": WARMUP,
            "rounds": plan.rounds, "seconds": plan.seconds}  # fmt: skip


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    about = "fastpixel, nginx, a C floor and Python servers, side by side"
    parser = argparse.ArgumentParser(prog="bench/run.py", description=about)
    add = parser.add_argument
    add("--quick", action="store_true", help="under a minute: the servers that matter daily. Not for quoting")
    add("--rounds", type=_whole, help=f"interleaved rounds (default {FULL.rounds})")
    add("--seconds", type=_positive, help=f"window of one run (default {FULL.seconds:g})")
    add("--only", action="append", default=[], metavar="NAME",
        help="a scenario, a server, SCENARIO/SERVER[/CORES], latency, memory or decode; repeatable")  # fmt: skip
    add("--cores", type=int, choices=(1, 2),
        help="1: server pinned to one core, loader to another; 2: nothing is pinned (default: both)")  # fmt: skip
    add("--output", type=Path, help="Markdown (default bench/RESULTS.md; of a partial run: stdout)")
    add("--json", type=Path, help="raw measurements, for other programs and for --again")
    add("--again", type=Path, metavar="JSON", help="measure nothing: report what --json kept")
    add("--work-dir", type=Path, default=build.BUILD, help="where servers write (not a tmpfs)")
    return parser.parse_args(words)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError("a number of seconds up to 600 is needed")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError("a whole number from 1 to 100 is needed")
    return value


def main() -> int:
    args = arguments()
    # SIGTERM becomes an exception, so that the servers are stopped on the way out as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        choice = chosen(args.only, args.cores, quick=args.quick)
        plan = prepare(args, choice)
        runner = Runner(plan, choice)
        write(args, plan, Results.load(args.again) if args.again else runner.run())
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if runner.failed else 0


if __name__ == "__main__":
    sys.exit(main())
