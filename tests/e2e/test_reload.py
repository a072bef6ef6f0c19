"""SIGHUP: a service takes up a changed configuration, and nobody who talks to it notices."""

import contextlib
import os
import signal
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from service import Service, await_true, command, export, is_alive
from wire import Client, request

EVENT = "/e?_k=k&_p=p&_n=%s"
SOURCE = '[[sources]]\nkey = "%s"\n'
ENDED = "the workers of the old configuration have ended"
UNCHANGED = "SIGHUP: the configuration stays as it was: "


def hang_up(service, until):
    """Returns what the log says of it."""
    start = len(service.log.lines)
    service.send_signal(signal.SIGHUP)
    service.log.wait_for(until, start)
    return "\n".join(service.log.lines[start:])


def hand_over(service):
    """As `hang_up`, up to the moment when old workers know of it."""
    hang_up(service, "reloaded")
    service.await_metric("fastpixel_workers_draining", service.workers)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "fastpixel.toml"
    path.write_text(SOURCE % "k")
    return path


def write(file, *keys, more=""):
    file.write_text(more + "".join(SOURCE % key for key in keys))


class Talker:
    """A client that never stops, on one connection after the other; whatever is not a stored event is trouble.

    `per_connection`: how many requests it sends on one, if the server does not close it before that. `body`: it posts.
    """

    def __init__(self, name, address, per_connection, body, ended):
        self.name = name
        self.address = address
        self.per_connection = per_connection
        self.body = body
        self.ended = ended
        self.stored = []
        self.told_to_close = 0
        self.trouble = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended.is_set() and not self.trouble:
            try:
                self.connection()
            except OSError as error:
                self.trouble.append(repr(error))

    def connection(self):
        with Client(self.address) as client:
            for _ in range(self.per_connection):
                event = f"{self.name}-{len(self.stored)}"
                if self.body:
                    answer = client.ask("/e", method="POST", body=f"_k=k&_p=p&_n={event}".encode())
                else:
                    answer = client.ask(EVENT % event)
                if not answer.is_stored:
                    self.trouble.append(f"{event}: {answer}")
                    return
                self.stored.append(event)
                if answer.headers.get("connection") == "close":
                    self.told_to_close += 1
                    return
                if self.ended.is_set():
                    return


@contextlib.contextmanager
def talking(*addresses):
    ended = threading.Event()
    kinds = [(10**9, False), (10**9, False), (10**9, True), (20, False), (1, False), (1, True)]
    talkers = [Talker(f"{place}{i}", address, *kind, ended) for place, address in enumerate(addresses)
               for i, kind in enumerate(kinds)]  # fmt: skip
    try:
        yield talkers
    finally:
        ended.set()
        for talker in talkers:
            talker.thread.join(20)


@pytest.mark.parametrize("durability", ["commit", "fsync"])
def test_no_request_is_lost_reset_or_answered_wrongly(durability, data_dir, file, tmp_path):
    path = str(tmp_path / "s")
    flags = ["--durability", durability, "--bind", f"unix:{path}"]
    with Service(data_dir, *flags, workers=2, config=file) as service:
        with talking(("127.0.0.1", service.port), path) as talkers:
            for number in range(5):
                write(file, "k", f"other{number}")
                hang_up(service, ENDED)
                before = sum(len(talker.stored) for talker in talkers)
                await_true(lambda before=before: sum(len(t.stored) for t in talkers) > before + 500, "they talk on")
        assert [trouble for talker in talkers for trouble in talker.trouble] == []
        lasting = [talker for talker in talkers if talker.per_connection == 10**9]
        assert all(talker.told_to_close >= 5 for talker in lasting), "each reload ended every connection"
        stored = sorted(event for talker in talkers for event in talker.stored)
        assert len(stored) > 3000
        service.await_metric("fastpixel_connections", 0)
        assert service.metrics()['fastpixel_events_stored_total{protocol="kissmetrics"}'] == len(stored)
    assert sorted(record["event"] for record in export(data_dir)) == stored
    assert command("check", "--data-dir", data_dir)[0] == 0


def test_hang_ups_in_a_row_are_not_forgotten(data_dir, file):
    with Service(data_dir, config=file) as service:
        with talking(("127.0.0.1", service.port)) as talkers:
            for number in range(20):
                write(file, "k", f"other{number}")
                service.send_signal(signal.SIGHUP)
            await_true(lambda: service.get("/e?_k=other19&_p=p&_n=n").is_stored, "the last one counts")
            await_true(lambda: len(service.log.find("reloaded")) == len(service.log.find(ENDED)), "it is over")
        assert [trouble for talker in talkers for trouble in talker.trouble] == []
        assert len(service.log.find("reloaded")) < 20, "those that came during one were one more"


def test_a_source_that_is_added(data_dir, file):
    with Service(data_dir, config=file) as service:
        assert service.get("/e?_k=new&_p=p&_n=early").reason == "unknown_key"
        write(file, "k", "new")
        hang_up(service, ENDED)
        assert service.get("/e?_k=new&_p=p&_n=late").is_stored
        write(file, "new")
        hang_up(service, ENDED)
        assert service.get(EVENT % "gone").reason == "unknown_key"
        found = service.metrics()
        assert found['fastpixel_dropped_total{reason="unknown_key"}'] == 2, "they count on over generations"
        assert found['fastpixel_events_stored_total{protocol="kissmetrics"}'] == 1


def test_protocols_that_change_keep_their_counts(data_dir, file):
    """Each generation numbers them anew."""
    acme = """
[[dialects]]
name = "acme"
[[dialects.routes]]
path = "/px/{key}/hit.gif"
fields = [{from = "path.key", to = "writeKey", required = "missing_key"}]
"""
    with Service(data_dir, config=file) as service:
        assert service.get(EVENT % "1").is_stored
        write(file, "k", more='protocols = ["kissmetrics", "acme"]\n')
        file.write_text(file.read_text() + acme)
        hang_up(service, ENDED)
        assert service.get(EVENT % "2").is_stored and service.get("/px/k/hit.gif").is_stored
        assert service.get("/pixel/v1/track?writeKey=k&anonymousId=a&event=e").status == 404
        write(file, "k", more='protocols = ["rudderstack"]\n')
        hang_up(service, ENDED)
        assert service.get("/pixel/v1/track?writeKey=k&anonymousId=a&event=e", "Accept: image/*").is_stored
        assert service.get(EVENT % "3").status == 404
        stored = {name: count for name, count in service.metrics().items() if "events_stored" in name and count}
    assert {name.partition('"')[2].rstrip('"}'): count for name, count in stored.items()} == {
        "kissmetrics": 2,
        "acme": 1,
        "rudderstack": 1,
    }


def test_a_file_that_cannot_be_used_changes_nothing(data_dir, file):
    with Service(data_dir, config=file, errors=[UNCHANGED]) as service, service.connect() as client:
        pids = service.pids()
        for text, said in [
            ("sources = [", "is not valid TOML"),
            ('[[sources]]\nkye = "k"\n', 'sources[0]: unknown name "kye"'),
            ('tls_cert = "none.pem"\ntls_key = "none.pem"\n', "tls_cert none.pem"),
        ]:  # fmt: skip
            file.write_text(text)
            assert said in hang_up(service, UNCHANGED)
            assert client.ask(EVENT % "n").is_stored
        file.unlink()
        assert f"{file}: cannot be read" in hang_up(service, UNCHANGED)
        assert client.ask(EVENT % "n").is_stored
        assert service.pids() == pids
        assert service.ask_admin("/ready")[0] == 200
        client.close()
        write(file, "mended")
        hang_up(service, ENDED)
        assert service.get("/e?_k=mended&_p=p&_n=n").is_stored


def test_what_a_reload_says(data_dir, file):
    with Service(data_dir, config=file) as service:
        said = hang_up(service, ENDED)
        assert "reloaded: 1 worker with the new configuration" in said and "WARNING" not in said
        file.write_text("")
        said = hang_up(service, ENDED)
        assert "WARNING fastpixel: open mode: no [[sources]] are configured" in said
        assert service.get("/e?_k=whatever&_p=p&_n=n").is_stored
        file.write_text('log_format = "json"\n')
        assert '"message":"reloaded: 1 worker' in hang_up(service, ENDED)


def test_a_connection_that_waits_is_answered_once_more(data_dir, file):
    with Service(data_dir, config=file) as service, service.connect() as idle, service.connect() as fresh:
        (old,) = service.pids()
        assert idle.ask(EVENT % "first").is_stored
        write(file, "new")
        hand_over(service)
        assert service.get("/e?_k=new&_p=p&_n=new").is_stored, "others are with the new worker already"
        for page in ("/ready", "/health"):
            status, said = service.ask_admin(page)
            assert status == 200 and said.count('"serving"') == 1 and "draining" not in said
        for client in (idle, fresh):
            answer = client.ask(EVENT % "last")
            assert answer.is_stored and answer.headers["connection"] == "close"
            assert client.is_closed()
        service.log.wait_for(ENDED)
        assert not is_alive(old)


def test_a_request_on_its_way_is_answered(data_dir, file):
    body = b"_k=k&_p=p&_n=slow"
    data = request("/e", method="POST", body=body)
    with Service(data_dir, config=file) as service, service.connect() as client:
        client.send(data[:-5])
        await_true(lambda: service.metrics()["fastpixel_received_bytes_total"] > 0, "half of it is there")
        hand_over(service)
        client.send(data[-5:])
        answer = client.answer()
        assert answer.is_stored and answer.headers["connection"] == "close"
        assert client.is_closed()
        service.log.wait_for(ENDED)


def test_an_old_worker_waits_no_longer_than_it_may(data_dir, file):
    flags = ["--shutdown-timeout", "500ms"]
    with Service(data_dir, *flags, config=file) as service, service.connect() as client:
        client.send(request(EVENT % "never")[:-1])
        await_true(lambda: service.metrics()["fastpixel_received_bytes_total"] > 0, "half of it is there")
        hang_up(service, ENDED)
        assert client.is_closed()
        service.await_metric("fastpixel_connections", 0)


def test_the_end_does_not_wait_for_idle_connections_of_old_workers(data_dir, file):
    with Service(data_dir, config=file) as service, service.connect() as idle:
        assert idle.ask(EVENT % "n").is_stored
        hand_over(service)
        assert service.stop() == 0
        assert idle.is_closed()
        assert not service.log.find(ENDED)


def test_a_worker_that_is_killed_after_a_reload_is_replaced(data_dir, file):
    with Service(data_dir, config=file, errors=["ended with signal SIGKILL"]) as service:
        write(file, "new")
        hang_up(service, ENDED)
        os.kill(service.pids()[0], signal.SIGKILL)
        service.log.wait_for("starts again")
        assert service.get("/e?_k=new&_p=p&_n=n").is_stored, "with the configuration of the one it replaces"


def test_an_old_worker_that_is_killed_is_not_replaced(data_dir, file):
    with Service(data_dir, config=file) as service, service.connect() as idle:
        (old,) = service.pids()
        assert idle.ask(EVENT % "n").is_stored
        hand_over(service)
        os.kill(old, signal.SIGKILL)
        service.log.wait_for(ENDED)
        service.await_metric("fastpixel_connections", 0)
        assert service.pids() != [old]
        assert service.get(EVENT % "n").is_stored


def test_a_hang_up_of_the_whole_group_ends_no_worker(data_dir, file):
    """As when a terminal is closed."""
    with Service(data_dir, config=file) as service:
        for pid in service.pids():
            os.kill(pid, signal.SIGHUP)
        hang_up(service, ENDED)
        assert service.get(EVENT % "n").is_stored


def test_nothing_is_left_of_a_reload(data_dir, file):
    write(file, "k", more='[[sources]]\nkey = "limited"\nrate_limit = "1000/s"\n')
    with Service(data_dir, config=file, workers=2) as service:
        service.get(EVENT % "n")
        open_files = descriptors(service.process.pid)
        for _ in range(3):
            hang_up(service, ENDED)
            assert len(service.pids()) == 2
        assert descriptors(service.process.pid) <= open_files + 1
        health = service.ask_admin("/health")
        assert health[0] == 200 and health[1].count('"serving"') == 2
    slots = [entry.name for entry in Path(data_dir).iterdir() if entry.is_dir()]
    assert len(slots) <= 4, "generations take turns in them"


def descriptors(pid):
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def make_certificate(directory, name):
    cert, key = directory / "cert.pem", directory / "key.pem"
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*made, "-keyout", key, "-out", cert, "-days", "2", *names], check=True, capture_output=True)
    return cert, key


def test_a_renewed_certificate_is_taken_up(data_dir, file, tmp_path):
    cert, key = make_certificate(tmp_path, "first")
    with Service(data_dir, "--tls-cert", cert, "--tls-key", key, config=file) as service:
        first = ssl.create_default_context(cafile=cert)
        with Client(("127.0.0.1", service.port), tls=first) as lasting:
            assert lasting.ask(EVENT % "1").is_stored
            make_certificate(tmp_path, "second")
            second = ssl.create_default_context(cafile=cert)
            hand_over(service)
            with Client(("127.0.0.1", service.port), tls=second) as client:
                assert client.ask(EVENT % "2").is_stored
            answer = lasting.ask(EVENT % "3")
            assert answer.is_stored and answer.headers["connection"] == "close"
        service.log.wait_for(ENDED)
    assert [record["event"] for record in export(data_dir)] == ["1", "2", "3"]
