"""The compiled core: every stage of the hot path, callable without a socket, a disk or an event loop.

In the order in which a request meets them: tables (Plan, Replies), a connection (Intake, Connection, Carrier, Wires,
Batch, Proxies), then the single stages as functions. Times are ns since the Unix epoch unless said, sizes are bytes.
Input from the network never raises: it ends as a record or as a name of REASONS. TypeError and ValueError are for
programmers. Nothing here is safe to use from two threads at once but a Batch that was taken.
"""

import sys
from asyncio import Transport
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, final

from typing_extensions import Buffer, disjoint_base

_AnyReply = TypeVar("_AnyReply", bound=_Reply)
_Event: TypeAlias = Buffer | dict[str, Any]

# -- closed lists ------------------------------------------------------------------------------------------------------

REASONS: tuple[str, ...]
"""Names of all reasons for which a request is refused, in the order of the core's enum."""

KINDS: dict[str, int]
"""Kind of value -> its number in the core, in that order. What they mean: fastpixel.dialect.KINDS."""

COUNTERS: tuple[str, ...]
"""Names of the first words of a worker's part of the shared page, in order. What they mean: `Counter` in _core.pxd."""

PAGE_LAYOUT: dict[str, int]
"""Shape of a worker's part of the shared page, in 64-bit words.

"words": its length. Where its arrays begin: "reasons" (refused, by REASONS), "protocols" (events stored, by
Plan.protocols), "commit_times" (bucket i counts commits of less than 2**i microseconds), "batch_sizes" (of less than
2**i events). "buckets": length of the last two.
"""

GIF: bytes
"""The transparent GIF89a of one pixel, 43 bytes."""

# -- what the tables must look like (as the classes of fastpixel.dialect, .config and .event do) ---------------------

class _Reply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def content_type(self) -> str: ...
    @property
    def body(self) -> str | bytes: ...
    @property
    def headers(self) -> tuple[tuple[str, str], ...]: ...

class _Outcome(Protocol):
    @property
    def stored(self) -> _Reply: ...
    @property
    def refused(self) -> _Reply: ...
    @property
    def unavailable(self) -> _Reply: ...
    @property
    def limited(self) -> _Reply: ...

class _Answer(Protocol):
    @property
    def image(self) -> _Outcome: ...
    @property
    def text(self) -> _Outcome: ...
    @property
    def other(self) -> _Outcome: ...

class _Field(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def required(self) -> str | None: ...
    @property
    def nonempty(self) -> str | None: ...
    @property
    def if_empty(self) -> str | None: ...
    @property
    def max_chars(self) -> int: ...
    @property
    def unquote(self) -> bool: ...
    @property
    def tidy(self) -> bool: ...
    @property
    def when(self) -> str | None: ...
    @property
    def otherwise(self) -> str: ...
    @property
    def trusted(self) -> bool: ...
    @property
    def on_bad(self) -> str: ...

class _Route(Protocol):
    @property
    def method(self) -> Sequence[str]: ...
    @property
    def path(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def fields(self) -> Sequence[_Field]: ...
    @property
    def identity(self) -> Sequence[str]: ...
    @property
    def dedupe(self) -> Sequence[str]: ...
    @property
    def defaults(self) -> Sequence[tuple[str, str | bool]]: ...
    @property
    def visitor(self) -> bool: ...
    @property
    def handler(self) -> Callable[[Call], _Reply] | None: ...
    @property
    def redact(self) -> Callable[[Call], tuple[bytes, bytes]] | None: ...

class _Dialect(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def routes(self) -> Sequence[_Route]: ...
    @property
    def repeat(self) -> str: ...
    @property
    def bad_escape(self) -> str: ...
    @property
    def defaults(self) -> Sequence[tuple[str, str | bool]]: ...
    @property
    def receipt(self) -> Sequence[str]: ...
    @property
    def skew(self) -> bool: ...
    @property
    def errors(self) -> dict[str, str]: ...
    @property
    def not_allowed(self) -> _Reply: ...
    @property
    def not_found(self) -> _Reply: ...
    @property
    def prefixes(self) -> Sequence[str]: ...
    @property
    def answer(self) -> Callable[..., _Answer]: ...

class _Privacy(Protocol):
    @property
    def ip(self) -> str: ...
    @property
    def gpc(self) -> str: ...

class _Visitor(Protocol):
    @property
    def cookie(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def max_age(self) -> float: ...

class _Source(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def protocols(self) -> Sequence[str]: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def trust_client_ip(self) -> bool: ...
    @property
    def origins(self) -> Sequence[str]: ...
    @property
    def rate_limit(self) -> float: ...
    @property
    def privacy(self) -> _Privacy | None: ...

class _RecordField(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def server_owned(self) -> bool: ...

_Network: TypeAlias = str | IPv4Network | IPv6Network

# -- tables ------------------------------------------------------------------------------------------------------------

@final
class Plan:
    """Dialect tables, sources and options, compiled.

    `dialects`: fastpixel.dialect.Dialect rows, at most 64; a route object that several of them have is served once, and
    recorded as the first one that the source lists. `sources`: fastpixel.config.Source rows; none: every non-empty key
    is accepted. `fields`: fastpixel.event.FIELDS. `options`: by dialect, as {"rudderstack": {"reply": "gif"}}.
    `privacy`, `visitor`: the sections of the configuration; None: everything is kept, no cookie. `paths`: prefix -> the
    prefix that it stands for. ValueError or KeyError: a row that fastpixel.dialect.validate would have refused.
    """

    @property
    def dialects(self) -> tuple[_Dialect, ...]: ...
    @property
    def sources(self) -> tuple[_Source, ...]: ...
    @property
    def options(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the dialects, in their order."""

    @property
    def routes(self) -> tuple[tuple[_Dialect, _Route], ...]:
        """(first dialect, route) of every route object, in the order of the rows."""

    @property
    def replies(self) -> Replies: ...
    @property
    def shaped(self) -> int:
        """How many records a kept shape has written, without going the long way."""

    def __init__(
        self,
        dialects: Sequence[_Dialect],
        sources: Sequence[_Source] = (),
        *,
        fields: Iterable[_RecordField],
        options: Mapping[str, Mapping[str, Any]] | None = None,
        privacy: _Privacy | None = None,
        visitor: _Visitor | None = None,
        paths: Mapping[str, str] | None = None,
    ) -> None: ...
    def record(
        self,
        method: str,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        ip: str | None = None,
        now: int | None = None,
    ) -> tuple[None, bytes] | tuple[str, None]:
        """(None, msgpack map) that the request would be stored as, or (reason, None).

        `target`: path and query as on the request line. `ip`: of the client. `now`: default: the clock.
        LookupError: no route answers this method and path.
        """

@final
class Replies:
    """The prebuilt answers of a Plan. A reply has a number; it is rendered once per reason, and sent as a copy."""

    @property
    def bad_request(self) -> int:
        """Number of the 400 for what is no HTTP request."""

    @property
    def not_found(self) -> int:
        """Number of the 404."""

    @property
    def timed_out(self) -> int:
        """Number of the 408."""

    @property
    def too_large(self) -> int:
        """Number of the 413 for a body."""

    @property
    def line_too_long(self) -> int:
        """Number of the 414."""

    @property
    def robots_only(self) -> int:
        """405 of robots.txt."""
    @property
    def head_too_large(self) -> int:
        """Number of the 431."""

    @property
    def robots(self) -> int:
        """Number of the 200 for /robots.txt, which disallows everything."""

    def add(self, reply: _Reply, errors: dict[str, str]) -> int:
        """The number of a fastpixel.dialect.Reply; `errors`: text by reason, for the body "reason"."""

    def add_text(self, status: int, body: str, headers: tuple[tuple[str, str], ...] = ()) -> int:
        """The number of a plain text reply that says the same whatever the reason. KeyError: an unknown status."""

# -- a connection ------------------------------------------------------------------------------------------------------

@final
class Call:
    """One request of the Python tier; valid only while its handler runs."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str:
        """After aliases, not decoded."""
    @property
    def target(self) -> bytes:
        """As it was sent."""
    @property
    def query(self) -> bytes: ...
    @property
    def variables(self) -> tuple[str, ...]:
        """The path's `{name}` segments in order, decoded once."""
    @property
    def body(self) -> bytes:
        """As it was sent, without its chunks; not inflated."""
    @property
    def ip(self) -> str: ...
    @property
    def received_ns(self) -> int: ...
    @property
    def received(self) -> str:
        """RFC 3339 with milliseconds and Z."""
    @property
    def max_body_bytes(self) -> int: ...
    @property
    def replaying(self) -> bool: ...
    @property
    def options(self) -> Mapping[str, Any]:
        """Of the route's dialect, as they were given to the Plan."""
    @property
    def key(self) -> str:
        """The last key that was given to source()."""
    @property
    def config_source(self) -> Any:
        """The source's row of the configuration; None: none is configured, or none fits."""
    size: int
    """Bytes of the body that the limit on records is reckoned from; a handler that inflates it says how many."""
    otherwise: _Reply | None
    """The answer if nothing could be stored, or the source is over its rate; None: the route's."""
    def header(self, name: str) -> str:
        """The first header of that lower-case name; "" if there is none. Bytes that are not UTF-8 become U+FFFD."""
    def pairs(self) -> tuple[str | None, list[tuple[str, str]]]:
        """(reason, decoded pairs of the query in order)."""
    def form(self) -> tuple[str | None, list[tuple[str, str]]]:
        """(reason, decoded pairs of the body, read as a form)."""
    def dotted(self) -> tuple[str | None, bytes]:
        """(reason, msgpack map) of the query read as dot paths."""
    def json(self, data: Buffer | None = None, max_depth: int = 200, max_values: int = ...) -> tuple[str | None, bytes]:
        """(reason, msgpack) of one JSON document; default: the body. `__proto__` members are left out and counted.

        `max_values`: of more scalars, names, maps and arrays than that the reason is too_large.
        """
    def source(self, key: str) -> str | None:
        """The reason against the events of this key, or None: what is added from now on is its."""
    def refuse(self, reason: str, reply: _AnyReply, keep: bool = True) -> _AnyReply:
        """Nothing of the request is stored, for this reason; gives the reply back. `keep`: as a reject, within caps."""
    def forget(self) -> None:
        """What was added is not stored."""
    def add(self, event: _Event, type: str | None = None, strict: bool = False) -> str | None:
        """Stages one record; the reason against it, or None. What privacy forbids is counted, and left out.

        `event`: a msgpack map in canonical names (bytes, memoryview, msgspec.Raw), or a dict of canonical members: str
        is text, a dict is a map, None is absent, anything else the bytes of one msgpack value. `type`: default, the
        route's. `strict`: a listed field of the wrong type, or a time that is none, is `bad_field`, and not moved
        aside.
        """

@final
class Batch:
    """Records and rejects since the last commit, and the connections whose answers wait for it."""

    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

    def view(self) -> memoryview:
        """`events` without a copy. Release it before the batch is done: its memory is used again."""

    @property
    def number(self) -> int:
        """1, 2, ... in the order in which they were filled."""

    @property
    def events(self) -> bytes:
        """The records: msgpack maps, one after the other."""

    @property
    def event_count(self) -> int: ...
    @property
    def rejects(self) -> bytes:
        """What was refused and is kept: msgpack maps, one after the other."""

    @property
    def reject_count(self) -> int: ...
    @property
    def min_received_ns(self) -> int:
        """Least receivedAt of both."""

    @property
    def max_received_ns(self) -> int:
        """Greatest receivedAt of both."""

    def __new__(cls, number: int) -> Batch: ...

@final
class Intake:
    """What the connections of one worker share: Plan, limits, counters, and the batch that fills.

    `now`: gives the time of receipt; default: the clock. `page`: writable memory of PAGE_LAYOUT["words"] 64-bit words
    for the counters; default: private. `trusted_proxies`: networks whose X-Forwarded-For counts. Limits are bytes and
    connections, 0 per address: none. `rejects_per_second` bounds the rejects that cannot be retried. `on_pending` is
    called when an empty batch gets its first member. `cells`: writable memory of 8 bytes for each source with a rate
    limit, in their order; default: private. `replaying`: rejects come again; rate limits do not hold. ValueError: the
    page or the cells are too small, or a network is none.
    """

    on_pending: Callable[[], object] | None
    @property
    def plan(self) -> Plan: ...
    @property
    def replaying(self) -> bool: ...
    @property
    def tick(self) -> float:
        """Seconds of the coarse clock that timeouts are measured with, as of the last `sweep`."""

    def __init__(
        self,
        plan: Plan,
        *,
        now: Callable[[], int] | None = None,
        page: bytearray | memoryview | None = None,
        trusted_proxies: Iterable[_Network] = (),
        max_request_line: int = 16384,
        max_header_bytes: int = 32768,
        max_body_bytes: int = 4096000,
        max_inflight_bytes: int = 67108864,
        max_connections: int = 10000,
        max_connections_per_ip: int = 0,
        rejects_per_second: int = 20,
        on_pending: Callable[[], object] | None = None,
        cells: bytearray | memoryview | None = None,
        replaying: bool = False,
    ) -> None: ...
    def connection(self, ip: str = "") -> Connection:
        """A new connection of a peer with that address; "": none, as on a unix socket."""

    @property
    def pending(self) -> int:
        """How many records and rejects the filling Batch has."""

    def take(self) -> Batch | None:
        """The batch that was filling, which a new one replaces; None if it is empty. Every one taken must be `done`."""

    def done(self, batch: Batch, stored: bool, nanos: int = 0) -> None:
        """Releases the answers that wait for the batch: as stored, or as 503 with reason spool_full.

        In the order in which batches were taken. `nanos`: that the commit took.
        """

    def drain(self) -> None:
        """From now on every answer says Connection: close."""

    def sweep(self, tick: float) -> None:
        """Sets the coarse clock: seconds, monotonic."""

    def set_storable(self, storable: bool) -> None:
        """Says to the shared page whether the next commit is expected to succeed."""

    def beat(self, now_ms: int) -> None:
        """Writes the heartbeat (Unix time in ms) to the page."""

    def set_state(self, state: int, now_ms: int) -> None:
        """Writes what the worker does to the page: an index of fastpixel.metrics.STATES."""

    def on_message_complete(self) -> None:
        """For httptools only."""

@final
class _Window: ...

@disjoint_base
class _Link: ...

@final
class Connection:
    """The HTTP of one connection, without I/O: bytes in, answers out, records into the Intake's batch."""

    carrier: object
    """What does the I/O: a Carrier, one of the sockets of Wires, or None. It is told when there is output that no
    `feed` asked for, and when reading may go on."""
    stalled: bool
    """Stop reading: there is no room. The Intake resumes it."""
    @property
    def ip(self) -> bytes: ...
    @property
    def closing(self) -> bool:
        """Close once `output` is sent."""

    @property
    def lingers(self) -> bool:
        """Close only after the client has: bytes that it still sends would destroy the last answer."""

    def __new__(cls, intake: Intake, ip: str) -> Connection: ...
    def feed(self, data: bytes) -> None:
        """Takes the next bytes, in whatever pieces they come."""

    def output(self) -> bytes:
        """What is to be sent now; b"": nothing."""

    def resume(self) -> None:
        """Goes on with requests that had to wait."""

    def end(self) -> None:
        """The client sends no more. Requests that came whole are still answered."""

    def lose(self) -> None:
        """The connection is gone. What was stored stays; its answers are forgotten."""

    def is_idle(self, patient: bool = False) -> bool:
        """Between requests, with nothing to answer."""

    def expire(self, header: float, body: float, idle: float, linger: float) -> bool:
        """Ends what has lasted longer than its limit (seconds). True: close the connection now."""

    def on_body(self, data: bytes) -> None:
        """For httptools only."""

    def on_message_complete(self) -> None:
        """For httptools only."""

@final
class Carrier(_Link):
    """An asyncio protocol around one Connection. `carriers`: the worker's open ones, kept up to date."""

    def __init__(self, intake: Intake, carriers: set[Carrier]) -> None: ...
    def connection_made(self, transport: Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def expire(self, header: float, body: float, idle: float, linger: float) -> None:
        """As Connection.expire, and does it."""

    def drain(self, patient: bool) -> None:
        """Closes the connection if it is between requests."""

    def abort(self) -> None:
        """Closes the connection whatever it does."""

@final
class _Wire(_Link): ...

@final
class Wires:
    """All plain sockets of a worker, read and written by the core itself. They count as `len()`.

    The event loop is to call `turn` when `fileno` is readable. OSError: the system gives no epoll descriptor.
    """

    def __new__(cls, intake: Intake) -> Wires: ...
    def __len__(self) -> int: ...
    @property
    def starved(self) -> bool:
        """There was no descriptor or memory for another connection; `expire` tries it again."""

    def fileno(self) -> int:
        """The epoll descriptor that holds all of them."""

    def listen(self, fd: int) -> None:
        """Accepts from this listening, non-blocking socket, TCP or unix; the caller keeps it open."""

    def ignore(self) -> None:
        """Accepts no more."""

    def turn(self) -> None:
        """Does what is ready: accepts, reads, handles, sends; until nothing is, or it was enough for one turn."""

    def expire(self, header: float, body: float, idle: float, linger: float) -> None:
        """Closes connections that have done one thing for too long (limits in seconds)."""

    def drain(self, patient: bool) -> None:
        """Closes connections that are between requests; with `patient` not those whose first one has not come yet."""

    def abort(self) -> None:
        """Closes all connections, whatever they do."""

@final
class Proxies:
    """The trusted networks. ValueError: a text is none."""

    def __init__(self, networks: Iterable[_Network] = ()) -> None: ...
    def resolve(self, peer: str, forwarded: Iterable[bytes]) -> str:
        """The client's address, given the peer's and the values of X-Forwarded-For in order.

        The rightmost one that is not trusted; the peer's own if that is not trusted.
        """

# -- single stages -----------------------------------------------------------------------------------------------------

def utf8_check(data: bytes) -> tuple[int, int, str]:
    """(length of the well-formed beginning, code points in it, the whole text repaired) of some bytes."""

def unquote(data: bytes, *, plus: bool = True) -> str:
    """Percent- and plus-decodes; bad escapes stay literal; invalid UTF-8 becomes U+FFFD as bytes.decode("replace")."""

def pairs(query: bytes, *, drop_bad: bool = False) -> list[tuple[str, str]]:
    """Decoded parameters in order. `drop_bad` leaves out pairs with a bad escape or a raw ';'."""

def dotpath(query: bytes, *, first: bool = False, drop_bad: bool = False) -> tuple[str | None, bytes]:
    """(reason, msgpack map) of a query read as dot paths; `first`: the first of a repeated key wins, else the last.

    Reasons: too_many_params, too_deep, index_too_large; the map is b"" then.
    """

def pack_json(data: bytes, max_depth: int = 200) -> tuple[str | None, bytes]:
    """(reason, msgpack) of one JSON document (RFC 8259). Reasons: bad_json, bad_encoding, too_deep.

    ValueError: `max_depth` is not in 0 to 1000.
    """

def json_offset(data: bytes) -> int:
    """Where one JSON document goes wrong: the offset of the first byte that cannot be right; its length: nowhere."""

def unbase64(data: bytes) -> bytes | None:
    """Decodes base64 or base64url; CR, LF, TAB are dropped, a space is '+', padding is optional. None: not base64."""

def pack_params(value: bytes) -> tuple[str | None, bytes]:
    """(error, msgpack map) of a form-decoded `params` (UTF-8), as PitchTarget's pixel reads it; b"" if it is blank.

    Errors: bad_json, bad_encoding, too_deep, not_an_object, bad_base64. Names that it ignores are left out.
    """

def parse_time(text: bytes, kind: Literal["unix", "unix_ms", "iso8601"] = "iso8601") -> int | None:
    """Reads a time as a kind does. None: unusable, or outside the years 1 to 9999. KeyError: no such kind."""

def is_blank(text: str) -> bool:
    """Nothing but white space and invisible characters."""

def tidy(text: str) -> str:
    """Without invisible characters, then trimmed."""

def decode_ns(plan: Plan, method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], times: int) -> int:
    """Nanoseconds that `times` decodings of one request take: from its query to its record in a reused buffer.

    Its head is parsed and its route found before. LookupError: no route answers it. ValueError: it is no HTTP, or is
    refused; the message names the reason.
    """

def copy_ns(data: bytes, times: int) -> int:
    """Nanoseconds that `times` copies (memcpy) of the bytes take: the floor under everything that handles them."""

def uuid7() -> str:
    """A new UUIDv7 (RFC 9562) in its canonical text form."""

def split(value: bytes) -> list[bytes]:
    """The records of one batch. ValueError: not whole msgpack maps."""

def scan(value: bytes) -> tuple[int, int, int]:
    """(records, least receivedAt, greatest receivedAt) of one batch; 0 for both where none has a usable one.

    ValueError: as `split`.
    """

def json_lines(value: bytes, prefix: str = "", first: int = 0) -> bytes:
    """Strict NDJSON of a batch. With a prefix, record i gets a last member "seq": "<prefix><first + i>".

    Times become RFC 3339 with milliseconds and 'Z'. NaN and infinities become null; control characters are escaped.
    ValueError: as `split`.
    """
