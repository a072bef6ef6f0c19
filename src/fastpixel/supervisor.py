"""The supervisor: one process that owns sockets, shared page and admin listener, and keeps N workers running.

It spawns workers (never forks: a worker starts clean, with its own random seed and loop) and hands each its sockets,
the page and a socket pair, the lifeline. Both ends watch it: a worker drains when the supervisor is gone, and the
supervisor starts a worker anew, with backoff, when its end closes. It holds a lock on data_dir, so that a second
`serve` of the same spool fails clearly, as one of the same address does (see sockets.py).

SIGTERM: /ready says 503, pre_stop_delay passes, workers drain, exit 0 within shutdown_timeout. SIGINT does the same and
exits with 130.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastpixel import dialects, logs, sockets
from fastpixel.admin.listener import AdminListener
from fastpixel.config import Config
from fastpixel.errors import SpoolError
from fastpixel.metrics import Page
from fastpixel.server import Job
from fastpixel.spool import recovery, slots
from fastpixel.spool.reader import Spool

FIRST_BACKOFF: Final = 0.1
LAST_BACKOFF: Final = 10.0
KILL_GRACE: Final = 3.0  # beyond shutdown_timeout, before a worker is killed
REJECT_SCAN_SECONDS: Final = 10.0
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
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
        try:
            self.lifeline.shutdown(socket.SHUT_WR)
        except OSError as error:  # it ended in this moment
            log.debug("worker %d: %s", self.job.number, error)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C on a terminal and systemd's SIGTERM go to workers too; those started in here never see them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Supervisor:
    """The whole service. `run` returns the exit code."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._workers = config.workers or len(os.sched_getaffinity(0))
        self._plan = dialects.plan(config)  # so that a bad dialect is an error here, before anything starts
        sockets.tls(config.tls_cert, config.tls_key)  # a bad certificate too
        self._claim = claim(config)
        recovery.recover_all(config.data_dir)
        sockets.raise_descriptor_limit()
        self._listeners = [sockets.listen(bind, self._workers) for bind in config.bind]
        self._page = Page.create(self._workers)
        self._share_rejects(0)
        self._admin = AdminListener(config, self._page, self._plan.protocols, self._is_ready)
        self._children: dict[int, Child] = {}
        self._accepting: set[int] = set()
        self._announced = False
        self._stopping = False
        self._signal = 0

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        for stop in STOP_SIGNALS:
            self._loop.add_signal_handler(stop, self._on_signal, stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hang_up)
        self._admin.start()
        for number in range(self._workers):
            self._spawn(number, FIRST_BACKOFF)
        rejects = self._loop.create_task(self._watch_rejects())
        try:
            await self._ended.wait()
        finally:
            rejects.cancel()
            self._admin.stop()
        log.info("stopped; all that was answered is stored")
        return 128 + signal.SIGINT if self._signal == signal.SIGINT else 0

    def _is_ready(self) -> bool:
        # A worker that was killed cannot say so: its part of the page looks alive for some seconds.
        complete = not self._stopping and len(self._accepting) == self._workers
        return complete and all(part.is_ready for part in self._page.all())

    # -- workers

    def _spawn(self, number: int, backoff: float) -> None:
        if self._stopping:
            return
        listeners = [group[number].fileno() for group in self._listeners]
        job = Job(number, self._workers, self._page.fd, listeners, msgspec.json.decode(self._config.to_json()))
        try:
            child = self._children[number] = Child(job, [self._page.fd, *listeners])
        except OSError as error:
            log.error("worker %d cannot be started (%s); tried again in %.1f s", number, error, backoff)
            self._loop.call_later(backoff, self._spawn, number, _longer(backoff))
        else:
            self._loop.add_reader(child.lifeline.fileno(), self._on_lifeline, child, backoff)

    def _on_lifeline(self, child: Child, backoff: float) -> None:
        try:
            said = child.lifeline.recv(64)
        except ConnectionResetError:
            said = b""
        if said:
            self._accepting.add(child.job.number)
            self._announce()
            return
        self._loop.remove_reader(child.lifeline.fileno())
        child.lifeline.close()
        self._loop.create_task(self._bury(child, backoff))

    async def _bury(self, child: Child, backoff: float) -> None:
        """The worker's end of the lifeline is closed: it has ended, or will at once."""
        code = await self._loop.run_in_executor(None, child.process.wait)
        number = child.job.number
        del self._children[number]
        self._accepting.discard(number)
        if self._stopping:
            if not self._children:
                self._ended.set()
            return
        if child.age > LAST_BACKOFF:
            backoff = FIRST_BACKOFF
        log.error("worker %d ended with %s; it starts again in %.1f s", number, _code(code), backoff)
        await asyncio.sleep(backoff)
        self._spawn(number, _longer(backoff))

    def _announce(self) -> None:
        if self._announced or len(self._accepting) < self._workers:
            return
        self._announced = True
        config, workers = self._config, self._workers
        scheme = "https" if config.tls_cert else "http"
        urls = [sockets.url(group[0], scheme) for group in self._listeners]
        for url in urls:
            log.info("listening on %s", url)
        if self._admin.url:
            log.info("admin on %s (/health /ready /metrics)", self._admin.url)
        workers_text = f"{workers} worker{'s' * (workers != 1)}"
        log.info("data in %s, durability %s, %s", config.data_dir, config.durability, workers_text)
        if not config.sources:
            log.warning("open mode: no [[sources]] are configured, so every non-empty key is accepted")
            self._invite(urls[0])

    def _invite(self, url: str) -> None:
        """Who starts it for the first time sees how to send an event and where it is."""
        if "rudderstack" in self._plan.protocols and url.startswith("http"):
            target = "/pixel/v1/track?writeKey=demo&anonymousId=me&event=Hello"
            log.info("try: curl -H 'Accept: text/plain' '%s%s'", url, target)
            program = sys.argv[0] if Path(sys.argv[0]).name == "fastpixel" else "fastpixel"
            log.info("then: %s export --data-dir %s", program, shlex.quote(str(self._config.data_dir)))

    # -- the end

    def _on_signal(self, number: int) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._signal = number
        log.info("stopping: %s; waiting for what is being answered", signal.Signals(number).name)
        self._loop.create_task(self._shut_down())

    def _on_hang_up(self) -> None:
        # A closed terminal must not end a service; reading the configuration again is not in this release.
        log.warning("SIGHUP: the configuration is read at start only; restart to change it")

    async def _shut_down(self) -> None:
        await asyncio.sleep(self._config.pre_stop_delay)
        sockets.refuse_new(self._listeners)
        for sock in {sock for group in self._listeners for sock in group}:
            sock.close()
        for child in self._children.values():
            child.stop()
        if not self._children:
            self._ended.set()
        await asyncio.sleep(self._config.shutdown_timeout + KILL_GRACE)
        for child in self._children.values():
            log.error("worker %d did not end in time and is killed", child.job.number)
            child.process.kill()

    # -- limits

    async def _watch_rejects(self) -> None:
        """max_reject_bytes: what the spool has is measured, and the rest shared out among the workers."""
        spool = Spool(self._config.data_dir)
        while True:
            try:
                kept = await self._loop.run_in_executor(None, spool.size_of, "rejects")
            except (OSError, SpoolError) as error:
                log.error("max_reject_bytes cannot be watched now (%s)", error)
            else:
                self._share_rejects(kept)
            await asyncio.sleep(REJECT_SCAN_SECONDS)

    def _share_rejects(self, kept: int) -> None:
        left = max(0, self._config.max_reject_bytes - kept)
        for number in range(self._workers):
            self._page.set(number, "reject_budget", left // self._workers)


def claim(config: Config) -> int:
    """The lock on data_dir, as an open descriptor. SpoolError: another service has it."""
    slots.prepare(config.data_dir)
    fd = os.open(config.data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SpoolError(
            f"another fastpixel serve is running on {config.data_dir}; stop it, or use another --data-dir"
        ) from None
    return fd


def serve(config: Config) -> int:
    """Runs the service in this process until a signal ends it."""
    logs.set_up(config.log_format, "fastpixel")
    for notice in dialects.notices(config):
        log.warning("%s", notice)

    async def run() -> int:
        return await Supervisor(config).run()

    return asyncio.run(run())


def _longer(backoff: float) -> float:
    return min(2 * backoff, LAST_BACKOFF)


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
