"""PitchTarget's rejects: what they keep, that nothing of a token is in them, and that a retry loses nothing."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import _core
from fastpixel.dialect import Member
from fastpixel.dialects import pitchtarget
from fastpixel.event import FIELDS
from fastpixel.generation import ALLOCATOR
from vectors import fuzz

PLAN = _core.Plan([pitchtarget.DIALECT], fields=FIELDS)
TOKEN = "EAACEdEose0cBAKq7x"
HASH = sha256(TOKEN.encode()).hexdigest()
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Request:
    """As much of a Call as a reject is made of."""

    target: bytes
    body: bytes = b""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    def pairs(self) -> tuple[str | None, list[tuple[str, str]]]:
        return self._pairs(self.target.partition(b"?")[2])

    def form(self) -> tuple[str | None, list[tuple[str, str]]]:
        return ("bad_encoding", []) if self.header("content-encoding") else self._pairs(self.body)

    def _pairs(self, part: bytes) -> tuple[str | None, list[tuple[str, str]]]:
        found = _core.pairs(part)
        return (None, found) if len(found) <= 1000 else ("too_many_params", [])


def redacted(target: bytes, **more: Any) -> tuple[bytes, bytes]:
    return pitchtarget.redact(cast(_core.Call, Request(target, **more)))


def kept_params(params: str) -> str:
    """What a reject has instead of this `params`."""
    target, _ = redacted(b"/k/event.gif?" + urlencode({"params": params}).encode())
    ((name, value),) = parse_qsl(target.partition(b"?")[2].decode(), keep_blank_values=True)
    assert name == "params"
    return value


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/k/event.gif", b"/k/event.gif"),
        (b"/k/event.gif?", b"/k/event.gif"),
        (b"/k/event.gif?access_token=secret&utm_source=a", b"/k/event.gif"),
        (b"/k/event.gif?a=1&event_token=t&amount=5&b", b"/k/event.gif?event_token=t&amount=5"),
        (b"/k/event.gif?amount=1&amount=2&event_token=", b"/k/event.gif?amount=1&amount=2&event_token="),
        (b"/k/event.gif?%65vent_token=a+b%26%C3%A9%zz", b"/k/event.gif?event_token=a+b%26%C3%A9%25zz"),
        (b"/%6B/event.gif?event_token=%FF", b"/%6B/event.gif?event_token=%EF%BF%BD"),
        (b"http://h/k/event.gif?x=1&amount=1?", b"http://h/k/event.gif?amount=1%3F"),
        (b"/k/event.gif?" + b"a=b&" * 1000 + b"amount=1", b"/k/event.gif"),
    ],
)
def test_the_parameters_that_the_pixel_reads(target: bytes, expected: bytes):
    assert redacted(target) == (expected, b"")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (FORM, b"amount=1&params=%7B%22a%22%3A1%7D"),
        ({}, b"amount=1&params=%7B%22a%22%3A1%7D"),
        ({"content-type": "text/plain; a=application/json"}, b"amount=1&params=%7B%22a%22%3A1%7D"),
        ({"content-type": "Application/JSON ; charset=utf-8"}, b""),
        ({"content-type": "application/vnd.x+json"}, b""),
        ({**FORM, "content-encoding": "gzip"}, b""),
    ],
)
def test_a_form_stays_in_the_body(headers: dict[str, str], expected: bytes):
    body = b'access_token=secret&amount=1&params={"a":1}'
    assert redacted(b"/k/event.gif?event_token=t", body=body, method="POST", headers=headers) == (
        b"/k/event.gif?event_token=t",
        expected,
    )


def test_a_body_of_another_method_is_not_kept():
    assert redacted(b"/k/event.gif", body=b"amount=1") == (b"/k/event.gif", b"")


PARAMS = [
    ("", ""),
    (" \n", ""),
    ("{}", "{}"),
    (' {"a" : 1.50}', '{"a":1.5}'),
    ('{"a":"é\\u0000\\ud800"}', '{"a":"é\\u0000\ufffd"}'),
    ('{"$a":1,"b":{"_c":1,"d":2}}', '{"b":{"d":2}}'),
    (f'{{"access_token":"{TOKEN}","a":1}}', f'{{"access_token":"sha256:{HASH}","a":1}}'),
    (f'{{"access_token":"sha256:{HASH}"}}', f'{{"access_token":"sha256:{HASH}"}}'),
    ('{"access_token":" "}', '{"access_token":null}'),
    (f'{{"access_token":["{TOKEN}"]}}', '{"access_token":null}'),
    (f'{{"a":{{"access_token":"{TOKEN}"}}}}', '{"a":{}}'),
    ("eyJhIjoxfQ", '{"a":1}'),
]


@pytest.mark.parametrize(("params", "expected"), PARAMS)
def test_params_become_plain_json_without_tokens(params: str, expected: str):
    assert kept_params(params) == expected
    assert kept_params(expected) == expected


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ("{", "bad_json"),
        (f'{{"access_token":"{TOKEN}"', "bad_json"),
        ("é", "bad_base64"),
        ("/w", "bad_encoding"),
        ("W10", "not_an_object"),
        (" W10 ", "not_an_object"),
        ('{"a":' * 33 + "1" + "}" * 33, "too_deep"),
    ],
)
def test_unreadable_params_are_a_hash_and_a_length(params: str, error: str):
    data = params.encode()
    expected = f"sha256:{sha256(data).hexdigest()} {len(data)} bytes {error}"
    assert kept_params(params) == expected
    assert kept_params(expected) == expected


# -- retries -------------------------------------------------------------------------------------------------


def record(target: bytes) -> dict[str, Any]:
    reason, packed = PLAN.record("GET", target, now=0)
    assert reason is None and packed is not None
    found = msgpack.unpackb(packed, timestamp=0)
    return {name: value for name, value in found.items() if name != "messageId"}


NAMES = st.sampled_from(["a", "email", "uuid", "fbid", "access_token", "$a", "b.c", "category", "amount"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6).map(json.dumps)
CUT = st.builds(lambda text, end: text[:end], OBJECTS, st.integers(0, 40))
TEXTS = OBJECTS | CUT | (OBJECTS | CUT).map(lambda text: base64.b64encode(text.encode()).decode()) | st.text(max_size=9)


@fuzz
@given(TEXTS, st.sampled_from(["", "&amount=5", "&amount=x"]), st.sampled_from(["event", "revenue"]))
def test_a_retry_stores_the_same(params: str, amount: str, category: str):
    amount = amount if category == "event" else "&amount=5"
    target = f"/k/{category}.gif?event_token=t&".encode()
    target += urlencode({"params": params.encode("utf-8", "replace")}).encode() + amount.encode()
    first, again = record(target), record(redacted(target)[0])
    context = again.get("context", {})
    if text := first.get("context", {}).pop("paramsText", None):
        assert text is not None and context.pop("paramsLength") > 0
        assert len(context.pop("paramsSha256")) == 64
    assert again == first


@fuzz
@given(OBJECTS, st.integers(0, 200), st.booleans())
def test_no_token_is_kept(text: str, end: int, coded: bool):
    text = text.replace('"access_token": ', f'"access_token": "{TOKEN}", "access_token2": ')[:end]
    params = base64.b64encode(text.encode()).decode() if coded else text
    target, _ = redacted(b"/k/event.gif?" + urlencode({"params": params, "access_token": TOKEN}).encode())
    assert TOKEN.encode() not in target
    assert base64.b64encode(TOKEN.encode())[2:-2] not in target


# -- what the page says --------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", pitchtarget.EVENT.members, ids=lambda member: member.source)
def test_the_members_of_params_go_where_the_page_says(member: Member):
    name = member.source.removeprefix("params.").replace("*", "anything")
    found: Any = record(b"/k/event.gif?" + urlencode({"event_token": "t", "params": json.dumps({name: "12"})}).encode())
    for part in member.to.replace("*", name).split("."):
        found = found[part]
    assert found == (sha256(b"12").hexdigest() if "hex" in member.doc else "12")


# -- memory --------------------------------------------------------------------------------------------------

MEMORY = """
from pathlib import Path
from fastpixel._core import Plan
from fastpixel.dialects import pitchtarget
from fastpixel.event import FIELDS

def resident():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) // 1024

plan = Plan([pitchtarget.DIALECT], fields=FIELDS)
form = ((b"Content-Type", b"application/x-www-form-urlencoded"),)
large = b'{"":0' + b"".join(b',"m%d":%d' % (i, i) for i in range(300_000)) + b"}"
for params in (b"", large, b""):
    plan.record("POST", b"/k/event.gif", form, b"event_token=t&params=" + params)
    print(resident())
"""


def test_the_memory_for_large_params_is_given_back():
    """Mebibytes before, with and after them, in a process whose allocator is set as a worker's."""
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY], env={**os.environ, **ALLOCATOR}, capture_output=True, text=True, check=True
    )
    before, during, after = map(int, ran.stdout.split())
    assert during > before + 32
    assert after < before + 16
