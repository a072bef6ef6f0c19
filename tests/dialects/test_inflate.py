"""gzip bodies: what they hold, or why not, in bounded memory and time."""

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel.dialects.inflate import gunzip

HELLO = gzip.compress(b"hello", mtime=0)
EMPTY = gzip.compress(b"", mtime=0)


def damaged(data, at):
    copy = bytearray(data)
    copy[at] ^= 1
    return bytes(copy)


GOOD = {
    "one": (HELLO, b"hello"),
    "nothing": (EMPTY, b""),
    "several": (HELLO + EMPTY + HELLO, b"hellohello"),
    "sixteen": (HELLO * 16, b"hello" * 16),
    "with-a-name": (b"\x1f\x8b\x08\x08\0\0\0\0\0\x03name\0" + HELLO[10:], b"hello"),
}
BAD = {
    "no-bytes": b"",
    "plain": b"hello",
    "zlib": b"x\x9c\xcbH\xcd\xc9\xc9\x07\0\x06,\x02\x15",
    "head-only": HELLO[:10],
    "no-trailer": HELLO[:-8],
    "cut": HELLO[:-1],
    "checksum": damaged(HELLO, -8),
    "length": damaged(HELLO, -4),
    "method": damaged(HELLO, 2),
    "garbage": HELLO + b"x",
    "zeros": HELLO + bytes(512),
    "second-cut": HELLO + HELLO[:-1],
    "seventeen": HELLO * 17,
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name):
    data, held = GOOD[name]
    assert gunzip(data, len(held)) == (None, held)
    if held:
        assert gunzip(data, len(held) - 1) == ("too_large", b"")


@pytest.mark.parametrize("name", BAD)
def test_bad(name):
    assert gunzip(BAD[name], 1000) == ("bad_encoding", b"")


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 600))
def test_what_was_compressed_comes_out_or_is_too_large(pieces, limit):
    held = b"".join(pieces)
    found = gunzip(b"".join(map(gzip.compress, pieces)), limit)
    assert found == ((None, held) if len(held) <= limit else ("too_large", b""))


@given(st.one_of(st.binary(), st.binary().map(lambda tail: HELLO[:10] + tail)))
def test_any_bytes(data):
    reason, held = gunzip(data, 100)
    assert reason in (None, "bad_encoding", "too_large")
    assert len(held) <= 100


def test_a_bomb_takes_no_more_memory_than_the_limit_twice():
    bomb = gzip.compress(bytes(100_000_000), 9)
    tracemalloc.start()
    try:
        assert gunzip(bomb, 1_000_000) == ("too_large", b"")
        assert tracemalloc.get_traced_memory()[1] < 3_000_000 + len(bomb)
    finally:
        tracemalloc.stop()
