"""Clients that mean harm, or are broken: whatever they send, the same workers serve everybody else afterwards."""

import os
import random
import ssl
import threading
import time

import pytest
from service import Service, await_true, command, export, rss_anon
from wire import request

EVENT = "/e?_k=k&_p=p&_n=%s"
FUZZ_SECONDS = 2.5
FIRST_LINES = [b"GET /e?_k=k&_p=p&_n=fuzz HTTP/1.1\r\nHost: h\r\n", b"POST /e HTTP/1.1\r\nHost: h\r\n", b"GET ", b""]
HEADERS = [
    b"Content-Length: 5\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"Host: again\r\n",
    b"X: \xff\x00\r\n",
    b": nameless\r\n",
    b" folded\r\n",
]
BODIES = [b"", b"_k=k&", b"5\r\n_k=k&\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"\r\n\r\n", b"\0" * 99]


@pytest.fixture
def unharmed(data_dir):
    """A service that must serve afterwards with the workers it had."""
    with Service(data_dir, "--durability", "commit", workers=2) as service:
        before = service.pids()
        yield service
        for _ in range(8):
            assert service.get(EVENT % "afterwards").is_stored
        assert service.pids() == before
        assert all(state in service.ask_admin("/health")[1] for state in ('"serving"', "true"))


def finish(client):
    """Reads whatever comes until the end, briefly."""
    client.sock.settimeout(0.02)
    try:
        while client.sock.recv(1 << 16):
            pass
    except OSError:
        return


def fuzz(chance):
    """Random bytes, or pieces of requests in an order that makes no sense."""
    if chance.random() < 0.3:
        return chance.randbytes(chance.randint(1, 3000))
    parts = [chance.choice(FIRST_LINES), *chance.sample(HEADERS, chance.randint(0, 4)), b"\r\n", chance.choice(BODIES)]
    if chance.random() < 0.3:
        chance.shuffle(parts)
    whole = bytearray(b"".join(parts) * chance.randint(1, 3))
    for _ in range(chance.randint(0, 3)):
        if whole:
            whole[chance.randrange(len(whole))] = chance.randrange(256)
    return bytes(whole)


def test_random_bytes(unharmed):
    seed = int(os.environ.get("E2E_SEED") or random.SystemRandom().getrandbits(32))
    print(f"seed {seed}")
    chance = random.Random(seed)
    ends = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < ends:
        with unharmed.connect() as client:
            data = fuzz(chance)
            cut = chance.randint(0, len(data))
            try:
                client.send(data[:cut])
                client.send(data[cut:])
            except (BrokenPipeError, ConnectionResetError):
                continue
            chance.choice([finish, type(client).reset, lambda _: None])(client)
    assert all(record["writeKey"] for record in export(unharmed.data_dir))
    assert command("check", "--data-dir", unharmed.data_dir)[0] == 0


def test_tls_on_a_plain_port(unharmed):
    for _ in range(20):
        context = ssl.create_default_context()
        with unharmed.connect() as client, pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(client.sock, server_hostname="localhost")


def test_halves_and_resets(unharmed):
    whole = request(EVENT % "half", method="POST", body=b"a=1")
    for cut in range(0, len(whole)):
        client = unharmed.connect()
        client.send(whole[:cut])
        client.reset()
    unharmed.await_metric("fastpixel_connections", 0)
    unharmed.await_metric("fastpixel_inflight_bytes", 0)
    assert export(unharmed.data_dir) == []


def test_answers_that_nobody_waits_for(unharmed):
    """The whole request came: it is stored or not, and its connection is gone before the commit."""
    for _ in range(200):
        client = unharmed.connect()
        client.send(request(EVENT % "gone") * 3)
        client.reset()
    unharmed.await_metric("fastpixel_connections", 0)
    assert all(record["event"] == "gone" for record in export(unharmed.data_dir))


ENDLESS = [
    (b"GET /e?_k=k&_p=p&_n=n HTTP/1.1\r\nHost: h\r\nX: ", 431),
    (b"GET /e?_k=", 414),
    (b"POST /e HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;", 413),
]


def test_requests_without_an_end(unharmed):
    for start, status in ENDLESS:
        with unharmed.connect() as client:
            client.send(start)
            sender = threading.Thread(target=pour, args=(client,))
            sender.start()
            answer = client.answer()
            assert answer.status == status and answer.headers["connection"] == "close"
            assert client.is_closed()
            client.reset()
            sender.join()
    assert export(unharmed.data_dir) == []


def pour(client):
    """Sends until the server ends it."""
    try:
        for _ in range(10_000):
            client.send(b"x" * 4096)
    except OSError:
        return
    raise AssertionError("40 MB were taken")


def test_a_client_that_sends_and_never_reads(unharmed):
    """Ten thousand pipelined requests whose answers nobody takes: memory stays, and others are served."""
    before = max(map(rss_anon, unharmed.pids()))
    greedy = [unharmed.connect() for _ in range(4)]
    threads = [threading.Thread(target=blurt, args=(client,)) for client in greedy]
    for thread in threads:
        thread.start()
    await_true(lambda: unharmed.metrics()["fastpixel_sent_bytes_total"] > 4 << 17, "answers wait for them")
    peak = before
    for number in range(300):
        assert unharmed.get(EVENT % f"other{number}").is_stored
        if number % 20 == 0:
            peak = max(peak, *map(rss_anon, unharmed.pids()))
    for client in greedy:
        client.reset()
    for thread in threads:
        thread.join()
    assert peak - before < 24 << 20, f"{(peak - before) >> 20} MiB more"
    unharmed.await_metric("fastpixel_connections", 0)


def blurt(client):
    try:
        client.send(request(EVENT % "greedy") * 10_000)
    except OSError:
        return


def test_many_idle_connections_cost_little(data_dir):
    count = 2000
    with Service(data_dir, "--durability", "commit") as service:
        (worker,) = service.pids()
        assert service.get(EVENT % "first").is_stored
        before = rss_anon(worker)
        clients = [service.connect() for _ in range(count)]
        for client in clients:
            assert client.ask(EVENT % "n").is_stored
        each = (rss_anon(worker) - before) / count
        for client in clients:
            client.close()
        service.await_metric("fastpixel_connections", 0)
    assert each < 2560, f"{each:.0f} bytes a connection"


def test_byte_by_byte_is_the_same_record(unharmed):
    target = "/e?_k=k&_p=p&_n=caf%C3%A9+1&a=%26&a=2&%2E=dot"
    requests = [
        request(target, "User-Agent: UA", "Referer: https://r.example/"),
        request("/e?_k=k", "User-Agent: UA", "Referer: https://r.example/", method="POST", body=target[8:].encode()),
    ]
    with unharmed.connect() as client:
        for whole in requests:
            client.send(whole)
            assert client.answer().is_stored
            for byte in whole:
                client.send(bytes([byte]))
            assert client.answer().is_stored
    records = export(unharmed.data_dir)
    changing = {"receivedAt", "timestamp", "messageId", "seq"}
    first, *others = [{k: v for k, v in record.items() if k not in changing} for record in records]
    assert len(others) == 3 and all(other == first for other in others)
    assert first["event"] == "café 1"
