"""The compiled tier again, in plain Python: what a request must become, read from the rows and the protocols.

What lives here: one function a rule, in the order in which a request meets them (text, parameters, tree,
kinds, rows, record, answer). It shares nothing with the core but the dialects' rows, `event.FIELDS` and the
names of the reasons, so that two readings of the same rules can be compared. It is slow, and raises Refused
where the core returns a reason. Citations such as (README, "Time") mean the project's protocol rules.

Not here: sockets, HTTP framing, batches, rate limits, privacy.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import json
import re
import struct
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from msgpack import Timestamp

from fastpixel.dialect import ANSWERS, Dialect, Field, Outcome, Reply, Route
from fastpixel.event import FIELDS, SERVER_OWNED

MAX_PAIRS = 1000
MAX_DEPTH = 32
MAX_HOLES = 1000
NO_INDEX = 100  # for `put`: all segments are names
SECOND = 1_000_000_000
FIRST_SECOND = -62135596800  # 0001-01-01T00:00:00Z
LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")

# The reasons whose rejects keep the whole body, because a retry needs it (the record's rules, "A reject").
RETRIABLE = ("unknown_key", "source_disabled", "origin_not_allowed", "rate_limited")
KEPT_BODY = 4096
KEPT_HEADERS = ("host", "origin", "referer", "user-agent", "accept", "content-type", "content-encoding")
NOT_KEPT = ("head", "privacy", "bad_http")


class Refused(Exception):
    """The request is not stored; the reason is a name of REASONS."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoRoute(Exception):
    """No dialect answers this path, or not with this method: `allowed` has the methods it answers, if any."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        super().__init__(allowed)
        self.allowed = allowed


@dataclass(frozen=True)
class Source:
    """What the core reads of a [[sources]] table."""

    key: str
    name: str
    protocols: tuple[str, ...] = ()
    enabled: bool = True
    trust_client_ip: bool = False
    origins: tuple[str, ...] = ()
    rate_limit: float = 0
    privacy: object = None


@dataclass(frozen=True)
class Request:
    """One parsed HTTP request."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    ip: str | None = None
    now: int = 0

    def header(self, name: str) -> bytes | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key.lower() == name.encode()), None)

    @property
    def path(self) -> bytes:
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        return self.target.partition(b"?")[2]


# Text -------------------------------------------------------------------------------------------------------

# Default_Ignorable_Code_Point (Unicode's DerivedCoreProperties.txt), which Python does not have.
_IGNORABLE = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)  # fmt: skip
_WHITE_SPACE = frozenset(
    [*range(9, 14), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
)


def invisible(char: str) -> bool:
    """README, "Required values": ignorable, white space other than U+0020, category C*, and U+2800."""
    code = ord(char)
    ignorable = any(first <= code <= last for first, last in _IGNORABLE)
    return ignorable or code in _WHITE_SPACE or code == 0x2800 or unicodedata.category(char)[0] == "C"


def tidy(text: str) -> str:
    return "".join(char for char in text if not invisible(char)).strip(" ")


def is_blank(text: str) -> bool:
    return not tidy(text)


def unquote(data: bytes, plus: bool = True) -> str:
    """README, "Query decoding": '+' is a space, %XX a byte, bad escapes stay, bad UTF-8 becomes U+FFFD."""
    if plus:
        data = data.replace(b"+", b" ")
    octets = re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m[1], 16)]), data)
    return octets.decode("utf-8", "replace")


def bare(text: str) -> str:
    """Without one pair of surrounding quotes (AMP quotes the anonymousId)."""
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


# Parameters -------------------------------------------------------------------------------------------------


def is_bad(raw: bytes) -> bool:
    """What Go's url.ParseQuery refuses: a raw ';' or a '%' without two hexadecimal digits."""
    return b";" in raw or bool(re.search(rb"%(?![0-9A-Fa-f]{2})", raw))


def pairs(query: bytes, drop_bad: bool = False) -> Iterator[tuple[str, str]]:
    """README, "Query decoding": '&' separates, the first '=' splits, a pair with an empty name is skipped."""
    for raw in query.split(b"&"):
        name, _, value = raw.partition(b"=")
        if name and not (drop_bad and is_bad(raw)):
            yield unquote(name), unquote(value)


def is_json(content_type: bytes | None) -> bool:
    media = (content_type or b"").split(b";")[0].strip().lower()
    return media.endswith((b"/json", b"+json"))


def form(request: Request) -> bytes:
    """README, "POST twin": any Content-Type but JSON is read as a form, after the query."""
    if request.method != "POST" or is_json(request.header("content-type")):
        return b""
    encoding = (request.header("content-encoding") or b"").strip().lower()
    if encoding not in (b"", b"identity"):
        raise Refused("bad_encoding")
    return request.body


def parameters(dialect: Dialect, request: Request) -> Iterator[tuple[str, str]]:
    """All pairs of the request in order; README, "Dot paths": at most 1,000."""
    count = 0
    for part in (request.query, form(request)):
        for pair in pairs(part, dialect.bad_escape == "drop"):
            count += 1
            if count > MAX_PAIRS:
                raise Refused("too_many_params")
            yield pair


# Tree -------------------------------------------------------------------------------------------------------
#
# README, "Dot paths". A leaf is a str; a container is a Map or an Array. Indices count from the second
# segment of the client's path on; a prefix that a row puts before it is made of names (`fixed` counts both).


class Map(dict):
    """An object."""


class Array(dict):
    """An array as index -> value; indices that are missing below the greatest are holes."""


def suited(current: Any, segment: str, may_index: bool) -> Map | Array:
    """The container that `current` becomes when it gets a member called `segment`."""
    if isinstance(current, Map):
        return current
    if may_index and re.fullmatch(r"[1-9][0-9]{3,}", segment):
        raise Refused("index_too_large")
    if may_index and re.fullmatch(r"0|[1-9][0-9]{0,2}", segment):
        return current if isinstance(current, Array) else Array()
    members = current.items() if isinstance(current, Array) else ()
    return Map((str(index), member) for index, member in sorted(members))


def put(root: Map, path: Sequence[str], value: Any, fixed: int) -> None:
    """Sets a leaf; the later of two conflicting pairs wins. The first `fixed` segments are never indices."""
    holder: dict[Any, Any] = {"": root}
    key: Any = ""
    for position, segment in enumerate(path):
        container = suited(holder.get(key), segment, position >= fixed)
        holder[key] = container
        holder, key = container, int(segment) if isinstance(container, Array) else segment
    holder[key] = value


def get(root: Map, path: Sequence[str]) -> Any:
    """The value at a path of names; None: there is none."""
    at: Any = root
    for segment in path:
        at = at.get(segment) if isinstance(at, Map) else None
    return at


def drop(root: Map, path: Sequence[str]) -> None:
    parent = get(root, path[:-1])
    if isinstance(parent, Map):
        parent.pop(path[-1], None)


def holes(value: Any) -> int:
    if not isinstance(value, Map | Array):
        return 0
    own = max(value) + 1 - len(value) if isinstance(value, Array) and value else 0
    return own + sum(holes(member) for member in value.values())


def plain(value: Any) -> Any:
    """As msgpack holds it: dicts and lists, holes None."""
    if isinstance(value, Array):
        return [plain(value.get(index)) for index in range(max(value) + 1)]
    if isinstance(value, Map):
        return {name: plain(member) for name, member in value.items()}
    return value


def place(star: Field, name: str) -> tuple[list[str], int] | None:
    """Where a pair that no row names goes: path and how many segments are fixed. None: it is skipped."""
    prefix = star.to.split(".") if star.to else []
    if star.kind != "dotpath":
        return None if name == "__proto__" else ([*prefix, name], len(prefix) + 1)
    segments = name.split(".")
    if "" in segments or "__proto__" in segments:
        return None
    if len(segments) > MAX_DEPTH:
        raise Refused("too_deep")
    if not prefix and segments[0] in SERVER_OWNED:
        prefix = ["context", "client"]
    return [*prefix, *segments], len(prefix) + 1


def dotpath(query: bytes, first: bool = False, drop_bad: bool = False) -> tuple[str | None, Any]:
    """(reason, map) of a query read as dot paths below an empty name."""
    dialect = Dialect("", "", (), "first" if first else "last", "drop" if drop_bad else "keep")
    event = Event(dialect, Route((), "/", "", (Field("*", kind="dotpath"),)), {})
    try:
        event.read(Request("GET", b"/?" + query), owned=())
    except Refused as refused:
        return refused.reason, None
    return None, plain(event.tree)


# Kinds of value ---------------------------------------------------------------------------------------------


class Unusable(Exception):
    """The text is no value of that kind."""


_SPACE = "\t\n\v\f\r "
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)?)?"
)


def digits(text: str, count: int) -> int:
    """A fraction as an integer of `count` digits; further digits are cut."""
    return int(text[:count].ljust(count, "0"))


def usable(ns: int) -> int:
    if not FIRST_SECOND <= ns // SECOND <= LAST_SECOND:
        raise Unusable
    return ns


def time_number(text: str, milliseconds: bool = False) -> int:
    """README, "Time": Unix seconds, from 1e11 on milliseconds. Nanoseconds."""
    match = re.fullmatch(r"(-?)([0-9]{1,13})(?:\.([0-9]+))?", text)
    if not match:
        raise Unusable
    sign, whole, fraction = -1 if match[1] else 1, int(match[2]), match[3] or "0"
    if milliseconds or whole >= 10**11:
        return usable(sign * (whole * 10**6 + digits(fraction, 6)))
    return usable(sign * (whole * SECOND + digits(fraction, 9)))


def time_iso(text: str) -> int:
    """ISO 8601 with 'T' or one blank; no zone is UTC; second 60 is the next minute's first."""
    match = _ISO.fullmatch(text)
    if not match:
        raise Unusable
    year, month, day, hour, minute, second, zone_hour, zone_minute = (
        int(match[group] or 0) for group in (1, 2, 3, 4, 5, 6, 9, 10)
    )
    if hour > 23 or minute > 59 or second > 60 or zone_hour > 23 or zone_minute > 59:
        raise Unusable
    try:
        days = date(year, month, day).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        raise Unusable from None
    zone = (zone_hour * 3600 + zone_minute * 60) * (-1 if match[8] == "-" else 1)
    seconds = days * 86400 + hour * 3600 + minute * 60 + second - zone
    return usable(seconds * SECOND + digits(match[7] or "0", 9))


def time_any(text: str) -> int:
    try:
        return time_iso(text)
    except Unusable:
        return time_number(text)


def parse_time(text: str, kind: str = "iso8601") -> int:
    readers: dict[str, Callable[[str], int]] = {
        "unix": time_number,
        "unix_ms": lambda t: time_number(t, True),
        "iso8601": time_any,
    }
    return readers[kind](text.strip(_SPACE))


def parse_number(text: str, fraction: bool) -> int | float:
    """README, "Numbers in parameters": at most 18 digits."""
    text = text.strip(_SPACE)
    if not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]+)?" if fraction else r"-?[0-9]{1,18}", text):
        raise Unusable
    return float(text) if "." in text else int(text)


def parse_bool(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if (text := text.strip(_SPACE)) not in values:
        raise Unusable
    return values[text]


def _whole(text: str) -> int | str:
    _bounded(text)
    return int(text) if -(2**63) <= int(text) < 2**64 else text


def _fraction(text: str) -> float | str:
    _bounded(text)
    return text if float(text) in (float("inf"), float("-inf")) else float(text)


def _bounded(text: str) -> None:
    if len(text) > 1024:
        raise Unusable


def _not_json(text: str) -> Any:
    raise Unusable


def _repaired(value: Any) -> Any:
    """An unpaired surrogate escape becomes U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", value) if isinstance(value, str) else value


def _object(members: list[tuple[str, Any]]) -> Map:
    """Of names that come twice the last counts, and stands where it stood."""
    found = Map()
    for name, value in members:
        found.pop(_repaired(name), None)
        found[_repaired(name)] = _repaired(value)
    return found


def _settled(value: Any, depth: int) -> Any:
    """Strings in arrays repaired, depth checked: 32 levels in parameters."""
    if isinstance(value, Map | list) and depth == 0:
        raise Unusable
    if isinstance(value, Map):
        return Map((name, _settled(member, depth - 1)) for name, member in value.items())
    return [_settled(member, depth - 1) for member in value] if isinstance(value, list) else _repaired(value)


def parse_json(text: str, depth: int = MAX_DEPTH) -> Any:
    """README, "JSON": strict; the last of duplicate keys; numbers that do not fit stay text."""
    hooks = {"parse_int": _whole, "parse_float": _fraction, "parse_constant": _not_json}
    try:
        return _settled(json.loads(text, object_pairs_hook=_object, **hooks), depth)
    except (ValueError, RecursionError):
        raise Unusable from None


def unbase64(text: str) -> bytes:
    """CR, LF and TAB are dropped, a space is '+', '-_' are '+/', padding is optional; strict otherwise."""
    text = re.sub("[\r\n\t]", "", text).translate(str.maketrans(" -_", "++/"))
    body = text.rstrip("=")
    missing = -len(body) % 4
    if len(text) - len(body) > missing:
        raise Unusable
    try:
        return base64.b64decode(body + "=" * missing, validate=True)
    except (binascii.Error, ValueError):
        raise Unusable from None


def parse_base64_json(text: str) -> Any:
    try:
        return parse_json(unbase64(text).decode())
    except UnicodeDecodeError:
        raise Unusable from None


# Params -----------------------------------------------------------------------------------------------------
#
# pitchtarget, "params" and what follows it there.

SPECIAL = {
    "email": "traits.email",
    "uuid": "userId",
    "fbid": "traits.fbid",
    "access_token": "traits.accessTokenSha256",
}
KEPT_TEXT = 4096
_JSON_STRING = r'"(?:[^"\\]|\\.)*"'
_HASHED = "sha256:([0-9a-f]{64})"
_NOTE = re.compile(_HASHED + " ([0-9]{1,9}) bytes (bad_json|bad_encoding|too_deep|not_an_object|bad_base64)")


class NotParams(Exception):
    """`params` cannot be read as an object; `text` is as far as it could be decoded, None: not even that."""

    def __init__(self, error: str, text: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.text = text


def read_params(value: str) -> Map | None:
    """The object in a form-decoded value, without the names that do not count; None: there is none."""
    if is_blank(value):
        return None
    text = value.strip(_SPACE)
    if not text.startswith("{"):
        text = _decoded(text)
    if is_too_deep(text, MAX_DEPTH):
        raise NotParams("too_deep", text)
    try:
        found = parse_json(text)
    except Unusable:
        raise NotParams("bad_json", text) from None
    if not isinstance(found, Map):
        raise NotParams("not_an_object", text)
    return screened(found)


def _decoded(text: str) -> str:
    try:
        return unbase64(text).decode()
    except Unusable:
        raise NotParams("bad_base64") from None
    except UnicodeDecodeError:
        raise NotParams("bad_encoding") from None


def is_too_deep(text: str, depth: int) -> bool:
    """Whether the first thing wrong with a JSON text is a bracket too many.

    Up to there it must be the beginning of a document: with null for what follows, and closed, it is a whole one.
    """
    closers = ""
    for found in re.finditer(rf"{_JSON_STRING}|[\[\]{{}}]", text, re.S):
        if found[0] in "[{" and len(closers) == depth:
            return is_json_text(text[: found.start()] + "null" + closers)
        if found[0] in "[{":
            closers = ("]" if found[0] == "[" else "}") + closers
        elif found[0] in "]}":
            closers = closers[1:]
    return False


def is_json_text(text: str) -> bool:
    try:
        parse_json(text)
    except Unusable:
        return False
    return True


def screened(value: Any, top: bool = True) -> Any:
    """Without names that begin with $ or _ or have a dot, at any depth, and without tokens below the top."""
    if isinstance(value, list):
        return [screened(member, False) for member in value]
    if not isinstance(value, Map):
        return value
    ignored = {name for name in value if name.startswith(("$", "_")) or "." in name}
    ignored |= set() if top else {"access_token"}
    return Map((name, screened(member, False)) for name, member in value.items() if name not in ignored)


def special(name: str, value: Any) -> Any:
    """What is stored of a special member; None: nothing."""
    if isinstance(value, str) and is_blank(value):
        return None
    if name == "access_token":
        return token_hash(value) if isinstance(value, str) else None
    if name == "fbid":
        digits = re.fullmatch("[0-9]+", str(value)) and type(value) in (int, str)
        return value if digits else None
    return str(value) if name == "uuid" and type(value) is int else value


def token_hash(token: str) -> str:
    """What a reject has in a token's place is its hash already."""
    known = re.fullmatch(_HASHED, token)
    return known[1] if known else hashlib.sha256(token.encode()).hexdigest()


def unread(value: str, failed: NotParams) -> Map:
    """The members of context that say what became of `params`."""
    if failed.text is not None and is_harmless(failed.text):
        kept = failed.text.encode()[:KEPT_TEXT].decode("utf-8", "ignore")
        return Map(paramsError=failed.error, paramsText=kept)
    if note := _NOTE.fullmatch(value.strip(_SPACE)):
        return Map(paramsError=note[3], paramsLength=int(note[2]), paramsSha256=note[1])
    octets = value.encode()
    digest = hashlib.sha256(octets).hexdigest()
    return Map(paramsError=failed.error, paramsLength=len(octets), paramsSha256=digest)


def is_harmless(text: str) -> bool:
    """No token can be in it: not by its name, whatever parts its letters, nor escaped, nor bare or in base64 again."""
    letters = re.sub("[^A-Za-z]", "", text).lower()
    mixed = re.search(r'[^A-Za-z0-9+/=_ \t\r\n"-]', text) or len(text.encode()) < 20
    return bool(mixed) and "accesstoken" not in letters and "\\u" not in text


def convert(kind: str, text: str) -> Any:
    """The value that a row's kind makes of a text, or Unusable."""
    if kind in ("unix", "unix_ms", "iso8601"):
        return Timestamp.from_unix_nano(parse_time(text, kind))
    readers: dict[str, Callable[[str], Any]] = {
        "text": str,
        "int": lambda t: parse_number(t, False),
        "number": lambda t: parse_number(t, True),
        "bool": parse_bool,
        "json": parse_json,
        "base64_json": parse_base64_json,
    }
    return readers[kind](text)


# Rows -------------------------------------------------------------------------------------------------------


class Match(NamedTuple):
    dialect: Dialect
    route: Route
    variables: dict[str, str]


def variables(pattern: str, path: bytes) -> dict[str, str] | None:
    """The path's variables, decoded once; None: another path. Paths are matched as raw bytes."""
    names, parts = pattern.encode().split(b"/"), path.split(b"/")
    found: dict[str, str] = {}
    if len(names) != len(parts):
        return None
    for name, part in zip(names, parts, strict=True):
        if name[:1] == b"{" and part:
            found["path." + name[1:-1].decode()] = unquote(part, plus=False)
        elif name != part:
            return None
    return found


def methods(route: Route) -> tuple[str, ...]:
    """A GET route answers HEAD too."""
    answered = {*route.method, *(("HEAD",) if "GET" in route.method else ())}
    return tuple(method for method in ("GET", "HEAD", "POST") if method in answered)


def match(dialects: Sequence[Dialect], method: str, path: bytes) -> Match:
    allowed: tuple[str, ...] = ()
    for dialect in dialects:
        for route in dialect.routes:
            found = variables(route.path, path)
            if found is None:
                continue
            if method in methods(route):
                return Match(dialect, route, found)
            allowed += methods(route)
    raise NoRoute(allowed)


def is_aside(row: Field) -> bool:
    """Whether a row's text is not simply put at its path."""
    return bool(row.when or row.trusted or not row.to or row.kind == "params")


class Event:
    """A request on its way through the rows of its route."""

    def __init__(self, dialect: Dialect, route: Route, found: Mapping[str, str]) -> None:
        self.dialect = dialect
        self.route = route
        self.rows = {row.source: row for row in route.fields if row.source != "*"}
        self.star = next((row for row in route.fields if row.source == "*"), None)
        self.tree = Map()
        self.aside: dict[str, str] = {}  # texts of rows that are not simply put at their path
        self.rest: dict[str, str] = {}  # what went to the `*` row, for the hash
        self.used: set[tuple[str, ...]] = set()  # paths that have been set
        self.present: set[str] = set()  # rows whose own pair is in the tree
        self.hash_texts: dict[str, str] = {}
        self.timed = False  # the client's timestamp is applied
        self.untimed: str | None = None  # the client's timestamp, which is unusable
        for name, text in found.items():
            if name in self.rows:
                self.take(name, text)

    def read(self, request: Request, owned: Sequence[str] = SERVER_OWNED) -> None:
        """All parameters into the tree; refuses what is too much, too deep or too sparse."""
        for name, text in parameters(self.dialect, request):
            if name.startswith("path.") or name not in self.rows:
                self.take_other(name, text)
            else:
                self.take(name, text)
        if holes(self.tree) > MAX_HOLES:
            raise Refused("index_too_large")

    def place(self, path: Sequence[str], text: Any, fixed: int) -> bool:
        """Puts a pair into the tree; where the first of repeated pairs counts, a path is set only once."""
        if self.dialect.repeat == "first" and tuple(path) in self.used:
            return False
        put(self.tree, path, text, fixed)
        self.used.add(tuple(path))
        return True

    def take(self, name: str, text: str) -> None:
        """A pair or a path variable that has a row."""
        row = self.rows[name]
        if not is_aside(row):
            if self.place(row.to.split("."), text, NO_INDEX):
                self.present.add(name)
        elif name not in self.aside or self.dialect.repeat == "last":
            self.aside[name] = text

    def take_other(self, name: str, text: str) -> None:
        placed = place(self.star, name) if self.star else None
        if placed is not None and self.place(placed[0], text, placed[1]):
            self.rest[name] = text

    def write_key(self) -> str:
        """The key as sent; absent, empty and not text are missing."""
        row = next(row for row in self.route.fields if row.to == "writeKey")
        key = self.text(row)
        if not isinstance(key, str) or not key:
            raise Refused(row.required or "missing_key")
        return key

    def settle(self, source: Source | None) -> None:
        """All other rows, in their order."""
        for row in self.route.fields:
            if row.source != "*" and row.to not in ("", "writeKey"):
                self.settle_row(row, source)

    def settle_row(self, row: Field, source: Source | None) -> None:
        to, kind = row.to, row.kind
        if row.trusted and not (source and source.trust_client_ip):
            self.aside.pop(row.source, None)
        if row.when and not self.holds(row.when):
            to, kind = row.otherwise, "text"
        text = self.text(row)
        if isinstance(text, str):
            text = bare(text) if row.unquote else text
            text = tidy(text) or None if row.tidy else text
        text = self.checked(row, text)
        if isinstance(text, str) or text is None:
            self.store(row, to, kind, text)

    def holds(self, when: str) -> bool:
        """`when="NAME=VALUE"`: that row's text is exactly the value."""
        name, _, value = when.partition("=")
        return name in self.rows and self.text(self.rows[name]) == value

    def checked(self, row: Field, text: Any) -> Any:
        """The row's rules about what must be there; a value that is not text passes if it is not required."""
        if row.required and (not isinstance(text, str) or not text):
            raise Refused(row.required)
        if text == "" and row.nonempty:
            raise Refused(row.nonempty)
        if text == "" and row.if_empty is not None:
            text = row.if_empty
        if isinstance(text, str) and row.max_chars and len(text) > row.max_chars:
            raise Refused("value_too_long")
        return text

    def store(self, row: Field, to: str, kind: str, text: str | None) -> None:
        """The value at its path, or where an unusable text goes (the record's rules)."""
        if row.source in self.present:
            drop(self.tree, row.to.split("."))
        elif self.dialect.repeat == "first" and tuple(to.split(".")) in self.used:
            return
        if text is None or not to or (to == "timestamp" and not text):
            return
        if kind == "params":
            self.take_params(text)
            return
        try:
            value = convert(kind, text)
        except Unusable:
            self.store_unusable(row, text)
            return
        put(self.tree, to.split("."), value, NO_INDEX)
        self.timed |= to == "timestamp"

    def store_unusable(self, row: Field, text: str) -> None:
        if row.required:
            raise Refused(row.required)
        if row.on_bad == "ignore":
            return
        if row.to != "timestamp":
            self.client()[row.source] = text
            return
        self.untimed = text

    def take_params(self, text: str) -> None:
        """Members become properties, where no row has set them, but for the special ones."""
        try:
            members = read_params(text)
        except NotParams as failed:
            self.tree.setdefault("context", Map()).update(unread(text, failed))
            return
        if members is None:
            return
        properties = self.tree.setdefault("properties", Map())
        for name, value in members.items():
            if name not in SPECIAL:
                properties.setdefault(name, value)
            elif (stored := special(name, value)) is not None:
                put(self.tree, SPECIAL[name].split("."), stored, NO_INDEX)

    def client(self) -> Map:
        """The map context.client; whatever else is in its place moves into it."""
        context = self.tree.get("context")
        if not isinstance(context, Map):
            self.tree["context"] = context = Map() if context is None else Map(client=Map(context=context))
        client = context.get("client")
        if not isinstance(client, Map):
            context["client"] = client = Map() if client is None else Map(client=client)
        return client

    def identify(self) -> None:
        """At least one of the names is a text that is not blank."""
        ids = [self.tree.get(name) for name in self.route.identity]
        if ids and not any(isinstance(text, str) and not is_blank(text) for text in ids):
            raise Refused("missing_identity")

    def text(self, row: Field) -> Any:
        """What the request holds for a row; None: nothing."""
        if is_aside(row):
            return self.aside.get(row.source)
        return get(self.tree, row.to.split(".")) if row.source in self.present else None

    def raw(self, name: str) -> str:
        """A row's text as it was decoded; absent is empty."""
        text = self.text(self.rows[name])
        return text if isinstance(text, str) else ""


# Sources ----------------------------------------------------------------------------------------------------


def source_of(sources: Sequence[Source], key: str, protocol: str) -> Source | None:
    """README, "Sources": none configured admits every key."""
    if not sources:
        return None
    found = next((s for s in sources if s.key == key), None)
    if found is None or (found.protocols and protocol not in found.protocols):
        raise Refused("unknown_key")
    if not found.enabled:
        raise Refused("source_disabled")
    return found


# Record -----------------------------------------------------------------------------------------------------


def rfc3339(ns: int) -> str:
    """With milliseconds and 'Z'; what is finer is cut."""
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ns // 10**6)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def displace(event: Event) -> None:
    """What a client sent with the wrong type for a listed field goes to context.client.<name>."""
    kinds = {"text": str, "map": Map, "time": Timestamp}
    context = event.tree.get("context", Map())
    if not isinstance(context, Map) or not isinstance(context.get("client", Map()), Map):
        event.client()
    for listed in FIELDS:
        wrong = listed.name in event.tree and not isinstance(event.tree[listed.name], kinds[listed.type])
        if wrong and not listed.server_owned:
            event.client()[listed.name] = event.tree.pop(listed.name)


def read_time(event: Event) -> None:
    """A timestamp that came by a path without a row is read as iso8601: README, "Time, accepted everywhere"."""
    text = event.tree.get("timestamp")
    if not isinstance(text, str):
        return
    del event.tree["timestamp"]
    try:
        if text:
            event.tree["timestamp"] = convert("iso8601", text)
    except Unusable:
        event.untimed = text


def set_unusable_time(event: Event) -> None:
    """To originalTimestamp, or to context.client.timestamp if the client sent that too."""
    if event.untimed is None:
        return
    if "originalTimestamp" in event.tree:
        event.client()["timestamp"] = event.untimed
    else:
        event.tree["originalTimestamp"] = event.untimed


def set_defaults(event: Event) -> None:
    for path, value in (*event.route.defaults, *event.dialect.defaults):
        *above, name = path.split(".")
        if name not in (get(event.tree, above) or Map()):
            put(event.tree, [*above, name], value, NO_INDEX)


def skewed(event: Event, now: int) -> int:
    """rudderstack, "Server-set": receipt - (sentAt - originalTimestamp) when both were sent and parse."""
    sent, original = event.tree.get("sentAt"), event.tree.get("originalTimestamp")
    if not event.dialect.skew or sent is None or original is None:
        return now
    try:
        return usable(now - (parse_time(sent) - parse_time(original)))
    except Unusable:
        return now


def set_times(event: Event, now: int) -> None:
    tree = event.tree
    if "timestamp" not in tree:
        tree["timestamp"] = Timestamp.from_unix_nano(now if event.untimed is not None else skewed(event, now))
    for name in event.dialect.receipt:
        tree.setdefault(name, rfc3339(now))
    tree["receivedAt"] = Timestamp.from_unix_nano(now)


def set_context(event: Event, request: Request) -> None:
    """README: from the connection and headers when the client gave none."""
    given = {
        "ip": request.ip,
        "userAgent": (request.header("user-agent") or b"").decode("utf-8", "replace"),
        "referrer": (request.header("referer") or b"").decode("utf-8", "replace"),
    }
    for name, text in given.items():
        if text and get(event.tree, ["context", name]) is None:
            put(event.tree, ["context", name], text, NO_INDEX)


def _sized(text: str | bytes) -> bytes:
    octets = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(octets)) + octets


def hashed_id(event: Event) -> str:
    """kissmetrics, "Duplicates": UUIDv8 of SHA-256 over key, path, named values, pairs by name."""
    key, *others = event.route.dedupe
    parts = [event.hash_texts[key], event.route.path, *(event.hash_texts[name] for name in others)]
    for name in sorted(event.rest, key=str.encode):
        parts += [name, event.rest[name]]
    digest = bytearray(hashlib.sha256(b"".join(map(_sized, parts))).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


def set_message_id(event: Event) -> None:
    """A text that is not blank stays; a hash if the route asks for it; else a new UUIDv7, here "<uuid7>"."""
    given = event.tree.get("messageId")
    if isinstance(given, str) and not is_blank(given):
        return
    event.tree["messageId"] = hashed_id(event) if event.route.dedupe and event.timed else "<uuid7>"


@dataclass
class Verdict:
    """What a request comes to."""

    dialect: Dialect
    route: Route
    reason: str | None = None
    record: dict[str, Any] | None = None
    write_key: str | None = None


def judge(dialects: Sequence[Dialect], sources: Sequence[Source], request: Request) -> Verdict:
    """The record or the reason. Raises NoRoute."""
    found = match(dialects, request.method, request.path)
    verdict = Verdict(found.dialect, found.route)
    try:
        record = build(found, sources, request, verdict)
        if request.method == "HEAD":
            raise Refused("head")
        verdict.record = record
    except Refused as refused:
        verdict.reason = refused.reason
    return verdict


def build(found: Match, sources: Sequence[Source], request: Request, verdict: Verdict) -> dict[str, Any]:
    form(request)  # a body that cannot be read is refused before anything is
    event = Event(*found)
    try:
        event.read(request)
    finally:  # a reject names the key if it was read before the refusal
        key = get(event.tree, ["writeKey"])
        verdict.write_key = key if isinstance(key, str) else None
    verdict.write_key = event.write_key()
    source = source_of(sources, verdict.write_key, found.dialect.name)
    event.hash_texts = {name: event.raw(name) for name in found.route.dedupe}
    event.settle(source)
    event.identify()
    complete(event, source, request)
    return plain(event.tree)


def complete(event: Event, source: Source | None, request: Request) -> None:
    read_time(event)
    displace(event)
    set_unusable_time(event)
    set_defaults(event)
    set_times(event, request.now)
    set_context(event, request)
    set_message_id(event)
    event.tree["protocol"] = event.dialect.name
    event.tree["type"] = event.route.type
    if source is not None:
        event.tree["source"] = source.name


# Answer -----------------------------------------------------------------------------------------------------

GIF_HEADERS = {
    "Content-Type": "image/gif",
    "Cache-Control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "Pragma": "no-cache",
    "Expires": "0",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}


def outcome(verdict: Verdict, accept: bytes | None, options: Mapping[str, str]) -> Outcome:
    """The answers of the client's class. A route's `answer` is a name, or an option that holds one."""
    name = {**verdict.dialect.options, **options}.get(verdict.route.answer, verdict.route.answer)
    answer = {**ANSWERS, **verdict.dialect.answers}[name]
    wish = (accept or b"").lower()
    if b"image/" in wish:
        return answer.image
    return answer.text if b"text/plain" in wish or b"application/json" in wish else answer.other


def reply_of(
    verdict: Verdict, accept: bytes | None, options: Mapping[str, str], stored: bool = True
) -> tuple[Reply, str | None]:
    """The answer and its X-Fastpixel reason. A good HEAD is answered like a stored GET."""
    choice = outcome(verdict, accept, options)
    if verdict.reason is None and not stored:
        return choice.unavailable, "spool_full"
    if verdict.reason in (None, "head"):
        return choice.stored, verdict.reason
    return choice.refused, verdict.reason


def body_of(verdict: Verdict, reply: Reply, reason: str | None) -> bytes:
    if reply.body == "gif":
        return GIF
    if reply.body == "reason":
        return (verdict.dialect.errors.get(reason or "", reason or "") + "\n").encode()
    return reply.body.encode()


def headers_of(request: Request, reply: Reply, reason: str | None) -> dict[str, str]:
    """README, "GIF answer" and "CORS"; without Date and Content-Length."""
    origin = request.header("origin") or b""
    if not re.fullmatch(rb"[\x21-\x7e]{1,255}", origin):  # nothing odd is echoed
        origin = b""
    cors = {"Access-Control-Allow-Origin": origin.decode("latin-1") if origin else "*"}
    if origin:
        cors["Access-Control-Allow-Credentials"] = "true"
    shared = {"Vary": "Origin", "Access-Control-Expose-Headers": "X-Fastpixel"}
    shared["Content-Type"] = reply.content_type
    gif = GIF_HEADERS if reply.body == "gif" else {}
    dropped = {"X-Fastpixel": f"dropped; reason={reason}"} if reason else {}
    return {**cors, **shared, **gif, **dropped, **dict(reply.headers)}


def reject_of(request: Request, verdict: Verdict) -> dict[str, Any] | None:
    """The reject that is kept of a refused event; None: none is."""
    if verdict.reason is None or verdict.reason in NOT_KEPT or request.method == "HEAD":
        return None
    headers = {name: request.header(name) for name in KEPT_HEADERS}
    target, body = redacted(verdict.route, request) if verdict.route.redact else (request.target, request.body)
    reject: dict[str, Any] = {
        "receivedAt": Timestamp.from_unix_nano(request.now),
        "protocol": verdict.dialect.name,
        "reason": verdict.reason,
        "method": request.method,
        "target": target.decode("utf-8", "replace"),
        "headers": {name: value.decode("utf-8", "replace") for name, value in headers.items() if value},
    }
    if verdict.write_key:
        reject["writeKey"] = verdict.write_key
    if request.ip:
        reject["ip"] = request.ip
    return {**reject, **_kept_body(request.body, body, verdict.reason in RETRIABLE)}


def redacted(route: Route, request: Request) -> tuple[bytes, bytes]:
    """pitchtarget: a reject has the parameters of the rows, tokens as hashes, and no `params` that is unreadable."""
    body = b"" if request.method != "POST" or is_json(request.header("content-type")) else request.body
    coded = (request.header("content-encoding") or b"").strip().lower() not in (b"", b"identity")
    query = rewritten(route, request.query)
    return request.path + (b"?" + query if query else b""), b"" if coded else rewritten(route, body)


def rewritten(route: Route, part: bytes) -> bytes:
    rows = {row.source: row for row in route.fields if not row.source.startswith("path.")}
    found = list(pairs(part))
    kept = [(name, safe(text) if rows[name].kind == "params" else text) for name, text in found if name in rows]
    return urlencode(kept).encode() if len(found) <= MAX_PAIRS else b""


def safe(value: str) -> str:
    """`params` without secrets: read again, it makes the same event, but for the text of one that is unreadable."""
    try:
        members = read_params(value)
    except NotParams as failed:
        octets = value.encode()
        note = f"sha256:{hashlib.sha256(octets).hexdigest()} {len(octets)} bytes {failed.error}"
        return value if _NOTE.fullmatch(value.strip(_SPACE)) else note
    if members is None:
        return ""
    if "access_token" in members:
        token = special("access_token", members["access_token"])
        members["access_token"] = token and f"sha256:{token}"
    return msgspec.json.encode(members).decode()


def _kept_body(sent: bytes, body: bytes, whole: bool) -> dict[str, Any]:
    """4 KiB of what may be kept, unless a retry needs all of it; the hash says what was cut."""
    kept = body if whole else body[:KEPT_BODY]
    found: dict[str, Any] = {"bodySha256": hashlib.sha256(sent).hexdigest()} if kept != sent else {}
    if kept:
        try:
            found["body"] = kept.decode()
        except UnicodeDecodeError:
            found["body"] = kept
    return found


def client_address(peer: str, forwarded: Sequence[bytes], trusted: Sequence[str]) -> str:
    """If the peer is a trusted proxy: the rightmost address of X-Forwarded-For that is not one."""
    networks = [ipaddress.ip_network(cidr) for cidr in trusted]
    chain = [part.strip() for value in forwarded for part in value.decode("latin-1").split(",")]
    address = peer
    while chain and any(ipaddress.ip_address(address) in network for network in networks):
        try:
            address = str(ipaddress.ip_address(chain.pop()))
        except ValueError:
            return address
    return address
