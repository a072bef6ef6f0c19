"""A generation: the workers of one configuration, from their spawn to the end of the last one.

Workers are spawned, never forked: a worker starts clean, with its own random seed and loop. Each gets its sockets, its
part of the shared page and a socket pair, the lifeline. Both ends watch it: a worker drains when the supervisor is
gone, and one that ends is started anew, with backoff, when its end closes.

The first generation lasts as the service does. One that a reload makes is on trial until every worker of it accepts:
one that ends before that is not started anew, and the reload is off. What a generation must not know: why it is made,
and that there may be another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from fastpixel.config import Config
from fastpixel.metrics import Cells, Page
from fastpixel.server import HAND_OVER, Job

FIRST_BACKOFF: Final = 0.1
LAST_BACKOFF: Final = 10.0
KILL_GRACE: Final = 3.0  # beyond shutdown_timeout, before a worker is killed
START_SECONDS: Final = 60.0  # for the workers of a reload
SUPERVISORS_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# For glibc's malloc (mallopt(3)): batches are made and dropped all the time, and memory that went back to the kernel
# between two of them would come again page by page, at more cost than storing them.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20), "MALLOC_TRIM_THRESHOLD_": str(8 << 20)}
log = logging.getLogger(__name__)


class Child:
    """One worker's process, from spawn to end."""

    def __init__(self, job: Job, keep: Sequence[int]) -> None:
        self.job = job
        self.started = time.monotonic()
        self.lifeline, theirs = socket.socketpair()
        with theirs, _signals_held():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fastpixel.server", str(theirs.fileno())],
                pass_fds=[theirs.fileno(), *keep],
                env=ALLOCATOR | os.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        message = msgspec.json.encode(job)
        self.lifeline.sendall(f"{len(message):08d}".encode() + message)
        self.lifeline.setblocking(False)

    @property
    def age(self) -> float:
        return time.monotonic() - self.started

    def stop(self) -> None:
        """Tells it to drain."""
        with self._unless_it_ended():
            self.lifeline.shutdown(socket.SHUT_WR)

    def hand_over(self) -> None:
        """Tells it to drain, and that others accept: nobody has to be in a hurry."""
        with self._unless_it_ended():
            self.lifeline.send(HAND_OVER)

    @contextlib.contextmanager
    def _unless_it_ended(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # in this moment
            log.debug("worker %d: %s", self.job.number, error)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """What a terminal and systemd send to the whole group is the supervisor's; those started in here never see it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISORS_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Generation:
    """The workers with `config`; worker i writes part `parts[i]` of the page and accepts from the i-th sockets.

    `on_accepting` is called whenever all of them accept.
    """

    def __init__(
        self,
        config: Config,
        page: Page,
        parts: Sequence[int],
        listeners: Sequence[Sequence[socket.socket]],
        on_accepting: Callable[[], None] = lambda: None,
    ) -> None:
        self.config = config
        self.parts = parts
        self._page = page
        self._listeners = listeners
        self._on_accepting = on_accepting
        self._cells = Cells.create(sum(source.rate_limit > 0 for source in config.sources))
        self._settings = msgspec.json.decode(config.to_json())
        self._children: dict[int, Child] = {}
        self._accepting: set[int] = set()
        self._trial: asyncio.Future[str] | None = None
        self._ending = False
        self._ended = asyncio.Event()

    @property
    def accepts(self) -> bool:
        """Whether every worker of it does."""
        return len(self._accepting) == len(self.parts)

    # -- the beginning

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        for number in range(len(self.parts)):
            self._spawn(number, FIRST_BACKOFF)

    async def come_up(self) -> str:
        """Starts it on trial: "" when every worker accepts, else why one does not. Then it is to be ended."""
        self._trial = asyncio.get_running_loop().create_future()
        self.start()
        try:
            return await asyncio.wait_for(self._trial, START_SECONDS)
        except asyncio.TimeoutError:
            return f"not every new worker accepts after {START_SECONDS:.0f} s"

    def _spawn(self, number: int, backoff: float) -> None:
        if self._ending:
            return
        try:
            child = self._children[number] = self._child(number)
        except OSError as error:
            if not self._judge(f"worker {number} cannot be started ({error})"):
                log.error("worker %d cannot be started (%s); tried again in %.1f s", number, error, backoff)
                self._loop.call_later(backoff, self._spawn, number, _longer(backoff))
        else:
            self._loop.add_reader(child.lifeline.fileno(), self._on_lifeline, child, backoff)

    def _child(self, number: int) -> Child:
        listeners = [group[number].fileno() for group in self._listeners]
        cells = (self._cells.fd, self._cells.count) if self._cells else None
        job = Job(
            number=number,
            page=(self._page.fd, self._page.parts),
            part=self.parts[number],
            cells=cells,
            listeners=listeners,
            settings=self._settings,
        )
        return Child(job, [self._page.fd, *listeners, *(cells[:1] if cells else ())])

    def _judge(self, verdict: str) -> bool:
        """Ends the trial, if it is on one; see `come_up`."""
        if self._trial is None or self._trial.done():
            return False
        self._trial.set_result(verdict)
        return True

    # -- a worker's life

    def _on_lifeline(self, child: Child, backoff: float) -> None:
        try:
            said = child.lifeline.recv(64)
        except ConnectionResetError:
            said = b""
        if not said:
            self._loop.remove_reader(child.lifeline.fileno())
            child.lifeline.close()
            self._loop.create_task(self._bury(child, backoff))
            return
        self._accepting.add(child.job.number)
        if self.accepts:
            self._judge("")
            self._on_accepting()

    async def _bury(self, child: Child, backoff: float) -> None:
        """The worker's end of the lifeline is closed: it has ended, or will at once."""
        code = await self._loop.run_in_executor(None, child.process.wait)
        number = child.job.number
        del self._children[number]
        self._accepting.discard(number)
        self._page.bury(child.job.part)
        if self._ending:
            self._settle()
        elif not self._judge(f"worker {number} ended with {_code(code)}"):
            if child.age > LAST_BACKOFF:
                backoff = FIRST_BACKOFF
            log.error("worker %d ended with %s; it starts again in %.1f s", number, _code(code), backoff)
            self._loop.call_later(backoff, self._spawn, number, _longer(backoff))

    # -- the end

    def hand_over(self) -> None:
        """Tells the workers that others accept in their place: they answer what they have, and end."""
        self._ending = True
        for child in self._children.values():
            child.hand_over()
        self._settle()

    def stop(self) -> None:
        """Tells the workers to end within shutdown_timeout; no new connections come any more."""
        self._ending = True
        for child in self._children.values():
            child.stop()
        self._settle()

    async def ended(self) -> None:
        """Returns when no worker is left, after `stop` or `hand_over`. Who takes too long is killed."""
        try:
            await asyncio.wait_for(self._ended.wait(), self.config.shutdown_timeout + KILL_GRACE)
        except asyncio.TimeoutError:
            for child in self._children.values():
                log.error("worker %d did not end in time and is killed", child.job.number)
                child.process.kill()
            await self._ended.wait()

    def _settle(self) -> None:
        if self._children or self._ended.is_set():
            return
        self._ended.set()
        if self._cells is not None:
            self._cells.close()


def _longer(backoff: float) -> float:
    return min(2 * backoff, LAST_BACKOFF)


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
