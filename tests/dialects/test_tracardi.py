"""Tracardi beyond its vectors: each row of its tables is true, each fault is found where it is, and nothing raises."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgpack
import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import vectors
from fastpixel import dialects
from fastpixel._core import Intake, json_lines
from fastpixel.config import Config
from fastpixel.dialects import faults, tracardi
from vectors import NOW, PEER

BENCH = Path(__file__).parents[2] / "bench/tracardi.http"
STATUSES = {200, 400, 401, 413, 422}
REDIRECT = {"id": "spring", "url": "https://shop.example.com/spring", "source": "k", "event": "opened"}


@cache
def settings(text: str) -> Config:
    return Config.from_json(msgspec.json.encode({"settings": json.loads(text), "warnings": []}))


def intake(**config: Any) -> Intake:
    return Intake(dialects.plan(settings(json.dumps(config))), now=lambda: NOW, rejects_per_second=1_000_000)


OPEN = intake()


def ask(
    body: bytes | dict[str, Any] = b"",
    target: str = "/track",
    *,
    headers: tuple[str, ...] = (),
    by: Intake = OPEN,
    stored: bool = True,
    method: str = "POST",
) -> vectors.Exchange:
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    connection = by.connection(PEER)
    found = vectors.Exchange([], [], [], False)
    connection.feed("\r\n".join(lines).encode("latin-1") + body)
    vectors.store(by, found, stored)
    found.answers = list(vectors.answers(connection.output(), [False]))
    return found


def answer(body: bytes | dict[str, Any], **more: Any) -> tuple[int, Any]:
    only = ask(body, **more).answers[0]
    return only.status, json.loads(only.body)


def payload(*events: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"source": {"id": "k"}, "session": {"id": "s"}, "profile": {"id": "p"}, **more, "events": list(events)}


# The table of members ---------------------------------------------------------------------------------------------

TEXT = "zebra"
# What a row needs that is no text, and what is stored of it if that is something else.
SAMPLES: dict[str, Any] = {
    "events.*.time.create": "2024-05-01T10:00:00Z",
    "events.*.time.insert": "2024-05-01T10:00:00Z",
    "events.*.tags": [TEXT],
    "metadata": {"a": TEXT},
}
STORED: dict[str, Any] = {
    "events.*.time.create": msgpack.Timestamp(1714557600),
    "events.*.time.insert": msgpack.Timestamp(1714557600),
}
MAPS = {"properties", "options", "request", "context", "device", "utm", "local"}
MEMBERS = [row for route in tracardi.DIALECT.routes for row in route.members]


def sample(source: str, doc: str) -> Any:
    if source in SAMPLES:
        return SAMPLES[source]
    return {TEXT: 1} if source.rpartition(".")[2] in MAPS or "is an object" in doc else TEXT


def laid(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Puts a value into the JSON of a payload; `*` is the first event, or any name."""
    *above, last = path
    place: Any = tree
    for name in above:
        place = place[0] if isinstance(place, list) else place.setdefault(name, {})
    place[TEXT if last == "*" else last] = value


def found_at(tree: Any, path: list[str]) -> Any:
    for name in path:
        tree = tree[TEXT if name == "*" else name]
    return tree


@pytest.mark.parametrize("row", MEMBERS, ids=[f"{row.source}->{row.to}" for row in MEMBERS])
def test_a_row_of_the_members_is_true(row):
    body = payload({"type": "e"})
    value = sample(row.source, row.doc)
    laid(body, row.source.split("."), value)
    (record,) = ask(body).records
    if row.to == "":
        assert TEXT not in repr(record)
    else:
        assert found_at(record, row.to.split(".")) == STORED.get(row.source, value)


def test_every_member_that_is_decoded_has_a_row():
    rows = {row.source.split(".")[0] for row in MEMBERS}
    assert set(tracardi._Payload.__struct_fields__) <= rows
    rows = {row.source.split(".")[2] for row in MEMBERS if row.source.startswith("events.")}
    assert set(tracardi._Event.__struct_fields__) - {"context"} <= rows


# Faults -----------------------------------------------------------------------------------------------------------

WHOLE = payload(
    {
        "type": "e",
        "id": "m",
        "time": {"create": "2024-05-01T10:00:00Z", "insert": 1714557600},
        "properties": {},
        "options": {},
        "context": {},
        "tags": [],
    },
    context={},
    properties={},
    request={},
    options={},
)
OBJECT, MAP, LIST, STRING = "model_attributes_type", "dict_type", "list_type", "string_type"
# Path -> type of the fault if a value of the wrong type stands there, in the order in which faults are listed.
PLACES: dict[tuple[str | int, ...], str] = {
    ("source",): OBJECT,
    ("source", "id"): STRING,
    ("session",): OBJECT,
    ("session", "id"): STRING,
    ("profile",): OBJECT,
    ("profile", "id"): STRING,
    ("context",): MAP,
    ("properties",): MAP,
    ("request",): MAP,
    ("events",): LIST,
    ("events", 0): OBJECT,
    ("events", 0, "type"): STRING,
    ("events", 0, "id"): STRING,
    ("events", 0, "time"): OBJECT,
    ("events", 0, "time", "create"): "datetime_type",
    ("events", 0, "time", "insert"): "datetime_type",
    ("events", 0, "properties"): MAP,
    ("events", 0, "options"): MAP,
    ("events", 0, "context"): MAP,
    ("events", 0, "tags"): LIST,
    ("options",): MAP,
}
REQUIRED = {("source",), ("source", "id"), ("events",), ("events", 0), ("events", 0, "type")}
FITS = {OBJECT: dict, MAP: dict, LIST: list, STRING: str, "datetime_type": (str, int, float)}
VALUES: list[Any] = [None, True, 5, 1.5, "text", [], {}]


def damaged(*places: tuple[tuple[str | int, ...], Any]) -> dict[str, Any]:
    body: Any = copy.deepcopy(WHOLE)
    for path, value in places:
        place = body
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value
    return body


def test_the_whole_payload_has_no_fault():
    assert answer(WHOLE)[0] == 200


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_of_the_wrong_type_is_named(path, value):
    status, body = answer(damaged((path, value)))
    kind = PLACES[path]
    if isinstance(value, FITS[kind]) and not (isinstance(value, bool) and kind == "datetime_type"):
        assert status == 200 or body["detail"][0]["type"] in {"missing", "datetime_parsing"}  # {} or "text"
        return
    if value is None and path not in REQUIRED:
        assert status == 200
        return
    assert status == 422
    (fault,) = body["detail"]
    assert fault == {"type": kind, "loc": ["body", *path], "msg": faults.MESSAGES[kind], "input": value}


@given(st.sets(st.sampled_from([*PLACES])))
def test_all_faults_are_listed_in_order(paths):
    assume(not any(path[:length] in paths for path in paths for length in range(1, len(path))))
    body = damaged(*((path, True) for path in paths))
    expected = [["body", *path] for path in PLACES if path in paths]
    status, found = answer(body)
    assert status == (422 if paths else 200)
    assert [fault["loc"] for fault in found["detail"]] == expected if paths else True


def test_a_long_input_is_shortened():
    long = {"a": ["x" * 300] * 1000}
    fault = answer({"source": long})[1]["detail"][0]
    assert fault["loc"] == ["body", "source", "id"]
    assert fault["input"] == '{"a":["' + ("x" * 300 + '","') * 3 + "x" * (1024 - 7 - 909 - 3) + "..."
    assert answer({"source": 5, "x" * 1000: ""})[1]["detail"][0]["input"] == 5
    edge = {"a": "x" * (1024 - 8)}
    assert answer({"source": edge})[1]["detail"][0]["input"] == edge


def test_an_answer_lists_a_hundred_faults():
    assert len(answer({"source": {"id": "k"}, "events": [{}] * 1000})[1]["detail"]) == faults.MAX_FAULTS


# Any input --------------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner)
)
maps = st.none() | st.dictionaries(st.text(max_size=3), anything, max_size=3)
ids = st.none() | st.text(max_size=4)


def like(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these members, rarely others, and now and then one of a wrong type."""
    known = st.fixed_dictionaries({}, optional=values)
    names = st.sampled_from([*values, "x", "payload", "protocol", "receivedAt", "userId", "messageId"])
    return st.builds(dict, known) | st.builds(
        lambda a, b: {**a, **b}, known, st.dictionaries(names, anything, max_size=2)
    )


context = like(
    {
        "page": st.text(max_size=3) | like({"url": ids, "referer": ids | maps}),
        "screen": like({"local": maps, "width": scalars}),
        "utm": like({"campaign": ids, "name": ids, "source": ids}),
        "campaign": maps,
        "device": maps,
        "ip": st.sampled_from(["198.51.100.7", "::1", "x"]),
        "time": like({"tz": ids}),
        "browser": like({"local": like({"browser": like({"language": ids, "userAgent": ids})})}),
        "tracardi": maps,
        "client": anything,
    }
)
times = st.sampled_from(["2024-05-01T10:00:00Z", "now", "", 0, 1714557600.5, 1e300, -1, True])
event = like(
    {
        "type": st.sampled_from(["e", " page-view ", "", "page_view"]),
        "id": ids,
        "time": st.none() | like({"create": times, "insert": times}),
        "properties": maps,
        "options": maps,
        "context": st.none() | context,
        "tags": st.none() | st.lists(anything, max_size=2),
    }
)
flags = st.dictionaries(st.sampled_from(["saveEvents", "saveProfile", "saveSession", "debugger", "x"]), st.booleans())
bodies = like(
    {
        "source": like({"id": st.sampled_from(["k", " k ", "", "@k"])}),
        "session": st.none() | like({"id": ids}),
        "profile": st.none() | like({"id": ids}),
        "device": anything,
        "context": st.none() | context,
        "properties": maps,
        "request": maps,
        "metadata": anything,
        "events": st.lists(event, max_size=4),
        "options": st.none() | flags,
    }
)


def assert_documented(found: vectors.Exchange, statuses: set[int] = STATUSES) -> None:
    """One answer of the table; what is stored is one strict line of JSON each."""
    (only,) = found.answers
    assert only.status in statuses
    shown = json.loads(only.body)
    reason = only.headers.get("x-fastpixel")
    assert (reason is None) == (only.status == 200)
    if found.records:
        assert only.status == 200
        assert set(shown) >= {"task", "profile", "session"}
    packed = b"".join(msgpack.packb(record) for record in found.records)
    lines = json_lines(packed, "s-").splitlines()
    assert len(lines) == len(found.records)
    for line in lines:
        record = json.loads(line, parse_constant=pytest.fail)
        assert record["protocol"] == "tracardi"
        assert record["writeKey"] == "k"
        assert record["event"] == record["event"].strip() != ""


@given(bodies)
def test_any_payload(body):
    assert_documented(ask(body))


@given(anything)
def test_any_json(body):
    assert_documented(ask(json.dumps(body).encode()))


@given(st.binary(max_size=40))
def test_any_bytes(body):
    assert_documented(ask(body))


@given(bodies, st.data())
def test_a_damaged_payload(body, data):
    text = bytearray(json.dumps(body).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    assert_documented(ask(bytes(text)))


@given(bodies)
def test_quick_and_slow_reading_agree(body):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracardi, "uuid4", lambda: UUID(int=4))
        quick = ask(body)
        patch.setattr(tracardi, "_quickly", lambda *_: None)
        assert stored_by(ask(body)) == stored_by(quick)


def stored_by(found: vectors.Exchange) -> Any:
    """Answer and records, without the ids that the core has issued."""
    anonymous = [vectors.alike(record, {"messageId": "<uuid7>"}) for record in found.records]
    return [(answer.status, answer.body) for answer in found.answers], anonymous


kinds = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data", ""]
)
segments = st.sampled_from(["e", "page-view", "%20", "%ff", "a%2Fb", "k", "@k", "%00"])


@given(segments, st.text(st.sampled_from("ab=&%2[]+_.{"), max_size=20), kinds, st.binary(max_size=40) | anything)
def test_any_webhook(name, query, kind, body):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    target = f"/collect/{name}/k/s?{query}"
    assert_documented(ask(body, target, headers=(f"Content-Type: {kind}",)))


def test_text_that_is_cut_stays_utf_8():
    for start in range(4):
        (record,) = ask(b"x" * start + "\U0001f600".encode() * 2000, "/collect/e/k/s").records
        text = record["context"]["paramsText"]
        assert len(text.encode()) <= tracardi.MAX_RAW_TEXT
        assert len(text) > 1000


# What depends on more than one request ----------------------------------------------------------------------------


def test_a_payload_is_stored_whole_or_not_at_all():
    body = payload(*({"type": "e", "id": str(number)} for number in range(200)))
    assert [record["messageId"] for record in ask(body).records] == [str(number) for number in range(200)]
    only = ask(body, stored=False).answers[0]
    assert (only.status, only.headers["retry-after"]) == (503, "5")
    assert only.headers["x-fastpixel"] == "dropped; reason=spool_full"
    assert json.loads(only.body)["detail"]


def test_over_its_rate_a_source_gets_429():
    by = intake(sources=[{"key": "k", "rate_limit": "1/h"}])
    found = [ask(payload({"type": "e"}), by=by) for _ in range(3)][-1]
    only = found.answers[0]
    assert (only.status, json.loads(only.body)) == (429, {"detail": "Too Many Requests"})
    assert only.headers["retry-after"] == "1"
    assert [reject["reason"] for reject in found.rejects] == ["rate_limited"]


@pytest.mark.parametrize(
    ("config", "stored", "reason"), [({}, False, "spool_full"), ({"rate_limit": "1/h"}, True, "rate_limited")]
)
def test_the_visitor_of_a_redirect_arrives(config, stored, reason):
    by = intake(sources=[{"key": "k", **config}], redirects=[REDIRECT])
    only = [ask(target="/redirect/spring", method="GET", by=by, stored=stored) for _ in range(3)][-1].answers[0]
    assert (only.status, only.headers["location"]) == (307, "https://shop.example.com/spring")
    assert only.headers["x-fastpixel"] == f"dropped; reason={reason}"


def test_ids_that_are_told_are_those_of_the_records_and_never_the_same_again():
    seen = set()
    for _ in range(2):
        found = ask({"source": {"id": "k"}, "events": [{"type": "e"}, {"type": "f"}], "options": {"debugger": True}})
        told = json.loads(found.answers[0].body)
        assert [record["messageId"] for record in found.records] == told["events"]
        assert {record["anonymousId"] for record in found.records} == {told["profile"]["id"]}
        assert {record["sessionId"] for record in found.records} == {told["session"]["id"]}
        seen |= {told["task"], told["profile"]["id"], told["session"]["id"], *told["events"]}
    assert len(seen) == 10


def test_a_crowd_of_events_is_refused_before_it_is_read():
    for count in (1001, 70_000):
        assert answer({"source": {"id": "k"}, "events": [{}] * count})[0] == 413


def test_a_crowd_of_values_is_refused_before_it_is_read():
    assert answer({"source": {"id": "k"}, "events": [], "foo": [0] * 249_990})[0] == 200
    assert answer({"source": {"id": "k"}, "events": [], "foo": [0] * 250_000}) == (
        413,
        {"detail": "The payload is too large."},
    )


def test_the_payload_of_the_benchmark_is_stored():
    request = BENCH.read_bytes()
    connection = OPEN.connection(PEER)
    found = vectors.Exchange([], [], [], False)
    connection.feed(request)
    vectors.store(OPEN, found)
    (only,) = vectors.answers(connection.output(), [False])
    assert only.status == 200
    assert len(found.records) == 30
    assert {*found.records[0]["context"]} >= {"page", "screen", "locale", "timezone", "campaign", "device", "tracardi"}


# Rejects ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end, left", [("}", True), ("", False)])
def test_a_reject_has_no_headers_and_credentials(end, left):
    body = '{"source":{"id":"other"},"events":[{"type":"a"}],"request":{"headers":{"cookie":"SECRET"},"a":1}' + end
    settings = Config.from_json(json.dumps({"settings": {"sources": [{"key": "k"}]}, "warnings": []}).encode())
    intake = Intake(dialects.plan(settings), now=lambda: NOW)
    connection = intake.connection(PEER)
    connection.feed(f"POST /track HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    (reject,) = vectors.unpacked(intake.take().rejects)
    assert "SECRET" not in reject["body"]
    assert ('"request":{"a":1}' in reject["body"]) is left
    assert reject["body"].startswith('{"source":{"id":"other"},"events":[{"type":"a"}]')
