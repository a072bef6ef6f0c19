"""Parameters: how a query is cut into pairs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from fastpixel._core import pairs

EXAMPLES = {
    b"": [],
    b"a=1": [("a", "1")],
    b"a=1&b=2": [("a", "1"), ("b", "2")],
    b"&&a=1&&": [("a", "1")],
    b"=x&=&a": [("a", "")],
    b"a=": [("a", "")],
    b"a=b=c==": [("a", "b=c==")],
    b"a%3Db=c": [("a=b", "c")],
    b"a%26b=c%26d": [("a&b", "c&d")],
    b"%=%zz": [("%", "%zz")],
    b"a+b=c+d": [("a b", "c d")],
    b"a;b=1": [("a;b", "1")],
    b"?a=?": [("?a", "?")],
    b"a=\x00\xff": [("a", "\0\ufffd")],
}
DROPPED = {
    b"a=%&b=1": [("b", "1")],
    b"a%4=1&b": [("b", "")],
    b"a=1;b=2&c=3": [("c", "3")],
    b"a;=1&b=%3B": [("b", ";")],
    b"a=%4&a=%41": [("a", "A")],
    b"a=%%41": [],
}
TRICKY = st.lists(st.sampled_from([b"&", b"=", b"a", b"b", b"%", b"%41", b"%C3", b";", b"+", b"\xc3", b"%26", b"%3D"]))
QUERIES = st.one_of(st.binary(max_size=200), TRICKY.map(b"".join))


@pytest.mark.parametrize(("query", "found"), EXAMPLES.items())
def test_pairs(query: bytes, found: list[tuple[str, str]]):
    assert pairs(query) == found
    assert list(oracle.pairs(query)) == found


@pytest.mark.parametrize(("query", "found"), DROPPED.items())
def test_bad_pairs_are_dropped(query: bytes, found: list[tuple[str, str]]):
    assert pairs(query, drop_bad=True) == found
    assert list(oracle.pairs(query, drop_bad=True)) == found


@given(QUERIES, st.booleans())
def test_pairs_are_the_oracles(query: bytes, drop_bad: bool):
    assert pairs(query, drop_bad=drop_bad) == list(oracle.pairs(query, drop_bad))
