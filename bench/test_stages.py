"""The core's stages in process, each beside what a Python team would write with the standard library.

    python -m pytest bench/test_stages.py --benchmark-only

A stage is a row of STAGES: the core's door, its twin, and the input both get. A test's id is `<stage>-core`
or `<stage>-stdlib`; the two of a stage are one group of the printed table, where the number in brackets is
the ratio to the faster one. Both sides must give the same result, or they would compare different work.
The input is the request of pixel.http, the one that run.py sends over sockets.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

import msgpack
import pytest

from bench.plain import nested
from fastpixel import _core
from fastpixel.dialects import rudderstack
from fastpixel.event import FIELDS

HEAD = (Path(__file__).parent / "pixel.http").read_bytes().replace(b"@" * 8, b"00000042")
TARGET = HEAD.split()[1]
HEADERS = [tuple(line.split(b": ", 1)) for line in HEAD.splitlines()[1:] if line]
QUERY = TARGET.partition(b"?")[2]
TITLE = b"Trail+Runner+%E2%80%93+Example+Shop+%28new%29"
SIGNUP = b'{"method": "email", "page": "signup.html", "email": "john.doe@example.com"}'
NOW = 1_700_000_000_000_000_000
SHARED = ("protocol", "type", "receivedAt", "writeKey", "userId", "event", "properties", "context")
PLAN = _core.Plan([rudderstack.DIALECT], fields=FIELDS)
BATCH = 64  # records of one commit under load


class Stage(NamedTuple):
    core: Callable[[bytes], Any]
    stdlib: Callable[[bytes], Any]
    data: bytes
    read: Callable[[Any], Any] = lambda result: result  # what both results must agree in


def packed(query: bytes) -> tuple[None, bytes]:
    return None, msgpack.packb(nested(query))


def unpacked(result: tuple[str | None, bytes]) -> tuple[str | None, Any]:
    return result[0], msgpack.unpackb(result[1])


def transcoded(document: bytes) -> tuple[None, bytes]:
    return None, msgpack.packb(json.loads(document))


def decoded(params: bytes) -> tuple[None, bytes]:
    return transcoded(base64.b64decode(params))


def record(target: bytes) -> tuple[str | None, bytes | None]:
    return PLAN.record("GET", target, HEADERS, now=NOW)


def recorded(target: bytes) -> tuple[None, bytes]:
    """The least that a collector adds to the tree: what headers tell, its own names, the server's time."""
    event = nested(target.partition(b"?")[2])
    headers = {name.lower(): value.decode("latin-1") for name, value in HEADERS}
    context = event.setdefault("context", {})
    context.setdefault("userAgent", headers[b"user-agent"])
    context.setdefault("referrer", headers[b"referer"])
    event |= {"protocol": "rudderstack", "type": "track", "receivedAt": msgpack.Timestamp.from_unix_nano(NOW)}
    return None, msgpack.packb(event)


def read_shared(result: tuple[str | None, bytes]) -> tuple[str | None, Any]:
    """Of a record what both sides make; the core adds the dialect's defaults."""
    event = msgpack.unpackb(result[1])
    return result[0], {name: event[name] for name in SHARED}


def lines(value: bytes) -> bytes:
    unpacker = msgpack.Unpacker()
    unpacker.feed(value)
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in unpacker).encode()


def read_lines(text: bytes) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


STAGES = {
    "percent": Stage(_core.unquote, lambda data: unquote_plus(data.decode("ascii")), TITLE),
    "query": Stage(
        _core.pairs,
        lambda query: parse_qsl(query.decode("ascii"), keep_blank_values=True),
        QUERY,
    ),
    "tree": Stage(lambda query: _core.dotpath(query, first=True, drop_bad=True), packed, QUERY, unpacked),
    "json": Stage(_core.pack_json, transcoded, json.dumps(nested(QUERY)).encode(), unpacked),
    "params": Stage(_core.pack_params, decoded, base64.b64encode(SIGNUP), unpacked),
    # The core's door also writes and parses the request's head, which the twin is given as a list.
    "record": Stage(record, recorded, TARGET, read_shared),
    "lines": Stage(_core.json_lines, lines, msgpack.packb(nested(QUERY)) * BATCH, read_lines),
}


@pytest.mark.parametrize("side", ["core", "stdlib"])
@pytest.mark.parametrize("name", STAGES)
def test_stage(benchmark, name: str, side: str) -> None:
    stage = STAGES[name]
    benchmark.group = name
    result = benchmark(getattr(stage, side), stage.data)
    assert stage.read(result) == stage.read(stage.stdlib(stage.data))
