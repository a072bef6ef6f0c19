"""Supervisor, workers, listeners and limits as an operator meets them: started, killed, stopped, overloaded."""

import contextlib
import os
import resource
import select
import signal
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from load import Load
from service import Service, await_true, command, export, is_alive
from wire import Client, request

EVENT = "/e?_k=k&_p=p&_n=%s"
KILLED = r"worker \d ended with signal SIGKILL"
# The sweep that looks for what lasts too long comes every half second.
SHORT = ["--header-timeout", "300ms", "--body-timeout", "300ms", "--idle-timeout", "300ms"]


def events(data_dir, *flags):
    return [record["event"] for record in export(data_dir, *flags)]


def _descriptors(pid):
    return [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]


# -- workers


def test_workers_share_the_port(data_dir):
    with Service(data_dir, workers=3) as service:
        for number in range(60):
            assert service.get(EVENT % number).is_stored
        health = service.ask_admin("/health")
        assert health[0] == 200 and health[1].count('"serving"') == 3
    slots = {record["seq"].split("-")[1] for record in export(data_dir)}
    assert slots == {"0", "1", "2"}, "60 connections from as many ports reach every worker"


def test_a_killed_worker_is_replaced_and_its_socket_waits(data_dir):
    with Service(data_dir, "--durability", "commit", errors=[KILLED]) as service:
        (victim,) = service.pids()
        assert service.get(EVENT % "before").is_stored
        for _ in range(2):
            os.kill(victim, signal.SIGKILL)
            await_true(lambda pid=victim: not is_alive(pid), "it is gone")
            await_true(lambda: service.ask_admin("/ready")[0] == 503, "/ready knows")
            # Nobody accepts now; the kernel does, and the next worker answers.
            assert service.get(EVENT % "between").is_stored
            (victim,) = service.pids()
        assert service.metrics()["fastpixel_connections"] == 0
        assert service.metrics()['fastpixel_events_stored_total{protocol="kissmetrics"}'] == 3, "it counts on"
    assert events(data_dir) == ["before", "between", "between"]
    assert {record["seq"].split("-")[1] for record in export(data_dir)} == {"0"}, "the slot was taken up again"
    assert command("check", "--data-dir", data_dir)[0] == 0


def test_a_worker_holds_only_what_is_its_own(service):
    loaded = await_true(lambda: _modules_of(service.pids()[0]), "its libraries are mapped")
    assert "uvloop" in loaded
    assert not {"click", "rich", "starlette", "uvicorn", "prometheus_client"} & loaded
    assert len(_descriptors(service.pids()[0])) < 25


def _modules_of(pid):
    """Top-level packages with a compiled part that the process has mapped."""
    with Path(f"/proc/{pid}/maps").open() as maps:
        paths = [line.split(None, 5)[5].strip() for line in maps if ".so" in line and "site-packages/" in line]
    return {path.partition("site-packages/")[2].split("/")[0] for path in paths}


def test_a_supervisor_that_is_killed_leaves_no_worker(data_dir):
    with Service(data_dir, workers=2) as service:
        workers = service.pids()
        assert service.get(EVENT % "before").is_stored
        service.send_signal(signal.SIGKILL)
        for pid in workers:
            await_true(lambda pid=pid: not is_alive(pid), "the worker ends by itself")
        port = service.port
    with Service(data_dir, workers=2, bind=f"127.0.0.1:{port}") as again:
        assert again.get(EVENT % "after").is_stored
    assert events(data_dir) == ["before", "after"]
    assert command("check", "--data-dir", data_dir)[0] == 0, "the workers sealed what they had"


def test_a_worker_that_cannot_be_started_is_tried_again(data_dir):
    """For want of file descriptors here; of memory or processes it is the same."""
    failed = "worker 0 cannot be started .* tried again in"
    with Service(data_dir, errors=[KILLED, failed]) as service:
        supervisor = service.process.pid
        before = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(service.pids()[0], signal.SIGKILL)
        service.log.wait_for(failed)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, before)
        assert service.get(EVENT % "again").is_stored


# -- a second service


def failed_start(*flags, **options):
    code, out, err = command("serve", "--admin-bind", "off", "--workers", 1, *flags, **options)
    assert code == 1 and out == "" and len(err.splitlines()) == 1, err
    return err


def test_a_second_service_of_the_same_data_fails_clearly(service):
    said = failed_start("--data-dir", service.data_dir, "--bind", "127.0.0.1:0")
    assert str(service.data_dir) in said and "another fastpixel serve" in said
    assert service.get(EVENT % "still").is_stored


def test_a_second_service_of_the_same_port_fails_clearly(service, tmp_path):
    said = failed_start("--data-dir", tmp_path / "other", "--bind", f"127.0.0.1:{service.port}")
    assert f"127.0.0.1:{service.port}" in said and "--bind" in said
    said = failed_start("--data-dir", tmp_path / "other", "--bind", f"0.0.0.0:{service.port}")
    assert f"0.0.0.0:{service.port}" in said
    assert service.get(EVENT % "still").is_stored


def test_an_admin_port_in_use_fails_clearly(service, tmp_path):
    admin = service.admin.rpartition("/")[2]
    code, _, err = command("serve", "--admin-bind", admin, "--bind", "127.0.0.1:0", "--data-dir", tmp_path / "other")
    assert code == 1 and len(err.splitlines()) == 1
    assert admin in err and "--admin-bind" in err, "it names the flag that changes it"


def test_a_certificate_that_cannot_be_read_is_said_once_at_start(tmp_path):
    pem = tmp_path / "none.pem"
    pem.write_text("no certificate")
    said = failed_start("--data-dir", tmp_path / "d", "--bind", "127.0.0.1:0", "--tls-cert", pem, "--tls-key", pem)
    assert "tls_cert" in said


# -- the end


@pytest.mark.parametrize("durability", ["commit", "fsync"])
def test_stopping_under_load_keeps_what_was_answered(durability, data_dir):
    with Service(data_dir, "--durability", durability, "--shutdown-timeout", "5s", workers=2) as service:
        with Load(7, ("127.0.0.1", service.port)) as load:
            await_true(lambda: len(load.stored) > 300, "there is load")
            started = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - started < 5
    load.assert_conserved(export(data_dir))
    assert command("check", "--data-dir", data_dir)[0] == 0


def test_every_connection_made_before_the_end_is_answered_or_closed(data_dir):
    """New connections in a flood while it stops: none is reset by the kernel because nobody accepted it."""
    with Service(data_dir, "--durability", "commit") as service:
        results, ended = [], threading.Event()
        threads = [threading.Thread(target=flood, args=(service.port, results, ended)) for _ in range(4)]
        for thread in threads:
            thread.start()
        await_true(lambda: len(results) > 200, "there is load")
        assert service.stop() == 0
        ended.set()
        for thread in threads:
            thread.join()
    assert set(results) <= {"stored", "refused"}, {kind: results.count(kind) for kind in set(results)}
    assert len(export(data_dir)) == results.count("stored")


def flood(port, results, ended):
    while not ended.is_set():
        try:
            client = Client(("127.0.0.1", port))
        except ConnectionRefusedError:
            results.append("refused")
            return
        with client:
            try:
                answer = client.ask(EVENT % "n")
                results.append("stored" if answer.is_stored else f"answered {answer.status} {answer.reason}")
            except OSError as error:
                results.append(f"broken: {error!r}")


def test_a_request_on_its_way_is_answered_before_the_end(data_dir):
    with Service(data_dir) as service, service.connect() as slow, service.connect() as fresh:
        assert service.connect().ask(EVENT % "idle").is_stored
        data = request(EVENT % "slow")
        slow.send(data[:30])
        await_true(lambda: service.metrics()["fastpixel_received_bytes_total"] >= 30, "half a request is there")
        service.send_signal(signal.SIGTERM)
        service.log.wait_for("stopping: SIGTERM")
        await_true(lambda: '"draining"' in service.ask_admin("/health")[1], "it drains")
        fresh.send(request(EVENT % "fresh"))
        slow.send(data[30:])
        for client in (slow, fresh):
            answer = client.answer()
            assert answer.is_stored and answer.headers["connection"] == "close"
            assert client.is_closed()
        assert service.wait() == 0
    assert sorted(events(data_dir)) == ["fresh", "idle", "slow"]


def test_the_end_waits_no_longer_than_it_may(data_dir):
    with Service(data_dir, "--shutdown-timeout", "500ms") as service, service.connect() as client:
        client.send(request(EVENT % "never")[:-1])
        await_true(lambda: service.metrics()["fastpixel_received_bytes_total"] > 0, "half a request is there")
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 3
        assert client.is_closed()


def test_ctrl_c_ends_with_130(data_dir):
    with Service(data_dir) as service:
        assert service.get(EVENT % "n").is_stored
        assert service.stop(signal.SIGINT) == 130
    assert events(data_dir) == ["n"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_to_the_whole_group_ends_it_like_one_to_the_supervisor(number, code, data_dir):
    """Ctrl-C on a terminal, and systemd's KillMode=control-group, reach the workers too."""
    with Service(data_dir, "--pre-stop-delay", "300ms") as service, service.connect() as client:
        client.ask(EVENT % "first")
        for pid in service.pids():
            os.kill(pid, number)
        service.send_signal(number)
        service.log.wait_for("stopping")
        assert client.ask(EVENT % "second").is_stored
        assert service.wait() == code
    assert events(data_dir) == ["first", "second"]
    assert command("check", "--data-dir", data_dir)[0] == 0


def test_pre_stop_delay_says_not_ready_and_answers_on(data_dir):
    with Service(data_dir, "--pre-stop-delay", "800ms", workers=2) as service:
        assert service.ask_admin("/ready")[0] == 200
        service.send_signal(signal.SIGTERM)
        service.log.wait_for("stopping")
        assert service.ask_admin("/ready")[0] == 503
        assert service.ask_admin("/health")[0] == 200
        assert service.get(EVENT % "late").is_stored
        assert service.wait() == 0
    assert events(data_dir) == ["late"]


# -- listeners


def test_a_unix_socket(data_dir, tmp_path):
    path = tmp_path / "s"
    with Service(data_dir, "--bind", f"unix:{path}", workers=2) as service:
        service.log.wait_for(f"listening on unix:{path}")
        with Client(str(path)) as client:
            assert client.ask(EVENT % "unix").is_stored
        said = failed_start("--data-dir", tmp_path / "other", "--bind", f"unix:{path}")
        assert str(path) in said
        assert service.get(EVENT % "tcp").is_stored
    assert not path.exists(), "what it made it removes"
    assert [record.get("context", {}).get("ip") for record in export(data_dir)] == [None, "127.0.0.1"]


def test_a_unix_socket_that_a_killed_service_left_is_no_obstacle(data_dir, tmp_path):
    path = tmp_path / "s"
    with Service(data_dir, "--bind", f"unix:{path}") as service:
        service.kill()
    assert path.is_socket()
    with Service(data_dir, "--bind", f"unix:{path}"), Client(str(path)) as client:
        assert client.ask(EVENT % "unix").is_stored


def test_ipv6(data_dir):
    with Service(data_dir, bind="[::1]:0") as service:
        assert service.url.startswith("http://[::1]:")
        with Client(("::1", service.port)) as client:
            assert client.ask(EVENT % "six").is_stored
    assert [record["context"]["ip"] for record in export(data_dir)] == ["::1"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*made, "-keyout", key, "-out", cert, "-days", "2", *names], check=True, capture_output=True)
    return cert, key


def test_tls(data_dir, certificate):
    cert, key = certificate
    tls = ssl.create_default_context(cafile=cert)
    with Service(data_dir, "--tls-cert", cert, "--tls-key", key) as service:
        assert service.url.startswith("https://")
        with Client(("127.0.0.1", service.port), tls=tls) as client:
            for number in range(3):
                assert client.ask(EVENT % f"tls{number}").is_stored
            client.send(b"nonsense\r\n\r\n")
            assert client.answer().status == 400
            assert client.is_closed()
        with service.connect() as plain:
            plain.send(request(EVENT % "plain"))
            assert plain.is_closed()
        assert service.stop() == 0
    assert events(data_dir) == ["tls0", "tls1", "tls2"]


def test_a_tls_connection_that_is_kept_for_later_does_not_hold_up_the_end(data_dir, certificate):
    """Browsers have many, and answer no goodbye on them."""
    cert, key = certificate
    with Service(data_dir, "--tls-cert", cert, "--tls-key", key) as service:
        with Client(("127.0.0.1", service.port), tls=ssl.create_default_context(cafile=cert)) as client:
            assert client.ask(EVENT % "kept").is_stored
            started = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - started < 10


# -- admin


def test_the_metrics_say_what_happened(data_dir):
    with Service(data_dir) as service:
        with service.connect() as client:
            for number in range(5):
                client.ask(EVENT % number)
            client.ask("/pixel/v1/track?writeKey=k&anonymousId=a&event=e", "Accept: image/gif")
            client.ask("/e?_k=k&_n=n")
            client.ask("/nowhere")
            client.ask("/pixel/v1/track", method="POST", body=b"x=1")
            client.ask(EVENT % "head", method="HEAD")
            service.await_metric("fastpixel_rejects_kept_total", 1)  # a refusal is answered before it is stored
            found = service.metrics()
            assert found["fastpixel_connections"] == 1
        assert found["fastpixel_requests_total"] == 10
        assert found['fastpixel_events_stored_total{protocol="kissmetrics"}'] == 5
        assert found['fastpixel_events_stored_total{protocol="rudderstack"}'] == 1
        assert found['fastpixel_dropped_total{reason="missing_person"}'] == 1
        assert found['fastpixel_dropped_total{reason="head"}'] == 1
        assert found["fastpixel_not_found_total"] == 1
        assert found["fastpixel_method_not_allowed_total"] == 1
        assert found["fastpixel_connections_accepted_total"] == 1
        assert found['fastpixel_worker_up{worker="0"}'] == 1
        assert found["fastpixel_batch_events_sum"] == 6
        assert found["fastpixel_commits_total"] == found["fastpixel_commit_seconds_count"]
        assert found["fastpixel_event_bytes_total"] > 6 * 50
        service.await_metric("fastpixel_connections", 0)


def test_the_admin_pages_are_only_where_they_belong(service):
    for path in ("/health", "/ready", "/metrics"):
        assert service.ask_admin(path)[0] == 200
        assert service.ask_admin(path, host="evil.example")[0] == 421
        assert service.ask_admin(path, host="localhost:1")[0] == 200
        assert service.get(path).status == 404
    assert service.get("/robots.txt").body == b"User-agent: *\nDisallow: /\n"
    assert Client(("127.0.0.1", int(service.admin.rpartition(":")[2]))).ask("/e?_k=k&_p=p&_n=n").status == 404


# -- limits


def test_max_connections(data_dir):
    with Service(data_dir, "--max-connections", "3") as service, contextlib.ExitStack() as stack:
        first = [stack.enter_context(service.connect()) for _ in range(3)]
        assert all(client.ask(EVENT % "in").is_stored for client in first)
        assert stack.enter_context(service.connect()).is_closed()
        assert service.metrics()["fastpixel_connections_refused_total"] == 1
        first.pop().close()
        service.await_metric("fastpixel_connections", 2)
        assert service.get(EVENT % "room").is_stored


def test_max_connections_per_ip(data_dir, tmp_path):
    path = tmp_path / "s"
    flags = ["--max-connections-per-ip", "2", "--bind", f"unix:{path}"]
    with Service(data_dir, *flags) as service, contextlib.ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(service.connect()).ask(EVENT % "in").is_stored
        assert stack.enter_context(service.connect()).is_closed()
        for _ in range(4):  # peers of a unix socket have no address: they are a proxy, and not limited
            assert stack.enter_context(Client(str(path))).ask(EVENT % "unix").is_stored


def test_a_connection_without_a_request_is_closed(data_dir):
    with Service(data_dir, *SHORT) as service, service.connect() as silent, service.connect() as idle:
        assert idle.ask(EVENT % "n").is_stored
        assert idle.is_closed()
        assert silent.is_closed()
        assert service.metrics()["fastpixel_timeouts_total"] == 1, "being idle is no timeout"


def test_half_a_request_is_answered_408_and_closed(data_dir):
    halves = [b"GET /e?_k=k", b"POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n_k=k"]
    with Service(data_dir, *SHORT) as service, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(service.connect()) for _ in halves]
        for client, half in zip(clients, halves, strict=True):
            client.send(half)
        for client in clients:
            answer = client.answer()
            assert answer.status == 408 and answer.headers["connection"] == "close"
            assert client.is_closed()
        assert service.metrics()["fastpixel_timeouts_total"] == 2
    assert export(data_dir) == []


def test_a_trickle_does_not_prolong_a_timeout(data_dir):
    with Service(data_dir, *SHORT) as service, service.connect() as client:
        started = time.monotonic()
        head = request(EVENT % "slow", "X-Long: " + "x" * 4000)
        for byte in head:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(bytes([byte]))
            if select.select([client.sock], [], [], 0.01)[0]:
                break
        assert client.answer().status == 408
        assert time.monotonic() - started < 5


def test_a_slow_reader_gets_every_answer(data_dir):
    count = 3000
    with Service(data_dir, "--durability", "commit") as service, service.connect() as client:
        writer = threading.Thread(target=client.send, args=(b"".join(request(EVENT % n) for n in range(count)),))
        writer.start()
        await_true(lambda: service.metrics()["fastpixel_sent_bytes_total"] > 1 << 17, "answers wait for the client")
        assert service.get(EVENT % "other").is_stored, "nobody else waits"
        assert sum(client.answer().is_stored for _ in range(count)) == count
        writer.join()
    assert [event for event in events(data_dir) if event != "other"] == [str(n) for n in range(count)]


def test_trusted_proxies(data_dir):
    forwarded = "X-Forwarded-For: 203.0.113.7, 198.51.100.9, 10.1.2.3"
    with Service(data_dir, "--trusted-proxies", "127.0.0.0/8", "--trusted-proxies", "10.0.0.0/8") as service:
        assert service.get(EVENT % "n", forwarded).is_stored
    with Service(data_dir) as service:
        assert service.get(EVENT % "n", forwarded).is_stored
    assert [record["context"]["ip"] for record in export(data_dir)] == ["198.51.100.9", "127.0.0.1"]


# -- sources and dialects of a file

CONFIG = """
[[sources]]
key = "open"
name = "shop"
protocols = ["kissmetrics", "acme"]
trust_client_ip = true

[[sources]]
key = "shut"
enabled = false

[[sources]]
key = "pixel"
name = "pixel"

[[dialects]]
name = "acme"
[[dialects.routes]]
method = ["GET", "POST"]
path = "/px/{key}/hit.gif"
fields = [
  {from = "path.key", to = "writeKey", required = "missing_key"},
  {from = "n", to = "event", required = "missing_event"},
  {from = "ts", to = "timestamp", kind = "unix_ms"},
  {from = "s", to = "properties.seconds", kind = "unix"},
  {from = "iso", to = "properties.iso", kind = "iso8601"},
  {from = "i", to = "properties.int", kind = "int"},
  {from = "f", to = "properties.number", kind = "number"},
  {from = "b", to = "properties.bool", kind = "bool"},
  {from = "j", to = "properties.json", kind = "json"},
  {from = "e", to = "properties.packed", kind = "base64_json"},
  {from = "t", to = "properties.text"},
  {from = "*", to = "properties", kind = "dotpath"},
]
[[dialects.routes]]
path = "/px/{key}/hit.txt"
type = "page"
answer = "text"
fields = [{from = "path.key", to = "writeKey", required = "missing_key"}]
"""
EVERY_KIND = (
    "/px/open/hit.gif?n=hit&ts=1700000000123&s=1700000000&iso=2024-02-29T12:00:00.5%2B01:00&i=-42&f=1.5&b=true"
    "&j=%7B%22a%22%3A%5B1%2Ctrue%2Cnull%5D%7D&e=eyJiIjoiw6kifQ&t=%C3%A9+%26&deep.a.0.x=1"
)


@pytest.fixture
def configured(data_dir, tmp_path):
    file = tmp_path / "fastpixel.toml"
    file.write_text(CONFIG)
    with Service(data_dir, config=file) as service:
        yield service


def test_sources(configured):
    assert configured.get("/e?_k=none&_p=p&_n=n").reason == "unknown_key"
    assert configured.get("/e?_k=shut&_p=p&_n=n").reason == "source_disabled"
    assert configured.get("/e?_k=open&_p=p&_n=named&_ip=192.0.2.1&_ua=UA").is_stored
    assert configured.get("/e?_k=pixel&_p=p&_n=n&_ip=192.0.2.1", "User-Agent: theirs").is_stored
    refused = configured.get("/pixel/v1/track?writeKey=open&anonymousId=a&event=e")
    assert (refused.status, refused.body) == (400, b"invalid write key\n")
    assert refused.reason == "unknown_key", "its source does not list the protocol"
    configured.stop()
    first, second = export(configured.data_dir)
    assert (first["source"], first["context"]) == ("shop", {"ip": "192.0.2.1", "userAgent": "UA"})
    assert (second["source"], second["context"]) == ("pixel", {"ip": "127.0.0.1", "userAgent": "theirs"})
    kept = [(reject["reason"], reject["writeKey"]) for reject in export(configured.data_dir, "--rejects")]
    assert kept == [("unknown_key", "none"), ("source_disabled", "shut"), ("unknown_key", "open")]
    assert len(export(configured.data_dir, "--source", "shop")) == 1


def test_a_dialect_of_ones_own(configured):
    assert configured.get(EVERY_KIND).is_stored
    answer = configured.get("/px/open/hit.txt?x=1")
    assert (answer.status, answer.body) == (200, b"OK")
    assert configured.get("/px/open/hit.gif").reason == "missing_event"
    assert configured.get("/px//hit.gif?n=n").status == 404, "a variable of a path is not empty"
    assert configured.get("/px/none/hit.gif?n=n").reason == "unknown_key"
    with configured.connect() as client:
        assert client.ask("/px/open/hit.gif?i=7", method="POST", body=b"n=posted&i=8").is_stored
    configured.stop()
    hit, posted = export(configured.data_dir, "--protocol", "acme", "--type", "track")
    assert (hit["event"], hit["writeKey"], hit["source"]) == ("hit", "open", "shop")
    assert hit["timestamp"] == "2023-11-14T22:13:20.123Z"
    assert hit["properties"] == {
        "seconds": "2023-11-14T22:13:20.000Z",
        "iso": "2024-02-29T11:00:00.500Z",
        "int": -42,
        "number": 1.5,
        "bool": True,
        "json": {"a": [1, True, None]},
        "packed": {"b": "é"},
        "text": "é &",
        "deep": {"a": [{"x": "1"}]},
    }
    assert (posted["event"], posted["properties"]) == ("posted", {"int": 8}), "the form comes after the query"
    assert len(export(configured.data_dir, "--type", "page")) == 1
