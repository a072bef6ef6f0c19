"""The browser scripts in js/, and the answer that hands one out.

What lives here: how a source file becomes what a page gets (its values put in place as JSON, so that no text of a
request is ever code), and how a browser may keep it (five minutes, then it asks again by ETag). What it must not know:
a protocol, a request, what a script does.

Rules: protocols "Script"; RFC 9110 for If-None-Match (13.1.2) and Accept-Encoding (12.5.3).
"""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from fastpixel.dialect import Reply

_SOURCES: Final = Path(__file__).with_name("js")
_KEPT: Final = 256  # scripts: a value of a request makes another one of each
_CONTENT_TYPE: Final = "text/javascript; charset=utf-8"
_CACHED: Final = (("Cache-Control", "public, max-age=300"), ("Vary", "Origin, Accept-Encoding"))
_ESCAPED: Final = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


def script(name: str, values: tuple[tuple[str, str], ...], *, if_none_match: str, accept_encoding: str) -> Reply:
    """js/`name` with the text of each value in place of its quoted name, as a browser that sent these headers gets it.

    OSError: there is no such source. ValueError: it does not have a value's name exactly once.
    """
    text, packed, tag = _rendered(name, values)
    headers = (*_CACHED, ("ETag", tag))
    if _is_named(tag, if_none_match):
        return Reply(304, _CONTENT_TYPE, b"", headers)
    if _admits_gzip(accept_encoding):
        return Reply(200, _CONTENT_TYPE, packed, (*headers, ("Content-Encoding", "gzip")))
    return Reply(200, _CONTENT_TYPE, text, headers)


@lru_cache(_KEPT)
def _rendered(name: str, values: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes, str]:
    """Its bytes, the same as gzip, and a tag that both have: weak, because they are not equal byte by byte."""
    text = _source(name)
    for placeholder, value in values:
        if text.count(f'"{placeholder}"') != 1:
            raise ValueError(f"js/{name} must have {placeholder!r} once, in double quotes")
        text = text.replace(f'"{placeholder}"', literal(value))
    data = text.encode()
    return data, gzip.compress(data, mtime=0), f'W/"{hashlib.sha256(data).hexdigest()[:32]}"'


@lru_cache
def _source(name: str) -> str:
    return (_SOURCES / name).read_text(encoding="utf-8")


def literal(value: str) -> str:
    """A text as a literal of JavaScript that is harmless inside HTML too."""
    return msgspec.json.encode(value).decode().translate(_ESCAPED)


def _is_named(tag: str, if_none_match: str) -> bool:
    """Whether a browser has it already; tags compare weakly, and those we give have no comma."""
    named = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return tag.removeprefix("W/") in named or named == ["*"]


def _admits_gzip(accept_encoding: str) -> bool:
    codings = {}
    for one in accept_encoding.lower().split(","):
        coding, _, weight = one.partition(";")
        codings[coding.strip()] = weight.replace(" ", "")
    weight = codings.get("gzip", codings.get("*", "q=0"))
    return not weight.startswith("q=") or weight[2:].strip("0.") != ""
