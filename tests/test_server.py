"""What a worker does at its end, without processes or sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastpixel import config, dialects
from fastpixel._core import Intake
from fastpixel.server import Commits, LoopCommits, ThreadCommits
from fastpixel.spool.check import check
from fastpixel.spool.reader import Spool
from fastpixel.spool.writer import Writer

GOOD = b"GET /e?_k=k&_p=p&_n=n HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize("kind, mode", [(LoopCommits, "commit"), (ThreadCommits, "fsync")])
def test_nothing_is_stored_after_the_end(tmp_path: Path, kind: type[Commits], mode: str):
    """What came in the last turn of the loop is stored before the writer is closed, not behind its back."""

    async def life() -> None:
        intake = Intake(dialects.plan(config.load()))
        writer = Writer(tmp_path, mode)
        commits = kind(asyncio.get_running_loop(), intake, lambda: writer)
        connection = intake.connection("192.0.2.1")
        connection.feed(GOOD)
        await commits.stop()
        answered = connection.output()
        writer.close()
        await asyncio.sleep(0.01)
        assert answered.startswith(b"HTTP/1.1 200 ")
        assert connection.output() == b""

    asyncio.run(life())
    assert len(list(Spool(tmp_path).records())) == 1
    assert check(tmp_path) == []
