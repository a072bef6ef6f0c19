"""Vectors: what a client sends, what it must be answered, what must be stored.

One TOML file a protocol in vectors/, and http.toml for what is the same in all. Requests are written in
Latin-1: one character is one byte, and `<<x*20000>>` is that many x. The clock stands at NOW. A file's
[record] table has what each of its records holds unless the vector says otherwise; "<absent>" takes a member
away, "<uuid4>", "<uuid7>" and "<uuid8>" stand for any such id, "<any>" for anything. `expect` is one answer,
or a list if `raw` has several requests. `config` (of the file, of a vector) is a fragment of the
configuration, and `peer`, the connection's address. A request's `json` is its body, as JSON, and `gzip` compresses
the body; an answer's `json` what its body must say.

How a vector runs: `exchange` feeds a connection (no socket) in the pieces of a MODE, `check` compares what
came out.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import msgspec
from hypothesis import HealthCheck, settings
from msgpack import Timestamp

import oracle
from fastpixel import dialects
from fastpixel._core import Intake
from fastpixel.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What the plain twin knows: routes of rows alone.
COMPILED = [replace(one, routes=tuple(route for route in one.routes if not route.handler)) for one in dialects.BUILTIN]
DIALECTS = tuple(dialect for dialect in COMPILED if dialect.routes)
NOW = 1714826096_789012345  # 2024-05-04T12:34:56.789012345Z
PEER = "203.0.113.9"
AFTER = b"GET /e?_k=after&_p=p&_n=after HTTP/1.1\r\nHost: t.example.com\r\n\r\n"
AFTER_SOURCE = {"key": "after", "name": "after"}
# Of tests that compare the core with the oracle. A long run: FASTPIXEL_FUZZ_EXAMPLES=100000 pytest --timeout=0.
EXAMPLES = int(os.environ.get("FASTPIXEL_FUZZ_EXAMPLES", min(1000, 3 * settings.default.max_examples)))
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = ("max_request_line", "max_header_bytes", "max_body_bytes")
UUID = {
    "<any>": re.compile(r"(?s).*"),
    "<uuid4>": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
    "<uuid7>": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
    "<uuid8>": re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"),
}


@dataclass(frozen=True)
class Vector:
    """One case of a file."""

    id: str
    why: str  # the sentence that it shows
    request: dict[str, Any]
    expect: list[dict[str, Any]]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Config:
        """The configuration, read as a file's would be."""
        tree = {name: value for name, value in self.config.items() if name not in (*LIMITS, "peer")}
        if "sources" in tree:
            tree["sources"] = [*tree["sources"], AFTER_SOURCE]
        return Config.from_json(msgspec.json.encode({"settings": tree, "warnings": []}))

    @property
    def options(self) -> dict[str, dict[str, str]]:
        return {"rudderstack": {"reply": self.settings.rudderstack.reply}}

    @property
    def is_the_oracles(self) -> bool:
        """Whether the plain twin knows it: a route of rows alone, and nothing that stands outside of dialects."""
        if "raw" in self.request or set(self.config) & {"paths", "privacy"}:
            return False
        if any(set(source) & {"origins", "privacy", "rate_limit"} for source in self.config.get("sources", ())):
            return False
        path = octets(self.request["target"]).partition(b"?")[0]
        routes = [route for dialect in DIALECTS for route in dialect.routes]
        found = next((route for route in routes if oracle.variables(route.path, path) is not None), None)
        return found is not None and not (found.visitor and self.settings.visitor.cookie)

    @property
    def closes(self) -> bool:
        return bool(self.expect[-1].get("closes", False))

    @property
    def heads(self) -> list[bool]:
        """Which answers have a head only."""
        return [self.request.get("method") == "HEAD" or bool(one.get("head")) for one in self.expect]


@dataclass
class Answer:
    """One parsed answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """What came out of a connection."""

    answers: list[Answer]
    records: list[dict[str, Any]]
    rejects: list[dict[str, Any]]
    closing: bool


# Loading ----------------------------------------------------------------------------------------------------


def load() -> list[Vector]:
    """All vectors of all files."""
    paths = sorted(Path(__file__).with_name("vectors").glob("*.toml"))
    return [vector for path in paths for vector in load_file(path)]


def load_file(path: Path) -> Iterator[Vector]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    for case in table["vector"]:
        expects = case["expect"] if isinstance(case["expect"], list) else [case["expect"]]
        for one in expects:
            one["records"] = [expected_record(table["record"], record) for record in one.get("records", ())]
            one["rejects"] = [stamped(reject) for reject in one["rejects"]] if "rejects" in one else None
        config = merged(table.get("config", {}), case.get("config", {}))
        yield Vector(f"{path.stem}/{case['name']}", case["why"], case["request"], expects, config)


def merged(base: Any, over: Any) -> Any:
    """Tables are merged, everything else is replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    names = [*base, *(name for name in over if name not in base)]
    both = {name: merged(base.get(name), over[name]) if name in over else base[name] for name in names}
    return {name: value for name, value in both.items() if value != "<absent>"}


def expected_record(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    record = {name: stamped(value) for name, value in merged(base, over).items()}
    for name in ("timestamp", "receivedAt"):
        record[name] = timestamp(record[name])
    return record


def stamped(value: Any) -> Any:
    """What TOML cannot say: times become msgpack timestamps, "<null>" None, repetitions are written out."""
    if isinstance(value, dict):
        return {name: stamped(member) for name, member in value.items()}
    if isinstance(value, list):
        return [stamped(member) for member in value]
    if isinstance(value, str):
        return None if value == "<null>" else spelled(value)
    return Timestamp.from_datetime(value) if isinstance(value, datetime) else value


def timestamp(text: str) -> Timestamp:
    """RFC 3339 in UTC; any fraction to nanoseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return Timestamp(seconds, int(fraction.ljust(9, "0") or 0))


# Requests ---------------------------------------------------------------------------------------------------


def spelled(text: str) -> str:
    """`<<x*20000>>` written out."""
    return re.sub(r"<<(.+?)\*([0-9]+)>>", lambda m: m[1] * int(m[2]), text, flags=re.S)


def octets(text: str) -> bytes:
    return spelled(text).encode("latin-1")


def header_lines(request: dict[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers in order; a list is a repeated header. Host and Content-Length are added unless given."""
    headers = dict(request.get("headers", {}))
    given = {name.lower() for name in headers}
    lines = [] if "host" in given else [(b"Host", b"t.example.com")]
    for name, value in headers.items():
        lines += [(octets(name), octets(one)) for one in (value if isinstance(value, list) else [value])]
    if "json" in request:
        request.setdefault("body", json.dumps(request["json"], ensure_ascii=False).encode().decode("latin-1"))
        lines += [] if "content-type" in given else [(b"Content-Type", b"application/json")]
    if "body" in request and not given & {"content-length", "transfer-encoding"}:
        lines.append((b"Content-Length", b"%d" % len(content(request))))
    return tuple(lines)


def wire(request: dict[str, Any]) -> bytes:
    """The bytes of a request."""
    if "raw" in request:
        return octets(request["raw"])
    line = octets(f"{request.get('method', 'GET')} {request['target']} HTTP/1.1")
    head = b"".join(name + b": " + value + b"\r\n" for name, value in header_lines(request))
    return line + b"\r\n" + head + b"\r\n" + content(request)


def content(request: dict[str, Any]) -> bytes:
    """The body as it is sent."""
    body = octets(request.get("body", ""))
    return gzip.compress(body, mtime=0) if request.get("gzip") else body


def parsed(vector: Vector) -> oracle.Request | None:
    """The request as the oracle takes it; None: it is written as raw bytes."""
    request = vector.request
    if "raw" in request:
        return None
    lines = header_lines(request)
    forwarded = [value for name, value in lines if name.lower() == b"x-forwarded-for"]
    ip = oracle.client_address(vector.config.get("peer", PEER), forwarded, vector.config.get("trusted_proxies", ()))
    target, body = octets(request["target"]), octets(request.get("body", ""))
    return oracle.Request(request.get("method", "GET"), target, lines, body, ip, NOW)


# Running ----------------------------------------------------------------------------------------------------


def intake_of(vector: Vector) -> Intake:
    config = vector.settings
    limits = {name: vector.config[name] for name in LIMITS if name in vector.config}  # smaller than a file may say
    return Intake(
        dialects.plan(config),
        now=lambda: NOW,
        rejects_per_second=1_000_000,
        trusted_proxies=config.trusted_proxies,
        **limits,
    )


def exchange(intake: Intake, pieces: Iterable[bytes], heads: Sequence[bool], peer: str = PEER) -> Exchange:
    """Feeds the pieces, stores every batch, and reads what came out."""
    connection = intake.connection(peer)
    found = Exchange([], [], [], False)
    data = b""
    for piece in pieces:
        connection.feed(piece)
        store(intake, found)
        data += connection.output()
    found.closing = connection.closing
    found.answers = list(answers(data, heads))
    return found


def store(intake: Intake, found: Exchange, stored: bool = True) -> None:
    batch = intake.take()
    if batch is None:
        return
    events, rejects = unpacked(batch.events), unpacked(batch.rejects)
    assert (batch.event_count, batch.reject_count) == (len(events), len(rejects))
    found.records += events
    found.rejects += rejects
    intake.done(batch, stored)


def unpacked(data: bytes) -> list[dict[str, Any]]:
    unpacker = msgpack.Unpacker(timestamp=0, strict_map_key=True, max_buffer_size=2**31)
    unpacker.feed(data)
    return list(unpacker)


def answers(data: bytes, heads: Sequence[bool]) -> Iterator[Answer]:
    """Reads answers by their Content-Length, without interim ones; `heads`: which have none of the body."""
    bodiless = iter(heads)
    while data:
        head, found, data = data.partition(b"\r\n\r\n")
        assert found, f"an answer's head does not end: {head!r}"
        status, headers = answer_head(head.decode("latin-1"))
        if status == 100:
            continue
        empty = next(bodiless, False) or status in {204, 304}
        length = 0 if empty else int(headers["content-length"])
        yield Answer(status, headers, data[:length])
        assert len(data) >= length, "an answer's body is cut"
        data = data[length:]


def answer_head(text: str) -> tuple[int, dict[str, str]]:
    """Status and headers by lower-case name; no header of ours is sent twice."""
    line, *lines = text.split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 ([0-9]{3}) [A-Za-z -]+", line)
    assert match, f"not a status line: {line!r}"
    headers: dict[str, str] = {}
    for header in lines:
        name, _, value = header.partition(": ")
        assert name.lower() not in headers, f"{name} is sent twice"
        headers[name.lower()] = value
    return int(match[1]), headers


# Modes ------------------------------------------------------------------------------------------------------


def whole(vector: Vector) -> list[bytes]:
    return [wire(vector.request)]


def bytewise(vector: Vector) -> list[bytes]:
    return [bytes([byte]) for byte in wire(vector.request)]


def split(vector: Vector) -> list[bytes]:
    """Cut at random points, the same ones in every run."""
    return cut(wire(vector.request), random.Random(vector.id))


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    points = sorted({0, len(data), *(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 8)))})
    return [data[start:end] for start, end in pairwise(points)]


def twice(vector: Vector) -> list[bytes]:
    return [wire(vector.request) * 2]


def followed(vector: Vector) -> list[bytes]:
    """By a request that is known to be good: answered, or dropped if the connection closes."""
    return [wire(vector.request) + AFTER]


MODES: dict[str, Callable[[Vector], list[bytes]]] = {
    "whole": whole,
    "bytes": bytewise,
    "split": split,
    "twice": twice,
    "followed": followed,
}


def runs(vectors: Sequence[Vector]) -> Iterator[tuple[Vector, str]]:
    """Every vector in every mode that it allows."""
    for vector in vectors:
        yield from ((vector, mode) for mode in MODES if mode != "twice" or not vector.closes)


def run(vector: Vector, mode: str) -> Exchange:
    heads = vector.heads * 2 if mode == "twice" else vector.heads
    peer = vector.config.get("peer", PEER)
    return exchange(intake_of(vector), MODES[mode](vector), heads, peer)


# Comparing --------------------------------------------------------------------------------------------------


def check(vector: Vector, mode: str, found: Exchange) -> None:
    """Raises AssertionError where the exchange is not what the vector says."""
    expects = vector.expect * 2 if mode == "twice" else list(vector.expect)
    if mode == "followed" and not vector.closes:
        after = found.answers.pop()
        assert (after.status, after.body) == (200, oracle.GIF), "the request after it is not answered"
        assert found.records.pop()["event"] == "after", "the request after it is not stored"
    assert [answer.status for answer in found.answers] == [one.get("status", 200) for one in expects]
    for answer, one in zip(found.answers, expects, strict=True):
        check_answer(vector, answer, one)
    records = [record for one in expects for record in one["records"]]
    assert [alike(record, to) for record, to in zip(found.records, records, strict=True)] == records
    if all(one["rejects"] is not None for one in expects):
        rejects = [reject for one in expects for reject in one["rejects"]]
        assert [part_of(reject, to) for reject, to in zip(found.rejects, rejects, strict=True)] == rejects
    assert found.closing is vector.closes


def part_of(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """The members of a reject that a vector speaks of; "<absent>" is one that must not be there."""
    return {name: alike(found.get(name, "<absent>"), to) for name, to in expected.items()}


def check_answer(vector: Vector, answer: Answer, expect: dict[str, Any]) -> None:
    body = expect.get("body", "any" if "json" in expect or expect.get("status") in {204, 304} else "gif")
    head_only = expect.get("head") or vector.request.get("method") == "HEAD"
    if body != "any" and not head_only:
        assert answer.body == (oracle.GIF if body == "gif" else octets(body))
    if "json" in expect and not head_only:
        found = json.loads(answer.body)
        assert answer.headers["content-type"] == "application/json"
        assert alike(found, stamped(expect["json"])) == stamped(expect["json"])
    wanted = dict(oracle.GIF_HEADERS) if body == "gif" else {}
    if "reason" in expect:
        wanted["X-Fastpixel"] = f"dropped; reason={expect['reason']}"
    if expect.get("closes"):
        wanted["Connection"] = "close"
    check_headers(answer, {**wanted, **expect.get("headers", {})})
    absent = ["ETag", "Last-Modified"] if body == "gif" else []
    absent += expect.get("absent", ())
    absent += [] if "reason" in expect else ["X-Fastpixel"]
    assert [name for name in absent if name.lower() in answer.headers] == []
    check_cors(vector, answer)


def check_headers(answer: Answer, wanted: dict[str, str]) -> None:
    found = {name: alike(answer.headers.get(name.lower()), to) for name, to in wanted.items()}
    assert found == wanted


def check_cors(vector: Vector, answer: Answer) -> None:
    """README, "CORS": every answer carries these; the Origin is echoed where the request could be read."""
    check_headers(answer, {"Date": formatdate(NOW // 10**9, usegmt=True)})
    assert answer.headers["vary"].split(", ")[0] == "Origin"
    origin = vector.request.get("headers", {}).get("Origin")
    if answer.headers.get("x-fastpixel") == "dropped; reason=origin_not_allowed":
        assert [name for name in answer.headers if name.startswith("access-control-")] == []
        return
    shared = {"Access-Control-Expose-Headers": "X-Fastpixel", "Access-Control-Allow-Origin": origin or "*"}
    check_headers(answer, shared)
    assert answer.headers.get("access-control-allow-credentials") == ("true" if origin else None)


def alike(found: Any, expected: Any) -> Any:
    """What was found, with the expected placeholder instead of each value that fits it."""
    if isinstance(found, dict) and isinstance(expected, dict):
        return {name: alike(value, expected[name]) if name in expected else value for name, value in found.items()}
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [alike(one, to) for one, to in zip(found, expected, strict=True)]
    if expected == "<any>" and found != "<absent>":
        return expected
    if not isinstance(expected, str) or "<" not in expected:
        return found
    pattern = "|".join(map(re.escape, UUID))
    pattern = re.sub(pattern, lambda mark: UUID[mark[0]].pattern, re.sub(r"([^<>\w-])", r"\\\1", expected))
    return expected if re.fullmatch(pattern, str(found)) else found
