"""The benchmark of whole servers, side by side in one go: `python bench/run.py [--quick]`.

Runs every scenario of scenarios.py against every server of servers.py in interleaved rounds, checks after
each run that the server kept exactly what it answered, and writes RESULTS.md. It ends by itself, and only
ends processes that it started. A partial run (--quick, --only) prints its tables and leaves RESULTS.md alone,
unless --output names it.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

# `python bench/run.py` puts bench/ on the path, not the directory above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import build, chart, machine, report
from bench.errors import BenchError
from bench.report import Measurement
from bench.scenarios import SCENARIOS, Scenario
from bench.servers import SERVERS, Server, running, tree

PIXEL = build.HERE / "pixel.http"
RESULTS = build.HERE / "RESULTS.md"
WARMUP = 0.2


class Length(NamedTuple):
    rounds: int
    seconds: float


FULL = Length(5, 2.0)
QUICK = Length(1, 0.4)


@dataclass(frozen=True)
class Case:
    scenario: Scenario
    server: Server

    @property
    def name(self) -> str:
        return f"{self.scenario.name}/{self.server.name}"

    def matches(self, word: str) -> bool:
        return word in (self.name, self.scenario.name, self.server.name)


@dataclass(frozen=True)
class Plan:
    cases: tuple[Case, ...]
    rounds: int
    seconds: float
    cores: tuple[set[int], set[int]]  # the server's and the loader's
    work: Path


def load(plan: Plan, scenario: Scenario, pids: Sequence[int], port: int) -> dict[str, Any]:
    """One run of the load generator against a server that is already there."""
    command = [str(build.program("load")), "127.0.0.1", str(port), "--template", str(PIXEL)]
    command += ["--connections", str(scenario.connections), "--depth", str(scenario.depth)]
    command += ["--seconds", str(plan.seconds), "--warmup", str(WARMUP)]
    command += ["--new-connection"] if scenario.fresh else []
    command += [word for pid in pids for word in ("--cpu-of", str(pid))]
    with machine.on_cores(plan.cores[1]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=plan.seconds + 30, check=False)
    if done.returncode:
        raise BenchError(done.stderr.strip())
    return json.loads(done.stdout)


def measure(plan: Plan, case: Case, number: int) -> Measurement:
    """One case of one round. BenchError: the run is void."""
    with workplace(plan.work) as home:
        with running(case.server, home, plan.cores[0], fresh=case.scenario.fresh) as (pid, port):
            family = tree(pid)
            shot = load(plan, case.scenario, family, port)
            if tree(pid) != family:
                raise BenchError(f"{case.name} is void: a process of the server came or went during the run")
        check(case, shot, home)
    names = {field.name for field in fields(Measurement)}
    known = {name: value for name, value in shot.items() if name in names}
    return Measurement(scenario=case.scenario.name, server=case.server.name, round=number, **known)


def check(case: Case, shot: dict[str, Any], home: Path) -> None:
    """A run with a failure, or whose server lost or doubled an event, is void."""
    if shot["failures"] or not shot["requests"]:
        why = shot.get("first_failure", "no answer in the window")
        raise BenchError(f"{case.name} is void: {shot['failures']} failures, the first: {why}")
    if case.server.stored is None:
        return
    lost, extra = conserved(shot["answered"], case.server.stored(home))
    if lost or extra:
        events = f"of {shot['answered']} answered events {lost} were not stored, {extra} records are too many"
        raise BenchError(f"{case.name} is void: {events}")


def conserved(answered: int, numbers: Iterable[int]) -> tuple[int, int]:
    """(lost, too many) of the events 0 .. answered-1, given the numbers of the stored ones."""
    seen = bytearray(answered)
    extra = 0
    for number in numbers:
        if 0 <= number < answered and not seen[number]:
            seen[number] = 1
        else:
            extra += 1
    return seen.count(0), extra


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """An empty directory for one run: what one server wrote is gone before the next is measured."""
    home = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def rounds(plan: Plan) -> Iterator[Measurement]:
    for number in range(1, plan.rounds + 1):
        for case in rotated(plan.cases, number):
            found = measure(plan, case, number)
            numbers = f"{found.cpu_per_event:6.2f} us CPU an event  {found.rate:9,.0f} events/s"
            say(f"round {number}/{plan.rounds}  {case.name:20} {numbers}")
            yield found


def rotated(cases: Sequence[Case], number: int) -> list[Case]:
    """Scenario by scenario; within one, each round begins with another server: none always goes first."""
    order: list[Case] = []
    for scenario in dict.fromkeys(case.scenario for case in cases):
        group = [case for case in cases if case.scenario is scenario]
        order += group[number % len(group) :] + group[: number % len(group)]
    return order


def chosen(words: Sequence[str]) -> tuple[Case, ...]:
    """The cases that match a word of --only, or all of them."""
    cases = [Case(scenario, SERVERS[name]) for scenario in SCENARIOS for name in scenario.servers]
    for word in words:
        if not any(case.matches(word) for case in cases):
            known = ", ".join(case.name for case in cases)
            raise BenchError(f"--only {word}: no such case; there are {known}")
    return tuple(case for case in cases if not words or any(case.matches(word) for word in words))


def prepare(args: argparse.Namespace) -> Plan:
    """Everything that can be missing is found missing here, before the first run."""
    default = QUICK if args.quick else FULL
    cases = chosen(args.only)
    build.program("load")
    build.program("floor")
    if machine.nginx_path() is None and any(case.server.name == "nginx" for case in cases):
        raise BenchError("nginx is not installed: apt-get install nginx-light")
    work = args.work_dir.resolve()
    work.mkdir(parents=True, exist_ok=True)
    everywhere = machine.all_cores()
    cores = machine.two_cores() if args.cores == 1 else (everywhere, everywhere)
    return Plan(cases, args.rounds or default.rounds, args.seconds or default.seconds, cores, work)


def placement(plan: Plan) -> str:
    server, loader = (",".join(map(str, sorted(cores))) for cores in plan.cores)
    if plan.cores[0] == plan.cores[1]:
        return f"Server and loader share core(s) {server}, nothing is pinned."
    return f"The server's processes are pinned to core {server}, the loader to core {loader}."


def write(args: argparse.Namespace, plan: Plan, found: Sequence[Measurement]) -> None:
    output = args.output or (None if args.quick or args.only else RESULTS)
    if args.json:
        args.json.write_text(json.dumps([asdict(run) for run in found], indent=1) + "\n")
    if output is None:
        print(report.tables(found))
        return
    how = {"command": shlex.join(["python", "bench/run.py", *sys.argv[1:]]), "placement": placement(plan),
           "rounds": plan.rounds, "warmup": WARMUP, "seconds": plan.seconds,
           "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}  # fmt: skip
    output.write_text(report.document(found, machine.facts(plan.work), how), encoding="utf-8")
    output.with_name("results.svg").write_text(chart.chart(found), encoding="utf-8")
    say(f"wrote {output} and results.svg beside it")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    about = "fastpixel, nginx and a C floor, side by side"
    parser = argparse.ArgumentParser(prog="bench/run.py", description=about)
    add = parser.add_argument
    add("--quick", action="store_true", help="one short round: does everything work? Not for quoting")
    add("--rounds", type=_whole, help=f"interleaved rounds (default {FULL.rounds})")
    add("--seconds", type=_positive, help=f"window of one run (default {FULL.seconds:g})")
    add("--only", action="append", default=[], metavar="NAME",
        help="a scenario, a server, or scenario/server; repeatable")  # fmt: skip
    add("--cores", type=int, choices=(1, 2), default=1,
        help="1: server pinned to one core, loader to another; 2: nothing is pinned")  # fmt: skip
    add("--output", type=Path, help="Markdown (default bench/RESULTS.md; with --quick or --only: stdout)")
    add("--json", type=Path, help="raw measurements, for other programs")
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
        plan = prepare(args)
        write(args, plan, list(rounds(plan)))
    except BenchError as error:
        say(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
