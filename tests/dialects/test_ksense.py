"""kSense beyond its vectors: the script, limits, a full disk, retries, and that nothing clear is kept."""

import base64
import gzip
import json
import re
from urllib.parse import quote, urlencode

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectors
from fastpixel import _core, dialects, personal
from fastpixel.config import Config
from fastpixel.dialects import ksense
from vectors import NOW, PEER

POST_EVENT = "/api/v2/events/post_event"
OK = {"status": "OK"}


def intake(replaying=False, rejects_per_second=1_000_000, **settings):
    config = Config.from_json(json.dumps({"settings": settings, "warnings": []}).encode())
    return _core.Intake(
        dialects.plan(config), now=lambda: NOW, rejects_per_second=rejects_per_second, replaying=replaying
    )


def wire(method, target, body=b"", **headers):
    lines = [f"{method} {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def send(door, method, target, body=b"", *, stored=True, **headers):
    """(answer, records, rejects) of one request."""
    connection = door.connection(PEER)
    connection.feed(wire(method, target, body, **headers))
    found = vectors.Exchange([], [], [], False)
    vectors.store(door, found, stored)
    (answer,) = vectors.answers(connection.output(), [method == "HEAD"])
    return answer, found.records, found.rejects


def event(**members):
    return json.dumps({"type": "x", "data_source_id": "ds", **members}).encode()


# Script -------------------------------------------------------------------------------------------------------


def test_the_script():
    answer, records, rejects = send(intake(), "GET", "/t/callbacks.js?sid=a_B-9", Origin="https://shop.example.com")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["vary"] == "Origin, Accept-Encoding"
    assert answer.headers["access-control-allow-origin"] == "https://shop.example.com"
    assert not {"pragma", "expires", "set-cookie", "x-fastpixel"} & set(answer.headers)
    assert b'const SID = "a_B-9";' in answer.body
    assert (records, rejects) == ([], [])


def test_the_script_compressed_and_asked_for_again():
    door = intake()
    answer, _, _ = send(door, "GET", "/t/callbacks.js?sid=ds", Accept_Encoding="gzip, br")
    assert answer.headers["content-encoding"] == "gzip"
    assert b'const SID = "ds";' in gzip.decompress(answer.body)
    again, _, _ = send(door, "GET", "/t/callbacks.js?sid=ds", If_None_Match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    assert "content-length" not in again.headers


def test_the_head_of_the_script():
    answer, _, _ = send(intake(), "HEAD", "/t/callbacks.js?sid=ds")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000


@pytest.mark.parametrize("sid", ["", "a b", "<script>", "a" * 65, "\u00e9", "a\n", '";alert(1)//'])
def test_a_bad_sid_is_not_reflected(sid):
    answer, _, rejects = send(intake(), "GET", f"/t/callbacks.js?sid={quote(sid)}")
    assert answer.status == 400
    assert answer.body == b"sid must be 1 to 64 of A-Z a-z 0-9 _ -\n"
    assert not rejects


def test_the_script_of_an_unknown_source():
    """Loading it stores nothing, so there is nothing to refuse."""
    answer, _, _ = send(intake(sources=[{"key": "other"}]), "GET", "/t/callbacks.js?sid=ds")
    assert answer.status == 200


# Answers ------------------------------------------------------------------------------------------------------


def test_no_room():
    answer, _, _ = send(intake(), "POST", POST_EVENT, event(), stored=False)
    assert (answer.status, json.loads(answer.body)["status"]) == (503, "ERROR")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "5"
    answer, _, _ = send(intake(), "GET", "/t/p.gif?sid=ds&type=pv", stored=False)
    assert (answer.status, answer.body) == (503, _core.GIF)


def test_over_the_rate_limit():
    door = intake(sources=[{"key": "ds", "rate_limit": "1/s"}])
    body = b"[" + b",".join([event()] * 5) + b"]"
    assert send(door, "POST", POST_EVENT, body)[0].status == 200
    answer, records, rejects = send(door, "POST", POST_EVENT, event(email="bob@example.com"))
    assert (answer.status, json.loads(answer.body)["status"], records) == (429, "ERROR", [])
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "1"
    assert rejects[0]["reason"] == "rate_limited"
    assert "bob@example.com" not in rejects[0]["body"]
    answer, _, _ = send(door, "GET", "/t/p.gif?sid=ds&type=pv")
    assert (answer.status, answer.body) == (200, _core.GIF)
    assert answer.headers["x-fastpixel"] == "dropped; reason=rate_limited"


def test_every_reason_has_a_message():
    bodies = [json.loads(case.reply.body) for case in ksense._CASES.values()]
    assert all(set(body) == {"status", "message"} and body["message"] for body in bodies)
    assert set(ksense._CASES) == set(_core.REASONS)


@pytest.mark.parametrize("path", [POST_EVENT, "/api/v2/post_event", "/api/v2/user_info", "/t/p.gif"])
def test_preflight_comes_before_everything(path):
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    answer, _, _ = send(intake(sources=[{"key": "k"}]), "OPTIONS", path, **headers)
    assert answer.status == 204
    assert "POST" in answer.headers["access-control-allow-methods"]


# What the table says of members ---------------------------------------------------------------------------------

VALUES = {"type": "x", "data_source_id": "ds", "time_utc": 1714824000, "timestamp_utc": "1714824000", "labels": ["a=b"]}
HASHED = {"email": personal.hidden("email", "v1"), "phone": personal.hidden("phone", "v1")}
STORED = {
    "type": "track",
    "writeKey": "ds",
    "timestamp": msgpack.Timestamp(1714824000),
    "properties.labels": {"a": "b"},
}


def nested(name, value):
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def at(record, path):
    for part in path.split("."):
        record = record[part]
    return record


@pytest.mark.parametrize("row", ksense._EVENT_MEMBERS, ids=lambda row: row.source)
def test_a_member_of_an_event(row):
    value = VALUES.get(row.source, {"m": "v1"} if row.source in ("user_id", "event_data", "device") else "v1")
    body = {"type": "x", "data_source_id": "ds", **nested(row.source, value)}
    _, (record,), _ = send(intake(), "POST", POST_EVENT, json.dumps(body).encode())
    assert at(record, row.to) == STORED.get(row.to, HASHED.get(row.source.partition(".")[2], value))


@pytest.mark.parametrize("row", ksense._PERSON_MEMBERS, ids=lambda row: row.source)
def test_a_member_of_user_info(row):
    value = VALUES.get(row.source, "v1")
    body = {"data_source_id": "ds", row.source: value}
    flat = {**body, row.source: value[0] if row.source == "labels" else value}
    for request in (("POST", "", json.dumps(body).encode()), ("GET", "?" + urlencode(flat), b"")):
        _, (record,), _ = send(intake(), request[0], "/api/v2/user_info" + request[1], request[2])
        assert record["type"] == "identify"
        assert at(record, row.to) == STORED.get(row.to, HASHED.get(row.source, value))


# Retries ------------------------------------------------------------------------------------------------------


def retried(reject, **settings):
    """A reject as a request to a collector that has other settings."""
    body = reject.get("body", "")
    body = body if isinstance(body, bytes) else body.encode()
    headers = {name: value for name, value in reject["headers"].items() if name != "host"}
    return send(intake(replaying=True, **settings), reject["method"], reject["target"], body, **headers)


RICH = {
    "user_id": {"email": "Bob@example.com", "phone": 4915, "internal_id": 7},
    "labels": ["email=bob@example.com", "a=b"],
    "event_data": {"n": 1.5, "big": 2**64, "text": "\ud800 \u0000 é", "list": [None, {"phone": [1, " "]}]},
    "anonymous_id": "a1",
    "event_id": "e1",
    "time_utc": 1714824000.25,
}


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", POST_EVENT, event(**RICH)),
        ("POST", "/api/v2/post_event", b"[" + event(**RICH) + b"," + event() + b"]"),
        ("POST", "/api/v2/user_info", b'{"data_source_id":"ds","email":"bob@example.com","labels":["phone=1"]}'),
        ("GET", "/api/v2/user_info?data_source_id=ds&email=bob@example.com&labels=phone%3D1&labels=%C3%A9", b""),
        ("GET", "/t/p.gif?sid=ds&type=x&user_info.email=bob@example.com&user_info.phone.0=1&a=%zz+b", b""),
        ("GET", f"/t/p.gif?sid=ds&e={base64.urlsafe_b64encode(event(**RICH)).decode()}", b""),
        ("POST", "/t/p.gif?type=x", b"sid=ds&user_info.email=bob@example.com&x=%FF"),
    ],
    ids=lambda request: f"{request[0]} {request[1][:20]}",
)
def test_a_retry_stores_what_the_request_would_have(request_):
    answer, stored, _ = send(intake(), *request_)
    assert answer.status == 200
    answer, records, rejects = send(intake(sources=[{"key": "other"}]), *request_)
    assert records == []
    assert b"example" not in msgpack.packb(rejects)
    answer, records, _ = retried(rejects[0], sources=[{"key": "ds"}])
    assert answer.status == 200
    for record in (*stored, *records):
        del record["messageId"]
        record["anonymousId"] = record.get("anonymousId", "")[:8]  # a new visitor's begins with the time
    assert [normal(record) for record in records] == [normal(record) for record in stored]


def normal(record):
    return {name: value for name, value in record.items() if name not in ("anonymousId", "receivedAt")}


@pytest.mark.parametrize(("target", "headers"), [("?a=b&token=old&token=new", {}), ("", {"X-KSense-Tok": "new"})])
def test_a_wrong_token_in_the_configuration_costs_no_event(target, headers):
    wrong, right = ([{"key": "ds", "token": token}] for token in ("old", "new"))
    request = ("POST", POST_EVENT + target, event())
    assert send(intake(sources=right), *request, **headers)[0].status == 200
    _, records, rejects = send(intake(sources=wrong), *request, **headers)
    assert records == []
    assert not re.search("token=(old|new)", rejects[0]["target"])
    assert retried(rejects[0], sources=wrong)[0].status == 400
    assert retried(retried(rejects[0], sources=wrong)[2][0], sources=right)[0].status == 200


def test_the_hash_of_a_token_is_none_for_anybody_else():
    right = [{"key": "ds", "token": "new"}]
    _, _, rejects = send(intake(sources=right), "POST", POST_EVENT + "?token=old", event())
    digest = ksense._hash("new")
    answer, _, _ = send(intake(sources=right), "POST", f"{POST_EVENT}?token={quote(digest)}", event())
    assert answer.status == 400
    answer, _, _ = send(intake(sources=right), "POST", POST_EVENT, event(), **{"X-KSense-Tok": digest})
    assert answer.status == 400
    assert retried(rejects[0], sources=[{"key": "ds", "token": ksense._hash("old")}])[0].status == 400


# Anything -----------------------------------------------------------------------------------------------------

SECRET = "clear.secret"
FORMS = [SECRET, f" {SECRET.upper()}", f"{SECRET}4711", {"x": SECRET}, [SECRET], [[SECRET]]]
NAMES = ["type", "data_source_id", "event_id", "anonymous_id", "time_utc", "time", "labels", "device", "user_id",
         "user_info", "event_data", "location", "context", "properties", "traits", "messageId", "receivedAt", "client",
         "internal_id", "ip_v4", "timestamp_utc", "conversion_name", "", "a.b", "__proto__"]  # fmt: skip
leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=4)
personal = st.dictionaries(
    st.sampled_from(["email", "phone", "x.email", f"email.{SECRET}"]), st.sampled_from(FORMS), max_size=2
)
labelled = st.sampled_from([f"email={SECRET}", f"phone={SECRET}1", f"a.phone={SECRET}2", f"email.{SECRET}", "x=y"])
values = st.recursive(
    leaves | personal,
    lambda more: (
        st.lists(more, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), more, max_size=4)
        | st.fixed_dictionaries({"labels": labelled | st.lists(labelled | personal, max_size=3)})
    ),
    max_leaves=12,
)
usable = st.fixed_dictionaries(
    {"type": st.sampled_from(["pv", "user_info", "x"]), "data_source_id": st.sampled_from(["ds", 5])},
    optional={name: values for name in NAMES[2:] if name} | {"email": st.sampled_from(FORMS), "labels": labelled},
)
events = usable | values | st.lists(usable | values, max_size=3)
texts = st.builds(lambda event: json.dumps(event, allow_nan=True).encode(), events)
bodies = texts | st.binary(max_size=40) | st.builds(lambda text, at: text[:at], texts, st.integers(0, 60))
paths = st.sampled_from([POST_EVENT, "/api/v2/post_event", "/api/v2/user_info", "/t/p.gif", "/t/callbacks.js"])
parameters = st.lists(
    st.tuples(
        st.sampled_from(["sid", "data_source_id", "type", "a", "labels.x", "token", "event_data.n", "location"]),
        st.sampled_from(["ds", "pv", "user_info", "", "5"]),
    )
    | st.tuples(
        st.sampled_from(["email", "phone", "user_info.email", "user_id.phone.0", f"email.{SECRET}", "labels.email"]),
        st.sampled_from([SECRET, SECRET.upper(), f" {SECRET}9"]),
    )
    | st.tuples(st.just("labels"), labelled)
    | st.tuples(st.just("token"), st.just(SECRET))
    | st.tuples(st.just("e"), st.builds(lambda text: base64.urlsafe_b64encode(text).decode(), bodies)),
    max_size=5,
)
kinds = st.sampled_from(["", "application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "x"])
SETTINGS = [{}, {"sources": [{"key": "other"}]}, {"sources": [{"key": "ds", "token": "t"}, {"key": "5"}]},
            {"privacy": {"ip": "truncate", "gpc": "anonymise"}}]  # fmt: skip
sent = st.tuples(st.sampled_from(["GET", "POST", "HEAD"]), paths, parameters, bodies | parameters, kinds)


@vectors.fuzz
@given(sent, st.sampled_from(SETTINGS), st.booleans())
def test_any_request_is_answered_as_documented_and_nothing_clear_is_kept(request, settings, replaying):
    method, path, query, body, kind = request
    body = body if isinstance(body, bytes) else urlencode(body).encode()
    door = intake(replaying, **settings)
    connection = door.connection(PEER)
    connection.feed(wire(method, f"{path}?{urlencode(query)}", body, Content_Type=kind, Sec_GPC="1"))
    batch = door.take()
    if batch:
        rejects = vectors.unpacked(batch.rejects)
        encoded = [value for reject in rejects for name, value in _core.pairs(reject["target"].encode()) if name == "e"]
        opened = [_core.unbase64(value.encode()) or b"" for value in encoded]
        assert SECRET.encode() not in b"".join([batch.events, batch.rejects, *opened]).lower()
        assert all(json.loads(line) for line in _core.json_lines(batch.events).splitlines())
        assert all(json.loads(line) for line in _core.json_lines(batch.rejects).splitlines())
        assert len(vectors.unpacked(batch.events)) == batch.event_count
        door.done(batch, True)
    (answer,) = vectors.answers(connection.output(), [method == "HEAD"])
    if answer.status in (405, 403):
        return
    if path == "/t/p.gif":
        assert (answer.status, answer.headers["content-type"]) == (200, "image/gif")
    elif path == "/t/callbacks.js":
        assert answer.status in (200, 400)
        assert not batch
    else:
        assert answer.status in (200, 400)
        assert method == "HEAD" or json.loads(answer.body)["status"] == ("OK" if answer.status == 200 else "ERROR")
    assert (answer.status == 200) or not (batch and batch.event_count)


# One request must not keep a worker from all others ----------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b'{"data_source_id":"k","type":"x"},' * 10_000 + b'{"data_source_id":"k","type":"x"}]',
        b'{"data_source_id":"k","type":"x","event_data":[' + b'{"email":1},' * 50_001 + b"0]}",
    ],
    ids=["events", "personal"],
)
def test_a_request_has_so_many_parts_at_most(body):
    answer, records, rejects = send(intake(), "POST", POST_EVENT, body)
    assert (answer.status, answer.headers["x-fastpixel"], records) == (400, "dropped; reason=too_large", [])
    assert [reject["reason"] for reject in rejects] == ["too_large"]


@pytest.mark.parametrize("policy, kept", [("drop", None), ("truncate", "192.0.2.0"), ("keep", "192.0.2.1")])
def test_an_address_that_stands_elsewhere_is_one_too(policy, kept):
    door = intake(privacy={"ip": policy})
    event = {"data_source_id": "k", "type": "x", "ip_v4": "192.0.2.1", "ip_v6": "2001:db8::1"}
    _, (posted,), _ = send(door, "POST", POST_EVENT, json.dumps(event).encode())
    _, (seen,), _ = send(door, "GET", "/t/p.gif?sid=k&type=x&ip_v4=192.0.2.1")
    for record in (posted, seen):
        assert record["context"].get("ip") == kept
        assert not {"ip_v4", "ip_v6"} & {*record, *record.get("properties", {})}


def test_an_empty_document_stays_one_in_a_reject():
    _, _, (reject,) = send(intake(sources=[{"key": "other"}]), "GET", "/t/p.gif?sid=k&type=x&e=&user_info.email=a@b.c")
    assert "&e=&" in reject["target"]
