"""Open loop: latency at fixed rates, shares of what the same process answered a moment before in a closed loop.

A request counts from the time at which it was due, so that waiting is not hidden (see load.c). Beside `fsync` a
probe measures what one durable LMDB commit takes on the same filesystem, with a value as large as the average
batch of the run at half load.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb

from bench import machine
from bench.results import Commits, Measurement, Results
from bench.scenarios import BY_NAME, LATENCY, SHARES
from bench.servers import SERVERS
from bench.trial import Plan, Trial, trial, workplace

COMMITS = 200
PAGE = 4096
FULL = "rate100"


def measure(plan: Plan, name: str, number: int, results: Results) -> None:
    """All rates of one server in one round. VoidRun: none of them counts."""
    size = 0
    with trial(plan, SERVERS[name], 1, number) as started:
        runs = [started.load(BY_NAME[LATENCY[name]], FULL)]
        for share in SHARES:
            before = _spooled(started.home)
            runs.append(_at(started, share, runs[0].rate))
            size = _batch(before, _spooled(started.home)) if share == 50 else size
    results.runs += runs
    if name == "fsync":
        results.commits.append(Commits(number, size, commits(plan.work, size)))


def _at(started: Trial, share: int, full: float) -> Measurement:
    return started.load(BY_NAME[LATENCY[started.server.name]], f"rate{share}", rate=full * share / 100)


def _spooled(home: Path) -> tuple[int, int]:
    """(batches, pages) of all segments, while nothing is written."""
    found = [_pages(path) for path in home.glob("data/*/*.mdb")]
    return sum(batches for batches, _ in found), sum(pages for _, pages in found)


def _pages(segment: Path) -> tuple[int, int]:
    with lmdb.open(str(segment), subdir=False, readonly=True, lock=False, max_dbs=3) as env:
        with env.begin() as txn:
            told = txn.stat(env.open_db(b"events", txn=txn, create=False))
    return told["entries"], told["leaf_pages"] + told["overflow_pages"]


def _batch(before: tuple[int, int], after: tuple[int, int]) -> int:
    """Bytes of an average value, in whole pages; a page when there was none."""
    batches, pages = (new - old for old, new in zip(before, after, strict=True))
    return max(PAGE, pages * PAGE // batches if batches else 0)


def commits(work: Path, size: int, count: int = COMMITS) -> list[float]:
    """Microseconds of each of so many durable commits of one value, on the server's core."""
    with workplace(work) as home, machine.on_cores(machine.places(1)[0]):
        with lmdb.open(str(home / "probe.mdb"), subdir=False, map_size=1 << 30, lib_version=0) as env:
            return list(_commits(env, os.urandom(size), count))


def _commits(env: lmdb.Environment, value: bytes, count: int) -> Iterator[float]:
    for number in range(count):
        began = time.perf_counter_ns()
        with env.begin(write=True) as txn:
            txn.put(number.to_bytes(8, "big"), value, append=True)
        yield (time.perf_counter_ns() - began) / 1000
