"""Tables of settings: what a row is, and the one reader and writer that work by rows.

What lives here: `Row` (kind, default, meaning) as it stands in a class body, `Kind` (TOML value -> stored value and
back), `read` (a TOML table -> an instance, every name and value checked) and `document` (an instance -> the TOML table
that reads back as it). What it must not know: any setting of fastpixel (config.py), how a value is spelt (units.py).

How it works: a table is a frozen msgspec.Struct whose fields are `Annotated[type, Row(...)]`, so the type checker sees
the type and the reader the row. A kind's `parse` is given the value and where it stands, and raises ConfigError there.
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, NamedTuple, TypeVar

import msgspec

from . import units
from .errors import ConfigError

REQUIRED = object()
LATER = "Takes effect in a later release."
Table = TypeVar("Table", bound=msgspec.Struct)


class At(NamedTuple):
    """Where a value was written: a file, variable or flag, and the key path inside it."""

    origin: str
    path: str = ""

    def key(self, name: str) -> At:
        name = units.printable(name)
        return At(self.origin, f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> At:
        return At(self.origin, f"{self.path}[{index}]")

    def error(self, what: str) -> ConfigError:
        return ConfigError(": ".join(filter(None, (self.origin, self.path, what))))


Parse = Callable[[Any, At], Any]


@dataclass(frozen=True)
class Kind:
    """A kind of value: `parse` reads a TOML value, `show` gives it back, `text` makes one of a variable's text."""

    name: str
    parse: Parse
    show: Callable[[Any], Any] = lambda value: value
    text: Callable[[str], Any] = lambda text: text
    choices: tuple[str, ...] = ()
    table: type[msgspec.Struct] | None = None
    many: bool = False


@dataclass(frozen=True)
class Row:
    """One setting: its kind, its default and an example as TOML values (REQUIRED: there is no default), its meaning.

    `later`: the name is accepted and checked, so that a file stays valid, but nothing acts on it yet.
    """

    kind: Kind
    default: Any
    doc: str
    secret: bool = False
    example: Any = None
    later: bool = False

    @property
    def meaning(self) -> str:
        """What help, template and documentation say."""
        return f"{self.doc} {LATER}" if self.later else self.doc


# -- reading and writing a table -------------------------------------------------------------------------------------


@functools.cache
def rows(table: type[msgspec.Struct]) -> Mapping[str, Row]:
    """Wire name -> row. A name that Python keeps for itself carries an underscore in the class: `from_` is `from`."""
    hints = typing.get_type_hints(table, include_extras=True)
    found = {name.rstrip("_"): _row(hint) for name, hint in hints.items()}
    return {name: row for name, row in found.items() if row is not None}


def _row(hint: Any) -> Row | None:
    return next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Row)), None)


def attribute(table: type[msgspec.Struct], name: str) -> str:
    return name if name in table.__struct_fields__ else f"{name}_"


def read(table: type[Table], value: Any, at: At) -> Table:
    """The instance that a TOML table describes; an unknown, missing or unusable name is a ConfigError."""
    if not isinstance(value, dict):
        raise at.error(f"{units.shown(value)} is not a table")
    known = rows(table)
    for name in value:
        if name not in known:
            raise at.error(f"unknown name {units.shown(name)}{nearest(name, spellings(table))}")
    return table(**{attribute(table, name): _member(row, name, value, at) for name, row in known.items()})


def _member(row: Row, name: str, table: dict[str, Any], at: At) -> Any:
    value = table.get(name, row.default)
    if value is REQUIRED:
        raise at.error(f'"{name}" is missing; it says: {row.doc}')
    return row.kind.parse(value, at.key(name))


def spellings(table: type[msgspec.Struct]) -> list[str]:
    """The names a table knows, those of its sections too (`privacy.ip`): a misspelt name may mean either."""
    names = list(rows(table))
    for name, row in rows(table).items():
        if row.kind.table is not None and not row.kind.many:
            names += [f"{name}.{inner}" for inner in rows(row.kind.table)]
    return names


def nearest(name: object, known: Collection[str]) -> str:
    """`; did you mean "workers"?` -- always the nearest one, however far."""
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.0)
    return f'; did you mean "{close[0]}"?' if close else ""


def dormant(instance: msgspec.Struct, path: str = "") -> Iterator[str]:
    """Dotted names of the `later` rows whose value is not the default."""
    table = type(instance)
    for name, row in rows(table).items():
        value = getattr(instance, attribute(table, name))
        if row.later and value != row.kind.parse(row.default, At("")):
            yield path + name
        elif row.kind.table is not None:
            for inner in value if row.kind.many else [value]:
                yield from dormant(inner, f"{path}{name}.")


def document(instance: msgspec.Struct) -> dict[str, Any]:
    """The TOML table that `read` turns back into an equal instance, every name in it."""
    table = type(instance)
    return {name: row.kind.show(getattr(instance, attribute(table, name))) for name, row in rows(table).items()}


# -- kinds -----------------------------------------------------------------------------------------------------------


def leaf(read_value: Callable[[Any], Any]) -> Parse:
    """A parse from a function of the value alone that raises ValueError."""

    def parse(value: Any, at: At) -> Any:
        try:
            return read_value(value)
        except ValueError as error:
            raise at.error(str(error)) from None

    return parse


def plain(value: Any, type_: Any, called: str) -> Any:
    """The value if it has this type exactly (TOML's integer is not a float, its boolean not an integer)."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError:
        raise ValueError(f"{units.shown(value)} is not {called}") from None


def utf8(value: Any) -> str:
    text: str = plain(value, str, "text; write it in quotes")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{units.shown(value)} is not valid UTF-8") from None
    return text


def text(pattern: str = "", hint: str = "") -> Kind:
    """Text, all of which `pattern` matches; an error reads `"..." is not <hint>`."""
    shape = re.compile(pattern, re.ASCII)

    def read_value(value: Any) -> str:
        found = utf8(value)
        if pattern and not shape.fullmatch(found):
            raise ValueError(f"{units.shown(value)} is not {hint}")
        return found

    return Kind("text", leaf(read_value))


def _within(name: str, read_value: Callable[[Any], Any], low: float, high: float, show: Callable[[Any], Any]) -> Kind:
    def bounded(value: Any) -> Any:
        number = read_value(value)
        if not low <= number <= high:
            raise ValueError(f"{units.shown(value)} is not between {show(low)} and {show(high)}")
        return number

    return Kind(name, leaf(bounded), show)


def _integer_text(text: str) -> int | str:
    return int(text) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text, re.ASCII) else text


def count(low: int, high: int) -> Kind:
    kind = _within("integer", lambda value: plain(value, int, "an integer"), low, high, lambda value: value)
    return replace(kind, text=_integer_text)


def size(low: int, high: int) -> Kind:
    return replace(_within("size", units.size, low, high, units.size_text), text=_integer_text)


def duration(low: float, high: float) -> Kind:
    return _within("duration", units.duration, low, high, lambda value: units.duration_text(float(value)))


def choice(*names: str) -> Kind:
    def read_value(value: Any) -> str:
        if value in names:
            return str(value)
        listed = ", ".join(f'"{name}"' for name in names)
        raise ValueError(f"{units.shown(value)} is not one of {listed}{nearest(value, names)}")

    return Kind("choice", leaf(read_value), choices=names)


def switch() -> Kind:
    words = {"true": True, "1": True, "false": False, "0": False}
    parse = leaf(lambda value: plain(value, bool, "true or false"))
    return Kind("true or false", parse, text=lambda text: words.get(text.strip().lower(), text))


def listing(of: Kind, low: int = 0) -> Kind:
    """A list without repetitions, stored as a tuple; a text is a list of one, in a variable commas separate."""

    def parse(value: Any, at: At) -> tuple[Any, ...]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise at.error(f"{units.shown(value)} is not a list; write [...]")
        if len(items) < low:
            raise at.error("the list is empty; name at least one")
        return tuple(dict.fromkeys(of.parse(item, at.item(index)) for index, item in enumerate(items)))

    def split(text: str) -> list[str]:
        return [item.strip() for item in text.split(",") if item.strip()]

    name = f"list of {of.name}"
    return Kind(name, parse, lambda value: [of.show(item) for item in value], split, of.choices, many=True)


def table(of: type[msgspec.Struct]) -> Kind:
    return Kind("table", lambda value, at: read(of, value, at), document, json_text, table=of)


def tables(of: type[msgspec.Struct], low: int = 0) -> Kind:
    def parse(value: Any, at: At) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise at.error(f"{units.shown(value)} is not a list of tables")
        if len(value) < low:
            raise at.error("the list is empty; give at least one")
        return tuple(read(of, item, at.item(index)) for index, item in enumerate(value))

    return Kind("tables", parse, lambda value: [document(item) for item in value], json_text, table=of, many=True)


def json_text(text: str) -> Any:
    """Tables in a variable or a flag are written as JSON."""
    try:
        return msgspec.json.decode(text.encode("utf-8", "replace"))
    except msgspec.DecodeError as error:
        raise ValueError(f"{units.shown(text)} is not JSON ({error}); a table is written as JSON here") from None
