"""base64 parameters against Python's base64 module."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import _core

SPELLINGS = bytes.maketrans(b"-_ ", b"+/+")


def twin(data):
    text = data.translate(SPELLINGS, b"\r\n\t")
    body = text.rstrip(b"=")
    missing = -len(body) % 4
    if not re.fullmatch(rb"[A-Za-z0-9+/]*", body) or missing == 3 or len(text) - len(body) > missing:
        return None
    return base64.b64decode(body + b"=" * missing, validate=True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", b""),
        (b"eyJhIjoxfQ==", b'{"a":1}'),
        (b"eyJhIjoxfQ=", b'{"a":1}'),
        (b"eyJhIjoxfQ", b'{"a":1}'),
        (b"eyJh\r\nIjox\tfQ==\r\n", b'{"a":1}'),
        (b"+/+/", b"\xfb\xff\xbf"),
        (b"-_-_", b"\xfb\xff\xbf"),
        (b" / _", b"\xfb\xff\xbf"),
        (b"\r\n\t", b""),
        (b"QQ", b"A"),
        (b"QR", b"A"),
        (b"QUJ=", b"AB"),
        (b"QQ\r=\n=", b"A"),
        (b"Q", None),
        (b"QUJDR", None),
        (b"=", None),
        (b"====", None),
        (b"QQ===", None),
        (b"QUI==", None),
        (b"QUJD=", None),
        (b"QQ==QQ==", None),
        (b"QQ= ", None),
        (b"Q=Q", None),
        (b"QQ.=", None),
        (b"QUJD\x00", None),
        (b"QUJ\xc3\xa9", None),
        (b"%51%51", None),
        (b'{"a":1}', None),
    ],
)
def test_cases(data, expected):
    assert _core.unbase64(data) == expected
    assert twin(data) == expected


@given(st.binary() | st.text("AZaz09+/-_= \r\n\t.", max_size=24).map(str.encode))
def test_any_bytes(data):
    assert _core.unbase64(data) == twin(data)


ENCODERS = st.sampled_from([base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])


@given(st.binary(), ENCODERS, st.booleans())
def test_round_trip(data, encode, padded):
    text = encode(data)
    text = text if padded else text.replace(b"=", b"")
    assert _core.unbase64(text) == data
    assert _core.unbase64(text.replace(b"+", b" ")) == data


def test_every_prefix():
    text = base64.b64encode(bytes(range(256)))
    for i in range(len(text)):
        assert _core.unbase64(text[:i]) == twin(text[:i])


def test_wants_bytes():
    with pytest.raises(TypeError):
        _core.unbase64("QQ==")
    with pytest.raises(TypeError):
        _core.unbase64(None)
