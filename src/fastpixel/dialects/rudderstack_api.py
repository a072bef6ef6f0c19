"""RudderStack's HTTP API: events as JSON, one or a batch of them, by POST; and what its JavaScript SDK asks besides.

Source: the vendor's "HTTP API" page, and what its gateway and SDKs do: they read errors as text, retry what is not a
4xx, and send gzip. POST /v1/* is spoken by Segment's SDKs too, so that dialect has the same routes.

How a request is read: the key comes first, from `Authorization: Basic base64(writeKey:)`, and is judged before the
body is looked at. Only without one the body is read for its `writeKey`; a body that cannot be read then is a missing
key. A body is inflated, turned into msgpack once, and its events go into records as they stand: of each one only the
members that decide something are decoded.

Not supported: members of a batch beside `batch`, `writeKey` and those of `_SHARED`; they are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from fastpixel._core import unbase64
from fastpixel.dialect import Field, Member, Reply, Route
from fastpixel.dialects.inflate import gunzip

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastpixel._core import Call

_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_OK: Final = Reply(200, _TEXT, "ok")
_LIMITED: Final = Reply(429, _TEXT, "max requests limit reached\n", (("Retry-After", "1"),))
_NO_CONTENT: Final = Reply(204, _TEXT, "")
_EMPTY: Final = Reply(200, _JSON, "{}")

# Case -> (reason, status, text). A case that is none of these is a reason itself: 400 and its name.
_CASES: Final = {
    "no key in header": ("missing_write_key", 401, "failed to read writekey from header"),
    "no key in query": ("missing_write_key", 401, "failed to read writekey from query params"),
    "unknown_key": ("unknown_key", 401, "invalid write key"),
    "source_disabled": ("source_disabled", 404, "source is disabled"),
    "origin_not_allowed": ("origin_not_allowed", 403, "origin_not_allowed"),
    "bad gzip": ("bad_encoding", 400, "failed to uncompress request body"),
    "too_large": ("too_large", 413, "request size exceeds max limit"),
    "no body": ("bad_json", 400, "request body is nil"),
    "bad_json": ("bad_json", 400, "invalid json"),
    "bad_encoding": ("bad_encoding", 400, "invalid json"),
    "invalid_data": ("invalid_data", 400, "event is not a valid rudder event"),
    "no batch": ("missing_event", 400, "empty batch payload"),
    "missing_identity": ("missing_identity", 400, "request neither has anonymousId nor userId"),
}
_REFUSALS: Final = {
    case: (reason, Reply(status, _TEXT, f"{text}\n")) for case, (reason, status, text) in _CASES.items()
}
# The same for /sourceConfig, which a script reads: JSON, and another status.
_CONFIG_REFUSALS: Final = {
    case: (reason, Reply(status, _JSON, msgspec.json.encode({"message": text})))
    for case, reason, status, text in (
        ("no key in header", "missing_write_key", 401, "Writekey not found in basic auth"),
        ("unknown_key", "unknown_key", 400, "Invalid write key"),
        ("origin_not_allowed", "origin_not_allowed", 403, "origin_not_allowed"),
    )
}

_NOTHING: Final = Raw(b"")
_NULL: Final = b"\xc0"
# Members of a batch that hold for each of its events that has none of that name.
_SHARED: Final = ("sentAt", "context", "integrations")


class _Keyed(Struct):
    """What is read of a body whose request has no key in its header."""

    writeKey: Raw = _NOTHING


class _Envelope(Struct):
    batch: Raw = _NOTHING
    sentAt: Raw = _NOTHING
    context: Raw = _NOTHING
    integrations: Raw = _NOTHING


class _Deciding(Struct, gc=False):
    """What is read of an event of a batch."""

    type: Raw = _NOTHING
    sentAt: Raw = _NOTHING
    context: Raw = _NOTHING
    integrations: Raw = _NOTHING


_read_key: Final = msgspec.msgpack.Decoder(_Keyed).decode
_read_envelope: Final = msgspec.msgpack.Decoder(_Envelope).decode
_read_events: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_read_deciding: Final = msgspec.msgpack.Decoder(list[_Deciding]).decode
_read_text: Final = msgspec.msgpack.Decoder(str).decode


# -- Handlers --------------------------------------------------------------------------------------------------------


def _single(call: Call) -> Reply:
    """One event; its type is the path's, whatever it says itself."""
    case, body = _opened(call)
    if case is None:
        case = call.add(body)
    return _OK if case is None else _refused(call, case)


def _batch(call: Call) -> Reply:
    """Many events; one that cannot be stored refuses all of them."""
    case, body = _opened(call)
    if case is None:
        case = _add_all(call, body)
    return _OK if case is None else _refused(call, case)


def _beacon(call: Call) -> Reply:
    """A batch as the browser's sendBeacon posts it: without headers, so the key is in the query."""
    case, pairs = call.pairs()
    key = next((value for name, value in pairs if name == "writeKey"), "")
    case = case or (call.source(key) if key else "no key in query")
    if case is None:
        case, body = _read(call)
    if case is None:
        case = _add_all(call, body)
    return _OK if case is None else _refused(call, case)


def _source_config(call: Call) -> Reply:
    """What rudder-sdk-js wants to know before it sends. A HEAD with view=ad is how it looks for ad blockers."""
    if call.method == "HEAD" and ("view", "ad") in call.pairs()[1]:
        return _NO_CONTENT
    key = basic_user(call.header("authorization"))
    case = call.source(key) if key else "no key in header"
    if case in _CONFIG_REFUSALS:
        reason, reply = _CONFIG_REFUSALS[case]
        return call.refuse(reason, reply, keep=False)
    return Reply(200, _JSON, msgspec.json.encode(_config(call, enabled=case is None)))


def _metrics(call: Call) -> Reply:
    """The SDK's reports on itself are taken and not kept."""
    return _EMPTY


# -- Reading ---------------------------------------------------------------------------------------------------------


def _opened(call: Call) -> tuple[str | None, bytes]:
    """(case, body as msgpack) with the key judged, which comes first if it is in the header."""
    key = basic_user(call.header("authorization"))
    if key:
        case = call.source(key)
        return (case, b"") if case else _read(call)
    case, body = _read(call)
    key = "" if case else key_inside(body)
    return (call.source(key), body) if key else ("no key in header", b"")


def basic_user(header: str) -> str:
    """The user of `Authorization: Basic` (RFC 7617); "": it names none."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    user, colon, _ = (unbase64(coded.strip().encode()) or b"").partition(b":")
    return user.decode("utf-8", "replace") if colon else ""


def key_inside(body: bytes) -> str:
    """The `writeKey` of an event or a batch; "": it is no text, or there is none."""
    try:
        return text(_read_key(body).writeKey)
    except msgspec.ValidationError:  # not a map
        return ""


def _read(call: Call) -> tuple[str | None, bytes]:
    """(case, body as msgpack)."""
    data, coding = call.body, call.header("content-encoding").strip().lower()
    if data and coding not in ("", "identity"):
        reason, data = gunzip(data, call.max_body_bytes) if coding == "gzip" else ("bad_encoding", b"")
        if reason:
            return ("bad gzip" if reason == "bad_encoding" else reason), b""
        call.size = len(data)
    return call.json(data) if data else ("no body", b"")


def _add_all(call: Call, body: bytes) -> str | None:
    """Adds the events of a batch; gives the case against it."""
    try:
        envelope = _read_envelope(body)
        if is_absent(envelope.batch):
            return "no batch"
        events, members = _read_events(envelope.batch), _read_deciding(envelope.batch)
    except msgspec.ValidationError:  # the body or an event is not a map, or `batch` not an array
        return "invalid_data"
    if not events:
        return "no batch"
    shared = _shared(envelope)
    for event, member in zip(events, members, strict=True):
        more = [packed for name, packed in shared if not getattr(member, name)]
        case = call.add(joined(event, more) if more else event, text(member.type) or "track")
        if case is not None:
            return case
    return None


def _shared(envelope: _Envelope) -> list[tuple[str, bytes]]:
    """(name, name and value as msgpack) of the envelope's members that its events may lack."""
    values = [(name, getattr(envelope, name)) for name in _SHARED]
    return [(name, msgspec.msgpack.encode(name) + value) for name, value in values if not is_absent(value)]


# -- msgpack ---------------------------------------------------------------------------------------------------------


def text(value: Raw) -> str:
    """The text that a value is; "": it is something else, or nothing."""
    try:
        return _read_text(value) if value else ""
    except msgspec.ValidationError:
        return ""


def is_absent(value: Raw) -> bool:
    """Not there, or null."""
    return not value or bytes(value) == _NULL


def joined(event: Raw, more: list[bytes]) -> bytes:
    """A map with more members at its end, packed, of names that it does not have."""
    packed = memoryview(event)
    if packed[0] < 0x90:
        at, count = 1, packed[0] & 0x0F
    else:
        at = 3 if packed[0] == 0xDE else 5
        count = int.from_bytes(packed[1:at], "big")
    return b"".join((_map_head(count + len(more)), packed[at:], *more))


def _map_head(count: int) -> bytes:
    if count < 16:
        return bytes((0x80 | count,))
    return b"\xde" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdf" + count.to_bytes(4, "big")


# -- Answers ---------------------------------------------------------------------------------------------------------


def _refused(call: Call, case: str) -> Reply:
    reason, reply = _REFUSALS.get(case) or (case, Reply(400, _TEXT, f"{case}\n".encode()))
    return call.refuse(reason, reply)


def _config(call: Call, enabled: bool) -> dict[str, object]:
    """A source without destinations: the SDK sends everything to its data plane, and loads nothing."""
    name = call.config_source.name if call.config_source else ""
    off = {"enabled": False}
    source: dict[str, object] = {
        "id": name or call.key,
        "name": name or call.key,
        "writeKey": call.key,
        "workspaceId": "fastpixel",
        "enabled": enabled,
        "config": {"statsCollection": {"errors": off, "metrics": off}},
        "dataplanes": {},
        "destinations": [],
        "updatedAt": call.received,
    }
    return {"source": source, "updatedAt": call.received}


# -- Routes ----------------------------------------------------------------------------------------------------------

ROWS: Final = (
    Field("messageId", to="messageId", tidy=True),
    Field("timestamp", to="timestamp", kind="iso8601"),
)
_KEY: Final = Member("writeKey", "writeKey", "the key, if the Authorization header has none")
_EVENT: Final = (
    _KEY,
    Member("type", "context.client.type", "unless it is the path's"),
    Member("*", "*", "as it is, with its JSON types"),
)
_EVENTS: Final = (
    Member("batch.*.type", "type", '"track" if it is no text, or none'),
    Member("batch.*.*", "*", "as it is, with its JSON types"),
    *(Member(name, name, f"of each event that has no `{name}`") for name in _SHARED),
)
_TYPES: Final = ("identify", "track", "page", "screen", "group", "alias", "merge")


def _route(path: str, type: str, handler: Callable[[Call], Reply], members: tuple[Member, ...]) -> Route:
    return Route(
        method=("POST",),
        path=path,
        type=type,
        identity=("anonymousId", "userId"),
        fields=ROWS,
        handler=handler,
        members=members,
        limited=_LIMITED,
    )


EVENTS: Final = (
    *(_route(f"/v1/{type}", type, _single, _EVENT) for type in _TYPES),
    *(_route(path, "track", _batch, (_KEY, *_EVENTS)) for path in ("/v1/batch", "/v1/import")),
)
BEACON: Final = _route("/beacon/v1/batch", "track", _beacon, _EVENTS)
SDK: Final = (
    *(Route(("GET",), path, "", (), handler=_source_config) for path in ("/sourceConfig", "/sourceConfig/")),
    Route(("POST",), "/rsaMetrics", "", (), handler=_metrics),
)
