"""The Python tier's side of the core: what a handler sees and may add, and that a request is stored whole or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectors
from fastpixel._core import Call, Intake, Plan, json_lines
from fastpixel.config import Config
from fastpixel.dialect import GIF, NOT_FOUND, Dialect, Field, Reply, Route
from fastpixel.event import FIELDS
from vectors import NOW, PEER

OK = Reply(200, "text/plain; charset=utf-8", "ok")
BAD = Reply(400, "text/plain; charset=utf-8", "reason")
Handler = Callable[[Call], Reply]


def config(**settings: Any) -> Config:
    return Config.from_json(msgspec.json.encode({"settings": settings, "warnings": []}))


NO_SETTINGS = config()


@dataclass
class Door:
    """An Intake with one route of the Python tier, at /api/{name}."""

    handler: Handler
    settings: Config = NO_SETTINGS
    identity: tuple[str, ...] = ()
    visitor: bool = False
    fields: tuple[Field, ...] = ()

    def __post_init__(self) -> None:
        route = Route(
            ("GET", "POST", "PUT"),
            "/api/{name}",
            "track",
            self.fields,
            handler=self.handler,
            identity=self.identity,
            visitor=self.visitor,
        )
        shared = Dialect("one", "One", (route,), options={"reply": "gif"}, not_found=NOT_FOUND, prefixes=("/api/",))
        dialects = (shared, Dialect("two", "Two", (route,)), *vectors.DIALECTS)
        sources = self.settings.sources
        plan = Plan(
            dialects,
            sources,
            fields=FIELDS,
            options={"one": {"a": 1}},
            privacy=self.settings.privacy,
            visitor=self.settings.visitor if self.visitor else None,
            paths=self.settings.paths,
        )
        self.intake = Intake(
            plan, now=lambda: NOW, rejects_per_second=1_000_000, trusted_proxies=self.settings.trusted_proxies
        )

    def send(
        self,
        body: bytes = b"",
        *,
        method: str = "POST",
        target: str = "/api/x",
        headers: Sequence[str] = (),
        stored: bool = True,
    ) -> vectors.Exchange:
        lines = [f"{method} {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
        found = vectors.Exchange([], [], [], False)
        connection = self.intake.connection(PEER)
        connection.feed("\r\n".join(lines).encode("latin-1") + body)
        vectors.store(self.intake, found, stored)
        found.answers = list(vectors.answers(connection.output(), [method == "HEAD"]))
        return found


def adding(*events: Any, key: str = "k", type: str | None = None, reply: Reply = OK) -> Handler:
    def handler(call: Call) -> Reply:
        if reason := call.source(key):
            return call.refuse(reason, BAD)
        for event in events:
            if reason := call.add(event, type):
                return call.refuse(reason, BAD)
        return reply

    return handler


def packed(**members: Any) -> bytes:
    return msgpack.packb(members)


def record(event: Any, **more: Any) -> dict[str, Any]:
    door = Door(adding(event, **more))
    found = door.send()
    assert found.answers[0].status == 200
    (stored,) = found.records
    return stored


# What a handler sees ----------------------------------------------------------------------------------------------


def test_the_request():
    seen: list[Any] = []

    def handler(call: Call) -> Reply:
        seen.append(
            (call.method, call.path, call.target, call.query, call.variables, call.body, call.ip, call.received_ns)
        )
        seen.append((call.header("x-token"), call.header("absent"), call.received, call.options, call.replaying))
        seen.append((call.pairs(), call.form(), call.dotted(), call.key, call.config_source))
        return OK

    settings = config(paths={"/c/": "/api/"})
    answer = Door(handler, settings).send(b"a=1+1", target="/c/%C3%A4?x.y=1&x.z=%20", headers=["X-Token:  t\u00fc "])
    assert (answer.answers[0].status, answer.answers[0].body) == (200, b"ok")
    assert seen[0][:6] == ("POST", "/api/%C3%A4", b"/c/%C3%A4?x.y=1&x.z=%20", b"x.y=1&x.z=%20", ("ä",), b"a=1+1")
    assert seen[0][6:] == (PEER, NOW)
    assert seen[1] == ("t\ufffd", "", "2024-05-04T12:34:56.789Z", {"a": 1}, False)
    assert seen[2][0] == (None, [("x.y", "1"), ("x.z", " ")])
    assert seen[2][1] == (None, [("a", "1 1")])
    assert seen[2][2] == (None, packed(x={"y": "1", "z": " "}))
    assert seen[2][3:] == ("", None)


def test_a_call_ends_with_its_handler():
    kept: list[Call] = []
    door = Door(lambda call: (kept.append(call), OK)[1])
    door.send()
    with pytest.raises(RuntimeError, match="only while its handler runs"):
        _ = kept[0].body
    with pytest.raises(RuntimeError, match="only while its handler runs"):
        kept[0].add(b"\x80")


def test_json_of_the_body():
    seen: list[Any] = []
    door = Door(lambda call: (seen.append((call.json(), call.json(b"[1]"), call.json(b"{"))), OK)[1])
    door.send(b'{"a": {"__proto__": 1}}')
    assert seen == [((None, packed(a={})), (None, b"\x91\x01"), ("bad_json", b""))]
    assert door.intake is not None


def test_json_of_too_many_values():
    seen: list[Any] = []
    document = b'{"a": [1, "b", {}]}'  # the map, a name, the array, three members
    door = Door(lambda call: (seen.extend(call.json(document, max_values=limit) for limit in (6, 5, 0)), OK)[1])
    door.send()
    assert seen == [(None, packed(a=[1, "b", {}])), ("too_large", b""), ("too_large", b"")]


# Records ----------------------------------------------------------------------------------------------------------


def test_a_record_is_completed_as_a_pixels_is():
    assert vectors.alike(record(packed(userId="u", properties={"a": [1, None]})), {"messageId": "<uuid7>"}) == {
        "receivedAt": msgpack.Timestamp(NOW // 10**9, NOW % 10**9),
        "timestamp": msgpack.Timestamp(NOW // 10**9, NOW % 10**9),
        "protocol": "one",
        "type": "track",
        "writeKey": "k",
        "userId": "u",
        "properties": {"a": [1, None]},
        "context": {"ip": PEER},
        "messageId": "<uuid7>",
    }


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (packed(userId=17, anonymousId=-3), {"userId": "17", "anonymousId": "-3"}),
        (packed(sessionId=1.5, previousId=2**64 - 1), {"sessionId": "1.5", "previousId": "18446744073709551615"}),
        (packed(userId=None, properties=None, context=None, timestamp=None), {}),
        ({"properties": {"a": b"\x01", "b": "t"}, "userId": None}, {"properties": {"a": 1, "b": "t"}}),
        (packed(event=5), {"context": {"client": {"event": 5}}}),
        (packed(userId=True), {"context": {"client": {"userId": True}}}),
        (packed(properties=[1]), {"context": {"client": {"properties": [1]}}}),
        (packed(context="text"), {"context": {"client": {"context": "text"}}}),
        (packed(seq="1", context="text"), {"context": {"client": {"seq": "1", "context": "text"}}}),
        (packed(context={"client": "c"}), {"context": {"client": {"client": "c"}}}),
        (
            packed(protocol="x", context={"client": {"protocol": "y", "z": 1}}),
            {"context": {"client": {"protocol": "x", "z": 1}}},
        ),
        (packed(type="track", writeKey="k"), {}),
        (packed(type="page", writeKey=5), {"context": {"client": {"type": "page", "writeKey": 5}}}),
        (packed(context={"ip": "192.0.2.1", "x": {"y": []}}), {"context": {"ip": "192.0.2.1", "x": {"y": []}}}),
        (packed(unknown=None, other=[{}]), {"unknown": None, "other": [{}]}),
        (packed(messageId=5), {"context": {"client": {"messageId": 5}}}),
        (packed(messageId=" "), {}),
        (packed(messageId="m"), {"messageId": "m"}),
    ],
)
def test_members(event: Any, expected: dict[str, Any]):
    bare = record(packed())
    expected = vectors.merged(bare, expected)
    if (
        "messageId" not in (event if isinstance(event, dict) else msgpack.unpackb(event))
        or expected["messageId"] != "m"
    ):
        expected["messageId"] = "<uuid7>"
    assert vectors.alike(record(event), expected) == expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2024-01-01T00:00:00Z", 1704067200), (1704067200, 1704067200), (1704067200000, 1704067200), ("1704067200", None)],
)
def test_times(value: Any, seconds: int | None):
    found = record(packed(timestamp=value))
    assert found["timestamp"].seconds == seconds or seconds is None
    assert "originalTimestamp" not in found


def test_an_unusable_time_is_kept_as_text():
    found = record(packed(timestamp="soon"))
    assert (found["timestamp"], found["originalTimestamp"]) == (found["receivedAt"], "soon")
    found = record(packed(timestamp="soon", originalTimestamp="o"))
    assert (found["originalTimestamp"], found["context"]["client"]) == ("o", {"timestamp": "soon"})


def test_the_type_is_the_handlers():
    assert record(packed(), type="größe")["type"] == "größe"


def test_rows_hold_for_members():
    door = Door(
        adding(packed(messageId=" a\u200bb ", event="e")), fields=(Field("messageId", to="messageId", tidy=True),)
    )
    assert door.send().records[0]["messageId"] == "ab"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (packed(anonymousId="\u200b"), "missing_identity"),
        (packed(userId=None), "missing_identity"),
        (packed(), "missing_identity"),
        (b"\x90", "invalid_data"),
        (b"\x81", "invalid_data"),
        (b"\x81\x01\x01", "invalid_data"),
        (msgpack.packb({f"n{i}": i for i in range(1001)}), "too_many_params"),
        (msgpack.packb({"userId": "u", "context": {f"n{i}": i for i in range(1000)}}), "too_many_params"),
        (msgpack.packb({"userId": "u", "a": "x" * 2**20}), "too_large"),
    ],
)
def test_reasons(event: bytes, reason: str):
    found = Door(adding(event), identity=("anonymousId", "userId")).send()
    assert found.answers[0].headers["x-fastpixel"] == f"dropped; reason={reason}"
    assert found.answers[0].body == reason.encode() + b"\n"
    assert found.records == []
    assert [reject["reason"] for reject in found.rejects] == [reason]
    assert found.rejects[0]["writeKey"] == "k"


@vectors.fuzz
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*(f.name for f in FIELDS), "client", "ip"]) | st.text(max_size=4), inner, max_size=5
            )
        ),
        max_leaves=20,
    )
)
def test_any_map_is_a_strict_record(event: Any):
    door = Door(adding(msgpack.packb(event)))
    found = door.send()
    if not isinstance(event, dict):
        assert found.answers[0].status == 400
        return
    for stored in found.records:
        assert isinstance(stored["messageId"], str)
        assert all(isinstance(stored.get(f.name, ""), str) for f in FIELDS if f.type == "text")
        assert all(isinstance(stored.get(f.name, {}), dict) for f in FIELDS if f.type == "map")
        assert stored["writeKey"] == "k"
        for line in json_lines(msgpack.packb(stored)).splitlines():
            json.loads(line)


# One request, one append --------------------------------------------------------------------------------------------


def test_all_or_nothing():
    good, bad = packed(userId="u"), b"\x90"
    found = Door(adding(good, good, good)).send()
    assert len(found.records) == 3
    found = Door(adding(good, good, bad)).send()
    assert (found.records, found.answers[0].status) == ([], 400)


def test_a_head_stores_nothing():
    found = Door(adding(packed())).send(method="HEAD")
    assert found.answers[0].headers["x-fastpixel"] == "dropped; reason=head"
    assert (found.records, found.rejects) == ([], [])


def test_what_cannot_be_stored():
    found = Door(adding(packed())).send(stored=False)
    assert (found.answers[0].status, found.answers[0].headers["retry-after"]) == (503, "5")
    assert found.answers[0].headers["x-fastpixel"] == "dropped; reason=spool_full"


MADE = Reply(200, "application/json", b'{"a": 1}', (("X-A", "b"),))


def test_a_made_answer_waits_for_its_batch():
    door = Door(adding(packed(), reply=MADE))
    connection = door.intake.connection(PEER)
    connection.feed(b"GET /api/x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\n\r\n")
    assert connection.output() == b""
    door.intake.done(door.intake.take(), True)
    (answer,) = vectors.answers(connection.output(), [False])
    assert (answer.body, answer.headers["x-a"], answer.headers["content-type"]) == (MADE.body, "b", "application/json")
    assert answer.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize("origin", [(), ("Origin: https://a.example",)])
def test_a_made_answer_that_could_not_be_stored(origin: Sequence[str]):
    found = Door(adding(packed(), reply=MADE)).send(headers=origin, stored=False)
    assert found.answers[0].status == 503
    assert found.answers[0].headers["access-control-allow-origin"] == ("https://a.example" if origin else "*")


def test_a_handler_may_say_what_is_answered_then():
    away = Reply(307, "text/plain; charset=utf-8", b"", (("Location", "https://a.example/"),))

    def handler(call: Call) -> Reply:
        call.otherwise = away
        return adding(packed(), reply=away)(call)

    for stored in (True, False):
        found = Door(handler).send(stored=stored)
        assert (found.answers[0].status, found.answers[0].headers["location"]) == (307, "https://a.example/")
        assert found.answers[0].headers.get("x-fastpixel") == (None if stored else "dropped; reason=spool_full")


def test_a_header_cannot_be_two():
    door = Door(lambda call: Reply(200, "text/plain", b"", (("X-A", "b\r\nX-C: d"),)))
    with pytest.raises(ValueError, match="must be one line"):
        door.send()


def test_paths_below_a_prefix_have_the_dialects_404():
    found = Door(adding()).send(target="/api/x/y")
    assert (found.answers[0].status, found.answers[0].body) == (404, b"not found\n")


# So that a configuration knows the names.
NAMES = [
    {"name": name, "routes": [{"path": "/a", "fields": [{"from": "k", "to": "writeKey", "required": "missing_key"}]}]}
    for name in ("one", "two")
]


# Sources ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "reason", "protocol"),
    [
        (["one"], None, "one"),
        (["two"], None, "two"),
        (["two", "one"], None, "one"),
        (["kissmetrics"], "unknown_key", ""),
    ],
)
def test_a_shared_route_is_recorded_as_the_first_that_the_source_lists(protocols, reason, protocol):
    settings = config(sources=[{"key": "k", "name": "shop", "protocols": protocols}], dialects=NAMES)
    found = Door(adding(packed()), settings).send()
    if reason:
        assert found.rejects[0]["reason"] == reason
    else:
        assert (found.records[0]["protocol"], found.records[0]["source"]) == (protocol, "shop")


def test_the_configured_row():
    seen: list[Any] = []
    settings = config(sources=[{"key": "other"}, {"key": "k", "token": "secret", "protocols": ["one"]}], dialects=NAMES)

    def handler(call: Call) -> Reply:
        seen.append((call.source("nobody"), call.config_source))
        seen.append((call.source("k"), call.config_source.token))
        return OK

    Door(handler, settings).send()
    assert seen == [("unknown_key", None), (None, "secret")]


def test_gif_is_prebuilt():
    found = Door(adding(packed(), reply=GIF)).send()
    assert found.answers[0].body.startswith(b"GIF89a")


# Defects of handlers ----------------------------------------------------------------------------------------------


def test_what_was_added_is_committed_though_its_answer_cannot_be_written():
    pending: list[None] = []
    door = Door(adding({"event": "x"}, reply=Reply(200, "text/plain", b"", (("X-Two", "a\r\nb"),))))
    door.intake.on_pending = lambda: pending.append(None)
    with pytest.raises(ValueError, match="must be one line"):
        door.send()
    assert (door.intake.pending, pending) == (1, [None])


def test_a_handler_that_raises_costs_its_connection_and_no_other_one():
    def handler(call: Call) -> Reply:
        if call.query == b"boom":
            raise RuntimeError("boom")
        return adding({"event": "x"})(call)

    def target(query: bytes) -> bytes:
        return b"GET /api/x?%s HTTP/1.1\r\nHost: h\r\n\r\n" % query

    plan = Door(handler).intake.plan
    intake = Intake(plan, now=lambda: NOW, max_inflight_bytes=1)
    first, bad, other = (intake.connection() for _ in range(3))
    first.feed(target(b"ok") + target(b"boom") + target(b"ok"))
    bad.feed(target(b"boom") + target(b"ok"))
    other.feed(target(b"ok"))
    assert (first.stalled, bad.stalled, other.stalled) == (True, True, True)
    raised = 0
    while (batch := intake.take()) is not None:
        try:
            intake.done(batch, True)
        except RuntimeError:
            raised += 1
    assert (first.output().count(b"200 OK"), first.closing) == (1, True)
    assert (bad.output(), bad.closing) == (b"", True)  # an answer to what came next would be taken for this one's
    assert (other.output().count(b"200 OK"), other.closing, other.stalled) == (1, False, False)
    assert raised


def test_the_reject_of_a_head_is_not_kept():
    found = Door(adding({"event": "x"}), config(sources=[{"key": "other"}])).send(method="GET")
    assert [reject["reason"] for reject in found.rejects] == ["unknown_key"]
    found = Door(adding({"event": "x"}), config(sources=[{"key": "other"}])).send(method="HEAD")
    assert (found.answers[0].headers["x-fastpixel"], found.rejects) == ("dropped; reason=unknown_key", [])


def test_the_strictest_rules_of_a_requests_sources_hold_for_its_reject():
    def handler(call: Call) -> Reply:
        for key in ("strict", "free"):
            call.source(key)
            call.add({"event": "x"})
        return call.refuse("missing_event", BAD)

    sources = [{"key": "free"}, {"key": "strict", "privacy": {"ip": "drop", "gpc": "drop"}}]
    door = Door(handler, config(sources=sources, dialects=NAMES))
    body = json.dumps({"ip": "192.0.2.1", "a": 1}).encode()
    (reject,) = door.send(body).rejects
    assert ("ip" in reject, reject["body"]) == (False, '{"ip": "", "a": 1}')
    assert door.send(body, headers=["DNT: 1"]).rejects == []
    assert door.send(body, target="/e?_k=free&_p=p").rejects[0]["ip"] == PEER


def test_who_is_refused_before_a_source_is_known_may_be_of_any():
    sources = [{"key": "free"}, {"key": "strict", "privacy": {"ip": "drop", "gpc": "drop"}}]
    door = Door(lambda call: call.refuse("bad_json", BAD), config(sources=sources))
    (reject,) = door.send(b"{").rejects
    assert "ip" not in reject
    assert door.send(b"{", headers=["DNT: 1"]).rejects == []


def test_the_events_of_a_request_are_one_visitors():
    found = Door(adding({"event": "x"}, {"event": "y"}, {"anonymousId": "own"}, {"event": "z"}), visitor=True).send()
    ids = [record["anonymousId"] for record in found.records]
    assert ids == [ids[0], ids[0], "own", ids[0]]
    assert found.answers[0].headers["set-cookie"].startswith(f"_fp={ids[0]};")
