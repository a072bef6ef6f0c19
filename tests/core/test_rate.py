"""Rate limits: a second's events at once, then as many as the rate gives; one count for all who share the cells."""

from __future__ import annotations

import time

import pytest
from test_call import NAMES, OK, Door, adding, config, packed

from fastpixel import dialects
from fastpixel._core import Intake
from vectors import PEER, unpacked

SOURCES = [{"key": "free"}, {"key": "k", "rate_limit": "5/s"}, {"key": "rare", "rate_limit": "1/m"}]


def intake(**more) -> Intake:
    return Intake(dialects.plan(config(sources=SOURCES)), rejects_per_second=0, **more)


def send(door: Intake, key: str, times: int) -> int:
    """How many of so many events were stored."""
    door.connection(PEER).feed(f"GET /e?_k={key}&_p=p&_n=n HTTP/1.1\r\nHost: h\r\n\r\n".encode() * times)
    batch = door.take()
    stored = batch.event_count if batch else 0
    if batch:
        door.done(batch, True)
    return stored


def test_a_second_of_events_at_once():
    door = intake()
    began = time.monotonic()
    stored = send(door, "k", 1000)
    assert 5 <= stored <= 5 + 5 * (time.monotonic() - began) + 1
    assert send(door, "free", 1000) == 1000


def test_the_rate_comes_back():
    door = intake()
    assert send(door, "k", 10) >= 5
    time.sleep(0.25)  # what is tested is time
    assert send(door, "k", 1) == 1


def test_a_rate_below_one_a_second():
    door = intake()
    assert [send(door, "rare", 1), send(door, "rare", 3)] == [1, 0]


def test_workers_share_the_cells():
    cells = bytearray(8 * 2)
    one, two = intake(cells=cells), intake(cells=cells)
    assert (send(one, "rare", 1), send(two, "rare", 1)) == (1, 0)
    assert any(cells)


def test_cells_that_are_too_few():
    with pytest.raises(ValueError, match="16 bytes are needed"):
        intake(cells=bytearray(8))


def test_a_replay_is_not_limited():
    assert send(intake(replaying=True), "rare", 10) == 10


def test_every_refusal_is_kept_for_a_retry():
    door = intake()
    connection = door.connection(PEER)
    connection.feed(b"GET /e?_k=rare&_p=p&_n=n HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
    batch = door.take()
    assert [reject["reason"] for reject in unpacked(batch.rejects)] == ["rate_limited"] * 2
    door.done(batch, True)


def test_a_request_is_let_in_whole():
    """However many events it has; they count for what comes after."""
    settings = config(sources=[{"key": "k", "rate_limit": "2/s", "protocols": ["one"]}], dialects=NAMES)
    door = Door(adding(*[packed(userId="u")] * 10), settings)
    assert len(door.send().records) == 10
    found = door.send()
    assert (found.answers[0].status, found.records) == (429, [])
    assert found.answers[0].headers["retry-after"] == "1"
    assert [reject["reason"] for reject in found.rejects] == ["rate_limited"]


def test_a_payload_of_several_sources_asks_each_once():
    def handler(call):
        for key in ("k", "l", "k", "l"):
            assert call.source(key) is None
            call.add({"event": "x"})
        return OK

    limited = [{"key": key, "rate_limit": "1/s", "protocols": ["one"]} for key in ("k", "l")]
    found = Door(handler, config(sources=limited, dialects=NAMES)).send()
    assert (found.answers[0].status, len(found.records)) == (200, 4)
