"""Closed loop: CPU per event of every server in every scenario, on one core and on two.

Interleaved rounds in rotated order, with a fresh process and an empty directory for each run. What a target reads
is measured in every round, anything else in fewer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.results import Measurement
from bench.scenarios import SCENARIOS, SERVERS_ON, Scenario, fewer
from bench.servers import SERVERS, Server
from bench.targets import READ
from bench.trial import Plan, trial


@dataclass(frozen=True)
class Case:
    scenario: Scenario
    server: Server
    cores: int = 1

    @property
    def name(self) -> str:
        return f"{self.scenario.name}/{self.server.name}/{self.cores}"

    @property
    def key(self) -> tuple[str, str, int]:
        return self.scenario.name, self.server.name, self.cores

    def matches(self, word: str) -> bool:
        short = f"{self.scenario.name}/{self.server.name}"
        return word in (self.name, short, self.scenario.name, self.server.name)

    def rounds(self, all_rounds: int) -> int:
        return all_rounds if self.key in READ else fewer(all_rounds)


def cases() -> list[Case]:
    """In the order of the report: all of one core, then all of two."""
    return [
        Case(scenario, SERVERS[name], cores)
        for cores, names in SERVERS_ON.items()
        for scenario in SCENARIOS
        for name in (names if not scenario.only else scenario.only if cores == 1 else ())
    ]


def ordered(chosen: Sequence[Case], rounds: int) -> Iterator[tuple[int, Case]]:
    """Scenario by scenario; within one, each round begins with another server: none always goes first."""
    for number in range(1, rounds + 1):
        for place in dict.fromkeys((case.cores, case.scenario) for case in chosen):
            group = [case for case in chosen if (case.cores, case.scenario) == place and number <= case.rounds(rounds)]
            turn = number % len(group) if group else 0
            yield from ((number, case) for case in group[turn:] + group[:turn])


def measure(plan: Plan, case: Case, number: int) -> Measurement:
    """VoidRun: the run counts for nothing."""
    fresh, payload = case.scenario.fresh, case.scenario.payload
    with trial(plan, case.server, case.cores, number, fresh=fresh, payload=payload) as started:
        return started.load(case.scenario, case.scenario.name)
