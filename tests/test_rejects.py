"""Rejects: what a retry makes of them, and what it leaves alone. Refused and stored here without a service."""

from __future__ import annotations

import base64
import gzip
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

import vectors
from fastpixel import cli, config, dialects, rejects
from fastpixel._core import COUNTERS, PAGE_LAYOUT, Intake, split
from fastpixel.config import Config
from fastpixel.errors import FastpixelError, SpoolError, SpoolFull
from fastpixel.export import Query
from fastpixel.rejects import Listing, Outcome, Reject, Retry, request_of
from fastpixel.spool.check import check
from fastpixel.spool.reader import Spool
from fastpixel.spool.retried import FILE, Retried
from fastpixel.spool.writer import Writer
from vectors import Vector

T0 = 1_700_000_000_123_456_789
SECOND = 10**9
IP = "203.0.113.7"
HEADERS = (
    b"Host: px.example.com\r\nOrigin: https://shop.example.com\r\nReferer: https://shop.example.com/a?b=c\r\n"
    b"User-Agent: Theirs \xc3\xa9\r\nAccept: image/*\r\nCookie: _fp=secret\r\nX-Forwarded-For: 198.51.100.1\r\n"
)


def get(target: str, version: str = "1.1", headers: bytes = HEADERS) -> bytes:
    return f"GET {target} HTTP/{version}\r\n".encode() + headers + b"\r\n"


def post(target: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Length: {len(body)}", *headers))
    return f"POST {target} HTTP/1.1\r\n".encode() + HEADERS + lines.encode() + b"\r\n" + body


def settings(data_dir: Path, *sources: dict[str, Any], **flags: Any) -> Config:
    """Without sources one that nobody asks for, so that the mode is not open."""
    known = json.dumps(sources or [{"key": "nobody"}])
    return config.load(env={"FASTPIXEL_SOURCES": known}, flags={"data_dir": str(data_dir), **flags})


def receive(configured: Config, *requests: bytes, at: int = T0, **options: Any) -> list[str]:
    """As a worker does, a second after the other; the reasons in the answers."""
    times = iter(range(at, at + SECOND * len(requests), SECOND))
    now = [0]
    intake = Intake(dialects.plan(configured), now=lambda: now[0], **options)
    answers = []
    with Writer(configured.data_dir) as writer:
        for data in requests:
            now[0] = next(times)
            connection = intake.connection(IP)
            connection.feed(data)
            batch = intake.take()
            if batch is not None:
                counts = batch.event_count, batch.rejects, batch.reject_count
                writer.append(batch.events, *counts, batch.min_received_ns, batch.max_received_ns)
                intake.done(batch, True)
            answers.append(rejects._reason_of(connection.output()))
    return answers


def records(data_dir: Path, database: Any = "events") -> list[dict[str, Any]]:
    batches = Spool(data_dir).merged(database=database)
    return [msgpack.unpackb(record) for batch in batches for record in split(batch.value)]


def retry(configured: Config, **query: Any) -> Outcome:
    return Retry(configured, Query(database="rejects", **query)).run()


def picture(data_dir: Path) -> dict[str, bytes]:
    """Every file with its bytes; locks of readers come and go."""
    files = [path for path in data_dir.rglob("*") if path.is_file() and not path.name.endswith("-lock")]
    return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def event(key: str, name: str) -> bytes:
    return get(f"/e?_k={key}&_p=p&_n={name}")


# -- a retried event is the event that it would have been

REQUESTS = {
    "kissmetrics": get("/e?_k=k&_p=jane&_n=Signed+up&plan=pro&_t=1600000000&_d=1"),
    "rudderstack": get("/pixel/v1/track?writeKey=k&anonymousId=a&event=e&properties.a.0.b=1&x=%e2%82%ac"),
    "form": post("/e", b"_k=k&_p=p&_n=form&v=%C3%A9+1", "Content-Type: application/x-www-form-urlencoded"),
    "bytes": post("/e?_k=k", b"_p=p&_n=bytes&v=\xff\x00\xfe", "Content-Type: text/plain"),
    "chunked": get("/e").replace(b"GET", b"POST")[:-2]
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\n_k=k&\r\n9\r\n_p=p&_n=c\r\n0\r\n\r\n",
    "without a host": get("/e?_k=k&_p=p&_n=old", "1.0", b"User-Agent: old\r\n"),
    "a long body": post("/e", b"_k=k&_p=p&_n=long&v=" + b"x" * 100_000),
}


def comparable(record: dict[str, Any], request: str) -> dict[str, Any]:
    made_anew = record["messageId"] if request != "kissmetrics" else None  # with _d=1 it is a hash
    return {name: value for name, value in record.items() if value != made_anew or name != "messageId"}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_event_by_retry_is_the_one_it_would_have_been(name, tmp_path):
    known = settings(tmp_path / "direct", {"key": "k", "name": "shop"})
    assert receive(known, REQUESTS[name]) == ["answer 200"]
    (direct,) = records(known.data_dir)

    unknown = settings(tmp_path / "data")
    assert receive(unknown, REQUESTS[name]) == ["unknown_key"]
    mended = settings(tmp_path / "data", {"key": "k", "name": "shop"}, trusted_proxies=("0.0.0.0/0",))
    assert str(retry(mended)) == "retried 1: 1 stored, 0 refused again"
    (retried,) = records(mended.data_dir)
    assert retried["receivedAt"].to_unix_nano() == T0
    assert retried["context"]["ip"] == IP
    assert comparable(retried, name) == comparable(direct, name)


def vectors_that_store() -> list[Vector]:
    """Of every protocol, those of one request that a key admits (a redirect has none of the client's)."""
    found = [one for one in vectors.load() if len(one.expect) == 1 and "raw" not in one.request]
    return [one for one in found if one.expect[0]["records"] and "redirects" not in one.config]


# Vectors whose event is another one by retry, and why.
BY_RETRY = {"privacy/ip-of-the-source": "an address that the general rule has shortened does not grow again"}


@pytest.mark.parametrize("vector", vectors_that_store(), ids=lambda vector: vector.id)
def test_a_vectors_event_by_retry(vector):
    """Refused for its key, then taken: for every protocol the same record, as far as the request may be kept."""
    unknown = replace(vector, config={**vector.config, "sources": [{"key": "nobody"}]})
    refused = vectors.run(unknown, "whole")
    (fields,) = refused.rejects
    assert fields["reason"] == "unknown_key"
    reject = Reject("0", 1, b"", fields)
    if not reject.is_retryable or is_shortened(vector, fields) or vector.id in BY_RETRY:
        return
    reason, events, _ = rejects.Replay(vector.settings).offer(reject)
    assert reason == ""
    expected = vector.expect[0]["records"]
    if has_cookie(vector):
        expected = [{**record, "anonymousId": "<any>"} for record in expected]
    found = [{"anonymousId": "none", **record} if has_cookie(vector) else record for record in vectors.unpacked(events)]
    assert [vectors.alike(record, to) for record, to in zip(found, expected, strict=True)] == expected


def is_shortened(vector: Vector, fields: dict[str, Any]) -> bool:
    """Whether privacy has left out what was sent, or the hash of what cannot be decoded stands in its place."""
    return ("?" in vector.request["target"]) > ("?" in fields["target"]) or "+bytes+" in fields["target"]


def has_cookie(vector: Vector) -> bool:
    """Whether the visitor's id is in a cookie, which no reject keeps, or is made, which no retry does."""
    answered = vectors.run(vector, "whole").answers[0]
    return "Cookie" in vector.request.get("headers", {}) or "set-cookie" in answered.headers


def test_a_visitor_who_objects_does_so_by_retry(data_dir):
    """Even if the policy was another one, and whichever header it was."""
    objects = HEADERS + b"DNT: 1\r\n"
    receive(settings(data_dir), get("/e?_k=k&_p=p&_n=n", headers=objects), get("/e?_k=g&_p=p&_n=n", headers=objects))
    assert [kept["headers"]["sec-gpc"] for kept in records(data_dir, "rejects")] == ["1", "1"]
    mended = [{"key": "k", "privacy": {"gpc": "anonymise"}}, {"key": "g", "privacy": {"gpc": "drop"}}]
    outcome = retry(settings(data_dir, *mended))
    assert (outcome.stored, dict(outcome.refused)) == (1, {"privacy": 1})
    (found,) = records(data_dir)
    assert "userId" not in found and "ip" not in found["context"]


def test_no_retry_makes_a_visitors_id(data_dir):
    receive(settings(data_dir), get("/k/event.gif?event_token=t"))
    assert retry(settings(data_dir, {"key": "k"})).stored == 1
    assert "anonymousId" not in records(data_dir)[0]


DISABLED = {"key": "k", "enabled": False}
ELSEWHERE = {"key": "k", "origins": ["https://other.example.com"]}
SLOW = {"key": "k", "rate_limit": "1/h"}


@pytest.mark.parametrize(
    ("reason", "source"),
    [
        ("unknown_key", {"key": "other"}),
        ("source_disabled", DISABLED),
        ("origin_not_allowed", ELSEWHERE),
        ("rate_limited", SLOW),
    ],
)
def test_every_reason_that_a_configuration_mends(reason, source, data_dir):
    wrong = settings(data_dir, source)
    assert receive(wrong, event("k", "first"), event("k", "second"))[1] == reason
    before = len(records(data_dir))
    outcome = retry(wrong)
    if reason == "rate_limited":
        assert outcome.stored == 1, "a limit of now has nothing to say of what came then"
    else:
        assert (outcome.stored, dict(outcome.refused)) == (0, {reason: 2})
    outcome = retry(settings(data_dir, {"key": "k", "origins": ["https://shop.example.com"]}))
    assert len(records(data_dir)) == 2
    assert before + outcome.stored == (1 if reason == "rate_limited" else 2)
    assert check(data_dir) == []


def test_what_cannot_be_retried_is_counted(data_dir):
    known = settings(data_dir, {"key": "k"})
    assert receive(known, get("/e?_k=k&_n=n"), get("/e?_k=k&_p=p"), event("x", "n")) == [
        "missing_person",
        "missing_event",
        "unknown_key",
    ]
    assert str(retry(known)) == (
        "retried 1: 0 stored, 1 refused again (unknown_key: 1), "
        "2 cannot be retried (missing_event: 1, missing_person: 1)"
    )
    assert str(retry(known, filters=(("reason", ("missing_event",)),))) == (
        "retried 0: 0 stored, 0 refused again, 1 cannot be retried (missing_event: 1)"
    )


def test_a_body_that_was_not_kept_cannot_be_retried(data_dir):
    configured = settings(data_dir, {"key": "k"})
    time = msgpack.Timestamp.from_unix_nano(T0)
    kept = {"receivedAt": time, "protocol": "kissmetrics", "reason": "unknown_key", "method": "POST", "target": "/e"}
    reject = msgpack.packb({**kept, "headers": {}, "writeKey": "k", "bodySha256": "00"})
    with Writer(data_dir) as writer:
        writer.append(b"", 0, reject, 1, T0, T0)
    assert dict(retry(configured).hopeless) == {"unknown_key": 1}
    assert [found.seq for found in Listing(data_dir, Query(database="rejects"))] == [1]


def test_what_privacy_has_shortened_stays_short(data_dir):
    """The hash beside the body says that it is not the one that came; it is whole all the same."""
    privacy = {"privacy_ip": "truncate"}
    body = b"_k=k&_p=p&_n=n&_ip=192.0.2.77"
    receive(settings(data_dir, **privacy), post("/e", body))
    (kept,) = records(data_dir, "rejects")
    assert kept["bodySha256"] and kept["ip"] == "203.0.113.0"
    assert retry(settings(data_dir, {"key": "k", "trust_client_ip": True})).stored == 1
    (found,) = records(data_dir)
    assert found["context"]["ip"] == "192.0.2.0"


def test_a_path_that_nothing_answers_any_more(data_dir):
    receive(settings(data_dir), event("k", "n"))
    outcome = retry(settings(data_dir, {"key": "k"}, protocols=("rudderstack",)))
    assert dict(outcome.refused) == {"answer 404": 1}
    assert retry(settings(data_dir, {"key": "k"})).stored == 1


def test_another_reason_than_the_first_is_said(data_dir):
    receive(settings(data_dir), get("/e?_k=k&_n=n"))
    assert dict(retry(settings(data_dir, {"key": "k"})).refused) == {"missing_person": 1}


def test_the_limits_of_now_hold(data_dir):
    receive(settings(data_dir), post("/e", b"_k=k&_p=p&_n=n&v=" + b"x" * 4000))
    assert dict(retry(settings(data_dir, {"key": "k"}, max_body_bytes="1KiB")).refused) == {"too_large": 1}


# -- nothing twice, nothing lost


def test_nothing_changes_where_nothing_would_be_stored(data_dir):
    configured = settings(data_dir)
    receive(configured, event("a", "1"), event("b", "2"))
    before = picture(data_dir)
    assert retry(configured).stored == 0
    assert picture(data_dir) == before and not (data_dir / FILE).exists()
    assert retry(settings(data_dir, {"key": "a"})).stored == 1
    before = picture(data_dir)
    assert retry(settings(data_dir, {"key": "a"})).stored == 0
    assert picture(data_dir) == before


def test_what_is_refused_again_can_be_retried_later(data_dir):
    receive(settings(data_dir), *(event(key, f"{key}{number}") for number in range(3) for key in "abc"))
    assert str(retry(settings(data_dir, {"key": "a"}))) == "retried 9: 3 stored, 6 refused again (unknown_key: 6)"
    assert str(retry(settings(data_dir, {"key": "b"}))) == "retried 6: 3 stored, 3 refused again (unknown_key: 3)"
    everything = settings(data_dir, {"key": "a"}, {"key": "b"}, {"key": "c"})
    assert str(retry(everything)) == "retried 3: 3 stored, 0 refused again"
    assert str(retry(everything)) == "retried 0: 0 stored, 0 refused again"
    assert sorted(record["event"] for record in records(data_dir)) == sorted(f"{k}{n}" for k in "abc" for n in range(3))
    assert len(records(data_dir, "rejects")) == 9, "no reject is written twice"
    assert check(data_dir) == []


FILTERS = [
    ({"filters": (("writeKey", ("a",)),)}, {"a0", "a1"}),
    ({"filters": (("protocol", ("rudderstack",)),)}, set()),
    ({"filters": (("reason", ("source_disabled",)),)}, {"b0", "b1"}),
    ({"since_ns": T0 + 2 * SECOND}, {"a1", "b1"}),
    ({"until_ns": T0 + 2 * SECOND}, {"a0", "b0"}),
    ({"since_ns": T0 + SECOND, "until_ns": T0 + 3 * SECOND}, {"b0", "a1"}),
    ({"limit": 3}, {"a0", "b0", "a1"}),
    ({"limit": 1, "filters": (("writeKey", ("b",)),)}, {"b0"}),
]


@pytest.mark.parametrize(("query", "taken"), FILTERS)
def test_what_filters_leave_out_can_be_retried_later(query, taken, data_dir):
    receive(settings(data_dir, {"key": "b", "enabled": False}), *(event(k, f"{k}{n}") for n in (0, 1) for k in "ab"))
    listed = {found.request_line[-2:] for found in Listing(data_dir, Query(database="rejects", **query))}
    assert listed == taken, "a listing asks in the same way"
    mended = settings(data_dir, {"key": "a"}, {"key": "b"})
    assert retry(mended, **query).stored == len(taken)
    assert {record["event"] for record in records(data_dir)} == taken
    assert retry(mended, **query).stored == (1 if query.get("limit") else 0)
    retry(mended)
    assert sorted(record["event"] for record in records(data_dir)) == ["a0", "a1", "b0", "b1"]


def test_rejects_of_several_slots_keep_their_order(data_dir):
    with Writer(data_dir):  # holds slot 0
        receive(settings(data_dir), event("k", "1"), event("x", "2"), at=T0)
        with Writer(data_dir):
            receive(settings(data_dir), event("k", "0"), event("k", "3"), at=T0 - SECOND)
    receive(settings(data_dir), event("k", "4"), at=T0 + 5 * SECOND)
    assert retry(settings(data_dir, {"key": "k"})).stored == 4
    assert set(Retried.read(data_dir).ranges()) == {"0", "1", "2"}
    assert [record["event"] for record in records(data_dir)] == ["0", "1", "3", "4"]


def failing_write(monkeypatch, fails_at: int) -> None:
    real, calls = Retried.write, []

    def write(self: Retried, directory: Path) -> None:
        calls.append(directory)
        if len(calls) == fails_at:
            raise OSError(28, "No space left on device")
        real(self, directory)

    monkeypatch.setattr(Retried, "write", write)


def test_what_was_stored_before_a_failure_is_not_stored_again(data_dir, monkeypatch):
    receive(settings(data_dir), *(event("k", str(number)) for number in range(7)))
    monkeypatch.setattr(rejects, "BATCH_REJECTS", 2)
    real, calls = Writer.append, []

    def append(self: Writer, *arguments: Any, **more: Any) -> int:
        calls.append(1)
        if len(calls) == 3:
            raise SpoolFull("no space left")
        return real(self, *arguments, **more)

    monkeypatch.setattr(Writer, "append", append)
    with pytest.raises(SpoolFull):
        retry(settings(data_dir, {"key": "k"}))
    assert retry(settings(data_dir, {"key": "k"})).stored == 3
    assert [record["event"] for record in records(data_dir)] == [str(number) for number in range(7)]


def test_a_retry_that_is_killed_stores_one_batch_again_and_loses_none(data_dir, monkeypatch):
    receive(settings(data_dir), *(event("k", str(number)) for number in range(7)))
    monkeypatch.setattr(rejects, "BATCH_REJECTS", 2)
    failing_write(monkeypatch, 2)
    with pytest.raises(OSError, match="No space"):
        retry(settings(data_dir, {"key": "k"}))
    assert retry(settings(data_dir, {"key": "k"})).stored == 5
    names = [record["event"] for record in records(data_dir)]
    assert sorted(names) == ["0", "1", "2", "2", "3", "3", "4", "5", "6"]


def test_two_at_once(data_dir):
    receive(settings(data_dir), event("k", "n"))
    with (
        rejects._alone(data_dir),
        pytest.raises(SpoolError, match=r"another `rejects --retry` is running on .*data; wait"),
    ):
        retry(settings(data_dir, {"key": "k"}))
    assert retry(settings(data_dir, {"key": "k"})).stored == 1


def test_what_comes_while_it_runs_is_left_for_the_next(data_dir):
    receive(settings(data_dir), event("k", "old"))
    running = Retry(settings(data_dir, {"key": "k"}), Query(database="rejects"))
    receive(settings(data_dir), event("k", "new"), at=running._began_ns)
    assert running.run().stored == 1
    assert [record["event"] for record in records(data_dir)] == ["old"]
    assert retry(settings(data_dir, {"key": "k"})).stored == 1


def test_it_runs_beside_a_writer(data_dir):
    receive(settings(data_dir), event("k", "n"))
    with Writer(data_dir) as service:
        assert retry(settings(data_dir, {"key": "k"})).stored == 1
        assert service.slot == "0"
    assert [path.name for path in sorted(data_dir.iterdir())] == ["0", "1", FILE, "spool-id"]


def test_progress_is_told(data_dir):
    receive(settings(data_dir), event("k", "1"), event("x", "2"))
    told: list[int] = []
    Retry(settings(data_dir, {"key": "k"}), Query(database="rejects"), told.append).run()
    assert told[-1] == 2


@pytest.mark.parametrize(("terminal", "shown"), [(True, "\rretrying: 1,500\r\x1b[K"), (False, "")])
def test_who_waits_at_a_terminal_sees_how_far_it_is(terminal, shown, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    seconds = iter([10.0, 10.9, 11.0, 11.0, 11.1])  # at first, then at each call and each time that it is shown
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with cli._progress("retrying") as progress:
        for number in (1000, 1500, 2000):
            progress(number)
    monkeypatch.undo()
    assert capsys.readouterr().err == shown


def test_a_directory_that_is_no_spool(tmp_path):
    with pytest.raises(FastpixelError, match="is not a spool"):
        retry(settings(tmp_path / "data"))
    with pytest.raises(FastpixelError, match="is not a spool"):
        Listing(tmp_path / "data", Query(database="rejects"))


# -- looking


def test_a_listing_leaves_out_what_a_retry_has_stored(data_dir):
    receive(settings(data_dir), event("a", "1"), event("b", "2"), get("/e?_p=p&_n=n"), event("a", "3"))
    query = Query(database="rejects")
    assert [found.seq for found in Listing(data_dir, query)] == [1, 2, 3, 4]
    retry(settings(data_dir, {"key": "a"}))
    listing = Listing(data_dir, query)
    assert [found.seq for found in listing] == [2, 3]
    assert (dict(listing.reasons), listing.stored_since) == ({"unknown_key": 1, "missing_key": 1}, 2)
    assert [found.seq for found in Listing(data_dir, query, everything=True)] == [1, 2, 3, 4]


def test_a_line_of_a_listing(data_dir):
    receive(settings(data_dir), get("/e?_k=k%1b&_p=p&_n=n"), get("/e?_p=p"))
    assert [found.line() for found in Listing(data_dir, Query(database="rejects"))] == [
        r"2023-11-14T22:13:20.123Z  unknown_key         kissmetrics  k\x1b  GET /e?_k=k%1b&_p=p&_n=n",
        "2023-11-14T22:13:21.123Z  missing_key         kissmetrics  -  GET /e?_p=p",
    ]


# -- the request that is made of a reject


def reject_of(**fields: Any) -> Reject:
    time = msgpack.Timestamp.from_unix_nano(T0)
    whole = {"receivedAt": time, "protocol": "kissmetrics", "method": "GET", "target": "/e", "headers": {}, **fields}
    return Reject("0", 1, msgpack.packb(whole), whole)


def test_a_request_of_a_reject():
    headers = {"host": "h", "user-agent": "Ä"}
    made = request_of(reject_of(headers=headers, method="POST", body="é"))
    assert made == "POST /e HTTP/1.1\r\nhost: h\r\nuser-agent: Ä\r\ncontent-length: 2\r\n\r\né".encode()
    assert request_of(reject_of(body=b"\xff")).endswith(b"\r\n\r\n\xff")
    assert request_of(reject_of()) == b"GET /e HTTP/1.0\r\n\r\n"


@pytest.mark.parametrize("protocol", ["rudderstack", "segment"])
def test_a_key_that_came_in_a_header_is_put_back(protocol):
    basic = b"authorization: Basic " + base64.b64encode(b"key:")
    assert basic in request_of(reject_of(protocol=protocol, method="POST", writeKey="key"))
    assert b"authorization" not in request_of(reject_of(protocol=protocol, method="GET", writeKey="key"))
    assert b"authorization" not in request_of(reject_of(protocol=protocol, method="POST"))
    assert b"authorization" not in request_of(reject_of(method="POST", writeKey="key"))
    # A key with a colon cannot have come in a header; it is in the body.
    assert b"authorization" not in request_of(reject_of(protocol=protocol, method="POST", writeKey="a:b"))


# -- the caps


def junk(count: int) -> list[bytes]:
    """Two kinds: what a configuration could mend, and what it could not."""
    return [event("junk", str(n)) if n % 2 else get("/e?_k=k&_n=n") for n in range(count)]


def page_of(**counters: int) -> bytearray:
    page = bytearray(8 * PAGE_LAYOUT["words"])
    words = memoryview(page).cast("Q")
    for name, value in counters.items():
        words[COUNTERS.index(name)] = value
    words.release()
    return page


def counter(page: bytearray, name: str) -> int:
    return memoryview(page).cast("Q")[COUNTERS.index(name)]


def test_a_flood_of_junk_is_kept_within_the_caps(data_dir):
    known = settings(data_dir, {"key": "k"})
    budget = 20_000
    page = page_of(reject_budget=budget)
    intake = Intake(dialects.plan(known), now=lambda: T0, page=page, rejects_per_second=5)
    connection = intake.connection(IP)
    kept, size = [], 0
    for data in junk(2000):
        connection.feed(data)
        batch = intake.take()
        if batch is not None:
            kept += [record["reason"] for record in map(msgpack.unpackb, split(batch.rejects))]
            size += len(batch.rejects)
            largest = len(batch.rejects)
            intake.done(batch, True)
        connection.output()
    assert kept.count("missing_person") == 5, "of those that cannot be retried so many a second"
    assert budget <= size < budget + largest
    assert counter(page, "rejects_kept") == len(kept)
    assert counter(page, "rejects_not_kept") == 2000 - len(kept), "what is not kept is counted"
    assert counter(page, "reject_budget") == 0
    memoryview(page).cast("Q")[COUNTERS.index("reject_budget")] = budget
    connection.feed(event("late", "1"))
    assert intake.take().reject_count == 1, "and it goes on when there is room again"


def test_a_retry_after_a_flood(data_dir):
    known = settings(data_dir, {"key": "k"})
    receive(known, event("mended", "before"), *junk(300), event("mended", "after"), rejects_per_second=5)
    outcome = retry(settings(data_dir, {"key": "k"}, {"key": "mended"}))
    assert (outcome.stored, dict(outcome.refused)) == (2, {"unknown_key": 150})
    assert [record["event"] for record in records(data_dir)] == ["before", "after"]


def test_a_compressed_body_is_sent_as_it_came(data_dir):
    made = request_of(
        reject_of(method="POST", headers={"content-encoding": "gzip"}, body=gzip.compress(b"{}", mtime=0))
    )
    assert made.endswith(b"\r\n\r\n" + gzip.compress(b"{}", mtime=0))
