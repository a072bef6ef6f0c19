"""UTF-8 in the core against bytes.decode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import _core

# Bytes that make Unicode's table 3-7 matter, glued into every combination by Hypothesis.
EDGES = b"a\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xed\xef\xf0\xf4\xf5\xff"
PARTS = st.sampled_from([*(bytes((c,)) for c in EDGES), b"abcdefgh", *(c.encode() for c in "é€😀")])

CASES = [
    b"",
    b"plain ASCII that is longer than eight bytes",
    "żółć €uro 😀 end".encode(),
    b"12345678\xff12345678",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xf0\x9f\x98x",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xc0\xaf\xe0\x80\xaf\xf0\x80\x80\xaf",
    b"\xf4\x8f\xbf\xbf\xf4\x90\x80\x80",
    b"\xef\xbf\xbf\xef\xbf\xbd",
    b"\xf8\x88\x80\x80\x80",
    b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41",
]


def twin(data):
    try:
        good = len(data.decode() and data)
    except UnicodeDecodeError as error:
        good = error.start
    return good, len(data[:good].decode()), data.decode("utf-8", "replace")


@pytest.mark.parametrize("data", CASES, ids=repr)
def test_cases(data):
    assert _core.utf8_check(data) == twin(data)


@pytest.mark.parametrize("data", CASES, ids=repr)
def test_every_prefix_and_suffix(data):
    for i in range(len(data)):
        assert _core.utf8_check(data[:i]) == twin(data[:i])
        assert _core.utf8_check(data[i:]) == twin(data[i:])


def test_every_one_and_two_byte_text():
    for first in range(256):
        for second in range(256):
            data = bytes((first, second))
            assert _core.utf8_check(data) == twin(data)


@pytest.mark.parametrize("lead", [0xE0, 0xE1, 0xED, 0xEE, 0xF0, 0xF1, 0xF4], ids=hex)
def test_second_and_third_bytes_of_long_sequences(lead):
    for second in range(0x70, 0x100):
        for third in (0x7F, 0x80, 0xBF, 0xC0):
            data = bytes((lead, second, third, 0x80, 0x41))
            assert _core.utf8_check(data) == twin(data)


@given(st.binary() | st.lists(PARTS).map(b"".join))
def test_any_bytes(data):
    assert _core.utf8_check(data) == twin(data)


@given(st.text())
def test_any_text(text):
    data = text.encode()
    assert _core.utf8_check(data) == (len(data), len(text), text)
