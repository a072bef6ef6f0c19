"""What the admin listener answers, and whom."""

import asyncio
import json
import socket
import time

import pytest

from fastpixel.admin.app import KnownHosts, application
from fastpixel.metrics import STATES, Counts, Page


async def ask(app, path, host):
    """Status and body of a GET, without a socket."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [] if host is None else [(b"host", host.encode("latin-1"))]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.fixture
def page():
    page = Page.create(2)
    for worker in range(2):
        page.set(worker, "state", STATES.index("serving"))
        page.set(worker, "storable", 1)
        page.set(worker, "heartbeat_ms", time.time_ns() // 1_000_000)
    return page


@pytest.fixture
def get(page):
    def get(path, host="127.0.0.1:8081", ready=True):
        counts = Counts(page)
        counts.begin(range(2), ["kissmetrics"])
        counts.serve(range(2))
        app = application(counts, lambda: ready, "admin.internal")
        return asyncio.run(ask(app, path, host))

    return get


def test_health_while_every_loop_turns(get, page):
    status, body = get("/health")
    assert status == 200
    assert json.loads(body) == {"workers": [{"state": "serving", "alive": True}] * 2}
    page.set(1, "heartbeat_ms", 0)
    status, body = get("/health")
    assert status == 503
    assert [worker["alive"] for worker in json.loads(body)["workers"]] == [True, False]


def test_ready_is_what_the_supervisor_says(get, page):
    status, body = get("/ready")
    assert (status, json.loads(body)["ready"]) == (200, True)
    page.set(0, "storable", 0)
    status, body = get("/ready", ready=False)
    assert status == 503
    assert json.loads(body) == {
        "ready": False,
        "workers": [{"state": "serving", "storable": False}, {"state": "serving", "storable": True}],
    }


def test_metrics(get, page):
    page.set(0, "requests", 4)
    status, body = get("/metrics")
    assert status == 200
    assert b"\nfastpixel_requests_total 4.0\n" in body
    assert b'fastpixel_events_stored_total{protocol="kissmetrics"} 0.0' in body


def test_nothing_else(get):
    assert get("/")[0] == 404
    assert get("/e")[0] == 404


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_a_foreign_host_is_misdirected(get, path):
    status, body = get(path, "rebound.example.com")
    assert status == 421
    assert b"fastpixel_" not in body


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8081", "10.1.2.3:8081", "[::1]", "[::1]:8081", "localhost", "LocalHost:8081",
     "admin.internal:8081", socket.gethostname()],
)  # fmt: skip
def test_hosts_that_may_ask(get, host):
    assert get("/health", host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [None, "", ":8081", "example.com", "127.0.0.1.example.com", "localhost.example.com", "[::1", "[example.com]:80",
     "127.0.0.1@example.com", "\xff"],
)  # fmt: skip
def test_hosts_that_may_not(get, host):
    assert get("/health", host)[0] == 421


def test_only_http_is_looked_at():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(KnownHosts(app, "localhost")({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
