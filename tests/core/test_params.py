"""`params` against the oracle's reading of the same rules, packed by msgpack-python; what large ones leave behind."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from fastpixel import _core
from fastpixel.dialects import pitchtarget
from fastpixel.event import FIELDS
from vectors import fuzz

PLAN = _core.Plan([pitchtarget.DIALECT], fields=FIELDS)
FORM = ((b"Content-Type", b"application/x-www-form-urlencoded"),)


def twin(value: str) -> tuple[str | None, Any]:
    try:
        members = oracle.read_params(value)
    except oracle.NotParams as failed:
        return failed.error, None
    return None, None if members is None else oracle.plain(members)


def read(value: str) -> tuple[str | None, Any]:
    error, packed = _core.pack_params(value.encode())
    return error, msgpack.unpackb(packed) if packed else None


def typed(value: Any) -> Any:
    """With the types of numbers, which Python finds equal, and without the order of names."""
    if isinstance(value, dict):
        return {name: typed(member) for name, member in value.items()}
    return [typed(member) for member in value] if isinstance(value, list) else (type(value), str(value))


@pytest.mark.parametrize(
    ("value", "error", "members"),
    [
        ("", None, None),
        (" \t\r\n\v\f", None, None),
        ("\u200b\u00a0", None, None),
        ("{}", None, {}),
        ("e30", None, {}),
        (' {"a": 1} ', None, {"a": 1}),
        ("{", "bad_json", None),
        ("ew", "bad_json", None),
        ("[]", "bad_base64", None),
        ("W10", "not_an_object", None),
        ("/w", "bad_encoding", None),
        ('{"a":' * 32 + "1" + "}" * 32, None, json.loads('{"a":' * 32 + "1" + "}" * 32)),
        ('{"a":' * 33 + "1" + "}" * 33, "too_deep", None),
        ('{"$a":1,"_b":1,"c.d":1,"":1,"$":1,"_":1,".":1,"e$_":1}', None, {"": 1, "e$_": 1}),
        (
            '{"access_token":1,"a":{"access_token":1,"access_tokens":1}}',
            None,
            {"access_token": 1, "a": {"access_tokens": 1}},
        ),
    ],
)
def test_cases(value: str, error: str | None, members: Any):
    assert read(value) == (error, members)
    assert twin(value) == (error, members)


NAMES = st.sampled_from(["a", "b", "$a", "_b", "a.b", ".", "", "access_token", "é", "\ud800"]) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=20),
    max_leaves=30,
)
TEXTS = VALUES.map(json.dumps) | st.dictionaries(NAMES, VALUES, max_size=40).map(json.dumps)
MISTAKES = st.sampled_from(["", "", "", "}", "[", "{", '"', ",", "NaN", "\x00", "\\", "1"])


@st.composite
def nearly(draw: st.DrawFn) -> str:
    """A document with something put in or cut off, in brackets."""
    text, wrong = draw(TEXTS), draw(MISTAKES)
    place = draw(st.integers(0, len(text)))
    text = text[:place] + wrong + (text[place:] if draw(st.booleans()) else "")
    around = draw(st.sampled_from([0, 0, 1, 30, 31, 32, 33, 40]))
    return '{"a":' * around + text + "}" * around


SPELLINGS = st.sampled_from(
    [
        lambda text: text,
        lambda text: f" {text}\n",
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
        lambda text: base64.encodebytes(text.encode()).decode().replace("+", " "),
    ]
)


@fuzz
@given(TEXTS | nearly(), SPELLINGS)
def test_any_document_in_any_spelling(text: str, spelling: Any):
    value = spelling(text)
    assert typed(read(value)) == typed(twin(value))


@fuzz
@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda data: base64.b64encode(data).decode()))
def test_any_text(value: str):
    assert typed(read(value)) == typed(twin(value))


def test_every_beginning():
    text = '{"a":[1,-2.5e3,"x\\n\\ud83d\\ude00"],"$b":{"c":null},"access_token":"t","d":{"access_token":true}}'
    coded = base64.b64encode(text.encode()).decode()
    for length in range(len(coded) + 1):
        assert read(coded[:length]) == twin(coded[:length])
        assert read(text[:length]) == twin(text[:length])


# -- records -------------------------------------------------------------------------------------------------


def posted(params: str) -> dict[str, Any]:
    body = b"event_token=t&params=" + params.encode()
    reason, record = PLAN.record("POST", b"/k/event.gif", FORM, body)
    assert reason is None and record is not None
    return msgpack.unpackb(record, timestamp=0)


def test_no_token_is_in_the_record():
    token = "EAACEdEose0cBAKq7x"
    for text in (
        f'{{"access_token":"{token}"}}',
        f'{{"a":{{"access_token":["{token}"]}}}}',
        f'{{"access_token":"{token}"',
    ):
        for value in (text, base64.b64encode(text.encode()).decode(), f"[{text}"):
            reason, record = PLAN.record("POST", b"/k/event.gif", FORM, b"event_token=t&params=" + value.encode())
            assert reason is None and record is not None
            assert token.encode() not in record
            assert base64.b64encode(token.encode())[2:-4] not in record


def test_many_members_take_no_longer_each():
    """Each is found by its hash: a million comparisons would be noticed here as a test that does not end."""
    names = [f"m{i}" for i in range(200_000)]
    properties = posted(json.dumps(dict.fromkeys(names, 1)))["properties"]
    assert len(properties) == len(names) + 1


def test_what_follows_a_large_one_is_as_ever():
    small = posted('{"a":1}')
    for large in (json.dumps({f"m{i}": [i] for i in range(100_000)}), "{" + "x" * 1_000_000, "x" * 1_000_001):
        posted(large)
        again = posted('{"a":1}')
        assert {**again, "messageId": "", "receivedAt": 0, "timestamp": 0} == {
            **small, "messageId": "", "receivedAt": 0, "timestamp": 0,
        }  # fmt: skip


def test_wants_bytes():
    with pytest.raises(TypeError):
        _core.pack_params("{}")
    with pytest.raises(TypeError):
        _core.pack_params(None)
