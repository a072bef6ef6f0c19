"""What is measured of whole servers: the scenarios, and on how many cores. Rows only; the targets are in targets.py.

A payload is a template of a request, in which each `@@@@@@@@` becomes the request's number. One with many events
numbers these too, `@@@@@@@@-00` to `-29`, so that each can be looked for.
"""

from dataclasses import dataclass

from bench.servers import PYTHON_SERVERS

ONE = ("nginx", "floor", "commit", "fsync", *PYTHON_SERVERS)
TWO = ("nginx", "floor", "commit", "commit2", "fsync", "fsync2", *PYTHON_SERVERS)
SERVERS_ON = {1: ONE, 2: TWO}


@dataclass(frozen=True)
class Payload:
    template: str
    events: int = 1
    length: int = 43  # bytes of the answer's body: the GIF's


PIXEL = Payload("pixel.http")
TRACARDI = Payload("tracardi.http", 30, 219)  # the ids of the session and the profile come back
BATCH = Payload("rudder_batch.http", 30, 2)  # ok


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    connections: int = 64
    depth: int = 1  # requests a write
    fresh: bool = False  # a connection per request
    payload: Payload = PIXEL
    only: tuple[str, ...] = ()  # the servers that can, on one core; empty: all, on one and on two


SCENARIOS = (
    Scenario("keepalive", "64 keep-alive connections"),
    Scenario("keepalive512", "512 keep-alive connections", 512),
    Scenario("pipeline", "64 connections, 16 requests a write", depth=16),
    Scenario("connect", "a connection per request, 64 at a time", fresh=True),
    Scenario("tracardi", "Tracardi's POST /track, 30 events a payload", payload=TRACARDI, only=("commit", "fsync")),
    Scenario("batch", "RudderStack's POST /v1/batch, 30 events a batch", payload=BATCH, only=("commit", "fsync")),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}

QUICK = (
    *((scenario, server) for scenario in ("keepalive", "pipeline") for server in ("nginx", "floor", "commit", "fsync")),
    ("tracardi", "commit"),
    ("batch", "commit"),
)

# Open loop: the servers, the connections each needs at full rate, and the shares of that rate in per cent.
LATENCY = {"nginx": "keepalive", "commit": "keepalive", "fsync": "keepalive512"}
SHARES = (25, 50, 75)

# Memory: the idle connections beside 64 active ones.
MEMORY = ("commit", "nginx", "uvicorn")
IDLE = 10_000

# The servers of these two parts that a target reads.
JUDGED = (("latency", "fsync"), ("memory", "commit"))


def fewer(rounds: int) -> int:
    """The rounds of what no target reads."""
    return max(1, rounds * 2 // 5)
