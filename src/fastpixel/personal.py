"""Clear e-mail addresses and phone numbers, and what is kept instead of them.

What lives here: by which names they are known, how they are hashed, and how they are found in a decoded document, in
labels and in parameters. What it must not know: a protocol's routes, records, requests.

Rules: protocols "Personal data". A member is personal when a segment of its (dotted) name is `email` or `phone`, in
capitals or not, at any depth; so is a label (`email=...`). Its text or number is hashed: `hash1:` and the hex SHA-256
of the normalised value, which a browser makes alike; of a list each, of anything larger the whole as JSON. What is
prefixed already is kept. What is blank, or a phone number without a digit, is no value: its hash would be the same for
everybody.

Not found: an address inside another text, such as the URL of a page.

SHA-256 is hashlib's, and the walk is Python: only a document that names one of them is walked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec import UNSET

from fastpixel._core import is_blank

PREFIXES: Final = ("md5:", "aes:", "hash1:", "enc:", "enc1:")
_MANY: Final = 100  # values of one name are more than a person has
# White space as String.prototype.trim of ECMAScript knows it, so that browser and server make the same hash.
_SPACE: Final = (
    "\t\n\v\f\r \u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_NOT_PHONE: Final = re.compile(r"[^+0-9]+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,2}", re.ASCII)  # of an array, in a dotted name
# Of a name in lower case: a segment is personal; it may be of interest.
_PERSONAL: Final = re.compile(r"(?<![^.])(?:email|phone)(?![^.])")
_MARKED: Final = re.compile(r"email|phone|labels")


def _email(text: str) -> str:
    plain = text.strip(_SPACE)
    return "" if is_blank(plain) else _lower(plain)


def _lower(text: str) -> str:
    """ASCII lower case, as long as the text."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def _phone(text: str) -> str:
    plain = _NOT_PHONE.sub("", text)
    return plain if plain.strip("+") else ""


_NORMAL: Final = {"email": _email, "phone": _phone}
_MARKS: Final = re.compile(rb"email|phone", re.IGNORECASE)


def suspected(document: bytes) -> bool:
    """Whether a msgpack document may hold personal data."""
    return _MARKS.search(document) is not None


def hidden(kind: str, text: str) -> str | None:
    """The text of an "email" or a "phone" as it may be kept; None: there is none in it."""
    if text.startswith(PREFIXES):
        return text
    plain = _NORMAL[kind](text)
    return _hash(plain) if plain else None


def number_text(value: float) -> str:
    """A number as a client would have written it as text."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def cleaned(value: Any, name: str = "") -> Any:
    """A decoded document as it may be kept, `name` being the member that it is. UNSET: nothing is left of it."""
    if name and _MARKED.search(_lower(name)):
        if kind := _kind(name):
            return _hashed(value, kind)
        if "labels" in name.split("."):
            return _cleaned_labels(value)
    if isinstance(value, dict):
        return _cleaned_members(value)
    if isinstance(value, list):
        return [cleaned(item) if item and isinstance(item, (list, dict)) else item for item in value]
    return value


def parameters(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Parameters as they may be kept, in order, without those of which nothing is left. Some may hold a document."""
    kept = [(_name(name), cleaned(value, name)) for name, value in pairs]
    return [(name, value) for name, value in kept if value is not UNSET]


def _cleaned_members(members: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in members.items():
        if not _MARKED.search(_lower(name)):
            kept[name] = cleaned(value) if value and isinstance(value, (list, dict)) else value
        elif (left := cleaned(value, name)) is not UNSET:
            kept[_name(name)] = left
    return kept


def _cleaned_labels(value: Any) -> Any:
    """A label as text, "name=value" or a name alone, or a list of labels, or a map."""
    if isinstance(value, list):
        return [kept for kept in map(_cleaned_labels, value) if kept is not UNSET]
    if not isinstance(value, str):
        return cleaned(value)
    if not _MARKED.search(_lower(value)):
        return value
    label, equals, text = value.partition("=")
    kind = _kind(label)
    if not kind or not equals:
        return _name(value)
    kept = hidden(kind, text)
    return f"{_name(label)}={kept}" if kept else UNSET


def _hashed(value: Any, kind: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, list) and len(value) <= _MANY and not any(isinstance(item, (list, dict)) for item in value):
        return [kept for kept in [_hashed(item, kind) for item in value] if kept is not UNSET]
    if isinstance(value, (list, dict)):
        return _hash(msgspec.json.encode(value).decode())
    return hidden(kind, value if isinstance(value, str) else number_text(value)) or UNSET


def _hash(plain: str) -> str:
    return "hash1:" + hashlib.sha256(plain.encode()).hexdigest()


def _kind(name: str) -> str:
    found = _PERSONAL.search(_lower(name))
    return found[0] if found else ""


def _name(name: str) -> str:
    """A name as it may be kept: what is below `email` or `phone` in a dotted one may be such a value."""
    found = _PERSONAL.search(_lower(name))
    below = name[found.end() + 1 :] if found else ""
    if not found or not below or _INDEX.fullmatch(below):
        return name
    return f"{name[: found.end()]}.{hidden(found[0], below) or ''}"
