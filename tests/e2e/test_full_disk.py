"""A full disk is a planned state: refused loudly, nothing answered is lost, and it goes on by itself.

The data directory is a tmpfs of a few MiB, which takes root to mount. `ballast` is a file that fills it.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess

import pytest
from service import Service, await_true, command, export, is_alive
from wire import request

EVENT = "/e?_k=k&_p=p&_n=%s"
SIZE = 24 << 20
REFUSED = ["events are refused with 503"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(disk):
    """Takes every block that is left."""
    with (disk / "ballast").open("wb", buffering=0) as out:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    out.write(b"\0" * size)
    assert shutil.disk_usage(disk).free == 0


def send_until_refused(service, most=5000):
    """Names that were answered as stored, and the first answer that was not."""
    stored = []
    with service.connect() as client:
        for number in range(most):
            name = f"{number}-{'x' * 900}"
            answer = client.ask(EVENT % name)
            if not answer.is_stored:
                return stored, answer
            stored.append(name)
    raise AssertionError("the disk never got full")


@needs_root
@pytest.mark.parametrize("durability", ["commit", "fsync"])
def test_a_full_disk_refuses_and_recovers(durability, disk):
    with Service(disk / "data", "--durability", durability, errors=REFUSED) as service:
        assert service.get(EVENT % "first").is_stored
        pids = service.pids()
        fill(disk)
        stored, answer = send_until_refused(service)
        assert (answer.status, answer.is_gif, answer.reason) == (503, True, "spool_full")
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "image/gif"
        refuse_more(service)
        assert service.ask_admin("/ready")[0] == 503
        assert service.ask_admin("/health")[0] == 200
        service.log.wait_for("events are refused with 503")
        assert len(service.log.find("events are refused with 503")) == 1, "said once, not for every event"
        (disk / "ballast").unlink()
        # By itself: a load balancer that sends nothing while /ready says 503 must see it recover.
        await_true(lambda: service.ask_admin("/ready")[0] == 200, "it is ready again")
        assert service.get(EVENT % "again").is_stored
        service.log.wait_for("events are stored again")
        assert len(service.log.find("events are stored again")) == 1
        assert service.pids() == pids, "nothing was restarted"
        assert service.metrics()['fastpixel_dropped_total{reason="spool_full"}'] == 61
    names = [record["event"] for record in export(disk / "data")]
    assert names == ["first", *stored, "again"]
    assert command("check", "--data-dir", disk / "data")[0] == 0


def refuse_more(service):
    """Sixty more, of every kind of client: each is told the truth."""
    with service.connect() as client:
        client.send(request(EVENT % ("y" * 2000)) * 50)
        answers = [client.answer() for _ in range(50)]
        assert {(answer.status, answer.reason) for answer in answers} == {(503, "spool_full")}
        for accept in ("image/*", "text/plain", "*/*"):
            for _ in range(3):
                path = f"/pixel/v1/track?writeKey=k&anonymousId=a&event={'z' * 2000}"
                answer = client.ask(path, f"Accept: {accept}")
                assert (answer.status, answer.reason) == (503, "spool_full")
                assert int(answer.headers["retry-after"]) > 0
        assert client.ask(EVENT % "posted", method="POST", body=b"long=" + b"z" * 2000).status == 503


@needs_root
@pytest.mark.parametrize("durability", ["commit", "fsync"])
def test_a_worker_that_starts_on_a_full_disk_refuses_until_there_is_room(durability, disk):
    errors = [*REFUSED, "SIGKILL"]
    with Service(disk / "data", "--durability", durability, errors=errors) as service:
        assert service.get(EVENT % "first").is_stored
        fill(disk)
        stored, _ = send_until_refused(service)
        (victim,) = service.pids()
        os.kill(victim, signal.SIGKILL)
        await_true(lambda: not is_alive(victim), "it is gone")
        assert service.get(EVENT % "no").reason == "spool_full"
        assert service.ask_admin("/ready")[0] == 503
        (disk / "ballast").unlink()
        await_true(lambda: service.ask_admin("/ready")[0] == 200, "it is ready again")
        assert service.get(EVENT % "again").is_stored
        service.log.wait_for("SIGKILL")
        assert len(service.log.find("SIGKILL")) == 1 and not service.log.find("exit code")
    assert [record["event"] for record in export(disk / "data")] == ["first", *stored, "again"]
    assert command("check", "--data-dir", disk / "data")[0] == 0


@needs_root
def test_a_service_that_starts_on_a_full_disk_says_so(disk):
    fill(disk)
    code, out, err = command("serve", "--bind", "127.0.0.1:0", "--admin-bind", "off", "--data-dir", disk / "data")
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1 and re.search("No space left", err)
