"""One worker process: listeners, commits, timeouts, drain.

Started by the supervisor as `python -m fastpixel.server FD`. FD is a socket to the supervisor: the job comes over it as
one JSON message, "accepting" goes back, and when it closes (the supervisor says stop, or is gone) the worker drains:
it stops accepting, answers what comes with `Connection: close`, commits, and ends with 0. HAND_OVER on it, which a
reload sends, does the same with more patience: others accept from the same sockets then, so what waits in a backlog is
theirs, and idle connections may stay until their next request, which is answered with `Connection: close`.

The order that the promise rests on is `Commits`: append, then done(), which renders the answers. In mode `commit` both
happen in the loop (a commit is cheaper than a trip to a thread), in mode `fsync` the append is a thread's, one at a
time, and the next batch fills meanwhile.

Nothing here may import click, rich or starlette: a worker is small.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec
import uvloop

from fastpixel import dialects, logs, sockets
from fastpixel._core import Batch, Carrier, Intake, Wires
from fastpixel.config import Config
from fastpixel.errors import FastpixelError, SpoolError
from fastpixel.metrics import STATES, Cells, Page
from fastpixel.spool import files
from fastpixel.spool.writer import Writer

BEAT_SECONDS: Final = 0.5
LINGER_SECONDS: Final = 2.0
BACKLOG_SECONDS: Final = 1.0  # bounds accepting the backlog when nothing stops it from growing (supervisor killed)
FRESH_SECONDS: Final = 1.0  # how long a draining worker waits for the first request of a connection
IDLE_SECONDS: Final = 5.0  # how long one that hands over waits for any request; closing would be a race with it
HAND_OVER: Final = b"hand over\n"
GROUP_EVENTS: Final = 256
PROBE_BYTES: Final = 1 << 20
log = logging.getLogger(__name__)


class Job(msgspec.Struct):
    """What the supervisor tells a worker. File descriptors are inherited."""

    number: int
    page: tuple[int, int]  # descriptor, parts
    part: int
    cells: tuple[int, int] | None  # descriptor, count; None: no source is limited
    listeners: list[int]
    settings: dict[str, Any]


class Commits:
    """Stores the Intake's batches and releases their answers. `stop` ends with everything stored.

    A disk that is full when the worker starts must not keep it from answering 503: the writer is then opened by the
    first batch that finds room.
    """

    def __init__(self, intake: Intake, open_writer: Callable[[], Writer]) -> None:
        self._intake = intake
        self._open_writer = open_writer
        self._writer: Writer | None = None
        self.failing = False
        self._seen = 0
        try:
            self._writer = open_writer()
        except OSError as error:
            intake.set_storable(False)
            self._say(error)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def grows(self) -> bool:
        """Whether the last turn of the loop brought more, and the batch is not large yet.

        A commit costs 7 to 10 us however small, so a batch waits while each turn adds to it. On an idle server that is
        one turn without a pause; under load at most GROUP_EVENTS events.
        """
        pending, before = self._intake.pending, self._seen
        self._seen = pending
        if before < pending < GROUP_EVENTS:
            return True
        self._seen = 0
        return False

    def store(self, batch: Batch) -> tuple[bool, int]:
        """(stored, ns that it took). A batch that cannot be stored is refused, loudly but not in a flood."""
        started = time.perf_counter_ns()
        try:
            if self._writer is None:
                self._writer = self._open_writer()
            with batch.view() as events:
                self._writer.append(
                    events,
                    batch.event_count,
                    batch.rejects,
                    batch.reject_count,
                    batch.min_received_ns,
                    batch.max_received_ns,
                )
        except (SpoolError, OSError) as error:
            self._say(error)
            return False, time.perf_counter_ns() - started
        self._say(None)
        return True, time.perf_counter_ns() - started

    def _say(self, error: SpoolError | OSError | None) -> None:
        if error is not None and not self.failing:
            log.error("events are refused with 503: %s", error)
        elif error is None and self.failing:
            log.warning("events are stored again")
        self.failing = error is not None


class LoopCommits(Commits):
    """Mode `commit`: once per turn of the loop, in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, intake: Intake, open_writer: Callable[[], Writer]) -> None:
        super().__init__(intake, open_writer)
        self._loop = loop
        intake.on_pending = lambda: loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self.grows():
            self._loop.call_soon(self._flush)
        else:
            self._commit()

    def _commit(self) -> None:
        batch = self._intake.take()
        if batch is not None:
            stored, took = self.store(batch)
            self._intake.done(batch, stored, took)

    async def stop(self) -> None:
        # Now, for a turn later the writer is closed; and again, for answers let requests through that had to wait.
        while self._intake.pending:
            self._commit()


class ThreadCommits(Commits):
    """Mode `fsync`: on one thread, one batch at a time. The loop never waits for the disk."""

    def __init__(self, loop: asyncio.AbstractEventLoop, intake: Intake, open_writer: Callable[[], Writer]) -> None:
        super().__init__(intake, open_writer)
        self._loop = loop
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()
        intake.on_pending = self._pending

    def _pending(self) -> None:
        if not self._busy:
            self._busy = True
            self._idle.clear()
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self.grows():
            self._loop.call_soon(self._next)
            return
        batch = self._intake.take()
        if batch is None:
            self._busy = False
            self._idle.set()
        else:
            self._queue.put(batch)

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            stored, took = self.store(batch)
            self._loop.call_soon_threadsafe(self._done, batch, stored, took)

    def _done(self, batch: Batch, stored: bool, took: int) -> None:
        try:
            self._intake.done(batch, stored, took)
        finally:
            self._next()

    async def stop(self) -> None:
        await self._idle.wait()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)


class Worker:
    """Everything of one worker, from `run` to its end."""

    def __init__(self, job: Job, config: Config, lifeline: socket.socket) -> None:
        self._config = config
        self._lifeline = lifeline
        self._listeners = [socket.socket(fileno=fd) for fd in job.listeners]
        self._carriers: set[Carrier] = set()
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._handing_over = False
        self._intake = Intake(
            dialects.plan(config),
            page=Page(*job.page).part(job.part),
            cells=Cells(*job.cells).view if job.cells else None,
            trusted_proxies=[str(network) for network in config.trusted_proxies],
            max_request_line=config.max_request_line,
            max_header_bytes=config.max_header_bytes,
            max_body_bytes=config.max_body_bytes,
            max_inflight_bytes=config.max_inflight_bytes,
            max_connections=config.max_connections,
            max_connections_per_ip=config.max_connections_per_ip,
            rejects_per_second=config.rejects_per_second,
        )
        self._wires = Wires(self._intake)
        self._starved = False
        kind = LoopCommits if config.durability == "commit" else ThreadCommits
        self._commits = kind(self._loop, self._intake, self._open_writer)

    async def run(self) -> None:
        self._loop.add_reader(self._lifeline.fileno(), self._on_lifeline)
        tls = sockets.tls(self._config.tls_cert, self._config.tls_key)
        self._intake.sweep(self._loop.time())  # connections are measured with this clock from the first one on
        self._loop.add_reader(self._wires.fileno(), self._wires.turn)
        servers = []
        for sock in self._listeners:
            sock.setblocking(False)
            if tls is None or sock.family == socket.AF_UNIX:
                self._wires.listen(sock.fileno())
            else:
                # A browser does not say goodbye to a TLS connection that it keeps for later: it is not waited for long.
                how: dict[str, Any] = {"ssl": tls, "ssl_shutdown_timeout": LINGER_SECONDS}
                servers.append(await self._loop.create_server(self._carrier, sock=sock, backlog=sockets.BACKLOG, **how))
        self._state("serving")
        tasks = [self._loop.create_task(self._beat()), self._loop.create_task(self._probe())]
        self._lifeline.sendall(b"accepting\n")
        await self._stop.wait()
        self._state("draining")
        await self._drain(servers)
        for task in tasks:
            task.cancel()
        self._commits.close()
        self._state("ended")

    def _open_writer(self) -> Writer:
        return Writer(self._config.data_dir, self._config.durability, self._config.segment_bytes)

    def _carrier(self) -> asyncio.BaseProtocol:
        # A protocol by its methods: an extension class cannot have a Python class as its base.
        return cast("asyncio.BaseProtocol", Carrier(self._intake, self._carriers))

    def _on_lifeline(self) -> None:
        # HAND_OVER, then perhaps the end: a service that stops does not wait for an old worker's patience.
        try:
            self._handing_over = bool(self._lifeline.recv(len(HAND_OVER)))
        except ConnectionResetError:  # the supervisor was killed before it read "accepting"
            self._handing_over = False
        if not self._handing_over:
            self._loop.remove_reader(self._lifeline.fileno())
        self._stop.set()

    async def _drain(self, servers: Sequence[asyncio.AbstractServer]) -> None:
        """Answers what has come, then closes. Ends when every connection has, or the time is over."""
        started = self._loop.time()
        self._intake.drain()
        while not self._handing_over and self._has_backlog() and self._loop.time() < started + BACKLOG_SECONDS:
            await asyncio.sleep(0)
        self._wires.ignore()
        for server in servers:
            server.close()
        while (self._carriers or self._wires) and self._loop.time() < started + self._config.shutdown_timeout:
            await asyncio.sleep(0.02)  # first, so that requests which are here already are read
            if self._handing_over and self._loop.time() < started + IDLE_SECONDS:
                continue
            patient = self._loop.time() < started + FRESH_SECONDS
            self._wires.drain(patient)
            for carrier in list(self._carriers):
                carrier.drain(patient)
        await self._commits.stop()
        self._loop.remove_reader(self._wires.fileno())
        self._wires.abort()
        for carrier in list(self._carriers):
            carrier.abort()

    def _has_backlog(self) -> bool:
        """Whether connections wait to be accepted. No new ones come: see sockets.refuse_new."""
        return bool(select.select(self._listeners, [], [], 0)[0])

    async def _beat(self) -> None:
        """Heartbeat, the coarse clock, and what has lasted too long."""
        config = self._config
        while True:
            self._intake.sweep(self._loop.time())
            self._intake.beat(time.time_ns() // 1_000_000)
            self._say_starved(self._wires.starved)
            limits = config.header_timeout, config.body_timeout, config.idle_timeout, LINGER_SECONDS
            self._wires.expire(*limits)
            for carrier in list(self._carriers):
                carrier.expire(*limits)
            await asyncio.sleep(BEAT_SECONDS)

    def _say_starved(self, starved: bool) -> None:
        if starved and not self._starved:
            log.error("no file descriptor or memory is left for a new connection: raise the limit (ulimit -n)")
        self._starved = starved

    async def _probe(self) -> None:
        """After a failed commit: /ready says 503, so perhaps no request comes that would show when it is over."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._commits.failing and await self._loop.run_in_executor(
                None, files.has_room, self._config.data_dir, PROBE_BYTES
            ):
                self._intake.set_storable(True)

    def _state(self, state: str) -> None:
        self._intake.set_state(STATES.index(state), time.time_ns() // 1_000_000)


def receive(lifeline: socket.socket) -> tuple[Job, Config]:
    """The supervisor's one message: its length in 8 digits, then JSON."""
    with lifeline.makefile("rb") as stream:
        job = msgspec.json.decode(stream.read(int(stream.read(8))), type=Job)
    return job, Config.from_json(msgspec.json.encode(job.settings))


async def _run(lifeline: socket.socket) -> None:
    job, config = receive(lifeline)
    logs.set_up(config.log_format, f"worker {job.number}")
    await Worker(job, config, lifeline).run()


def main(arguments: list[str], run: Callable[..., Any] = uvloop.run) -> int:
    """The process. Signals to the whole group are blocked: the supervisor decides what they mean."""
    try:
        run(_run(socket.socket(fileno=int(arguments[0]))))
    except FastpixelError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
