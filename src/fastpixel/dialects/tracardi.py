"""Tracardi: POST /track, the webhooks /collect/..., and configured redirects.

Source: the vendor's "Javascript integrations" page, and what its tracker and its server (a FastAPI application) do:
answers are JSON, a body that does not fit is a 422 whose `loc` names the fault, a wrong source a 401. One payload holds
many events; they are stored together or not at all.

How a body is read: the core makes msgpack of the JSON, a strict decoder takes the envelope and leaves the rest as it
is (msgspec.Raw), and those bytes go into the records without being read again (`_quickly`). Whatever is unusual, a body
that the strict decoder refuses, a source that is none, an event that the core finds fault with, starts anew and is
looked at closely: then all faults are found, and members that nobody knows are kept.

Where things go: a context's members that the record knows stay in `context`, the rest is `context.tracardi`; what the
payload has beside them is `context.tracardi.payload`; what an event has besides is a member of the record, or
`context.client` if that has one of its own by the name. Of a payload's `request`, headers, addresses and
credentials are left out; `metadata` is not read.

Not supported: what the vendor's server does with events (profiles, flows, `ux`); PATCH /track.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec
from msgspec import Raw

from fastpixel._core import Call, json_offset, parse_time, uuid7
from fastpixel.config import Config
from fastpixel.dialect import Dialect, Member, Reply, Route
from fastpixel.dialects.faults import (
    MAX_INPUT,
    Fault,
    Need,
    detail,
    each,
    filled,
    key,
    mapping,
    members,
    moment,
    sequence,
    text,
)

MAX_EVENTS: Final = 1000  # of a payload
MAX_RECORDS: Final = 4 << 20  # bytes of them that a short payload may become: each has the payload's context
MAX_VALUES: Final = 250_000  # scalars, names, maps and arrays of a body: an object may be made of each
MAX_RAW_TEXT: Final = 4096  # bytes of a webhook's body that could not be read

JSON = "application/json"


def _detail(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    return Reply(status, JSON, msgspec.json.encode({"detail": message}).decode(), headers)


NULL: Final = Reply(200, JSON, "null")
BAD_BODY: Final = _detail(400, "There was an error parsing the body")
BAD_SOURCE: Final = _detail(401, "Access denied. Invalid source.")
DISABLED: Final = _detail(401, "Event source disabled.")
BAD_ORIGIN: Final = _detail(403, "origin_not_allowed")
NOT_FOUND: Final = _detail(404, "Not Found")
NOT_ALLOWED: Final = _detail(405, "Method Not Allowed")
TOO_LARGE: Final = _detail(413, "The payload is too large.")
TOO_MANY_EVENTS: Final = _detail(413, f"A payload may have {MAX_EVENTS} events at most.")
TOO_MANY_REQUESTS: Final = _detail(429, "Too Many Requests", ("Retry-After", "1"))
UNAVAILABLE: Final = _detail(503, "The event cannot be stored now. Send it again later.", ("Retry-After", "5"))

REFUSED: Final = {
    "missing_key": BAD_SOURCE,
    "unknown_key": BAD_SOURCE,
    "source_disabled": DISABLED,
    "origin_not_allowed": BAD_ORIGIN,
    "spool_full": UNAVAILABLE,
}

# -- the body ----------------------------------------------------------------------------------------------------------

_NIL = Raw(b"\xc0")
_EMPTY = Raw(b"\x80")
_MAPS = frozenset({*range(0x80, 0x90), 0xDE, 0xDF, 0xC0})  # first bytes of msgpack: a map, or nil
_LISTS = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD, 0xC0})
_FULL_MAPS, _FULL_LISTS = _MAPS - {0xC0}, _LISTS - {0xC0}


class _Source(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class _Entity(msgspec.Struct, forbid_unknown_fields=True):
    id: str | None = None


class _Time(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    create: str | int | float | None = None
    insert: str | int | float | None = None


class _Event(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What goes into the record as it is stays packed."""

    type: str
    id: str | None = None
    time: _Time | None = None
    properties: Raw = _NIL
    options: Raw = _NIL
    context: Raw = _NIL
    tags: Raw = _NIL


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    source: _Source
    session: _Entity | None = None
    profile: _Entity | None = None
    device: Any = None
    context: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    request: dict[str, Any] | None = None
    metadata: Raw = _NIL
    events: list[_Event] = []
    options: dict[str, Any] | None = None


class _Outline(msgspec.Struct):
    events: Raw = _NIL


class _Body(NamedTuple):
    """A payload without faults, what its events become, and what nobody knows: of itself, its profile, each event."""

    payload: _Payload
    drafts: list[dict[str, Any]]
    besides: dict[str, Any]
    traits: dict[str, Any]
    event_besides: Iterable[dict[str, Any]]


_EVENT = members(
    Need("type", filled, required=True, nullable=False),
    Need("id", text),
    Need("time", members(Need("create", moment), Need("insert", moment))),
    Need("properties", mapping),
    Need("options", mapping),
    Need("context", mapping),
    Need("tags", sequence),
)
_PAYLOAD = members(
    Need("source", members(Need("id", key, required=True, nullable=False)), required=True, nullable=False),
    Need("session", members(Need("id", text))),
    Need("profile", members(Need("id", text))),
    Need("context", mapping),
    Need("properties", mapping),
    Need("request", mapping),
    Need("events", each(_EVENT), nullable=False),
    Need("options", mapping),
)

_strict = msgspec.msgpack.Decoder(_Payload)
_outline = msgspec.msgpack.Decoder(_Outline)
_unpack = msgspec.msgpack.Decoder()
_pack = msgspec.msgpack.Encoder().encode


def _drafts(events: list[_Event]) -> list[dict[str, Any]] | None:
    """The records of the events, but for what they share; None: one has a fault that the types of _Event do not see."""
    drafts = []
    last = _NIL
    for event in events:
        name = event.type.strip()
        when, time = None, event.time
        if time is not None and time.insert is not None:
            when = str(time.insert)
            if parse_time(when.encode()) is None:
                return None
        if time is not None and time.create is not None:
            when = str(time.create)
            if parse_time(when.encode()) is None:
                return None
        properties, options, context, tags = event.properties, event.options, event.context, event.tags
        if (
            not name
            or memoryview(properties)[0] not in _MAPS
            or (options != _EMPTY and memoryview(options)[0] not in _MAPS)
            or (context != last and memoryview(context)[0] not in _MAPS)
            or (tags is not _NIL and memoryview(tags)[0] not in _LISTS)
        ):
            return None
        last = context
        drafts.append(
            {
                "messageId": (event.id and event.id.strip()) or None,
                "event": name,
                "timestamp": when,
                "properties": properties,
                "options": None if options == _NIL else options,
                "tags": None if tags is _NIL or tags == _NIL else tags,
                "context": context,
            }
        )
    return drafts


def _read(packed: bytes) -> _Body | list[Fault] | Reply:
    """The body; or everything that is wrong with it; or the answer to one that is too long."""
    if _is_crowded(packed):
        return TOO_MANY_EVENTS
    body = _unpack.decode(packed)
    if body is None:
        return [Fault("missing", ("body",), None)]
    found = list(_PAYLOAD(body, ("body",)))
    return found or _parted(body)


def _is_crowded(packed: bytes) -> bool:
    """Whether there are more events than are taken; found out before an object is made of each."""
    try:
        events = _outline.decode(packed).events
    except msgspec.ValidationError:  # no object
        return False
    head = bytes(memoryview(events)[:5])
    long = {0xDC: 3, 0xDD: 5}.get(head[0], 0)  # an array of 16 or 32 bits of length
    return int.from_bytes(head[1:long], "big") > MAX_EVENTS


def _parted(body: dict[str, Any]) -> _Body:
    """A body without faults as the strict decoder takes it, and what was taken away for that."""
    besides = _take_unknown(body, _Payload.__struct_fields__)
    traits = _take_unknown(body.get("profile"), ("id",))
    for name in ("source", "session"):
        if unknown := _take_unknown(body.get(name), ("id",)):
            besides[name] = unknown
    events = [_take_unknown_of_event(event) for event in body.get("events", ())]
    payload = _strict.decode(_pack(body))
    drafts = _drafts(payload.events)
    assert drafts is not None
    return _Body(payload, drafts, besides, traits, events)


def _take_unknown_of_event(event: dict[str, Any]) -> dict[str, Any]:
    unknown = _take_unknown(event, _Event.__struct_fields__)
    if times := _take_unknown(event.get("time"), _Time.__struct_fields__):
        unknown["time"] = times
    return unknown


def _take_unknown(table: dict[str, Any] | None, known: tuple[str, ...]) -> dict[str, Any]:
    return {name: table.pop(name) for name in list(table) if name not in known} if table else {}


# -- the context -------------------------------------------------------------------------------------------------------

# Members of a context that the record knows by the same name, and what they must be.
_KNOWN: Final = {
    **dict.fromkeys(("ip", "userAgent", "referrer", "locale", "timezone"), str),
    **dict.fromkeys(("page", "screen", "campaign", "device", "app", "library", "network", "os", "traits"), dict),
}
# And texts that lie deeper.
_DEEP: Final = {
    "timezone": ("time", "tz"),
    "locale": ("browser", "local", "browser", "language"),
    "userAgent": ("browser", "local", "browser", "userAgent"),
}


class _Contexts:
    """The contexts of a payload's events. Most events send the same bytes, so the last context made is kept."""

    def __init__(self, body: _Body) -> None:
        payload = body.payload
        self.shared = payload.context or {}
        self.device = payload.device if isinstance(payload.device, dict) else {}
        self.besides = _besides(body)
        self.last: Raw | None = None
        self.made: bytes | None = None

    def of(self, event: Raw) -> bytes | None:
        """The context of a record, packed; None: empty. The event's members win over the payload's."""
        if self.last is None or self.last != event:
            own = _unpack.decode(event) or {}
            own = {name: own[name] for name in own if own[name] is not None or name not in self.shared}
            context = self._make({**self.shared, **own})
            self.last, self.made = event, _pack(context) if context else None
        return self.made

    def _make(self, rest: dict[str, Any]) -> dict[str, Any]:
        """The context of a record; takes from `rest`, whose members' insides are shared with other events."""
        context = {name: rest.pop(name) for name, kind in _KNOWN.items() if isinstance(rest.get(name), kind)}
        for name, path in _DEEP.items():
            if name not in context and (found := _take(rest, path)) is not None:
                context[name] = found
        if isinstance(rest.get("page"), str):
            context["page"] = {"url": rest.pop("page")}
        elif "page" in context:
            context["page"] = _page(context["page"])
        if "screen" in context:
            context["screen"] = _screen(context["screen"])
        if "campaign" not in context and isinstance(rest.get("utm"), dict):
            context["campaign"] = _campaign(rest.pop("utm"))
        if self.device or "device" in context:
            context["device"] = device = {**self.device, **context.get("device", {})}
            if isinstance(device.get("ip"), str):  # where the privacy rules find it
                context.setdefault("ip", device.pop("ip"))
        if self.besides:
            if "payload" in rest:
                context["client"] = {"payload": rest.pop("payload")}
            rest["payload"] = self.besides
        if rest:
            context["tracardi"] = rest
        return context


def _take(table: dict[str, Any], path: tuple[str, ...]) -> str | None:
    """Takes away the text at a path, and what is empty then. Maps on the way are copied: other events have them too."""
    name, *below = path
    inner = table.get(name)
    if not below:
        return table.pop(name) if isinstance(inner, str) else None
    if not isinstance(inner, dict):
        return None
    inner = dict(inner)
    found = _take(inner, tuple(below))
    if found is not None:
        table[name] = inner
        if not inner:
            del table[name]
    return found


def _page(page: dict[str, Any]) -> dict[str, Any]:
    """The vendor's page has a `referer`."""
    if isinstance(page.get("referer"), str) and "referrer" not in page:
        return {"referrer" if name == "referer" else name: page[name] for name in page}
    return page


def _screen(screen: dict[str, Any]) -> dict[str, Any]:
    """The vendor's tracker puts it one level deeper: screen.local.width."""
    if not isinstance(screen.get("local"), dict):
        return screen
    return {**screen["local"], **{name: screen[name] for name in screen if name != "local"}}


def _campaign(utm: dict[str, Any]) -> dict[str, Any]:
    return utm if "name" in utm else {"name" if name == "campaign" else name: utm[name] for name in utm}


def _besides(body: _Body) -> dict[str, Any]:
    """What a payload has that is neither an id nor the context."""
    payload = body.payload
    kept = {
        "properties": payload.properties,
        "options": payload.options,
        "request": payload.request and _scrubbed(payload.request),
        "device": payload.device if not isinstance(payload.device, dict) else None,
        **body.besides,
    }
    return {name: value for name, value in kept.items() if value or name in body.besides}


# Members of a request that say who or where the client is; the privacy settings cannot reach them there.
_PRIVATE: Final = {
    *("headers", "cookie", "cookies", "authorization", "forwarded", "x-forwarded-for", "x-real-ip", "true-client-ip"),
    *("cf-connecting-ip", "remote-addr", "remote-ip", "client-ip", "ip", "ip-v4", "ip-v6", "ipv4", "ipv6"),
    *("token", "access-token", "api-key", "x-api-key", "apikey", "password", "secret"),
    *("ip-address", "ipaddress"),
}


def _scrubbed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _scrubbed(value[name]) for name in value if name.lower().replace("_", "-") not in _PRIVATE}
    return [_scrubbed(member) for member in value] if isinstance(value, list) else value


# -- /track ------------------------------------------------------------------------------------------------------------

# How a query parameter may say true or false (as FastAPI reads it); an empty one counts as absent.
_SWITCH: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", ""), False),
}
_PAGES: Final = ("page-view", "page_view")
# What is missing or blank -> what rejects and counters call it.
_MISSING: Final[dict[str | int, str]] = {
    "source": "missing_key",
    "id": "missing_key",
    "type": "missing_event",
    "event_type": "missing_event",
}


def track(call: Call) -> Reply:
    """One record of each event, all of them or none; `?profile_less=true` issues no profile."""
    if not _is_json(_media_type(call)):
        text = call.body[: 4 * MAX_INPUT + 4].decode("utf-8", "replace")  # more than is shown
        return _unprocessable(call, "bad_json", [Fault("model_attributes_type", ("body",), text)])
    if not call.body:
        return _unprocessable(call, "bad_json", [Fault("missing", ("body",), None)])
    reason, packed = call.json(max_values=MAX_VALUES)
    if reason == "bad_json":
        return _unprocessable(call, reason, [Fault("json_invalid", ("body", json_offset(call.body)), {})])
    if reason is not None:
        return call.refuse(reason, TOO_LARGE if reason == "too_large" else BAD_BODY)
    profile_less, wrong = _profile_less(call)
    if not wrong and (reply := _quickly(call, packed, profile_less)) is not None:
        return reply
    call.forget()
    body = _read(packed)
    if isinstance(body, Reply):
        return call.refuse("too_large", body)
    if isinstance(body, list):
        wrong += body
    if wrong:
        return _unprocessable(call, _reason(wrong[0]), wrong)
    assert isinstance(body, _Body)
    return _store(call, body, profile_less)


def _quickly(call: Call, packed: bytes, profile_less: bool) -> Reply | None:
    """The answer to what trackers send all day; None: something is unusual, and nothing is decided.

    Its loop runs for each event, and a call costs as much as what it would do. So nothing is looked at that the core
    looks at as well (add() is strict), and the context of the event before is known by its bytes.
    """
    try:
        payload = _strict.decode(packed)
    except msgspec.ValidationError:
        return None
    options = payload.options or {}
    source = payload.source.id.strip()
    plain = options.get("saveEvents") is not False and options.get("debugger") is not True
    if not plain or not source or not 0 < len(payload.events) <= MAX_EVENTS or _admit(call, source) is not None:
        return None
    session, told_session = _identity(payload.session, options.get("saveSession") is not False)
    profile, told_profile = _identity(payload.profile, options.get("saveProfile") is not False and not profile_less)
    call.size = max(call.size, MAX_RECORDS // 4)
    contexts = _Contexts(_Body(payload, [], {}, {}, ()))
    last: Raw | None = None
    made: bytes | None = None
    add = call.add
    for event in payload.events:
        context, options_, tags, time = event.context, event.options, event.tags, event.time
        if context != last:
            if memoryview(context)[0] not in _MAPS:
                return None
            last, made = context, contexts.of(context)
        name = event.type.strip()
        when = None if time is None else time.create
        if not name or (time is not None and time.insert is not None):
            return None
        if options_ is not _NIL and options_ != _EMPTY and memoryview(options_)[0] not in _FULL_MAPS:
            return None
        if tags is not _NIL and memoryview(tags)[0] not in _FULL_LISTS:
            return None
        reason = add(
            {
                "messageId": event.id and event.id.strip(),
                "event": name,
                "timestamp": when if when is None or type(when) is str else str(when),
                "properties": event.properties,
                "options": None if options_ is _NIL else options_,
                "tags": None if tags is _NIL else tags,
                "anonymousId": profile,
                "sessionId": session,
                "context": made,
            },
            "page" if name in _PAGES else "track",
            True,
        )
        if reason is not None:
            return None
    return _stored([], told_profile, told_session)


def _media_type(call: Call) -> str:
    return call.header("content-type").partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return not media_type or media_type.endswith(("/json", "+json"))


def _profile_less(call: Call) -> tuple[bool, list[Fault]]:
    if b"?" not in call.target:
        return False, []
    reason, pairs = call.pairs()
    if reason is not None:
        return False, [Fault("too_long", ("query",), None)]
    given = dict(pairs).get("profile_less", "")
    switch = _SWITCH.get(given.lower())
    return bool(switch), [Fault("bool_parsing", ("query", "profile_less"), given)] if switch is None else []


def _unprocessable(call: Call, reason: str, found: list[Fault]) -> Reply:
    return call.refuse(reason, Reply(422, JSON, detail(found)))


def _reason(fault: Fault) -> str:
    if fault.type == "too_long":
        return "too_many_params"
    return _MISSING.get(fault.loc[-1], "bad_field") if fault.type in ("missing", "string_too_short") else "bad_field"


def _store(call: Call, body: _Body, profile_less: bool) -> Reply:
    payload = body.payload
    if (reason := _admit(call, payload.source.id.strip())) is not None:
        return call.refuse(reason, REFUSED[reason])
    if not payload.events:
        return NULL
    options = payload.options or {}
    session, told_session = _identity(payload.session, options.get("saveSession") is not False)
    profile, told_profile = _identity(payload.profile, options.get("saveProfile") is not False and not profile_less)
    ids: list[str] = []
    if options.get("saveEvents") is not False:
        reason = _add(call, body, profile, session, ids if options.get("debugger") is True else None)
        if reason is not None:
            return call.refuse(reason, REFUSED.get(reason, TOO_LARGE))
    return _stored(ids, told_profile, told_session)


def _admit(call: Call, key: str) -> str | None:
    """The reason against a source. Those that start with "@" are the vendor's internal ones."""
    return "unknown_key" if key.startswith("@") else call.source(key)


def _identity(entity: _Entity | None, saved: bool) -> tuple[str | None, str | None]:
    """The id for the records, and the one to tell the client. What it does not want saved is not issued, nor told."""
    given = entity.id.strip() if entity and entity.id else ""
    used = given or (str(uuid4()) if saved else None)
    return used, used if saved else None


def _add(call: Call, body: _Body, profile: str | None, session: str | None, ids: list[str] | None) -> str | None:
    """A record of each event; the reason against the first that has one. `ids`: gets their ids."""
    call.size = max(call.size, MAX_RECORDS // 4)  # the core allows four times the body
    contexts = _Contexts(body)
    traits = _pack(body.traits) if body.traits else None
    for record, besides in zip(body.drafts, body.event_besides, strict=False):
        record["anonymousId"] = profile
        record["sessionId"] = session
        record["traits"] = traits
        record["context"] = contexts.of(record["context"])
        if besides:
            _lay_beside(record, besides)
        if ids is not None:
            record["messageId"] = record["messageId"] or uuid7()
            ids.append(record["messageId"])
        if (reason := call.add(record, "page" if record["event"] in _PAGES else "track")) is not None:
            return reason
    return None


def _lay_beside(record: dict[str, Any], besides: dict[str, Any]) -> None:
    """Members of an event that the protocol does not know: kept, but never over those that it does."""
    taken = {name: besides[name] for name in besides if name in record}
    record.update({name: _pack(value) for name, value in besides.items() if name not in taken})
    if taken:
        context = _unpack.decode(record["context"]) if record["context"] else {}
        record["context"] = _pack({**context, "client": {**context.get("client", {}), **taken}})


def _stored(ids: list[str], profile: str | None, session: str | None) -> Reply:
    answer = {
        "task": str(uuid4()),
        "ux": [],
        "response": {},
        "events": ids,
        "profile": {"id": profile},
        "session": {"id": session},
        "errors": [],
        "warnings": [],
    }
    return Reply(200, JSON, msgspec.json.encode(answer))


def ping(call: Call) -> Reply:
    """Answers `null`: there is a server."""
    return NULL


def without_slash(call: Call) -> Reply:
    """Answers 307 to the same path without the slash."""
    path, mark, query = call.target.partition(b"?")
    path = path[:-1] if path.startswith(b"/") and not path.startswith(b"//") else b"/track"
    location = "".join(chr(byte) if 0x20 < byte < 0x7F else f"%{byte:02X}" for byte in path + mark + query)
    return Reply(307, "text/plain; charset=utf-8", b"", (("Location", location),))


def _redact(call: Call) -> tuple[bytes, bytes]:
    """What a reject may keep of a payload: all but what is left out of a payload's `request`, too."""
    if b"request" not in call.body:
        return call.target, call.body
    reason, packed = call.json()
    if reason is not None:
        return call.target, call.body.partition(b'"request"')[0]
    body = _unpack.decode(packed)
    if not isinstance(body, dict) or "request" not in body:
        return call.target, call.body
    return call.target, msgspec.json.encode({**body, "request": _scrubbed(body["request"])})


# -- /collect ----------------------------------------------------------------------------------------------------------


def collect(call: Call) -> Reply:
    """A webhook: `properties` are the query and the body, JSON or a form; repeated parameters become a list."""
    name, key, session = (variable.strip() for variable in (*call.variables, "")[:3])
    reason, query = call.pairs()
    if reason is not None:
        return _unprocessable(call, reason, [Fault("too_long", ("query",), None)])
    if not name:
        return _unprocessable(call, "missing_event", [Fault("string_too_short", ("path", "event_type"), name)])
    reason = _admit(call, key) if key else "missing_key"
    if reason is not None:
        return call.refuse(reason, REFUSED[reason])
    unreadable, properties = _parameters(call)
    profile = str(uuid4()) if session else None
    session = session or str(uuid4())
    record = {
        "event": name,
        "anonymousId": profile,
        "sessionId": session,
        "properties": _pack({**_lists(query), **properties}),
        "context": {"paramsError": unreadable, "paramsText": _beginning(call.body)} if unreadable else None,
    }
    if (reason := call.add(record, "page" if name in _PAGES else "track")) is not None:
        return call.refuse(reason, REFUSED.get(reason, TOO_LARGE))
    return _stored([], profile, session)


def _parameters(call: Call) -> tuple[str | None, dict[str, Any]]:
    """(reason why it cannot be read, members) of a webhook's body. JSON that is no object is the member `body`."""
    if not call.body:
        return None, {}
    if _media_type(call) == "application/x-www-form-urlencoded":
        reason, pairs = call.form()
        return reason, _lists(pairs)
    reason, packed = call.json(max_values=MAX_VALUES)
    if reason is not None:
        return reason, {}
    value = _unpack.decode(packed)
    return None, value if isinstance(value, dict) else {"body": value}


def _lists(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Parameters by name; repeated ones become a list."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name != "__proto__":
            found.setdefault(name, []).append(value)
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _beginning(body: bytes) -> str:
    """As much of it as is kept, as text."""
    text = body[:MAX_RAW_TEXT].decode("utf-8", "replace")
    return text.encode()[:MAX_RAW_TEXT].decode("utf-8", "ignore")


# -- /redirect ---------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """A configured redirect: where it leads, and the event that it records."""

    reply: Reply
    key: str
    event: str
    properties: bytes


def options(config: Config) -> dict[str, Any]:
    """What the routes of this dialect must know of the configuration."""
    keys = {name: source.key for source in config.sources for name in (source.name, source.key) if name}
    return {
        "redirects": {
            row.id: Target(
                reply=Reply(307, "text/plain; charset=utf-8", "", (("Location", row.url),)),
                key=keys.get(row.source, row.source),
                event=row.event,
                properties=_pack(row.properties),
            )
            for row in config.redirects
        }
    }


def redirect(call: Call) -> Reply:
    """Records the event of a configured redirect and answers 307. Whatever becomes of the event, people arrive."""
    id, session = (variable.strip() for variable in (*call.variables, "")[:2])
    target: Target | None = call.options.get("redirects", {}).get(id)
    if target is None:
        return NOT_FOUND
    call.otherwise = target.reply
    if (reason := call.source(target.key)) is not None:
        return call.refuse(reason, target.reply)
    name = target.event.strip()
    record = {"event": name, "sessionId": session or None, "properties": target.properties}
    if (reason := call.add(record, "page" if name in _PAGES else "track")) is not None:
        return call.refuse(reason, target.reply)
    return target.reply


# -- the table ---------------------------------------------------------------------------------------------------------

_EVENTS: Final = (
    Member("source.id", "writeKey", "required; trimmed"),
    Member("session.id", "sessionId", "trimmed; issued if absent, unless options.saveSession is false"),
    Member(
        "profile.id", "anonymousId", "trimmed; issued if absent, unless options.saveProfile is false or profile_less"
    ),
    Member("events.*.type", "event", "required; trimmed. `page-view` and `page_view` are of type page"),
    Member("events.*.id", "messageId", "trimmed; else a new one"),
    Member("events.*.time.create", "timestamp"),
    Member("events.*.time.insert", "timestamp", "if there is no time.create"),
    Member("events.*.properties", "properties"),
    Member("events.*.options", "options", "stored, not obeyed"),
    Member("events.*.tags", "tags"),
)
_CONTEXT: Final = (
    Member("context", "context.tracardi", "of the payload, under that of the event; without what follows"),
    *(
        Member(f"context.{name}", f"context.{name}", "if it is text" if kind is str else "if it is an object")
        for name, kind in _KNOWN.items()
    ),
    Member("context.page", "context.page.url", "if it is text"),
    Member("context.page.referer", "context.page.referrer", "if it is text, and there is no context.page.referrer"),
    Member("context.screen.local", "context.screen"),
    Member("context.utm", "context.campaign", "unless there is a context.campaign; utm.campaign is its `name`"),
    *(
        Member(f"context.{'.'.join(path)}", f"context.{name}", f"if it is text, unless there is a context.{name}")
        for name, path in _DEEP.items()
    ),
    Member("device", "context.device", "under a context.device"),
)
_BESIDES: Final = (
    Member("profile.*", "traits.*", "but the id"),
    Member("session.*", "context.tracardi.payload.session.*", "but the id"),
    Member("source.*", "context.tracardi.payload.source.*", "but the id"),
    Member("properties", "context.tracardi.payload.properties"),
    Member("options", "context.tracardi.payload.options"),
    Member("request", "context.tracardi.payload.request", "but headers, addresses and credentials"),
    Member("metadata", "", "not read"),
    Member("*", "context.tracardi.payload.*", "what no row names"),
    Member("events.*.*", "*", "what no row names; over a member that the record has by then: context.client.*"),
)


def _route(
    method: tuple[str, ...],
    path: str,
    handler: Callable[[Call], Reply],
    members: tuple[Member, ...] = (),
    *,
    type: str = "track",
    redact: Callable[[Call], tuple[bytes, bytes]] | None = None,
) -> Route:
    return Route(
        method=method,
        path=path,
        type=type,
        fields=(),
        handler=handler,
        members=members,
        redact=redact,
        limited=TOO_MANY_REQUESTS,
        unavailable=UNAVAILABLE,
    )


DIALECT: Final = Dialect(
    name="tracardi",
    title="Tracardi",
    routes=(
        _route(("POST",), "/track", track, (*_EVENTS, *_CONTEXT, *_BESIDES), redact=_redact),
        _route(("PUT",), "/track", ping, type=""),
        _route(("GET", "POST", "PUT"), "/track/", without_slash, type=""),
        _route(("GET", "POST"), "/collect/{event_type}/{source_id}", collect),
        _route(("GET", "POST"), "/collect/{event_type}/{source_id}/", collect),
        _route(("GET", "POST"), "/collect/{event_type}/{source_id}/{session_id}", collect),
        _route(("GET", "POST"), "/collect/{event_type}/{source_id}/{session_id}/", collect),
        _route(("GET",), "/redirect/{id}", redirect),
        _route(("GET",), "/redirect/{id}/{session_id}", redirect),
    ),
    not_allowed=NOT_ALLOWED,
    not_found=NOT_FOUND,
    prefixes=("/track/", "/collect/", "/redirect/", "/tracker/"),
    unsupported=(
        "what the vendor's server does with events: profiles, flows, `ux`",
        "`PATCH /track`",
        "`/redirect/{id}/p/...` and `/redirect/{id}/pii/...`",
    ),
)
