"""Where the time of one event goes, by stage: `python bench/breakdown.py`. Writes PROFILE.md.

A worker is loaded twice: alone, for its CPU per event, and under perf, for the share of each stage; perf itself costs
time, and so is in no figure. Samples are taken by the clock (cpu-clock), which needs no hardware counters, and have
no call graph: what the kernel does for a write is the kernel's. stages.py says what belongs to which stage.
"""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# `python bench/breakdown.py` puts bench/ on the path, not the directory above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import build, machine
from bench.errors import BenchError
from bench.scenarios import BY_NAME
from bench.servers import SERVERS
from bench.stages import shares
from bench.trial import WARMUP, Plan, Trial, trial

PROFILE = build.HERE / "PROFILE.md"
CASES = (("keepalive", "commit"), ("keepalive512", "fsync"), ("pipeline", "commit"))
HERTZ = 999
SECONDS = 4.0


class Profile(NamedTuple):
    scenario: str
    server: str
    cpu_us: float  # per event, without perf
    samples: int
    stages: Mapping[str, float]


def measure(plan: Plan, scenario: str, server: str) -> Profile:
    with trial(plan, SERVERS[server], 1, 1) as started:
        alone = started.load(BY_NAME[scenario], scenario)
        lines = _sampled(started, scenario)
    return Profile(scenario, server, alone.cpu_per_event, len(lines), shares(lines))


def _sampled(started: Trial, scenario: str) -> list[str]:
    """The samples of one load. perf begins within the warm-up's end and ends before the window does."""
    data = started.home / "perf.data"
    pids = ",".join(map(str, started.family))
    seconds = started.plan.seconds - WARMUP
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-D", str(int(2000 * WARMUP))]
    command += ["-o", str(data), "-p", pids, "--", "sleep", str(seconds)]
    with machine.on_cores(machine.places(1)[1]):
        perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    started.load(BY_NAME[scenario], scenario)
    _, errors = perf.communicate(timeout=30)
    if perf.returncode or not data.exists():
        raise BenchError(
            f"perf record: {errors.strip() or perf.returncode} (as root, or kernel.perf_event_paranoid=-1)"
        )
    return _script(data)


def _script(data: Path) -> list[str]:
    command = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if not (lines := [line for line in done.stdout.splitlines() if line.strip()]):
        raise BenchError(f"perf script shows no sample: {done.stderr.strip()}")
    return lines


def table(profile: Profile) -> str:
    rows = [(stage, share, share * profile.cpu_us) for stage, share in profile.stages.items()]
    rows += [("**sum**", 1.0, profile.cpu_us)]
    body = "\n".join(f"| {stage} | {100 * share:.1f} % | {micros:.2f} |" for stage, share, micros in rows)
    title = f"## {SERVERS[profile.server].title}: {BY_NAME[profile.scenario].title}"
    return f"{title}\n\n{profile.samples:,} samples.\n\n| stage | share | µs an event |\n| --- | --: | --: |\n{body}"


def document(profiles: Sequence[Profile], facts: Mapping[str, str], date: str) -> str:
    tables = "\n\n".join(map(table, profiles))
    found = "\n".join(f"- {name}: {text}" for name, text in facts.items())
    return f"""\
# Where the time of one event goes

Written by `make bench-profile` on {date}. A flat profile (`perf record -e cpu-clock -F {HERTZ}`) of the
server's whole process tree on one core under closed-loop load; the microseconds are the share of the CPU time per
event that was measured in the same process without perf. What belongs to which stage is a table: `bench/stages.py`.

{tables}

## Machine and versions

{found}
"""


def perf_version() -> str:
    if shutil.which("perf") is None:
        raise BenchError("perf is not installed: apt-get install linux-perf")
    done = subprocess.run(["perf", "--version"], capture_output=True, text=True, check=False)
    return (re.findall(r"perf version (\S+)", done.stdout) or ["unknown"])[0]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/breakdown.py", description="where the time of one event goes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"window of one load (default {SECONDS:g})")
    parser.add_argument("--output", type=Path, default=PROFILE, help="Markdown (default bench/PROFILE.md)")
    parser.add_argument("--work-dir", type=Path, default=build.BUILD, help="where servers write (not a tmpfs)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped on the way out
    try:
        perf = perf_version()
        args.work_dir.mkdir(parents=True, exist_ok=True)
        plan = Plan(1, max(1.0, args.seconds), args.work_dir.resolve())
        profiles = [measure(plan, *case) for case in CASES]
        facts = {**machine.facts(plan.work), "perf": perf}
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    args.output.write_text(document(profiles, facts, date), encoding="utf-8")
    print("\n\n".join(map(table, profiles)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
