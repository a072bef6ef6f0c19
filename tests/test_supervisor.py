"""The supervisor when the machine refuses it something; with real workers it is tested end to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fastpixel import config, supervisor
from fastpixel.errors import FastpixelError, SpoolError
from fastpixel.spool.reader import Spool

FLAGS = {"bind": ("127.0.0.1:0",), "admin_bind": "off", "workers": 1}


def start(data_dir: Path) -> supervisor.Supervisor:
    return supervisor.Supervisor(config.load(flags={**FLAGS, "data_dir": str(data_dir)}))


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
    real = supervisor.Child

    def child(*arguments):
        for error in failures:
            raise error
        return real(*arguments)

    monkeypatch.setattr(supervisor, "Child", child)
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


def test_a_hang_up_ends_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    async def life() -> int:
        service = start(tmp_path)
        running = asyncio.create_task(service.run())
        await until_logged(caplog, "listening on")
        os.kill(os.getpid(), signal.SIGHUP)
        await until_logged(caplog, "SIGHUP: the configuration is read at start only")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(running, 20)

    assert asyncio.run(life()) == 0


def test_the_caps_on_rejects_hold_from_the_first_one(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    service = start(tmp_path)
    assert service._page.read(0)["reject_budget"] == 1 << 30
    assert asyncio.run(run_until_logged(service, caplog, "listening on")) == 0
    assert service._page.read(0)["reject_budget"] == 1 << 30
