"""What is measured: the scenarios, and the targets of each. Rows only."""

from dataclasses import dataclass
from typing import Literal

ALL = ("nginx", "floor", "commit", "fsync")


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    connections: int = 64
    depth: int = 1  # requests a write
    fresh: bool = False  # a connection per request
    servers: tuple[str, ...] = ALL


SCENARIOS = (
    Scenario("keepalive", "64 keep-alive connections"),
    Scenario("keepalive512", "512 keep-alive connections", 512, servers=("nginx", "floor", "fsync")),
    Scenario("pipeline", "64 connections, 16 requests a write", depth=16),
    Scenario("connect", "a connection per request, 64 at a time", fresh=True),
)


@dataclass(frozen=True)
class Target:
    """`cpu`: CPU per event is at most `limit` x that of `against`; `rate`: events a CPU second at least."""

    scenario: str
    server: str
    against: str
    unit: Literal["cpu", "rate"]
    limit: float


TARGETS = (
    Target("keepalive", "commit", "nginx", "cpu", 0.85),
    Target("keepalive", "commit", "floor", "cpu", 1.4),
    Target("keepalive512", "fsync", "nginx", "cpu", 1.15),
    Target("pipeline", "commit", "nginx", "rate", 4.5),
    Target("connect", "commit", "nginx", "cpu", 1.3),
    Target("connect", "fsync", "nginx", "cpu", 1.3),
)
