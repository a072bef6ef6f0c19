"""Invisible and blank text against unicodedata and the published property lists."""

import re
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpixel import _core

# PropList.txt: White_Space. DerivedCoreProperties.txt: Default_Ignorable_Code_Point.
WHITE_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
DEFAULT_IGNORABLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def invisible(c):
    return (
        DEFAULT_IGNORABLE.match(c) is not None
        or (WHITE_SPACE.match(c) is not None and c != " ")
        or unicodedata.category(c).startswith("C")
        or c == "\u2800"
    )


def tidy(text):
    return "".join(c for c in text if not invisible(c)).strip()


def test_every_code_point():
    for c in map(chr, range(sys.maxunicode + 1)):
        assert _core.tidy(f"x{c}x") == ("xx" if invisible(c) else f"x{c}x"), hex(ord(c))


@pytest.mark.parametrize(
    ("text", "blank", "tidied"),
    [
        ("", True, ""),
        (" ", True, ""),
        ("\t\r\n\x00\x7f\x85\xa0", True, ""),
        ("\u200b\ufeff\u2800\u3000\u2060", True, ""),
        ("\ud800", True, ""),
        ("\U000e0041\U0010ffff\ue000", True, ""),
        ("a", False, "a"),
        (" a  b ", False, "a  b"),
        (" \u200b a\u00adb\u200d \u2029", False, "ab"),
        ("\ufeffcaf\xe9\u0301", False, "caf\xe9\u0301"),
        ("😀\ufe0f", False, "😀"),
        ("0", False, "0"),
        ("\ufffd", False, "\ufffd"),
    ],
)
def test_cases(text, blank, tidied):
    assert _core.is_blank(text) is blank
    assert _core.tidy(text) == tidied


@given(st.text(st.sampled_from(" ab\t\u200b\u2800é\u3000😀\U000e0041\xad\ud800") | st.characters()))
def test_any_text(text):
    assert _core.tidy(text) == tidy(text)
    assert _core.is_blank(text) is (tidy(text) == "")


@pytest.mark.parametrize("door", [_core.tidy, _core.is_blank])
def test_wants_text(door):
    with pytest.raises(TypeError):
        door(b"bytes")
    with pytest.raises(TypeError):
        door(None)
