"""The dialects' rows as a person reads them, as JSON, and as docs/dialects.md: `python -m fastpixel.tables`.

What lives here: one sentence for each thing that a row can say, and the three forms made of them. It must not know any
dialect. Sentences are Markdown; plain text is the same without the backticks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence

from fastpixel.dialect import Dialect, Field, Route

HEAD = """\
# Dialects

Generated from the rows in `src/fastpixel/dialects/` by `make docs`; `fastpixel dialects` prints the same, and your own.
[protocols.md](protocols.md) says what the kinds and the reasons mean."""


def as_json(dialects: Sequence[Dialect]) -> str:
    return json.dumps([dataclasses.asdict(dialect) for dialect in dialects], indent=2)


def as_text(dialects: Sequence[Dialect]) -> str:
    return "\n".join(line for dialect in dialects for line in _text(dialect))


def as_markdown(dialects: Sequence[Dialect]) -> str:
    """docs/dialects.md: the same rows, so that it cannot say anything else than the code does."""
    return "\n".join([HEAD, *(line for dialect in dialects for line in _markdown(dialect)), ""])


def _text(dialect: Dialect) -> Iterator[str]:
    yield f"{dialect.name}: {dialect.title}"
    yield from (f"  {_plain(line)}" for line in _shared(dialect))
    for route in dialect.routes:
        yield f"  {_request(route)} -> {route.type}"
        yield from (f"    ({_plain(line)})" for line in _whole(route))
        lines = [tuple(map(_plain, (*_cells(row), _says(row)))) for row in route.fields]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        yield from ("    " + "  ".join(f"{c:{w}}" for c, w in zip(line, wide, strict=True)).rstrip() for line in lines)


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _markdown(dialect: Dialect) -> Iterator[str]:
    yield from ("", f"## {dialect.title} (`{dialect.name}`)", "", *(f"- {line}" for line in _shared(dialect)))
    for route in dialect.routes:
        yield from ("", f"### `{_request(route)}` -> `{route.type}`", "")
        yield from (f"{line[0].upper()}{line[1:]}.\n" for line in _whole(route))
        yield from ("| parameter | stored as | kind | rules |", "|---|---|---|---|")
        yield from (f"| {' | '.join([*_cells(row), _says(row)])} |" for row in route.fields)


def _request(route: Route) -> str:
    return f"{' '.join(route.method)} {route.path}"


def _cells(row: Field) -> tuple[str, str, str]:
    return f"`{row.source}`", _target(row), row.kind


def _target(row: Field) -> str:
    if row.to:
        return f"`{row.to}.*`" if row.source == "*" else f"`{row.to}`"
    return "the event" if row.source == "*" else "nothing"


def _shared(dialect: Dialect) -> Iterator[str]:
    yield f"the {dialect.repeat} of a repeated parameter counts"
    if dialect.bad_escape == "drop":
        yield "a parameter with a bad escape or a raw `;` is dropped"
    yield from (f"`{path}` is `{json.dumps(value)}` unless given" for path, value in dialect.defaults)
    yield from (f"`{name}` is the time of receipt unless given" for name in dialect.receipt)
    if dialect.skew:
        yield "without a `timestamp` it is receipt - (`sentAt` - `originalTimestamp`), if both were sent"
    yield from (f"option `{name}`, by default `{value}`" for name, value in dialect.options.items())
    yield from (f"not supported: {text}" for text in dialect.unsupported)


def _whole(route: Route) -> Iterator[str]:
    """What holds for a route and not for one row."""
    if route.identity:
        yield f"needs {' or '.join(f'`{name}`' for name in route.identity)}, else `missing_identity`"
    if route.dedupe:
        yield f"with a `timestamp` of the client, `messageId` is a hash of {', '.join(route.dedupe)} and the rest"


def _says(row: Field) -> str:
    return "; ".join(_rules(row))


def _rules(row: Field) -> Iterator[str]:
    if row.required:
        yield f"required, else `{row.required}`"
    if row.nonempty:
        yield f"not empty, else `{row.nonempty}`"
    if row.if_empty is not None:
        yield f'empty is "{row.if_empty}"'
    if row.max_chars:
        yield f"at most {row.max_chars} characters, else `value_too_long`"
    if row.when:
        yield f"only with `{row.when}`" + (f", else to `{row.otherwise}`" if row.otherwise else "")
    if row.trusted:
        yield "only for sources with `trust_client_ip`"
    if row.unquote:
        yield "one pair of quotes is stripped"
    if row.tidy:
        yield "invisible characters are removed"


if __name__ == "__main__":
    from fastpixel.dialects import BUILTIN

    print(as_markdown(BUILTIN), end="")
