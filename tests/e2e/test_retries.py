"""`fastpixel rejects` beside a running service: looking, retrying, and what a flood of junk does."""

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from service import PATIENCE, PROGRAM, Service, await_true, command, environment, export
from wire import request

SOURCE = '[[sources]]\nkey = "%s"\n'
EVENT = "/e?_k=%s&_p=p&_n=%s"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fastpixel.toml"
    path.write_text(SOURCE % "k")
    return path


def rejects(service_or_dir, *flags, config=None):
    """(stdout, stderr) of the command."""
    directory = getattr(service_or_dir, "data_dir", service_or_dir)
    code, out, err = command("rejects", "--data-dir", directory, *(["--config", config] if config else []), *flags)
    assert code == 0, err
    return out, err


def refuse(service, *targets):
    """Sends them, and waits until they are kept."""
    before = service.metrics()["fastpixel_rejects_kept_total"]
    for target in targets:
        assert service.get(target).reason
    service.await_metric("fastpixel_rejects_kept_total", before + len(targets))


@pytest.fixture
def refused(data_dir, file):
    """A service that has refused four requests."""
    with Service(data_dir, config=file) as service:
        refuse(
            service, EVENT % ("a", "1"), "/e?_k=k&_n=n", EVENT % ("b", "2"), "/pixel/v1/page?writeKey=a&anonymousId=x"
        )
        yield service


def test_a_list(refused):
    out, err = rejects(refused)
    lines = [line.split() for line in out.splitlines()]
    assert [line[1:] for line in lines] == [
        ["unknown_key", "kissmetrics", "a", "GET", "/e?_k=a&_p=p&_n=1"],
        ["missing_person", "kissmetrics", "k", "GET", "/e?_k=k&_n=n"],
        ["unknown_key", "kissmetrics", "b", "GET", "/e?_k=b&_p=p&_n=2"],
        ["unknown_key", "rudderstack", "a", "GET", "/pixel/v1/page?writeKey=a&anonymousId=x"],
    ]
    assert all(len(line[0]) == 24 and line[0].endswith("Z") for line in lines)
    assert err == "4 rejects (missing_person: 1, unknown_key: 3)\n"


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (["--reason", "missing_person"], 1),
        (["--reason", "missing_person", "--reason", "unknown_key"], 4),
        (["--protocol", "rudderstack"], 1),
        (["--key", "a"], 2),
        (["--key", "a", "--protocol", "kissmetrics"], 1),
        (["--limit", "2"], 2),
        (["--since", "1h"], 4),
        (["--since", "2030-01-01T00:00:00Z"], 4),
        (["--until", "2020-01-01T00:00:00Z"], 0),
        (["--key", "nobody"], 0),
    ],
)
def test_filters(flags, count, refused):
    flags = [flag.replace("2030", "2020") for flag in flags]
    out, err = rejects(refused, *flags)
    assert len(out.splitlines()) == count and err.startswith(f"{count} rejects")


def test_json_is_everything_that_is_kept(refused):
    out, _ = rejects(refused, "--json")
    assert out == command("export", "--rejects", "--data-dir", refused.data_dir)[1]
    first = json.loads(out.splitlines()[0])
    assert first["seq"].endswith("-0-1") and first["headers"] == {"host": "127.0.0.1"}


def test_a_terminal_shows_whole_lines(refused):
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    arguments = [*PROGRAM, "rejects", "--data-dir", refused.data_dir]
    ran = subprocess.run(
        arguments, stdout=terminal, stderr=subprocess.PIPE, env=environment(COLUMNS=""), timeout=PATIENCE
    )
    os.close(terminal)
    lines = os.read(reader, 1 << 16).decode().splitlines()
    os.close(reader)
    assert ran.returncode == 0
    assert len(lines) == 4 and all(len(line) <= 60 for line in lines)


def test_wrong_uses(tmp_path, data_dir):
    assert command("rejects", "--reason", "nothing")[0] == 2
    code, out, err = command("rejects", "--since", "once", "--data-dir", data_dir)
    assert (code, out) == (1, "") and "'once' is no time" in err
    for flags in ([], ["--retry"]):
        code, out, err = command("rejects", "--data-dir", tmp_path / "none", *flags)
        assert (code, out) == (1, "") and len(err.splitlines()) == 1 and "is not a spool" in err


def test_a_wrong_key_in_the_configuration_costs_no_event(data_dir, file):
    """The whole story: refused, mended, reloaded, retried; with the service running, and workers of two generations."""
    file.write_text(SOURCE % "tpyo")
    with Service(data_dir, config=file, workers=2) as service:
        refuse(service, *(EVENT % ("typo", number) for number in range(30)), EVENT % ("junk", "j"))
        assert rejects(service, "--retry", config=file) == (
            "retried 31: 0 stored, 31 refused again (unknown_key: 31)\n",
            "",
        )
        file.write_text(SOURCE % "typo")
        start = len(service.log.lines)
        service.send_signal(signal.SIGHUP)
        service.log.wait_for("old configuration have ended", start)
        assert service.get(EVENT % ("typo", "live")).is_stored
        said = rejects(service, "--retry", "--json", config=file)[0]
        assert json.loads(said) == {"tried": 31, "stored": 30, "refused": {"unknown_key": 1}, "notRetryable": {}}
        out, err = rejects(service)
        assert len(out.splitlines()) == 1
        assert err == "1 rejects (unknown_key: 1); 30 stored by a retry are left out (--all)\n"
        assert len(rejects(service, "--all")[0].splitlines()) == 31
        assert rejects(service, "--retry", config=file)[0] == "retried 1: 0 stored, 1 refused again (unknown_key: 1)\n"
        assert service.get(EVENT % ("typo", "later")).is_stored
    found = [record["event"] for record in export(data_dir)]
    assert found == [*map(str, range(30)), "live", "later"], "in the order in which they came"
    assert command("check", "--data-dir", data_dir)[0] == 0


def test_a_retry_after_a_crash_takes_up_the_slot(data_dir, file):
    with Service(data_dir, config=file) as service:
        refuse(service, EVENT % ("late", "1"), EVENT % ("late", "2"))
        service.kill()
    file.write_text(SOURCE % "late")
    assert rejects(data_dir, "--retry", config=file)[0] == "retried 2: 2 stored, 0 refused again\n"
    assert [record["seq"][8:] for record in export(data_dir)] == ["-0-3", "-0-4"]
    assert command("check", "--data-dir", data_dir)[0] == 0


def test_a_limit_over_all_workers(data_dir, file):
    file.write_text('[[sources]]\nkey = "k"\nrate_limit = "50/s"\n')
    answers = []

    def burst(service, count):
        with service.connect() as client:
            client.send(b"".join(request(EVENT % ("k", number)) for number in range(count)))
            answers.extend(client.answer() for _ in range(count))

    with Service(data_dir, config=file, workers=2) as service:
        threads = [threading.Thread(target=burst, args=(service, 15)) for _ in range(20)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        lasted = time.monotonic() - started
        assert len(answers) == 300
        stored = sum(answer.is_stored for answer in answers)
        assert 50 <= stored <= min(50 * (1 + lasted), 299), "a second's worth at once, and then what time brings"
        over = [answer for answer in answers if not answer.is_stored]
        assert {(answer.status, answer.is_gif, answer.reason) for answer in over} == {(200, True, "rate_limited")}
        service.await_metric("fastpixel_rejects_kept_total", 300 - stored)
        assert service.metrics()['fastpixel_dropped_total{reason="rate_limited"}'] == 300 - stored
    written = export(data_dir) + export(data_dir, "--rejects")
    assert len({record["seq"].split("-")[1] for record in written}) == 2, "both workers had their part"
    assert (
        rejects(data_dir, "--retry", config=file)[0]
        == f"retried {300 - stored}: {300 - stored} stored, 0 refused again\n"
    )
    assert len(export(data_dir)) == 300


def flood(service, targets, times):
    with service.connect() as client:
        for _ in range(times):
            client.send(b"".join(request(target) for target in targets))
            for _ in targets:
                assert client.answer().reason


def test_a_flood_of_junk_stays_within_the_caps(data_dir, file):
    """What a configuration could mend is bounded by bytes, everything else by second; the rest is counted."""
    flags = ["--max-reject-bytes", "256KiB", "--rejects-per-second", "5", "--durability", "commit"]
    wanted = EVENT % ("mended", "wanted")
    with Service(data_dir, *flags, config=file, workers=2) as service:
        refuse(service, wanted)
        flood(service, ["/e?_k=k&_n=n"] * 100, 10)
        kept = service.metrics()["fastpixel_rejects_kept_total"]
        assert kept < 100
        flood(service, [EVENT % (f"junk{number}", "x" * 500) for number in range(50)], 60)
        found = service.metrics()
        total = found["fastpixel_rejects_kept_total"] + found["fastpixel_rejects_not_kept_total"]
        await_true(lambda: service.metrics()["fastpixel_requests_total"] >= 4001, "all have come")
        assert found["fastpixel_rejects_not_kept_total"] > 3000
        assert total == pytest.approx(4001, abs=5), "those of the last batch may not be counted yet"
        size = sum(path.stat().st_size for path in data_dir.rglob("*.mdb"))
        assert size < 1 << 20, "LMDB's pages and all"
        assert service.get(EVENT % ("k", "event")).is_stored, "events are not bounded by it"
    file.write_text(SOURCE % "k" + SOURCE % "mended")
    said = rejects(data_dir, "--retry", config=file)[0]
    assert "1 stored" in said and "cannot be retried (missing_person: " in said
    assert sorted(record["event"] for record in export(data_dir)) == ["event", "wanted"]
