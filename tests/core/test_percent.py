"""Percent decoding: examples of the rule, and the core against the oracle on anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from fastpixel._core import unquote

EXAMPLES = {
    b"": "",
    b"plain": "plain",
    b"a+b%20c": "a b c",
    b"%2B%2b": "++",
    b"%C3%A9%c3%a9": "éé",
    b"%": "%",
    b"%4": "%4",
    b"%zz%u2019": "%zz%u2019",
    b"%%41": "%A",
    b"%4%41": "%4A",
    b"%00%0D%0A": "\0\r\n",
    b"\xc3\xa9": "é",
    b"\xff%FF": "\ufffd\ufffd",
    b"%C3(": "\ufffd(",
    b"%E2%82": "\ufffd",
    b"%ED%A0%80": "\ufffd\ufffd\ufffd",
    b"%C0%AF": "\ufffd\ufffd",
    b"%F4%90%80%80": "\ufffd\ufffd\ufffd\ufffd",
    b"%F0%9F%98%80": "😀",
}
# Bytes of which decoding is made: signs, hexadecimal digits, and pieces of UTF-8.
TRICKY = st.lists(st.sampled_from([b"%", b"+", b"4", b"1", b"C3", b"a9", b"%C3", b"%E2%82", b"\xc3", b"\xa9", b"x"]))


@pytest.mark.parametrize(("data", "text"), EXAMPLES.items())
def test_unquote(data: bytes, text: str):
    assert unquote(data) == text
    assert oracle.unquote(data) == text


def test_plus_stays_in_paths():
    assert unquote(b"a+b%2Bc", plus=False) == "a+b+c"


@given(st.one_of(st.binary(max_size=200), TRICKY.map(b"".join)), st.booleans())
def test_unquote_is_the_oracle(data: bytes, plus: bool):
    assert unquote(data, plus=plus) == oracle.unquote(data, plus)


@given(st.binary(max_size=100))
def test_bytes_that_are_not_utf_8_are_repaired_as_python_does(data: bytes):
    coded = b"".join(b"%%%02x" % byte for byte in data)
    assert unquote(coded) == data.decode("utf-8", "replace")
