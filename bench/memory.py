"""Memory of a worker, and what idle connections cost: bytes, and the others' CPU time and latency.

One server process: a load of 64 connections, the same beside the idle ones, and once more alone. RssAnon is the
memory that a process has for itself; VmRSS would count the LMDB map, which is page cache.
"""

import re
import time
from pathlib import Path

from bench.errors import VoidRun
from bench.idle import room
from bench.results import Memory, Results
from bench.scenarios import BY_NAME, IDLE
from bench.servers import SERVERS
from bench.trial import Plan, Trial, trial

SETTLE = 0.3  # seconds for the ends of connections to be seen


def measure(plan: Plan, name: str, number: int, results: Results) -> None:
    """VoidRun: nothing of it counts."""
    count = room(IDLE)
    if count < 1:
        raise VoidRun("the limit of open files leaves no room for idle connections: ulimit -n")
    with trial(plan, SERVERS[name], 1, number) as started:
        start = {pid: rss_anon(pid) for pid in started.family}
        runs = [started.load(BY_NAME["keepalive"], "idle-before")]
        worker, loaded = _settled(started)
        with started.idle(count):
            held = rss_anon(worker)
            runs.append(started.load(BY_NAME["keepalive"], "idle-held"))
        time.sleep(SETTLE)
        runs.append(started.load(BY_NAME["keepalive"], "idle-after"))
    results.runs += runs
    results.memory.append(Memory(name, number, start[worker], loaded, held, count))


def _settled(started: Trial) -> tuple[int, int]:
    """The process that worked most, and its memory after the load."""
    time.sleep(SETTLE)
    worker = max(started.family, key=cpu_ticks)
    return worker, rss_anon(worker)


def rss_anon(pid: int) -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def cpu_ticks(pid: int) -> int:
    """User and system time: fields 14 and 15 of proc(5), counted behind the name in brackets."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
