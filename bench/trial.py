"""One started server under load: started in an empty directory, loaded, stopped, asked what it stored.

Every request has its own number over all loads of a trial, and at the end the server must have stored exactly what
it answered, every event of a payload. A trial that fails in any of this is void. What must not be here: which trials
there are.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bench import build, machine
from bench.errors import VoidRun
from bench.idle import held
from bench.results import Measurement
from bench.scenarios import PIXEL, Payload, Scenario
from bench.servers import Server, running, tree

WARMUP = 0.2


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    work: Path


@dataclass
class Trial:
    plan: Plan
    server: Server
    cores: int
    number: int  # of the round
    pid: int
    port: int
    home: Path
    family: Sequence[int]  # the server's process tree
    payload: Payload = PIXEL
    answered: int = field(default=0)  # requests

    def load(self, scenario: Scenario, label: str, *, rate: float = 0.0) -> Measurement:
        """One run of the load generator: closed loop, or `rate` requests a second on a timetable."""
        shot = self._shoot(scenario, rate)
        if shot["failures"] or not shot["requests"]:
            why = shot.get("first_failure", "no answer in the window")
            raise VoidRun(f"{shot['failures']} failures, the first: {why}")
        if tree(self.pid) != self.family:
            raise VoidRun("a process of the server came or went during the run")
        self.answered += shot["answered"]
        names = {field.name for field in fields(Measurement)}
        known = {name: value for name, value in shot.items() if name in names}
        return Measurement(label, self.server.name, self.cores, self.number, events=self.payload.events, **known)

    def _shoot(self, scenario: Scenario, rate: float) -> dict[str, Any]:
        seconds, template = self.plan.seconds, build.HERE / self.payload.template
        command = [str(build.program("load")), "127.0.0.1", str(self.port), "--template", str(template)]
        command += ["--length", str(self.payload.length)]
        command += ["--connections", str(scenario.connections), "--depth", str(scenario.depth)]
        command += ["--seconds", str(seconds), "--warmup", str(WARMUP), "--first", str(self.answered)]
        command += ["--new-connection"] if scenario.fresh else []
        command += ["--rate", str(rate)] if rate else []
        command += [word for pid in self.family for word in ("--cpu-of", str(pid))]
        with machine.on_cores(machine.places(self.cores)[1]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
        if done.returncode:
            raise VoidRun(done.stderr.strip())
        return json.loads(done.stdout)

    @contextmanager
    def idle(self, count: int) -> Iterator[None]:
        """Beside these connections, each of which has made one request."""
        first = self.answered
        with machine.on_cores(machine.places(self.cores)[1]), held(self.port, requests(first, count)):
            self.answered += count
            yield


@contextmanager
def trial(
    plan: Plan, server: Server, cores: int, number: int, *, fresh: bool = False, payload: Payload = PIXEL
) -> Iterator[Trial]:
    with workplace(plan.work) as home:
        with running(server, home, machine.places(cores)[0], fresh=fresh) as (pid, port):
            started = Trial(plan, server, cores, number, pid, port, home, tree(pid), payload)
            yield started
        check(server, started.answered, home, payload.events)


@contextmanager
def workplace(parent: Path) -> Iterator[Path]:
    """An empty directory for one trial: what one server wrote is gone before the next is measured."""
    home = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def requests(first: int, count: int) -> Iterator[bytes]:
    template = (build.HERE / PIXEL.template).read_bytes().replace(b"\n", b"\r\n")
    for number in range(first, first + count):
        yield template.replace(b"@@@@@@@@", b"%08d" % number)


def check(server: Server, answered: int, home: Path, events: int = 1) -> None:
    """A trial whose server lost or doubled an event is void; each answered request had `events` of them."""
    if server.stored is None:
        return
    numbers = (request * events + place if place < events else -1 for request, place in server.stored(home))
    lost, extra = conserved(answered * events, numbers)
    if lost or extra:
        raise VoidRun(f"of {answered * events} answered events {lost} were not stored, {extra} records are too many")


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
