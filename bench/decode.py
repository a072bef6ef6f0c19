"""Decoding in process: the core, the standard library, and a copy of the same bytes, in one interleaved loop.

The core's time is taken inside C, by its door decode_ns: what a request costs when no Python call surrounds it. It
makes the whole record; the twin of plain.py makes only the tree of the query's parameters and packs it.
"""

import time
from pathlib import Path

from bench.plain import packed
from bench.results import Decode
from fastpixel import _core
from fastpixel.dialects import rudderstack
from fastpixel.event import FIELDS

HEAD = (Path(__file__).parent / "pixel.http").read_bytes().replace(b"@" * 8, b"00000042").replace(b"\n", b"\r\n")
TARGET = HEAD.split()[1]
QUERY = TARGET.partition(b"?")[2]
HEADERS = [tuple(line.split(b": ", 1)) for line in HEAD.splitlines()[1:] if line]

ROUNDS = 60
CORE_TIMES, PLAIN_TIMES, COPY_TIMES = 2000, 100, 20_000


def measure(rounds: int = ROUNDS) -> list[Decode]:
    plan = _core.Plan([rudderstack.DIALECT], fields=FIELDS)
    return [_round(plan) for _ in range(rounds)]


def _round(plan: _core.Plan) -> Decode:
    core = _core.decode_ns(plan, "GET", TARGET, HEADERS, CORE_TIMES) / CORE_TIMES
    plain = _plain_ns(PLAIN_TIMES) / PLAIN_TIMES
    return Decode(core, plain, _core.copy_ns(HEAD, COPY_TIMES) / COPY_TIMES)


def _plain_ns(times: int) -> int:
    began = time.perf_counter_ns()
    for _ in range(times):
        packed(QUERY)
    return time.perf_counter_ns() - began
