"""The supervisor when the machine refuses it something; with real workers it is tested end to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fastpixel import config, generation, supervisor
from fastpixel.errors import FastpixelError, SpoolError
from fastpixel.spool.reader import Spool

FLAGS = {"bind": ("127.0.0.1:0",), "admin_bind": "off", "workers": 1}


def settings(data_dir: Path, **more: object) -> config.Config:
    return config.load(flags={**FLAGS, "data_dir": str(data_dir), **more})


def start(data_dir: Path, read: Callable[[], config.Config] | None = None, **more: object) -> supervisor.Supervisor:
    return supervisor.Supervisor(settings(data_dir, **more), read)


async def until_logged(caplog: pytest.LogCaptureFixture, words: str, times: int = 1) -> None:
    for _ in range(1000):
        if caplog.text.count(words) >= times:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{words!r} is not in: {caplog.text}")


async def run_until_logged(
    service: supervisor.Supervisor, caplog: pytest.LogCaptureFixture, words: str, times: int = 1
) -> int:
    running = asyncio.create_task(service.run())
    await until_logged(caplog, words, times)
    service._on_signal(15)
    return await asyncio.wait_for(running, 20)


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path, caplog, monkeypatch):
    failures = iter([OSError(11, "Resource temporarily unavailable")] * 2)
    real = generation.Child

    def child(*arguments):
        for error in failures:
            raise error
        return real(*arguments)

    monkeypatch.setattr(generation, "Child", child)
    caplog.set_level(logging.INFO)
    assert asyncio.run(run_until_logged(start(tmp_path), caplog, "listening on")) == 0
    assert caplog.text.count("worker 0 cannot be started") == 2


def test_the_limit_of_rejects_is_watched_on_after_an_error(tmp_path, caplog, monkeypatch):
    def size_of(*_):
        raise SpoolError("no")

    monkeypatch.setattr(Spool, "size_of", size_of)
    monkeypatch.setattr(supervisor, "REJECT_SCAN_SECONDS", 0.01)
    assert asyncio.run(run_until_logged(start(tmp_path), caplog, "cannot be watched now (no)", 2)) == 0


def test_a_certificate_that_is_none_is_an_error_at_start(tmp_path):
    (tmp_path / "cert.pem").write_text("no certificate")
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "key.pem")}
    with pytest.raises(FastpixelError, match=r"tls_cert .*cert.pem and tls_key .*key.pem cannot be used"):
        supervisor.Supervisor(config.load(flags={**FLAGS, **files, "data_dir": str(tmp_path / "data")}))
    assert not (tmp_path / "data").exists()


def test_all_descriptors_that_may_be_had_are_taken(tmp_path):
    script = (
        "import resource; from fastpixel import sockets; sockets.raise_descriptor_limit();"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE); raise SystemExit(soft != hard)"
    )
    assert subprocess.run(["bash", "-c", f"ulimit -Sn 64; exec {sys.executable} -c '{script}'"]).returncode == 0


def test_the_caps_on_rejects_hold_from_the_first_one(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    service = start(tmp_path)
    assert service._page.read(0)["reject_budget"] == 1 << 30
    assert asyncio.run(run_until_logged(service, caplog, "listening on")) == 0
    assert service._page.read(0)["reject_budget"] == 1 << 30


# -- reload: what goes wrong; what goes right is tested end to end

UNCHANGED = "SIGHUP: the configuration stays as it was"
RELOADED = "workers of the old configuration have ended"


def live(service: supervisor.Supervisor, story: Callable[[], Awaitable[object]], caplog) -> None:
    """The service from its start, through the story, to its end."""

    async def life() -> int:
        running = asyncio.create_task(service.run())
        await until_logged(caplog, "listening on")
        await story()
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(running, 30)

    caplog.set_level(logging.INFO)
    assert asyncio.run(life()) == 0


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


def refused(service: supervisor.Supervisor, caplog) -> str:
    """Why a reload did not happen, with the service as it was."""
    before = service._current

    async def story() -> None:
        hang_up()
        await until_logged(caplog, UNCHANGED)
        while service._live != [before]:
            await asyncio.sleep(0.01)

    live(service, story, caplog)
    assert service._current is before
    (line,) = [record.getMessage() for record in caplog.records if UNCHANGED in record.getMessage()]
    return line.removeprefix(f"{UNCHANGED}: ")


def test_what_no_reload_can_change_is_named(tmp_path, caplog):
    other = {"bind": ("127.0.0.1:1",), "admin_bind": "127.0.0.1:0", "workers": 3, "max_connections": 9}
    service = start(tmp_path, lambda: settings(tmp_path / "other", **other))
    assert refused(service, caplog) == "restart to change bind, admin_bind, data_dir, workers"


def test_as_many_workers_said_in_another_way_are_no_change(tmp_path, caplog):
    service = start(tmp_path, lambda: settings(tmp_path, workers=len(os.sched_getaffinity(0))), workers=0)

    async def story() -> None:
        hang_up()
        await until_logged(caplog, RELOADED)

    live(service, story, caplog)


def test_a_configuration_that_cannot_be_used_is_said_in_a_line(tmp_path, caplog):
    file = tmp_path / "fastpixel.toml"
    service = start(tmp_path / "data", lambda: config.load(file))
    assert refused(service, caplog) == (
        f"{file}: cannot be read (No such file or directory); `fastpixel init` writes a first one"
    )


def test_a_certificate_that_is_none_is_no_reload(tmp_path, caplog):
    (tmp_path / "cert.pem").write_text("no certificate")
    files = {"tls_cert": str(tmp_path / "cert.pem"), "tls_key": str(tmp_path / "cert.pem")}
    assert "cannot be used" in refused(start(tmp_path, lambda: settings(tmp_path, **files)), caplog)


def test_a_defect_in_a_reload_ends_nothing(tmp_path, caplog):
    def read() -> config.Config:
        raise RuntimeError("a defect")

    assert refused(start(tmp_path, read), caplog) == "a defect of fastpixel"
    assert "RuntimeError: a defect" in caplog.text


def test_a_new_worker_that_does_not_come_up_is_no_reload(tmp_path, caplog, monkeypatch):
    real = generation.Child
    started = []

    def child(job, keep):
        started.append(job.part)
        if job.part == 3:
            job.listeners = [999_999]
        return real(job, keep)

    monkeypatch.setattr(generation, "Child", child)
    service = start(tmp_path, workers=2)
    assert refused(service, caplog) == "worker 1 ended with exit code 1"
    assert sorted(started) == [0, 1, 2, 3], "it was not started again, and the old ones go on"


def test_a_new_worker_that_never_accepts_is_no_reload(tmp_path, caplog, monkeypatch):
    real = generation.Child

    def child(job, keep):
        made = real(job, keep)
        if job.part == 1:
            os.kill(made.process.pid, signal.SIGSTOP)
        return made

    monkeypatch.setattr(generation, "Child", child)
    monkeypatch.setattr(generation, "START_SECONDS", 0.2)
    monkeypatch.setattr(generation, "KILL_GRACE", 0.2)
    service = start(tmp_path, lambda: settings(tmp_path, shutdown_timeout="0s"))
    assert refused(service, caplog) == "not every new worker accepts after 0 s"
    assert "worker 0 did not end in time and is killed" in caplog.text


def test_a_new_worker_that_cannot_be_spawned_is_no_reload(tmp_path, caplog, monkeypatch):
    real = generation.Child

    def child(job, keep):
        if job.part == 1:
            raise OSError(11, "Resource temporarily unavailable")
        return real(job, keep)

    monkeypatch.setattr(generation, "Child", child)
    assert "worker 0 cannot be started" in refused(start(tmp_path), caplog)


def test_hang_ups_while_one_is_worked_on_are_one_more_reload(tmp_path, caplog):
    async def story() -> None:
        hang_up()
        await until_logged(caplog, "reading the configuration again")
        for _ in range(5):
            hang_up()
            await asyncio.sleep(0.01)
        await until_logged(caplog, RELOADED, 2)
        await asyncio.sleep(0.1)

    live(start(tmp_path), story, caplog)
    assert caplog.text.count("reading the configuration again") == 2


def test_a_reload_mends_a_service_that_never_came_up(tmp_path, caplog, monkeypatch):
    real = generation.Child

    def child(job, keep):
        if job.part == 0:
            job.listeners = [999_999]
        return real(job, keep)

    async def life() -> int:
        running = asyncio.create_task(start(tmp_path).run())
        await until_logged(caplog, "it starts again")
        assert "listening on" not in caplog.text
        hang_up()
        await until_logged(caplog, "listening on")
        await until_logged(caplog, RELOADED)
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(running, 30)

    monkeypatch.setattr(generation, "Child", child)
    caplog.set_level(logging.INFO)
    assert asyncio.run(life()) == 0
    ended = caplog.text[caplog.text.index(RELOADED) :]
    assert "worker 0 ended" not in ended, "the old ones are not tried any more"


@pytest.mark.parametrize("moment", ["reading the configuration again", "reloaded: 1 worker"])
def test_the_end_comes_during_a_reload(moment, tmp_path, caplog):
    async def story() -> None:
        hang_up()
        await until_logged(caplog, moment)

    service = start(tmp_path)
    live(service, story, caplog)
    assert not any(child for each in service._live for child in each._children)


def test_generations_alternate_in_the_page_and_share_what_rejects_may_take(tmp_path, caplog):
    service = start(tmp_path, lambda: settings(tmp_path, max_reject_bytes="1MiB", workers=2), workers=2)
    parts = []

    async def story() -> None:
        for count in range(1, 4):
            hang_up()
            await until_logged(caplog, "reloaded", count)
            parts.append([*service._current.parts])
            await until_logged(caplog, RELOADED, count)
        budgets.extend(service._page.read(part)["reject_budget"] for part in range(4))

    budgets: list[int] = []
    live(service, story, caplog)
    assert parts == [[2, 3], [0, 1], [2, 3]]
    assert budgets == [0, 0, 1 << 18, 1 << 18]


def test_limits_of_sources_get_memory_of_their_own(tmp_path, caplog):
    file = tmp_path / "fastpixel.toml"
    file.write_text('sources = [{key = "a"}, {key = "b", rate_limit = "5/s"}, {key = "c", rate_limit = "1/s"}]')

    def read() -> config.Config:
        return config.load(file, flags={**FLAGS, "data_dir": str(tmp_path / "data")})

    async def story() -> None:
        service._current._cells.view[:] = b"x" * 16
        hang_up()
        await until_logged(caplog, RELOADED)
        assert bytes(service._current._cells.view) == bytes(16)

    service = supervisor.Supervisor(read(), read)
    live(service, story, caplog)
