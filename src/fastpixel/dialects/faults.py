"""What is wrong with a document, said as FastAPI says it: 422, {"detail": [{"type", "loc", "msg", "input"}, ...]}.

What lives here: checks of plain Python values (from JSON), and how their findings are written. A check yields every
fault of a value in the order in which its members are declared, as clients of such servers expect; it is slow, so it
is for documents that a quick decoder has refused. It must not know any protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from fastpixel._core import parse_time

MESSAGES: Final = {
    "missing": "Field required",
    "json_invalid": "JSON decode error",
    "model_attributes_type": "Input should be a valid dictionary or object to extract fields from",
    "dict_type": "Input should be a valid dictionary",
    "list_type": "Input should be a valid list",
    "string_type": "Input should be a valid string",
    "string_too_short": "String should have at least 1 character",
    "datetime_type": "Input should be a valid datetime",
    "datetime_parsing": "Input should be a valid datetime",
    "bool_parsing": "Input should be a valid boolean, unable to interpret input",
    "too_long": "Data has too many items",
}
MAX_FAULTS: Final = 100  # that are listed: an answer must not be many times as long as the question
MAX_INPUT: Final = 1024  # characters of JSON; of a longer input the beginning is given, as text

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

Loc = tuple[str | int, ...]


class Fault(NamedTuple):
    """One thing that is wrong: a name of MESSAGES, where (names and indexes from the root), and the value."""

    type: str
    loc: Loc
    input: Any


Check = Callable[[Any, Loc], Iterator[Fault]]


class Need(NamedTuple):
    """A member of an object. `nullable`: null is as good as absent; else the check judges it."""

    name: str
    check: Check
    required: bool = False
    nullable: bool = True


def detail(faults: Iterable[Fault]) -> bytes:
    """The body of the answer, of the first MAX_FAULTS."""
    rows = [
        {"type": fault.type, "loc": fault.loc, "msg": MESSAGES[fault.type], "input": _shown(fault.input)}
        for fault in islice(faults, MAX_FAULTS)
    ]
    return msgspec.json.encode({"detail": rows})


def _shown(value: Any) -> msgspec.Raw | str:
    """The value if it is short, else the beginning of its JSON as text. Stops as soon as it is long enough."""
    text = ""
    for piece in _JSON.iterencode(value):
        text += piece
        if len(text) > MAX_INPUT:
            return text[: MAX_INPUT - 3] + "..."
    return msgspec.Raw(text.encode())


# -- checks ------------------------------------------------------------------------------------------------------------


def text(value: Any, loc: Loc) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault("string_type", loc, value)


def filled(value: Any, loc: Loc) -> Iterator[Fault]:
    """Text that is more than white space."""
    yield from text(value, loc)
    if isinstance(value, str) and not value.strip():
        yield Fault("string_too_short", loc, value)


def key(value: Any, loc: Loc) -> Iterator[Fault]:
    """As `filled`, but what is blank counts as absent."""
    yield from text(value, loc)
    if isinstance(value, str) and not value.strip():
        yield Fault("missing", loc, value)


def mapping(value: Any, loc: Loc) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault("dict_type", loc, value)


def sequence(value: Any, loc: Loc) -> Iterator[Fault]:
    if not isinstance(value, list):
        yield Fault("list_type", loc, value)


def moment(value: Any, loc: Loc) -> Iterator[Fault]:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        yield Fault("datetime_type", loc, value)
    elif parse_time(str(value).encode()) is None:
        yield Fault("datetime_parsing", loc, value)


def each(check: Check) -> Check:
    """A list of such values."""

    def checked(value: Any, loc: Loc) -> Iterator[Fault]:
        yield from sequence(value, loc)
        if isinstance(value, list):
            for index, member in enumerate(value):
                yield from check(member, (*loc, index))

    return checked


def members(*needs: Need) -> Check:
    """An object with such members; others are not looked at."""

    def checked(value: Any, loc: Loc) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield Fault("model_attributes_type", loc, value)
            return
        for need in needs:
            place = (*loc, need.name)
            if need.name not in value:
                if need.required:
                    yield Fault("missing", place, value)
            elif value[need.name] is not None or not need.nullable:
                yield from need.check(value[need.name], place)

    return checked
