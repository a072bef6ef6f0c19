"""A dialect is data: rows that say wire name -> canonical path -> kind -> required, and what is answered.

The same rows compile to the core's Plan, print as `fastpixel dialects`, name tests, and feed the oracle in tests/.
Built-in dialects are in `dialects/`, a user's own come from `[[dialects]]` of the configuration; both are the classes
below. What must not be here: bytes, sockets, anything that runs per request. A new *kind of value* is a row in KINDS
and one function in the core (`core/kind.pxi`, `core/params.pxi`); a new protocol is one file of rows.

A route has one of two tiers. Compiled: its rows say all, and no Python runs for a request. Python tier: the row names
a `handler`, which is given a `Call`, adds events to it and returns a Reply (JSON bodies, scripts, redirects); its
`members` say what becomes of a body, for people. Everything behind the handler is shared: completion of the record,
sources, privacy, limits, batch, answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from fastpixel import _core
from fastpixel._core import REASONS
from fastpixel.errors import DialectError
from fastpixel.event import FIELD_TYPES, SERVER_OWNED

if TYPE_CHECKING:
    from fastpixel._core import Call

# Kind of value -> what a parameter of it looks like, and what is stored.
KINDS: Final = {
    "text": "text, stored as it came",
    "int": "-?[0-9]{1,18}, stored as an integer",
    "number": "-?[0-9]{1,18}(.[0-9]+)?, stored as an integer or a float",
    "bool": "true, false, 1 or 0",
    "unix": "Unix seconds, from 1e11 on milliseconds; stored as a time",
    "unix_ms": "Unix milliseconds; stored as a time",
    "iso8601": "ISO 8601, or a number as `unix` reads it; stored as a time",
    "json": "a JSON document, stored with its types",
    "base64_json": "base64 or base64url of a JSON document",
    "dotpath": "the name is a path: a.b=1 is stored as {a: {b: 1}}",
    "params": "PitchTarget's `params`: a JSON object, plain or in base64, whose members become properties",
}
TIME_KINDS: Final = ("unix", "unix_ms", "iso8601")
METHODS: Final = ("GET", "HEAD", "POST", "PUT")
Accept = Literal["image", "text", "other"]

# Reason -> what a person should know. The names and their order are the core's enum.
REASON_DOCS: Final = {
    "missing_key": "the request names no key",
    "missing_write_key": "the request has no writeKey",
    "unknown_key": "the key is none of [[sources]], or its source does not list the protocol",
    "source_disabled": "the key's source has enabled = false",
    "origin_not_allowed": "the page's origin is not in the source's origins",
    "missing_identity": "neither of the ids that the protocol requires was given",
    "missing_person": "the request names no person",
    "missing_event": "the event has no name",
    "missing_event_token": "the request has no event_token",
    "bad_amount": "the amount is missing or no integer",
    "value_too_long": "a value is longer than the protocol allows",
    "too_many_params": "more than 1,000 parameters",
    "too_deep": "a name or a document is nested deeper than allowed",
    "index_too_large": "an array index above 999, or more than 1,000 holes in arrays",
    "too_large": "the request line, the headers or the body are over the configured limit",
    "bad_json": "the text is not JSON",
    "bad_encoding": "the bytes are not UTF-8, or the Content-Encoding is not supported",
    "bad_field": "a field has the wrong type or form",
    "invalid_data": "the encoded event cannot be decoded",
    "rate_limited": "the source is over its rate_limit",
    "privacy": "the visitor's Sec-GPC or DNT header forbids storing it",
    "spool_full": "the event cannot be stored now; send it again later",
    "head": "a HEAD request stores nothing",
    "bad_http": "the bytes are not valid HTTP/1.x",
}
if tuple(REASON_DOCS) != REASONS:
    raise DialectError(f"REASON_DOCS of {__name__} must list the core's REASONS in their order")
if tuple(KINDS) != tuple(_core.KINDS):
    raise DialectError(f"KINDS of {__name__} must list the core's KINDS in their order")


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter of a request.

    `source` is the wire name: a parameter, `path.NAME` for a variable of the path, or `*` for every parameter that no
    other row names. `to` is the canonical path; empty: read but not stored. A repeated parameter follows the
    dialect's `repeat`.
    """

    source: str
    to: str = ""
    kind: str = "text"
    required: str | None = None  # reason, when the value is absent or empty
    nonempty: str | None = None  # reason, when the value is present but empty
    if_empty: str | None = None  # stored instead of a value that is present but empty
    max_chars: int = 0  # longer (in characters) is refused: value_too_long; 0 = no limit
    unquote: bool = False  # one pair of surrounding '"' is stripped
    tidy: bool = False  # invisible characters are removed and blanks trimmed; what is blank then counts as absent
    when: str | None = None  # "NAME=VALUE": the row counts only if that parameter has exactly that value
    otherwise: str = ""  # where the text goes when `when` does not hold; empty: nowhere
    trusted: bool = False  # counts only for sources with trust_client_ip
    on_bad: Literal["client", "ignore"] = "client"  # where what its kind cannot read goes: context.client, nowhere


@dataclass(frozen=True, slots=True)
class Member:
    """What a route makes of one member of a JSON body or of kind params: `source`: its dotted name, `to`: its place."""

    source: str
    to: str
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `body`: bytes as they are; text; "gif"; or "reason" (the dialect's error text of the reason).

    The core renders one whose body is text once and keeps it, so a handler makes these at import; what it makes for
    one request is bytes. A `Cache-Control` among the headers replaces the core's no-store lines.
    """

    status: int
    content_type: str
    body: str | bytes
    headers: tuple[tuple[str, str], ...] = ()


GIF: Final = Reply(200, "image/gif", "gif")
GIF_UNAVAILABLE: Final = Reply(503, "image/gif", "gif", (("Retry-After", "5"),))
OK: Final = Reply(200, "text/plain; charset=utf-8", "OK")
REASON: Final = Reply(400, "text/plain; charset=utf-8", "reason")
TEXT_UNAVAILABLE: Final = Reply(503, "text/plain; charset=utf-8", "reason", (("Retry-After", "5"),))
NOT_FOUND: Final = Reply(404, "text/plain; charset=utf-8", "not found\n")
NOT_ALLOWED: Final = Reply(405, "text/plain; charset=utf-8", "method not allowed\n")
TEXT_LIMITED: Final = Reply(429, "text/plain; charset=utf-8", "reason", (("Retry-After", "1"),))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a class of clients is answered: the event is stored, refused, cannot be stored now, is over a rate limit."""

    stored: Reply
    refused: Reply
    unavailable: Reply
    limited: Reply


AS_GIF: Final = Outcome(GIF, GIF, GIF_UNAVAILABLE, GIF)
AS_TEXT: Final = Outcome(OK, REASON, TEXT_UNAVAILABLE, TEXT_LIMITED)


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcomes by what the client's Accept header asks for.

    image: contains `image/`; text: names text/plain or application/json and no image; other: neither.
    """

    image: Outcome
    text: Outcome
    other: Outcome


Handler = Callable[["Call"], Reply]
Redact = Callable[["Call"], tuple[bytes, bytes]]

ANSWERS: Final = {
    "gif": Answer(AS_GIF, AS_GIF, AS_GIF),
    "text": Answer(AS_TEXT, AS_TEXT, AS_TEXT),
}


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `path` may have `{name}` segments. A GET route answers HEAD too; HEAD stores nothing."""

    method: tuple[str, ...]
    path: str
    type: str
    fields: tuple[Field, ...]
    answer: str = "gif"  # a name of ANSWERS or of the dialect's own answers, or an option that holds such a name
    identity: tuple[str, ...] = ()  # canonical names; at least one must not be blank, else missing_identity
    dedupe: tuple[str, ...] = ()  # wire names: key, ..., time; if that time counts, messageId is a hash of the request
    visitor: bool = False  # anonymousId may come from the visitor cookie
    defaults: tuple[tuple[str, str | bool], ...] = ()  # as the dialect's, before them
    redact: Redact | None = None  # the target and body that a reject may keep
    members: tuple[Member, ...] = ()  # for people: what the rows cannot say
    # Of the Python tier:
    handler: Handler | None = None
    limited: Reply = TEXT_LIMITED
    unavailable: Reply = TEXT_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol: its routes and what they share."""

    name: str
    title: str
    routes: tuple[Route, ...]
    repeat: Literal["first", "last"] = "last"
    bad_escape: Literal["keep", "drop"] = "keep"  # drop: a pair with a bad escape or a raw ';' is dropped
    defaults: tuple[tuple[str, str | bool], ...] = ()  # canonical path -> value, unless the client gave one
    receipt: tuple[str, ...] = ()  # canonical names set to the time of receipt as text, unless the client gave one
    skew: bool = False  # without a timestamp: receipt - (sentAt - originalTimestamp)
    options: dict[str, str] = field(default_factory=dict)  # settings of [<name>] and their defaults
    answers: dict[str, Answer] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)  # reason -> text of the "reason" body; default: its name
    not_allowed: Reply = NOT_ALLOWED  # the 405 of its paths; `Allow` is added
    not_found: Reply = NOT_FOUND  # the 404 below its prefixes
    prefixes: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()

    def answer(self, route: Route, options: Mapping[str, Any]) -> Answer:
        """What the route answers: its `answer` names an option of the dialect, or an answer."""
        if route.handler is not None:  # which chooses its answers itself
            always = Outcome(GIF, GIF, route.unavailable, route.limited)
            return Answer(always, always, always)
        name = {**self.options, **options}.get(route.answer, route.answer)
        return {**ANSWERS, **self.answers}[name]


def validate(dialect: Dialect) -> None:
    """Raises DialectError for rows that contradict each other; the message names the row."""
    if not dialect.routes:
        raise DialectError(f"dialect {dialect.name}: it has no route; add one [[dialects.routes]]")
    for route in dialect.routes:
        where = f"dialect {dialect.name}, route {route.path}"
        _validate_route(dialect, route, where)
        for row in route.fields:
            _validate_field(row, f"{where}, field {row.source!r}", route)


def _validate_route(dialect: Dialect, route: Route, where: str) -> None:
    if not route.path.startswith("/"):
        raise DialectError(f"{where}: a path starts with '/'")
    if unknown := set(route.method) - set(METHODS):
        raise DialectError(f"{where}: unknown method {sorted(unknown)[0]!r}; known are {', '.join(METHODS)}")
    known = {**ANSWERS, **dialect.answers, **dialect.options}
    if route.answer not in known:
        raise DialectError(f"{where}: unknown answer {route.answer!r}; known are {', '.join(known)}")
    if route.dedupe and any(row.kind == "dotpath" for row in route.fields):
        raise DialectError(f"{where}: dedupe hashes literal names, so it does not go with kind dotpath")
    keys = [row for row in route.fields if row.to == "writeKey"]
    if route.handler is not None and keys:
        raise DialectError(f"{where}: the key of a route with a handler is given by Call.source(), not by a row")
    if route.handler is None and (len(keys) != 1 or not keys[0].required):
        raise DialectError(f"{where}: exactly one row must set writeKey, with required = a reason")
    if sum(row.kind == "params" for row in route.fields) > 1:
        raise DialectError(f"{where}: two rows of kind params; a route may have one")
    if dialect.repeat == "first" and (gated := [row.source for row in route.fields if row.when or row.trusted]):
        raise DialectError(
            f"{where}: {gated[0]!r} counts only when all parameters are known, so which came first is not"
        )
    repeated = {row.source for row in route.fields if sum(r.source == row.source for r in route.fields) > 1}
    if repeated:
        raise DialectError(f"{where}: two rows read {sorted(repeated)[0]!r}; a name may have one row")


def _validate_field(row: Field, where: str, route: Route) -> None:
    if row.kind not in KINDS:
        raise DialectError(f"{where}: unknown kind {row.kind!r}; known are {', '.join(KINDS)}")
    for reason in (row.required, row.nonempty):
        if reason is not None and reason not in REASONS:
            raise DialectError(f"{where}: unknown reason {reason!r}; known are {', '.join(REASONS)}")
    if row.kind == "dotpath" and row.source != "*":
        raise DialectError(f"{where}: kind dotpath reads the name, so it goes with from = '*'")
    if row.source.startswith("path.") and "{" + row.source[5:] + "}" not in route.path.split("/"):
        raise DialectError(f"{where}: the path {route.path} has no variable {{{row.source[5:]}}}")
    if row.source == "*" and (row.kind not in ("text", "dotpath") or row.required):
        raise DialectError(f"{where}: '*' is many parameters: kind text or dotpath, and nothing is required")
    if row.kind == "params" and row.to != "properties":
        raise DialectError(f"{where}: members of kind params become properties, so it goes with to = 'properties'")
    if row.on_bad == "ignore" and (row.required or row.to == "timestamp"):
        raise DialectError(f"{where}: what is required, and a timestamp, cannot be ignored")
    _validate_target(row, where)


def _validate_target(row: Field, where: str) -> None:
    top, *rest = row.to.split(".")
    if top in SERVER_OWNED and (row.to != "writeKey" or row.source == "*"):
        raise DialectError(f"{where}: {top} is set by the server; choose another target")
    if row.source == "*" and row.to == "":
        return
    expected = FIELD_TYPES.get(top)
    holds_map = row.source == "*" or (row.kind in ("json", "base64_json", "params") and top != "context")
    if expected == "map" and not rest and not holds_map:
        raise DialectError(f"{where}: {top} is a map; name a member such as {top}.value")
    if expected in ("text", "time") and row.source == "*":
        raise DialectError(f"{where}: {top} is not a map; '*' goes to one, such as properties")
    if expected in ("text", "time") and rest:
        raise DialectError(f"{where}: {top} is not a map and has no member {'.'.join(rest)}")
    if expected in ("text", "time") and (expected == "time") != (row.kind in TIME_KINDS):
        raise DialectError(f"{where}: {top} cannot hold kind {row.kind}")
