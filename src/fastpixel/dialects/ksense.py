"""kSense: events and user_info as JSON, the image for pages without scripts, and the script that defines `kpix`.

Source: the vendor's "JavaScript API" page, whose calls js/kpix.js answers, and its server API. What the vendor's own
script sent was never documented, so ours sends the documented call.

How it works: whatever way an event comes, it becomes an Event, its members in the shape of `post_event`; `_record`
gives these their canonical places, and what no rule takes keeps its name. `event_data` is spliced, not decoded, unless
something in the request may be personal. A refusal is a Case: a reason and what the client is told. One bad element of
an array refuses all.

Personal data (personal.py) is hashed before the core sees an event, and in what a reject keeps. A reject keeps a token
as its hash; a retry compares that with the hash of the configured one, so a wrong token there costs no event.

Not supported: the vendor's own beacon; decryption of `aes:`, `enc:` and `enc1:` values; a second address of a device,
because the privacy rules know one address an event.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlencode

import msgspec
from msgspec import Raw

from fastpixel import client, personal
from fastpixel._core import REASONS, dotpath, is_blank, pack_json, pairs, unbase64
from fastpixel.dialect import GIF, GIF_UNAVAILABLE, REASON_DOCS, Dialect, Handler, Member, Reply, Route

if TYPE_CHECKING:
    from fastpixel._core import Call

Event: TypeAlias = dict[str, Any]  # name -> value; a value inside event_data may be Raw msgpack
Parameters: TypeAlias = list[tuple[str, str]]

_POST_EVENT: Final = ("/api/v2/events/post_event", "/api/v2/post_event")
_USER_INFO: Final = "/api/v2/user_info"
_IMAGE: Final = "/t/p.gif"
_SCRIPT: Final = "/t/callbacks.js"

_TYPES: Final = {"pv": "page", "user_info": "identify"}  # every other type is track, and the event's name
_USER_IDS: Final = ("internal_id", "email", "phone", "idfa", "gaid")
_ADDRESSES: Final = ("ip_v4", "ip_v6")
# The parameters of the image form that are members of the event; all others are of event_data.
_OF_EVENT: Final = (
    "type", "data_source_id", "event_id", "anonymous_id", "time_utc", "time", "labels", "device", "user_id",
    "user_info", "event_data", "conversion_name", "location", "ip_v4", "ip_v6",
)  # fmt: skip
# Parameters that may hold JSON: the vendor calls labels a "string json array".
_OF_JSON: Final = ("labels", "user_id", "user_info", "event_data", "device")
_MAX_ID_CHARS: Final = 256
_PARAMETER_DEPTH: Final = 32
_MAX_VALUES: Final = 50_000  # scalars, names, maps and arrays of a body: each may cost a hash, in a worker's one thread
_SID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)

_pack: Final = msgspec.msgpack.Encoder().encode
_value: Final = msgspec.msgpack.Decoder().decode
_members: Final = msgspec.msgpack.Decoder(dict[str, Raw]).decode
_elements: Final = msgspec.msgpack.Decoder(list[Raw]).decode


# -- what clients are answered -------------------------------------------------------------------------------------


def _error(message: str, status: int = 400, *headers: tuple[str, str]) -> Reply:
    body = msgspec.json.encode({"status": "ERROR", "message": message}).decode()
    return Reply(status, "application/json", body, headers)


class Case(NamedTuple):
    """Why a request is refused, and what a JSON client is told."""

    reason: str
    reply: Reply


_OK: Final = Reply(200, "application/json", '{"status":"OK"}')
_MESSAGES: Final = {
    "missing_event": "type is missing",
    "missing_key": "data_source_id is missing",
    "unknown_key": "unknown data source",
    "source_disabled": "the data source is disabled",
    "too_large": "the body has too many bytes or values",
    "value_too_long": f"event_id is longer than {_MAX_ID_CHARS} characters",
}
_STATUSES: Final = {"origin_not_allowed": 403}
_CASES: Final = {
    reason: Case(reason, _error(_MESSAGES.get(reason, REASON_DOCS[reason]), _STATUSES.get(reason, 400)))
    for reason in REASONS
}
_NOT_AN_OBJECT: Final = Case("bad_field", _error("an event is not a JSON object"))
_BAD_TYPE: Final = Case("bad_field", _error("type is not text"))
_BAD_SOURCE: Final = Case("bad_field", _error("data_source_id is neither text nor a number"))
_BAD_TOKEN: Final = Case("unknown_key", _error("the token is missing or wrong"))
_BAD_SID: Final = Reply(400, "text/plain; charset=utf-8", "sid must be 1 to 64 of A-Z a-z 0-9 _ -\n")
_LIMITED: Final = _error(REASON_DOCS["rate_limited"], 429, ("Retry-After", "1"))
_UNAVAILABLE: Final = _error(REASON_DOCS["spool_full"], 503, ("Retry-After", "5"))


# -- handlers ------------------------------------------------------------------------------------------------------


def _post_event(call: Call) -> Reply:
    """An event, or an array of events of which one that is bad refuses all. JSON, whatever the Content-Type says."""
    reason, parameters = call.pairs()
    case, events = (_CASES[reason], []) if reason else _of_body(call)
    return _answer(call, case or _store(call, events, parameters))


def _user_info(call: Call) -> Reply:
    """Who somebody is: as JSON, as a form, or in the query; the record of an event of type `user_info`."""
    kind = _body_kind(call)
    reason, parameters = call.pairs()
    if kind == "json":
        case, events = (_CASES[reason], []) if reason else _of_body(call)
        return _answer(call, case or _store(call, [_introduced(event) for event in events], parameters))
    if not reason and kind == "form":
        reason, form = call.form()
        parameters = parameters + form
    return _answer(call, _CASES[reason] if reason else _store(call, [_introduced(_flat(parameters))], parameters))


def _image(call: Call) -> Reply:
    """An event in the query and in a form, whose names may be dot paths, in `e`, or in a JSON body. Always the GIF."""
    reason, query = None, call.query
    if _body_kind(call) == "form":
        reason, _ = call.form()
        query += b"&" + call.body
    reason, packed = (reason, b"") if reason else dotpath(query)
    parameters = [] if reason else pairs(query)
    case, events = (_CASES[reason], []) if reason else _of_image(call, _value(packed), parameters)
    case = case or _store(call, events, parameters)
    return GIF if case is None else call.refuse(case.reason, GIF)


def _script(call: Call) -> Reply:
    """The script that defines `kpix`, for the data source `sid` (1 to 64 of `A-Z a-z 0-9 _ -`). Nothing is stored."""
    sid = dict(call.pairs()[1]).get("sid", "")
    if not _SID.fullmatch(sid):
        return _BAD_SID
    return client.script(
        "kpix.js",
        (("__SID__", sid),),
        if_none_match=call.header("if-none-match"),
        accept_encoding=call.header("accept-encoding"),
    )


def _answer(call: Call, case: Case | None) -> Reply:
    return _OK if case is None else call.refuse(case.reason, case.reply)


# -- from a request to events --------------------------------------------------------------------------------------


def _body_kind(call: Call) -> Literal["", "form", "json"]:
    """How a body is read: as JSON, whatever its Content-Type (sendBeacon: text/plain), unless a form is expected."""
    if call.method != "POST" or not call.body:
        return ""
    kind = call.header("content-type").lower()
    if call.path in _POST_EVENT or "json" in kind or call.body[:64].lstrip()[:1] in (b"{", b"["):
        return "json"
    is_form = call.path == _IMAGE or kind.startswith("application/x-www-form-urlencoded")
    return "form" if is_form else "json"


def _of_body(call: Call) -> tuple[Case | None, list[Event]]:
    if _is_encoded(call):
        return _CASES["bad_encoding"], []
    return _of_document(*call.json(max_values=_MAX_VALUES))


def _is_encoded(call: Call) -> bool:
    return call.header("content-encoding").lower() not in ("", "identity")


def _of_document(reason: str | None, packed: bytes) -> tuple[Case | None, list[Event]]:
    """The events of a document that was packed: an object, or an array of objects."""
    if reason:
        return _CASES[reason], []
    try:
        found = [_members(one) for one in (_elements(packed) if _is_array(packed) else (packed,))]
    except msgspec.ValidationError:
        return _NOT_AN_OBJECT, []
    if personal.suspected(packed):
        return None, [personal.cleaned({name: _value(raw) for name, raw in event.items()}) for event in found]
    return None, [{name: _opened(name, raw) for name, raw in event.items()} for event in found]


def _is_array(packed: bytes) -> bool:
    return 0x90 <= packed[0] <= 0x9F or packed[0] in (0xDC, 0xDD)


def _opened(name: str, raw: Raw) -> Any:
    """A member's value; those of event_data stay as they are."""
    try:
        return _members(raw) if name == "event_data" else _value(raw)
    except msgspec.ValidationError:
        return _value(raw)


def _of_image(call: Call, tree: dict[str, Any], parameters: Parameters) -> tuple[Case | None, list[Event]]:
    """The image form: parameters, under the event in `e` or in a JSON body if there is one."""
    flat = _of_parameters(tree, parameters)
    if encoded := dict(parameters).get("e"):
        case, events = _of_document(*_decoded(call, encoded))
    elif _body_kind(call) == "json":
        case, events = _of_body(call)
    else:
        case, events = None, [{}]
    return case, [{**flat, **event} for event in events]


def _decoded(call: Call, encoded: str) -> tuple[str | None, bytes]:
    """(reason, msgpack) of the parameter `e`."""
    document = unbase64(encoded.encode())
    return ("invalid_data", b"") if document is None else call.json(document, _PARAMETER_DEPTH, _MAX_VALUES)


def _of_parameters(tree: dict[str, Any], parameters: Parameters) -> Event:
    """Parameters that were read as dot paths."""
    event: Event = {}
    data: dict[str, Any] = {}
    for name, value in personal.cleaned({name: _read_json(name, value) for name, value in tree.items()}).items():
        name = "data_source_id" if name == "sid" else name
        (event if name in _OF_EVENT else data)[name] = value
    for name in ("token", "e"):
        data.pop(name, None)
    given = event.get("event_data", {})
    event["event_data"] = {**data, **(given if isinstance(given, dict) else {"event_data": given})}
    event["labels"] = _all_labels(parameters, tree.get("labels"))
    return event


def _flat(parameters: Parameters) -> Event:
    """Parameters whose names mean themselves."""
    event: Event = {name: _read_json(name, value) for name, value in parameters if name != "token"}
    event["labels"] = _all_labels(parameters, None)
    return {**personal.cleaned(event)}


def _all_labels(parameters: Parameters, tree: Any) -> list[Any]:
    """Of a repeated `labels` all count, and those that dot paths name (`labels.section=x`)."""
    labels: list[Any] = [_read_json(name, value) for name, value in parameters if name == "labels"]
    kept: list[Any] = personal.cleaned([*labels, tree if isinstance(tree, (dict, list)) else None], "labels")
    return kept


def _read_json(name: str, value: Any) -> Any:
    """A parameter that holds JSON, decoded; else as it came, unless it only looks like JSON and may be personal."""
    if name not in _OF_JSON or not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    reason, packed = pack_json(value.encode(), _PARAMETER_DEPTH)
    if reason is None:
        return _value(packed)
    return _hash(value) if personal.suspected(value.encode()) else value


def _introduced(event: Event) -> Event:
    """The flat form of user_info in the shape of an event."""
    event["type"] = "user_info"
    for target, names in (("user_id", _USER_IDS), ("device", _ADDRESSES)):
        if found := {name: event.pop(name) for name in names if name in event}:
            event[target] = {**_take_map(event, target), **found}
    if "timestamp_utc" in event:
        event.setdefault("time_utc", event.pop("timestamp_utc"))
    return event


# -- from an event to a record -------------------------------------------------------------------------------------


def _store(call: Call, events: list[Event], parameters: Parameters) -> Case | None:
    token = call.header("x-ksense-tok") or dict(parameters).get("token", "")
    for event in events:
        if case := _store_one(call, event, token):
            return case
    return None


def _store_one(call: Call, event: Event, token: str) -> Case | None:
    name, key, event_id = _take(event, "type"), _take(event, "data_source_id"), event.get("event_id")
    if name is None:
        return _CASES["missing_event"]
    if not isinstance(name, str):
        return _BAD_TYPE
    if key is None:
        return _CASES["missing_key"]
    if isinstance(key, bool) or not isinstance(key, (str, int, float)):
        return _BAD_SOURCE
    if isinstance(event_id, str) and len(event_id) > _MAX_ID_CHARS:
        return _CASES["value_too_long"]
    if reason := call.source(_text(key)):
        return _CASES[reason]
    if not _admits(call, token):
        return _BAD_TOKEN
    reason = call.add(_pack(_record(name, event)), _TYPES.get(name, "track"))
    return _CASES[reason] if reason else None


def _admits(call: Call, token: str) -> bool:
    """Whether the token is the source's. A reject that is tried again has its hash."""
    wanted = call.config_source.token if call.config_source else ""
    if wanted and call.replaying and _HASH.fullmatch(token):
        wanted = _hash(wanted)
    return not wanted or hmac.compare_digest(token.encode(), wanted.encode())


def _record(name: str, event: Event) -> dict[str, Any]:
    """The canonical members; a member that no rule takes, or that has not the form of its rule, keeps its name."""
    person = {**_take_map(event, "user_info"), **_take_map(event, "user_id")}
    addresses: dict[str, Any] = {name: event.pop(name) for name in _ADDRESSES if name in event}
    members = {
        "event": None if name in _TYPES else name,
        "messageId": _text(_take(event, "event_id")),
        "userId": person.get("internal_id"),
        "anonymousId": _take(event, "anonymous_id"),
        "timestamp": _take(event, "time_utc", "time"),
        "properties": _properties(event),
        "traits": {member: value for member, value in person.items() if not _is_empty(value)},
        "context": _context({**addresses, **_take_map(event, "device")}),
    }
    record = {member: value for member, value in members.items() if not _is_empty(value)}
    aside = {member: event.pop(member) for member in record if member in event}
    if aside:
        # What the client calls by a canonical name, beside kSense's own, stands where the core puts such things.
        aside.update({"context": event.pop("context")} if "context" in event else {})
        record["context"] = {**record.get("context", {}), "client": aside}
    return {**event, **record}


def _properties(event: Event) -> dict[str, Any]:
    data = _take_map(event, "event_data")
    labels = {**_take_labels(data), **_take_labels(event)}
    for member in ("conversion_name", "location"):
        value = None if member in data else _take(event, member)
        data.update({} if value is None else {member: value})
    return {**data, "labels": labels} if labels else data


def _take_labels(event: Event) -> dict[str, Any]:
    """Takes `labels` out, whichever of its forms it has, as a map."""
    labels = _plain(event.get("labels", []))
    if not isinstance(labels, (str, list, dict)):
        return {}
    event.pop("labels", None)
    found: dict[str, Any] = {}
    _lay_labels(labels, found)
    return found


def _lay_labels(labels: Any, found: dict[str, Any]) -> None:
    if isinstance(labels, dict):
        found.update(labels)
    elif isinstance(labels, list):
        for label in labels:
            _lay_labels(label, found)
    elif labels is not None:
        name, equals, value = (labels if isinstance(labels, str) else _json(labels)).partition("=")
        if name:
            found[name] = value if equals else True


def _context(device: dict[str, Any]) -> dict[str, Any]:
    """The sender's address, and what else it says of the device."""
    addresses = [device.pop(member, None) for member in _ADDRESSES]
    known = [address for address in addresses if isinstance(address, str) and not is_blank(address)]
    return {**({"ip": known[0]} if known else {}), **({"device": device} if device else {})}


def _take(event: Event, *members: str) -> Any:
    """Takes out the first of the members that is not empty, and the empty ones before it. None: all are."""
    for member in members:
        if not _is_empty(value := event.pop(member, None)):
            return value
    return None


def _take_map(event: Event, member: str) -> dict[str, Any]:
    """Takes out a member that is a map, or null; anything else stays."""
    value = event.get(member)
    if value is None or isinstance(value, dict):
        event.pop(member, None)
    return dict(value) if isinstance(value, dict) else {}


def _is_empty(value: Any) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and is_blank(value))


def _plain(value: Any) -> Any:
    return _value(value) if isinstance(value, Raw) else value


def _text(value: Any) -> Any:
    """A number as text; anything else as it is."""
    return value if isinstance(value, bool) or not isinstance(value, (int, float)) else personal.number_text(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# -- what a reject may keep ----------------------------------------------------------------------------------------


def _redact(call: Call) -> tuple[bytes, bytes]:
    """Target and body without clear personal data and tokens; what cannot be read is kept as length and hash."""
    return _kept_target(call), _kept_body(call)


def _kept_target(call: Call) -> bytes:
    sent = pairs(call.query)
    token = call.header("x-ksense-tok")
    wanted = [*(pair for pair in sent if pair[0] != "token"), ("token", token)] if token else sent
    kept = _kept_parameters(call, wanted)
    return call.target if kept == sent else call.target.partition(b"?")[0] + b"?" + urlencode(kept).encode()


def _kept_parameters(call: Call, parameters: Parameters) -> Parameters:
    makes = {"token": lambda text: _kept_token(call, text), "e": lambda text: _kept_document(call, text)}
    read = [(name, _read_json(name, value)) for name, value in parameters]
    kept = [(name, makes[name](value) if name in makes else value) for name, value in personal.parameters(read)]
    return [(name, value if isinstance(value, str) else _json(value)) for name, value in kept]


def _kept_token(call: Call, token: str) -> str:
    return token if call.replaying and _HASH.fullmatch(token) else _hash(token)


def _kept_document(call: Call, encoded: str) -> str:
    """The parameter `e`; an empty one is none."""
    if not encoded:
        return ""
    reason, packed = _decoded(call, encoded)
    if reason:
        return encoded if _HASH.fullmatch(encoded) else _hash(encoded)
    return base64.urlsafe_b64encode(_cleaned_json(packed)).decode().rstrip("=")


def _kept_body(call: Call) -> bytes:
    kind = _body_kind(call)
    if kind == "json":
        reason, packed = call.json(max_values=_MAX_VALUES)
        if reason is None:
            return _cleaned_json(packed)
    if kind == "form":
        reason, form = call.form()
        if reason is None:
            return urlencode(_kept_parameters(call, form)).encode()
    return f"{len(call.body)} bytes, sha256 {hashlib.sha256(call.body).hexdigest()}".encode() if call.body else b""


def _cleaned_json(packed: bytes) -> bytes:
    return msgspec.json.encode(personal.cleaned(_value(packed)))


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# -- the table -----------------------------------------------------------------------------------------------------

_EVENT_MEMBERS: Final = (
    Member("type", "type", "required; `pv` is a page, `user_info` an identify, anything else a track of that name"),
    Member("data_source_id", "writeKey", "required; text or a number"),
    Member("event_id", "messageId", f"at most {_MAX_ID_CHARS} characters, else `value_too_long`"),
    Member("anonymous_id", "anonymousId"),
    Member("time_utc", "timestamp", "also under the name `time`"),
    Member("user_id", "traits", "also under the name `user_info`; without what is empty"),
    Member("user_id.internal_id", "userId", "never hashed"),
    Member("user_id.email", "traits.email", "hashed unless it has a prefix"),
    Member("user_id.phone", "traits.phone", "hashed unless it has a prefix"),
    Member("event_data", "properties"),
    Member("labels", "properties.labels", '"name=value" texts, objects, or a map; always stored as a map'),
    Member("conversion_name", "properties.conversion_name", "unless event_data has one"),
    Member("location", "properties.location", "unless event_data has one"),
    Member("device.ip_v4", "context.ip"),
    Member("device.ip_v6", "context.ip", "without an ip_v4; of two addresses one is kept"),
    Member("device", "context.device", "the rest of it"),
)
_PERSON_MEMBERS: Final = (
    Member("data_source_id", "writeKey", "required; text or a number"),
    Member("timestamp_utc", "timestamp", "seconds; empty is now"),
    Member("internal_id", "userId", "and traits.internal_id; never hashed"),
    Member("email", "traits.email", "hashed unless it has a prefix"),
    Member("phone", "traits.phone", "hashed unless it has a prefix"),
    Member("idfa", "traits.idfa"),
    Member("gaid", "traits.gaid"),
    Member("ip_v4", "context.ip"),
    Member("ip_v6", "context.ip", "without an ip_v4"),
    Member("location", "properties.location"),
    Member("labels", "properties.labels", "as of an event; all of a repeated parameter"),
)
_IMAGE_MEMBERS: Final = (
    Member("sid", "writeKey", "required"),
    Member("type", "type", "required"),
    Member("e", "*", "base64url of an event's JSON, whose members are above the other parameters"),
    Member("user_info.*", "traits.*"),
    Member("labels", "properties.labels", "all of a repeated one"),
    Member("*", "properties.*", "unless it is a member of an event, such as `event_id` or `device.ip_v4`"),
)


def _json_route(method: tuple[str, ...], path: str, type: str, handler: Handler, members: tuple[Member, ...]) -> Route:
    return Route(
        method,
        path,
        type,
        (),
        handler=handler,
        members=members,
        redact=_redact,
        limited=_LIMITED,
        unavailable=_UNAVAILABLE,
    )


_IMAGE_ROUTE: Final = Route(
    ("GET", "POST"),
    _IMAGE,
    "",
    (),
    handler=_image,
    members=_IMAGE_MEMBERS,
    visitor=True,
    redact=_redact,
    limited=GIF,
    unavailable=GIF_UNAVAILABLE,
)
_SCRIPT_ROUTE: Final = Route(("GET",), _SCRIPT, "", (), handler=_script, redact=_redact)

DIALECT = Dialect(
    name="ksense",
    title="kSense",
    routes=(
        *(_json_route(("POST",), path, "", _post_event, _EVENT_MEMBERS) for path in _POST_EVENT),
        _json_route(("GET", "POST"), _USER_INFO, "identify", _user_info, _PERSON_MEMBERS),
        _IMAGE_ROUTE,
        _SCRIPT_ROUTE,
    ),
    errors=_MESSAGES,
    unsupported=(
        "the vendor's own beacon, which was never documented",
        "decryption of `aes:`, `enc:` and `enc1:` values",
        "a second address of a device",
    ),
)
