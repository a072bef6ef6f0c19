"""Settings: one table, from which file, variables, flags, `fastpixel config`, `init` and docs/configuration.md come.

What lives here: the table (the classes below: a field is a setting, its `Row` says kind, default and meaning), how
file, variables and flags are laid over each other, the checks between settings, and the printed forms. What it must
not know: anything of fastpixel but exceptions, units.py and schema.py; what a setting does; whether its feature is
built. The length is the table's.

How it works: `load` lays variables over the file and flags over variables as TOML values, then reads the whole tree
once, by the table. Every error is one ConfigError line: where, what, what to do next. Worker processes get the
settings through `to_json` / `from_json`: the same tree of TOML values, read by the same reader.

Not supported: includes, interpolation, several files. Relative paths start at the working directory.
"""

from __future__ import annotations

import math
import re
import sys
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from . import schema, units
from .errors import ConfigError
from .schema import REQUIRED, At, Kind, Row
from .units import Bind, Network, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BUILTIN_PROTOCOLS = ("kissmetrics", "pitchtarget", "rudderstack", "segment", "tracardi", "ksense")
SERVER_OWNED = frozenset({"protocol", "source", "receivedAt", "seq", "type", "writeKey"})
ENV_PREFIX = "FASTPIXEL_"
ENV_FILE = "FASTPIXEL_CONFIG"
MASK = "********"

Durability = Literal["fsync", "commit"]
OnFull = Literal["refuse", "drop_oldest"]
LogFormat = Literal["text", "json"]
IpPolicy = Literal["keep", "truncate", "drop"]
GpcPolicy = Literal["ignore", "anonymise", "drop"]
RudderstackReply = Literal["auto", "gif", "text"]
Answer = Literal["gif", "text"]
Method = Literal["GET", "HEAD", "POST"]
FieldKind = Literal[
    "text", "int", "number", "bool", "unix", "unix_ms", "iso8601", "json", "base64_json", "dotpath"
]  # fmt: skip


# -- kinds of value that only fastpixel has --------------------------------------------------------------------------

PATH_PREFIX = re.compile(r"/[!-~]*", re.ASCII)
PATH_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}", re.ASCII)


def _one_of(names: Any) -> Kind:
    return schema.choice(*typing.get_args(names))


def _path(value: Any) -> Path:
    text = schema.utf8(value)
    if not text or "\0" in text:
        raise ValueError(f"{shown(text)} is not a path")
    return Path(text)


def _url(value: Any) -> str:
    hint = f'{shown(value)} is not an absolute URL; write it like "https://shop.example.com/spring"'
    if not isinstance(value, str) or not re.fullmatch(r"https?://[!-~]+", value, re.ASCII):
        raise ValueError(hint)
    try:
        parts = urlsplit(value)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable:
        raise ValueError(hint)
    return value


def _aliases(value: Any, at: At) -> dict[str, str]:
    if not isinstance(value, dict):
        raise at.error(f"{shown(value)} is not a table of path prefixes")
    for alias, target in value.items():
        where = at.key(f'"{alias}"')
        for prefix in (alias, target):
            if not isinstance(prefix, str) or not PATH_PREFIX.fullmatch(prefix) or set(prefix) & set("?#%{}"):
                raise where.error(f'{shown(prefix)} is not a path prefix; write it like "/c/"')
        if alias == target or alias.endswith("/") != target.endswith("/"):
            raise where.error("alias and target must differ, and both end with / or neither")
    return dict(value)


def _properties(value: Any, at: At) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise at.error(f"{shown(value)} is not a table of properties")
    return {name: _property(member, at.key(name)) for name, member in value.items()}


def _property(value: Any, at: At) -> Any:
    if isinstance(value, dict):
        return _properties(value, at)
    if isinstance(value, list):
        return [_property(member, at.item(index)) for index, member in enumerate(value)]
    if isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise at.error(f"{shown(value)} cannot be a property; use text, numbers, true, false, lists and tables")


def _route_path(value: Any) -> str:
    if not isinstance(value, str) or not PATH_PREFIX.fullmatch(value) or set(value) & set("?#%"):
        raise ValueError(f'{shown(value)} is not a route path; write it like "/px/{{key}}/hit.gif"')
    for segment in value.split("/"):
        if set(segment) & set("{}") and not PATH_VARIABLE.fullmatch(segment):
            raise ValueError(f"{shown(value)}: a variable is a whole segment, like /{{key}}/")
    names = path_variables(value)
    if len(set(names)) != len(names):
        raise ValueError(f"{shown(value)} names a variable twice")
    return value


def path_variables(path: str) -> list[str]:
    """The variables of a route's path, in order: "/px/{key}/hit.gif" -> ["key"]."""
    return PATH_VARIABLE.findall(path)


def _record_path(value: Any) -> str:
    text = schema.utf8(value)
    segments = text.split(".")
    if not all(segments) or "__proto__" in segments:
        raise ValueError(f'{shown(text)} is not a record path; write it like "properties.amount"')
    if segments[0] in SERVER_OWNED and text != "writeKey":
        raise ValueError(f"{shown(text)} is set by the server; choose another field")
    return text


def _secret(value: Any) -> str:
    text = schema.utf8(value)
    if text == MASK:
        raise ValueError("this is the mask that `fastpixel config` prints; put the real secret here")
    return text


ANY_TEXT = schema.text()
SOME_TEXT = schema.text(r"(?s).+", "usable, it is empty; write some text")
DIALECT_NAME = schema.text(r"[a-z][a-z0-9_-]{0,31}", "a name; use a-z 0-9 _ -, a letter first, at most 32")
COOKIE_NAME = schema.text(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "a cookie name (RFC 6265); use letters, digits, - and _")
DOMAIN = schema.text(r"(\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)?", 'a domain; write it like "example.com"')
PATH_SEGMENT = schema.text(r"[^/?#%\x00-\x20\x7f]+", "an id; it is one path segment, without blanks and / ? # %")
SECRET = Kind("text", schema.leaf(_secret))
SWITCH = schema.switch()
BIND = Kind("address", schema.leaf(units.bind), str)
ADMIN_BIND = Kind(
    "address or off",
    schema.leaf(lambda value: None if value == "off" else units.bind(value)),
    lambda value: "off" if value is None else str(value),
)
NETWORKS = schema.listing(Kind("network", schema.leaf(units.network), str))
ORIGINS = schema.listing(Kind("origin", schema.leaf(units.origin)))
RATE = Kind("rate", schema.leaf(units.rate), units.rate_text)
DIRECTORY = Kind("path", schema.leaf(_path), str)
FILE = Kind("path", schema.leaf(lambda value: _path(value) if value else None), lambda value: str(value or ""))
URL = Kind("URL", schema.leaf(_url))
PROTOCOLS = replace(schema.listing(ANY_TEXT, low=1), name="list of protocol")
METHODS = schema.listing(_one_of(Method), low=1)
ROUTE_PATH = Kind("route path", schema.leaf(_route_path))
RECORD_PATH = Kind("record path", schema.leaf(_record_path))
ALIASES = Kind("table of prefixes", _aliases, text=schema.json_text)
PROPERTIES = Kind("table", _properties, text=schema.json_text)
CENTURY = 36500 * 86400


def _size(low: str, high: str) -> Kind:
    return schema.size(units.size(low), units.size(high))


def _wait(low: str) -> Kind:
    return schema.duration(units.duration(low), CENTURY)


# -- the table -------------------------------------------------------------------------------------------------------
# A setting stays one row, so the formatter keeps out.
# fmt: off


class Privacy(msgspec.Struct, frozen=True):
    """What is kept of people; `[sources.privacy]` says it for one source."""

    ip: Annotated[IpPolicy, Row(_one_of(IpPolicy), "keep",
        "Every address of an event, the client's own fields included: keep it, truncate it (/24, /48) or drop it.")]
    gpc: Annotated[GpcPolicy, Row(_one_of(GpcPolicy), "ignore",
        "What Sec-GPC: 1 or DNT: 1 does: nothing, anonymise the event, or drop it.")]


class Visitor(msgspec.Struct, frozen=True):
    """The first-party cookie that gives anonymousId on pixels without an identity of their own."""

    cookie: Annotated[bool, Row(SWITCH, True, "Set and read the visitor cookie.")]
    name: Annotated[str, Row(COOKIE_NAME, "_fp", "The cookie's name.")]
    domain: Annotated[str, Row(DOMAIN, "", "The cookie's Domain; empty: the host that was asked.")]
    max_age: Annotated[float, Row(_wait("1s"), "400d", "How long browsers keep it; it is never refreshed.")]


class Rudderstack(msgspec.Struct, frozen=True):
    """Options of the RudderStack dialect."""

    reply: Annotated[RudderstackReply, Row(_one_of(RudderstackReply), "auto",
        "Answer of the pixel: GIF or text by the Accept header, always the GIF, or always text.")]


class Source(msgspec.Struct, frozen=True):
    """A write key that is accepted. Without any source every non-empty key is (open mode)."""

    key: Annotated[str, Row(SOME_TEXT, REQUIRED, "The write key, app token or source id that clients send.",
        example="52fb5565a7b23ec66fad3988")]
    name: Annotated[str, Row(ANY_TEXT, "", "Stored with every event of the source; empty: none.")]
    protocols: Annotated[tuple[str, ...], Row(PROTOCOLS, ["all"], "The protocols that may use the key.")]
    enabled: Annotated[bool, Row(SWITCH, True, "false: events are refused (source_disabled).")]
    origins: Annotated[tuple[str, ...], Row(ORIGINS, [], "Pages that may send; empty: all.")]
    rate_limit: Annotated[float, Row(RATE, "0/s", "Events a second over all workers; 0/s: no limit.")]
    trust_client_ip: Annotated[bool, Row(SWITCH, False, "Kissmetrics _ip and _ua of the client count.")]
    token: Annotated[str, Row(SECRET, "", "kSense: the token a request must carry; empty: none.", secret=True)]
    privacy: Annotated[Privacy, Row(schema.table(Privacy), {}, "As [privacy], which it starts from.")]


class Redirect(msgspec.Struct, frozen=True):
    """A Tracardi redirect: GET /redirect/{id} records the event and answers 307 to the URL."""

    id: Annotated[str, Row(PATH_SEGMENT, REQUIRED, "The id in the path.", example="spring")]
    url: Annotated[str, Row(URL, REQUIRED, "Where the visitor is sent.", example="https://shop.example.com/spring")]
    source: Annotated[str, Row(SOME_TEXT, REQUIRED, "Name or key of the source that the event belongs to.",
        example="52fb5565a7b23ec66fad3988")]
    event: Annotated[str, Row(SOME_TEXT, REQUIRED, "The event's type.", example="email-opened")]
    properties: Annotated[dict[str, Any], Row(PROPERTIES, {}, "The event's properties.")]


class FieldRow(msgspec.Struct, frozen=True):
    """A parameter and where it goes in the record."""

    from_: Annotated[str, Row(SOME_TEXT, REQUIRED, "A parameter, path.NAME, or * for all that no row names.")]
    to: Annotated[str, Row(RECORD_PATH, REQUIRED, "Its path in the record.")]
    kind: Annotated[FieldKind, Row(_one_of(FieldKind), "text", "How its value is read.")]
    required: Annotated[str, Row(ANY_TEXT, "", "The reason to refuse an event without it; empty: optional.")]


class RouteRow(msgspec.Struct, frozen=True):
    """A request that the dialect answers."""

    method: Annotated[tuple[Method, ...], Row(METHODS, ["GET"], "The methods it answers.")]
    path: Annotated[str, Row(ROUTE_PATH, REQUIRED, "Its path; {name} is a variable segment.",
        example="/px/{key}/hit.gif")]
    type: Annotated[str, Row(SOME_TEXT, "track", "The type of its events.")]
    answer: Annotated[Answer, Row(_one_of(Answer), "gif", "The GIF, or a line of text.")]
    visitor: Annotated[bool, Row(SWITCH, False, "anonymousId may come from the visitor cookie.")]
    fields: Annotated[tuple[FieldRow, ...], Row(schema.tables(FieldRow), [], "Its parameters.", example=[
        {"from": "path.key", "to": "writeKey", "required": "missing_key"},
        {"from": "n", "to": "event", "required": "missing_event"},
        {"from": "ts", "to": "timestamp", "kind": "unix_ms"},
        {"from": "*", "to": "properties", "kind": "dotpath"},
    ])]


class DialectRow(msgspec.Struct, frozen=True):
    """A pixel protocol of your own, in the rows that the built-in ones are made of."""

    name: Annotated[str, Row(DIALECT_NAME, REQUIRED, "The protocol's name in records and in lists of protocols.",
        example="acme")]
    routes: Annotated[tuple[RouteRow, ...], Row(schema.tables(RouteRow, low=1), REQUIRED, "Its requests.")]


class Config(msgspec.Struct, frozen=True):
    """All settings, checked. Sizes are bytes, durations seconds, rates events a second; "all" protocols spelt out."""

    bind: Annotated[tuple[Bind, ...], Row(schema.listing(BIND, low=1), ["127.0.0.1:8080"],
        "Addresses of the public listener: HOST:PORT, [IPv6]:PORT or unix:/path; port 0 takes a free one.")]
    workers: Annotated[int, Row(schema.count(0, 1024), 0, "Worker processes; 0: one per core.")]
    protocols: Annotated[tuple[str, ...], Row(PROTOCOLS, ["all"],
        'The protocols that are served, by name; "all": the built-in ones and your dialects.')]
    data_dir: Annotated[Path, Row(DIRECTORY, "./fastpixel-data",
        "Where events are stored; a local filesystem: NFS, SMB and FUSE are refused.")]
    durability: Annotated[Durability, Row(_one_of(Durability), "fsync",
        "An event is answered after it is on the disk (fsync), or after the kernel has it (commit).")]
    trusted_proxies: Annotated[tuple[Network, ...], Row(NETWORKS, [],
        "Networks whose X-Forwarded-For counts: the rightmost address in it that is not one of them.")]
    max_request_line: Annotated[int, Row(_size("1KiB", "1MiB"), 16384, "Longest request line.")]
    max_header_bytes: Annotated[int, Row(_size("1KiB", "1MiB"), 32768, "Longest head of a request.")]
    max_body_bytes: Annotated[int, Row(_size("1KiB", "1GiB"), "4000KiB",
        "Longest body of a request.")]
    max_inflight_bytes: Annotated[int, Row(_size("1KiB", "1TiB"), "64MiB",
        "Bodies and batches a worker holds; above it reading from sockets stops.")]
    max_connections: Annotated[int, Row(schema.count(1, 10_000_000), 10000, "Open connections of a worker.")]
    max_connections_per_ip: Annotated[int, Row(schema.count(0, 10_000_000), 0,
        "Open connections of one address; 0: no limit.")]
    header_timeout: Annotated[float, Row(_wait("10ms"), "10s", "A request's head must be complete within it.")]
    body_timeout: Annotated[float, Row(_wait("10ms"), "30s", "A request's body must be complete within it.")]
    idle_timeout: Annotated[float, Row(_wait("10ms"), "75s", "A connection without a request is closed after it.")]
    shutdown_timeout: Annotated[float, Row(_wait("0s"), "30s", "A worker that is told to stop must end within it.")]
    pre_stop_delay: Annotated[float, Row(_wait("0s"), "0s",
        "Between /ready turning 503 and the end of accepting, for load balancers to notice.")]
    max_spool_bytes: Annotated[int, Row(_size("1MiB", "1000TiB"), "50GiB", "Most that data_dir may take.", later=True)]
    min_free_bytes: Annotated[int, Row(_size("0", "1000TiB"), "1GiB", "Left free on the filesystem of data_dir.",
        later=True)]
    on_full: Annotated[OnFull, Row(_one_of(OnFull), "refuse",
        "When there is no room: refuse new events with 503, or delete the oldest stored ones.", later=True)]
    segment_bytes: Annotated[int, Row(_size("64KiB", "1TiB"), "256MiB", "A segment file is closed at this size.")]
    retention: Annotated[float, Row(_wait("0s"), "7d",
        "Segments that every cursor has passed are deleted after it; without a cursor none is deleted by age.",
        later=True)]
    max_reject_bytes: Annotated[int, Row(_size("0", "1000TiB"), "1GiB",
        "Most that refused events kept for a retry may take.")]
    rejects_per_second: Annotated[int, Row(schema.count(0, 1_000_000), 20,
        "Refused events a worker keeps a second of those that cannot be retried.")]
    admin_bind: Annotated[Bind | None, Row(ADMIN_BIND, "127.0.0.1:8081",
        "Address of health and metrics, or off; keep it private.")]
    log_format: Annotated[LogFormat, Row(_one_of(LogFormat), "text", "Form of the log on standard error.")]
    tls_cert: Annotated[Path | None, Row(FILE, "", "Certificate chain (PEM) of the public listener; with tls_key.")]
    tls_key: Annotated[Path | None, Row(FILE, "", "Its private key (PEM); with tls_cert.")]
    privacy: Annotated[Privacy, Row(schema.table(Privacy), {}, "What is kept of people.")]
    visitor: Annotated[Visitor, Row(schema.table(Visitor), {}, "The visitor cookie.")]
    rudderstack: Annotated[Rudderstack, Row(schema.table(Rudderstack), {}, "RudderStack options.")]
    sources: Annotated[tuple[Source, ...], Row(schema.tables(Source), [],
        "The write keys that are accepted; none: every non-empty key is (open mode).")]
    redirects: Annotated[tuple[Redirect, ...], Row(schema.tables(Redirect), [], "Tracardi redirects.")]
    paths: Annotated[dict[str, str], Row(ALIASES, {},
        "Prefix aliases: a request under the left path is served as if under the right one.",
        example={"/c/": "/pixel/v1/"})]
    dialects: Annotated[tuple[DialectRow, ...], Row(schema.tables(DialectRow), [], "Pixel protocols of your own.")]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> bytes:
        """Everything, secrets too, for a worker process; `from_json` gives an equal Config."""
        return msgspec.json.encode({"settings": schema.document(self), "warnings": self.warnings})

    @staticmethod
    def from_json(data: bytes) -> Config:
        handed = msgspec.json.decode(data)
        return _checked(handed["settings"], "settings", tuple(handed["warnings"]), None)


# fmt: on
# -- every setting by name: variables, flags, help -------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One setting as variables, flags and their help see it; `name` is dotted in a section ("privacy.ip")."""

    name: str
    row: Row

    @property
    def param(self) -> str:
        """The key in `load(flags=...)`: "privacy_ip"."""
        return self.name.replace(".", "_")

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.param.upper()

    @property
    def flag(self) -> str:
        return "--" + self.param.replace("_", "-")

    @property
    def help(self) -> str:
        return f"{self.row.meaning} [default: {default_text(self.row)}]"


def _settings() -> Iterator[Setting]:
    for name, row in schema.rows(Config).items():
        if row.kind.table is None or row.kind.many:
            yield Setting(name, row)
        else:
            yield from (Setting(f"{name}.{inner}", leaf) for inner, leaf in schema.rows(row.kind.table).items())


SETTINGS = tuple(_settings())


# -- reading ---------------------------------------------------------------------------------------------------------


def load(
    file: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    reasons: Collection[str] | None = None,
) -> Config:
    """The settings of a TOML file, under FASTPIXEL_* variables, under flags (by `Setting.param`; None: not given).

    Without `file` the variable FASTPIXEL_CONFIG names it; without either the defaults hold. An empty variable counts
    as not set. `reasons`: the closed list that `required` of a dialect's field must name. Raises ConfigError.
    """
    env = env or {}
    file = file or env.get(ENV_FILE) or None
    tree = {} if file is None else _toml_file(Path(file))
    warnings = tuple(_lay_variables(tree, env))
    _lay_flags(tree, flags or {})
    return _checked(tree, str(file or "settings"), warnings, reasons)


def _toml_file(path: Path) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); `fastpixel init` writes a first one") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    return tree


def _lay_variables(tree: dict[str, Any], env: Mapping[str, str]) -> Iterator[str]:
    """Puts variables into the tree; yields a warning for each unknown one (Kubernetes injects such)."""
    known = {setting.env: setting for setting in SETTINGS}
    for name in sorted(env):
        if name in known and env[name]:
            _lay(tree, known[name], env[name], At(name))
        elif name.startswith(ENV_PREFIX) and name not in known and name != ENV_FILE:
            yield f"{name} is not a setting and has no effect{schema.nearest(name, known)}"


def _lay_flags(tree: dict[str, Any], flags: Mapping[str, Any]) -> None:
    known = {setting.param: setting for setting in SETTINGS}
    for name, value in flags.items():
        if name not in known:
            raise ConfigError(f'"{name}" is not a setting{schema.nearest(name, known)}')
        if value is not None and value != ():  # a repeatable flag that was not given is an empty tuple
            _lay(tree, known[name], value, At(known[name].flag))


def _lay(tree: dict[str, Any], setting: Setting, value: Any, at: At) -> None:
    kind = setting.row.kind
    try:
        value = kind.text(value) if isinstance(value, str) else value
    except ValueError as error:
        raise at.error(str(error)) from None
    kind.parse(value, at)  # now, so that an error names the variable or flag and not the file
    section, _, name = setting.name.rpartition(".")
    place = tree.setdefault(section, {}) if section else tree
    if isinstance(place, dict):  # else the file has nonsense there, which the reader of the tree reports
        place[name] = value


def _checked(tree: dict[str, Any], origin: str, warnings: tuple[str, ...], reasons: Collection[str] | None) -> Config:
    at = At(origin)
    config = schema.read(Config, _with_privacy(tree), at)
    _check_listeners(config, at)
    _check_dialects(config.dialects, reasons, at.key("dialects"))
    _check_sources(config, at)
    known = (*BUILTIN_PROTOCOLS, *(dialect.name for dialect in config.dialects))
    sources = tuple(
        msgspec.structs.replace(source, protocols=_protocols(source.protocols, known, at.key("sources").item(index)))
        for index, source in enumerate(config.sources)
    )
    protocols = _protocols(config.protocols, known, at)
    return msgspec.structs.replace(config, protocols=protocols, sources=sources, warnings=warnings)


def _with_privacy(tree: dict[str, Any]) -> dict[str, Any]:
    """A source's [sources.privacy] says only what differs from [privacy]."""
    general, sources = tree.get("privacy", {}), tree.get("sources")
    if not isinstance(general, dict) or not isinstance(sources, (list, tuple)):
        return tree

    def complete(source: Any) -> Any:
        own = source.get("privacy", {}) if isinstance(source, dict) else None
        return {**source, "privacy": {**general, **own}} if isinstance(own, dict) else source

    return {**tree, "sources": [complete(source) for source in sources]}


# -- checks between settings -----------------------------------------------------------------------------------------


def _protocols(names: tuple[str, ...], known: tuple[str, ...], at: At) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if name not in (*known, "all"):
            where = at.key("protocols").item(index)
            raise where.error(f"{shown(name)} is not a protocol{schema.nearest(name, (*known, 'all'))}")
    return known if "all" in names else names


def _check_listeners(config: Config, at: At) -> None:
    if config.admin_bind in config.bind and (config.admin_bind.is_unix or config.admin_bind.port):
        raise at.key("admin_bind").error(f"{config.admin_bind} is the public listener's; choose another port")
    if (config.tls_cert is None) != (config.tls_key is None):
        given, missing = ("tls_cert", "tls_key") if config.tls_key is None else ("tls_key", "tls_cert")
        raise at.key(given).error(f"needs {missing} beside it")
    if config.max_inflight_bytes < config.max_body_bytes:
        raise at.key("max_inflight_bytes").error("is below max_body_bytes, so a legal body would never be read")


def _check_sources(config: Config, at: At) -> None:
    _unique([source.key for source in config.sources], "key", at.key("sources"))
    _unique([redirect.id for redirect in config.redirects], "id", at.key("redirects"))
    names = [name for source in config.sources for name in {source.key, source.name} if name]
    for index, redirect in enumerate(config.redirects):
        where = at.key("redirects").item(index).key("source")
        if config.sources and redirect.source not in names:
            hint = schema.nearest(redirect.source, names)
            raise where.error(f"{shown(redirect.source)} is no source's name or key{hint}")
        if names.count(redirect.source) > 1:
            raise where.error(f"{shown(redirect.source)} means several sources; write the key")


def _unique(values: list[str], name: str, at: At) -> None:
    seen: dict[str, int] = {}
    for index, value in enumerate(values):
        first = seen.setdefault(value, index)
        if first != index:
            where = at.item(index).key(name)
            raise where.error(f"{shown(value)} is that of {at.item(first).path} already; remove one")


def _check_dialects(dialects: tuple[DialectRow, ...], reasons: Collection[str] | None, at: At) -> None:
    _unique([dialect.name for dialect in dialects], "name", at)
    for index, dialect in enumerate(dialects):
        if dialect.name in (*BUILTIN_PROTOCOLS, "all"):
            raise at.item(index).key("name").error(f"{shown(dialect.name)} is taken; choose another name")
        for number, route in enumerate(dialect.routes):
            _check_route(route, reasons, at.item(index).key("routes").item(number).key("fields"))


def _check_route(route: RouteRow, reasons: Collection[str] | None, at: At) -> None:
    variables = [f"path.{name}" for name in path_variables(route.path)]
    for index, field in enumerate(route.fields):
        if field.from_.startswith("path.") and field.from_ not in variables:
            known = f"; {route.path} has {', '.join(variables)}" if variables else ", it has none"
            raise at.item(index).key("from").error(f"{shown(field.from_)} is no variable of the route's path{known}")
        if field.required and reasons is not None and field.required not in reasons:
            hint = schema.nearest(field.required, reasons)
            raise at.item(index).key("required").error(f"{shown(field.required)} is not a reason{hint}")
    if sum(field.from_ == "*" for field in route.fields) > 1:
        raise at.error('"*" stands twice; all other parameters go to one place')


# -- printed forms ---------------------------------------------------------------------------------------------------


def render(config: Config) -> str:
    """`fastpixel config`: the settings in force as TOML. It loads to an equal Config, but that secrets are masked."""
    known = (*BUILTIN_PROTOCOLS, *(dialect.name for dialect in config.dialects))
    return "\n".join(_lines(Config, _folded(schema.document(config), known), "", "", described=True)) + "\n"


def template() -> str:
    """`fastpixel init`: a file of every setting with its default (or an example), all of it commented out."""
    return "\n".join([TEMPLATE_HEAD, *_lines(Config, _example(Config), "", "#", described=True)]) + "\n"


def _folded(values: dict[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """Lists of every protocol as "all", so that a dialect added to the printed file is among them."""
    for table in (values, *values["sources"]):
        if tuple(table["protocols"]) == known:
            table["protocols"] = ["all"]
    return values


def _example(table: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: _example_value(row) for name, row in schema.rows(table).items()}


def _example_value(row: Row) -> Any:
    if row.example is not None:
        return row.example
    if row.kind.table is not None:
        return [_example(row.kind.table)] if row.kind.many else _example(row.kind.table)
    return row.default


def _is_section(row: Row) -> bool:
    return row.kind.table not in (None, FieldRow)


def _lines(
    table: type[msgspec.Struct], values: dict[str, Any], header: str, mark: str, described: bool
) -> Iterator[str]:
    """The lines of a table: its own values first, as TOML wants it, then its sections."""
    ordered = sorted(schema.rows(table).items(), key=lambda pair: _is_section(pair[1]))
    for name, row in ordered:
        value = MASK if row.secret and values[name] else values[name]
        if _is_section(row):
            yield from _section(row, value, header + name, mark, described)
            continue
        if described:
            yield f"# {row.meaning}"
        yield from (mark + line for line in f"{name} = {_toml(value)}".split("\n"))


def _section(row: Row, value: Any, header: str, mark: str, described: bool) -> Iterator[str]:
    assert row.kind.table is not None
    for item in value if row.kind.many else [value]:
        yield ""
        if described:
            yield f"# {row.meaning}"
        yield mark + (f"[[{header}]]" if row.kind.many else f"[{header}]")
        # A printed list of sources would repeat the same comments for each; the template has one of each kind.
        below = described and (bool(mark) or not row.kind.many)
        yield from _lines(row.kind.table, item, header + ".", mark, below)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return "[\n" + "".join(f"    {_toml(item)},\n" for item in value) + "]"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        members = ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items())
        return f"{{ {members} }}" if members else "{}"
    return repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name, re.ASCII) else _quoted(name)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes, and DEL, which only TOML wants escaped."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def default_text(row: Row) -> str:
    return "required" if row.default is REQUIRED else _toml(row.default)


def markdown() -> str:
    """docs/configuration.md, whole."""
    blocks = [MANUAL, "## Settings\n", *_reference(Config)]
    for name, table in _tables(Config, ""):
        if name == "[sources.privacy]":  # said by [privacy]
            continue
        blocks += [f"\n## `{name}`\n", f"{(table.__doc__ or '').strip()}\n", *_reference(table)]
    return "\n".join(blocks) + "\n"


def _tables(table: type[msgspec.Struct], header: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    for name, row in schema.rows(table).items():
        if row.kind.table is not None:
            yield (f"[[{header}{name}]]" if row.kind.many else f"[{header}{name}]"), row.kind.table
            yield from _tables(row.kind.table, f"{header}{name}.")


def _reference(table: type[msgspec.Struct]) -> Iterator[str]:
    yield "| name | kind | default | meaning |\n|---|---|---|---|"
    for name, row in schema.rows(table).items():
        choices = " ".join(f"`{choice}`" for choice in row.kind.choices)
        kind = ("list of " * row.kind.many + choices) if choices else row.kind.name
        default = default_text(row)
        yield f"| `{name}` | {kind} | {default if row.default is REQUIRED else f'`{default}`'} | {row.meaning} |"


TEMPLATE_HEAD = """\
# fastpixel settings. Take the # off a line to set it: the values are the defaults, below [[...]] examples.
# A line under [section] or [[section]] needs that line too. FASTPIXEL_* variables and flags win over this file.
"""

MANUAL = """\
# Configuration

Generated from the table in `src/fastpixel/config.py`; change it there.

fastpixel runs without any configuration. A setting comes from, the first that has it:

1. a flag of `fastpixel serve`: `--max-body-bytes 1MiB`
2. a variable: `FASTPIXEL_MAX_BODY_BYTES=1MiB`; an empty one counts as not set, an unknown one is a warning
3. the file that `--config FILE` or `FASTPIXEL_CONFIG` names, in TOML; an unknown name is an error
4. the default

A section's setting is one name as flag and variable: `ip` in `[privacy]` is `--privacy-ip` and `FASTPIXEL_PRIVACY_IP`.
Lists are separated by commas there, tables are JSON: `FASTPIXEL_SOURCES='[{"key": "abc"}]'`.

`fastpixel init` writes a commented file with every setting, `fastpixel config` prints the settings in force (tokens
masked), `fastpixel config --check` only says whether they are usable. Relative paths start at the working directory.

| kind | written as |
|---|---|
| size | bytes as an integer, or `"64KiB"`, `"1.5GiB"`, `"10MB"`; KiB MiB GiB TiB count by 1024, KB MB GB TB by 1000 |
| duration | `"500ms"`, `"10s"`, `"5m"`, `"2h"`, `"7d"`, `"1w"`, or seconds as a number |
| rate | `"1000/s"`, `"60/m"`, `"100/h"`; `"0/s"`: no limit |
| address | `"127.0.0.1:8080"`, `"[::1]:8080"`, `"localhost:8080"`, `"unix:/run/fastpixel.sock"` |
| network | `"10.0.0.0/8"`, `"fd00::/8"`, or one address |
| origin | `"https://shop.example.com"`: scheme, host, and the port if it is not the usual one |
| path prefix | starts with `/`; alias and target both end with `/` or neither does |
"""


if __name__ == "__main__":
    sys.stdout.write(markdown())
