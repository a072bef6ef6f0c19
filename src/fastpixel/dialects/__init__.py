"""The dialects by name: the built-in ones, and a user's own from `[[dialects]]`; and the Plan they compile to.

A built-in dialect is a file of rows beside this one. A user's rows are turned into the same classes, so that nothing
behind this file can tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastpixel import event
from fastpixel._core import Plan
from fastpixel.config import Config, DialectRow, FieldRow, RouteRow
from fastpixel.dialect import Dialect, Field, Route, validate
from fastpixel.dialects import kissmetrics, ksense, pitchtarget, rudderstack, segment, tracardi
from fastpixel.errors import DialectError
from fastpixel.schema import dormant

BUILTIN: Final = (
    rudderstack.DIALECT,
    segment.DIALECT,
    kissmetrics.DIALECT,
    pitchtarget.DIALECT,
    tracardi.DIALECT,
    ksense.DIALECT,
)


def load(config: Config) -> tuple[Dialect, ...]:
    """The dialects that `protocols` asks for, checked. DialectError: rows that contradict each other."""
    dialects = (*BUILTIN, *(_custom(row) for row in config.dialects))
    for dialect in dialects:
        validate(dialect)
    asked = tuple(dialect for dialect in dialects if dialect.name in config.protocols)
    _require_one_route_each(asked)
    return asked


def _require_one_route_each(dialects: tuple[Dialect, ...]) -> None:
    """A second route of the same method and path would never be reached, and nobody would be told."""
    first: dict[tuple[str, str], tuple[str, Route]] = {}
    for dialect in dialects:
        for route in dialect.routes:
            for method in dict.fromkeys(route.method):
                taken, same = first.setdefault((method, route.path), (dialect.name, route))
                if same is not route:
                    where = f"dialect {dialect.name}, route {route.path}"
                    raise DialectError(f"{where}: dialect {taken} answers {method} there already; choose another path")


def plan(config: Config) -> Plan:
    """What a worker runs: dialects, sources and options of a configuration, compiled.

    DialectError: as `load`, or there are more rows, routes or sources than the core's tables hold.
    """
    options: dict[str, dict[str, Any]] = {
        "rudderstack": {"reply": config.rudderstack.reply},
        "tracardi": tracardi.options(config),
    }
    dialects = load(config)
    try:
        return Plan(
            dialects,
            config.sources,
            fields=event.FIELDS,
            options=options,
            privacy=config.privacy,
            visitor=config.visitor,
            paths=config.paths,
        )
    except ValueError as error:
        raise DialectError(f"the tables do not fit: {error}") from None


def notices(config: Config) -> Iterator[str]:
    """What a person should know of a configuration that can be used, a line each."""
    yield from config.warnings
    if later := list(dict.fromkeys(dormant(config))):
        yield f"set, but without effect before a later release: {', '.join(later)}"


def _custom(row: DialectRow) -> Dialect:
    return Dialect(name=row.name, title=f"{row.name} (configured)", routes=tuple(map(_route, row.routes)))


def _route(row: RouteRow) -> Route:
    return Route(
        method=row.method,
        path=row.path,
        type=row.type,
        answer=row.answer,
        visitor=row.visitor,
        fields=tuple(map(_field, row.fields)),
    )


def _field(row: FieldRow) -> Field:
    return Field(source=row.from_, to=row.to, kind=row.kind, required=row.required or None)
