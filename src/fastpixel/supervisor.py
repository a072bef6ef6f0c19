"""The supervisor: one process that owns sockets, shared memory and admin listener, and keeps N workers running.

Workers are those of a generation (generation.py), which get the sockets and the shared memory from here. It holds a
lock on data_dir, so that a second `serve` of the same spool fails clearly, as one of the same address does (see
sockets.py).

SIGHUP: the configuration is read again and judged. Then a new generation starts beside the old one, with the same
sockets, and the old one drains when every new worker accepts. So no connection is reset, and whatever fails on the way
leaves the old one as it was. Signals that come meanwhile are one more reload after it.

SIGTERM: /ready says 503, pre_stop_delay passes, workers drain, exit 0 within shutdown_timeout. SIGINT does the same and
exits with 130.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from fastpixel import dialects, logs, sockets
from fastpixel.admin.listener import AdminListener
from fastpixel.config import Config
from fastpixel.errors import FastpixelError, SpoolError
from fastpixel.generation import Generation
from fastpixel.metrics import Counts, Page
from fastpixel.spool import recovery, slots
from fastpixel.spool.reader import Spool

REJECT_SCAN_SECONDS: Final = 10.0
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
FIXED: Final = ("bind", "admin_bind", "data_dir")  # and workers: what no reload can change
OPEN_MODE: Final = "open mode: no [[sources]] are configured, so every non-empty key is accepted"
UNCHANGED: Final = "SIGHUP: the configuration stays as it was: %s"
log = logging.getLogger(__name__)


class Supervisor:
    """The whole service. `run` returns the exit code. `read`: gives the configuration as it is at a SIGHUP."""

    def __init__(self, config: Config, read: Callable[[], Config] | None = None) -> None:
        self._read = read or (lambda: config)
        self._workers = config.workers or len(os.sched_getaffinity(0))
        self._protocols = judge(config)  # so that a bad configuration is an error here, before anything starts
        self._claim = claim(config)
        recovery.recover_all(config.data_dir)
        sockets.raise_descriptor_limit()
        self._listeners = [sockets.listen(bind, self._workers) for bind in config.bind]
        self._page = Page.create(2 * self._workers)
        self._counts = Counts(self._page)
        self._live: list[Generation] = []
        self._current = self._generation(config, self._protocols)
        self._counts.serve(self._current.parts)
        self._share_rejects(0)
        self._admin = AdminListener(config, self._counts, self._is_ready)
        self._announced = False
        self._stopping = False
        self._signal = 0

    @property
    def _config(self) -> Config:
        return self._current.config

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._hang_up = asyncio.Event()
        self._ended = asyncio.Event()
        for stop in STOP_SIGNALS:
            self._loop.add_signal_handler(stop, self._on_signal, stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._hang_up.set)
        self._admin.start()
        self._current.start()
        rejects = self._loop.create_task(self._watch_rejects())
        self._reloads = self._loop.create_task(self._watch_hang_ups())
        try:
            await self._ended.wait()
        finally:
            rejects.cancel()
            self._reloads.cancel()
            self._admin.stop()
        log.info("stopped; all that was answered is stored")
        return 128 + signal.SIGINT if self._signal == signal.SIGINT else 0

    def _is_ready(self) -> bool:
        # A worker that was killed cannot say so: its part of the page looks alive for some seconds.
        complete = not self._stopping and self._current.accepts
        return complete and all(part.is_ready for part in self._counts.workers())

    # -- generations

    def _generation(self, config: Config, protocols: tuple[str, ...]) -> Generation:
        """A new one, in the half of the page that no living one has. There are never more than two."""
        taken = {part for generation in self._live for part in generation.parts}
        parts = range(self._workers) if 0 not in taken else range(self._workers, 2 * self._workers)
        self._counts.begin(parts, protocols)
        self._live.append(Generation(config, self._page, parts, self._listeners, self._announce))
        return self._live[-1]

    async def _outlive(self, generation: Generation) -> None:
        """Returns when the last worker of a generation has ended."""
        await generation.ended()
        self._live.remove(generation)
        self._counts.end(generation.parts)

    def _announce(self) -> None:
        if self._announced or not self._current.accepts:
            return
        self._announced = True
        config, workers = self._config, self._workers
        scheme = "https" if config.tls_cert else "http"
        urls = [sockets.url(group[0], scheme) for group in self._listeners]
        for url in urls:
            log.info("listening on %s", url)
        if self._admin.url:
            log.info("admin on %s (/health /ready /metrics)", self._admin.url)
        log.info("data in %s, durability %s, %s", config.data_dir, config.durability, _workers(workers))
        if not config.sources:
            log.warning(OPEN_MODE)
            self._invite(urls[0])

    def _invite(self, url: str) -> None:
        """Who starts it for the first time sees how to send an event and where it is."""
        if "rudderstack" in self._protocols and url.startswith("http"):
            target = "/pixel/v1/track?writeKey=demo&anonymousId=me&event=Hello"
            log.info("try: curl -H 'Accept: text/plain' '%s%s'", url, target)
            program = sys.argv[0] if Path(sys.argv[0]).name == "fastpixel" else "fastpixel"
            log.info("then: %s export --data-dir %s", program, shlex.quote(str(self._config.data_dir)))

    # -- reload

    async def _watch_hang_ups(self) -> None:
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            try:
                await self._reload()
            except (FastpixelError, OSError) as error:
                log.error(UNCHANGED, error)
            except Exception:  # a defect must not end a service that runs
                log.exception(UNCHANGED, "a defect of fastpixel")

    async def _reload(self) -> None:
        """FastpixelError or OSError: nothing has changed."""
        log.info("SIGHUP: reading the configuration again")
        config = self._read()
        protocols = judge(config)
        if changed := list(self._fixed(config)):
            raise FastpixelError(f"restart to change {', '.join(changed)}")
        kept = await self._loop.run_in_executor(None, self._measure_rejects)
        new = self._generation(config, protocols)
        self._share_rejects(kept)
        failure = await new.come_up()
        if failure:
            log.error(UNCHANGED, failure)
            new.hand_over()
            await self._outlive(new)
        else:
            await self._replace(new)

    def _fixed(self, config: Config) -> Iterator[str]:
        """Names of settings that have changed and cannot."""
        yield from (name for name in FIXED if getattr(config, name) != getattr(self._config, name))
        if config.workers not in (self._config.workers, self._workers):
            yield "workers"

    async def _replace(self, new: Generation) -> None:
        """`new` serves from now on; returns when those before have ended."""
        old, self._current = self._current, new
        self._counts.serve(new.parts)
        if new.config.log_format != old.config.log_format:
            logs.set_up(new.config.log_format, "fastpixel")
        self._announce()
        log.info("reloaded: %s with the new configuration; those before drain", _workers(self._workers))
        for notice in (*dialects.notices(new.config), *([] if new.config.sources else [OPEN_MODE])):
            log.warning("%s", notice)
        old.hand_over()
        await self._outlive(old)
        log.info("the workers of the old configuration have ended")

    # -- the end

    def _on_signal(self, number: int) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._signal = number
        log.info("stopping: %s; waiting for what is being answered", signal.Signals(number).name)
        self._loop.create_task(self._shut_down())

    async def _shut_down(self) -> None:
        self._reloads.cancel()  # what it has started ends with the rest
        await asyncio.sleep(self._config.pre_stop_delay)
        sockets.refuse_new(self._listeners)
        for sock in {sock for group in self._listeners for sock in group}:
            sock.close()
        for generation in self._live:
            generation.stop()
        await asyncio.gather(*(generation.ended() for generation in self._live))
        self._ended.set()

    # -- limits

    async def _watch_rejects(self) -> None:
        """max_reject_bytes: what the spool has is measured, and the rest shared out among the workers."""
        while True:
            try:
                self._share_rejects(await self._loop.run_in_executor(None, self._measure_rejects))
            except (OSError, SpoolError) as error:
                log.error("max_reject_bytes cannot be watched now (%s)", error)
            await asyncio.sleep(REJECT_SCAN_SECONDS)

    def _measure_rejects(self) -> int:
        return Spool(self._config.data_dir).size_of("rejects")

    def _share_rejects(self, kept: int) -> None:
        """Those that drain have their share, too: while two generations overlap, each gets half."""
        for generation in self._live:
            left = max(0, generation.config.max_reject_bytes - kept)
            for part in generation.parts:
                self._page.set(part, "reject_budget", left // self._workers // len(self._live))


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


def judge(config: Config) -> tuple[str, ...]:
    """The protocols of a configuration. FastpixelError: it cannot be used, for its dialects or its certificate."""
    sockets.tls(config.tls_cert, config.tls_key)
    return dialects.plan(config).protocols


def serve(config: Config, read: Callable[[], Config]) -> int:
    """Runs the service in this process until a signal ends it. `read`: gives the configuration at a SIGHUP."""
    logs.set_up(config.log_format, "fastpixel")
    for notice in dialects.notices(config):
        log.warning("%s", notice)

    async def run() -> int:
        return await Supervisor(config, read).run()

    return asyncio.run(run())


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"
