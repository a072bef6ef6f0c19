"""Dot paths: the tree that pairs make, by example and against the oracle."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
from fastpixel._core import dotpath

EXAMPLES: dict[bytes, Any] = {
    b"": {},
    b"a.b.c=v": {"a": {"b": {"c": "v"}}},
    b"a.b=1&a.c=2&d=3": {"a": {"b": "1", "c": "2"}, "d": "3"},
    b"a=1&a.b=2": {"a": {"b": "2"}},
    b"a.b=2&a=1": {"a": "1"},
    b"a=1&a=2": {"a": "2"},
    b"a=1&a.b=2&a=3": {"a": "3"},
    b"a.b.c=1&a.b=2&a.b.d=3": {"a": {"b": {"d": "3"}}},
    b"a.0.x=1&a.1.x=2": {"a": [{"x": "1"}, {"x": "2"}]},
    b"a.1=x": {"a": [None, "x"]},
    b"a.2=x&a.0=y": {"a": ["y", None, "x"]},
    b"a.0.0=1&a.0.1=2": {"a": [["1", "2"]]},
    b"a.0=x&a.b=y": {"a": {"0": "x", "b": "y"}},
    b"a.b=y&a.0=x": {"a": {"b": "y", "0": "x"}},
    b"a.0=x&a.2=z&a.b=y&a.7=w": {"a": {"0": "x", "2": "z", "b": "y", "7": "w"}},
    b"a.0=x&a.b=y&a=1&a.0=z": {"a": ["z"]},
    b"a.0.b=x&a.0=y": {"a": ["y"]},
    b"a.x.1000=1": "index_too_large",
    b"a.x=1&a.1000=2": {"a": {"x": "1", "1000": "2"}},
    b"a.1000=1": "index_too_large",
    b"a=1&a.1000=2": "index_too_large",
    b"a.0=1&a.1000=2": "index_too_large",
    b"a.99999999999999999999=1": "index_too_large",
    b"a.01=1&a.00=2": {"a": {"01": "1", "00": "2"}},
    b"a.01000=1": {"a": {"01000": "1"}},
    b"a.1e3=1": {"a": {"1e3": "1"}},
    b"0=1&1.0=2&1000=3": {"0": "1", "1": ["2"], "1000": "3"},
    b".=1&.a=2&a.=3&a..b=4": {},
    b"__proto__=1&a.__proto__=2&__proto__.a=3&__proto__x=4": {"__proto__x": "4"},
    b"constructor.prototype=1": {"constructor": {"prototype": "1"}},
    b"a%2Eb=1": {"a": {"b": "1"}},
    b"a.%30=1": {"a": ["1"]},
    b"a.999=x&b.1=y": {"a": [*[None] * 999, "x"], "b": [None, "y"]},
    b"a.999=x&b.2=y": "index_too_large",
    b"a.999=x&a.0=y&b.2=y": {"a": ["y", *[None] * 998, "x"], "b": [None, None, "y"]},
    b"a.999=x&b.999=y&b=1": {"a": [*[None] * 999, "x"], "b": "1"},
    b"a.500.500=x&a.0=y": {"a": ["y", *[None] * 499, [*[None] * 500, "x"]]},
    b"a.500.502=x&a.0=y": "index_too_large",
}
FIRST: dict[bytes, Any] = {
    b"a=1&a=2": {"a": "1"},
    b"a.b=1&a.b=2": {"a": {"b": "1"}},
    b"a=1&a.b=2&a=3": {"a": {"b": "2"}},
    b"a.b=1&a=2&a.b=3": {"a": "2"},
    b"a.b=1&a=2&a.c=3&a.b=4": {"a": {"c": "3"}},
    b"a.0=1&a.x=2&a.0=3": {"a": {"0": "1", "x": "2"}},
    b"a%2Eb=1&a.b=2": {"a": {"b": "1"}},
    b"a..b=1&a.b=2": {"a": {"b": "2"}},
}
# Few names, so that pairs meet: as parent, as member, as index, as conflict.
SEGMENT = st.sampled_from(["a", "b", "0", "1", "2", "00", "9", "10", "250", "999", "1000", "", "__proto__", "-1", "x1"])
PATHS = st.lists(st.sampled_from(["a", "b", "0", "1", "2"]), min_size=1, max_size=4) | st.lists(
    SEGMENT, min_size=1, max_size=5
)
QUERIES = st.lists(st.tuples(PATHS, st.sampled_from(["", "1", "2", "x"])), max_size=12)


def read(query: bytes, first: bool = False, drop_bad: bool = False) -> Any:
    """The map, or the reason."""
    reason, packed = dotpath(query, first=first, drop_bad=drop_bad)
    return reason or msgpack.unpackb(packed)


def expected(query: bytes, first: bool = False, drop_bad: bool = False) -> Any:
    reason, found = oracle.dotpath(query, first, drop_bad)
    return reason or found


@pytest.mark.parametrize(("query", "found"), EXAMPLES.items())
def test_last_wins(query: bytes, found: Any):
    assert read(query) == found
    assert expected(query) == found


@pytest.mark.parametrize(("query", "found"), FIRST.items())
def test_first_wins(query: bytes, found: Any):
    assert read(query, first=True) == found
    assert expected(query, first=True) == found


@pytest.mark.parametrize(("segments", "found"), [(32, None), (33, "too_deep"), (64, "too_deep"), (1000, "too_deep")])
def test_depth(segments: int, found: str | None):
    query = b".".join([b"a"] * segments) + b"=1"
    assert dotpath(query)[0] == found


def test_depth_of_a_skipped_pair():
    assert read(b".".join([b"a"] * 40) + b".=1") == {}
    assert read(b"__proto__." + b".".join([b"a"] * 40) + b"=1") == {}


def test_pairs():
    assert read(b"a=1&" * 1000) == {"a": "1"}
    assert read(b"a=1&" * 1001) == "too_many_params"
    assert read(b"a=1&" * 1000 + b"&=&=x", first=True) == {"a": "1"}
    assert read(b"a=1&" * 1000 + b"a=%&;", drop_bad=True) == {"a": "1"}


def test_many_names_keep_apart():
    query = b"&".join(b"p.k%d=%d" % (i, i) for i in range(1000))
    assert read(query) == {"p": {f"k{i}": str(i) for i in range(1000)}}


def test_many_nodes_keep_apart():
    """1,000 pairs of 32 segments: 32,000 nodes, so that the tree has to grow."""
    rest = b".".join([b"a"] * 31)
    found = read(b"&".join(b"k%d.%s=%d" % (i, rest, i) for i in range(1000)))
    for i in (0, 1, 499, 999):
        value = found[f"k{i}"]
        for _ in range(31):
            value = value["a"]
        assert value == str(i)


def test_a_plan_forgets_the_last_query():
    assert read(b"a.b=1") == {"a": {"b": "1"}}
    assert read(b"a.c=1") == {"a": {"c": "1"}}


@given(QUERIES, st.booleans())
def test_dot_paths_are_the_oracles(pairs: list[tuple[list[str], str]], first: bool):
    query = "&".join(f"{'.'.join(path)}={value}" for path, value in pairs).encode()
    assert read(query, first) == expected(query, first)


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_bytes_are_the_oracles(query: bytes, first: bool, drop_bad: bool):
    assert read(query, first, drop_bad) == expected(query, first, drop_bad)
