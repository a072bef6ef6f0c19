"""The dialects' rows as a person reads them: as text, as JSON, and as the pages of docs/dialects/.

What lives here: one sentence for each thing that a row can say, and the forms made of them. It must not know any
dialect. Sentences are Markdown; plain text is the same without the backticks. Of a route with a handler the first
paragraph of the handler's docstring says what it does.

`python -m fastpixel.tables docs/dialects` writes the pages anew. A page's part above END is generated; what stands
below it, the differences from the vendor, is written by hand and kept.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from fastpixel.dialect import Dialect, Field, Member, Route

END = "<!-- generated down to here by `make docs`; written by hand below -->"
BY_HAND = "## Differences from the vendor"
INDEX = """\
# Dialects

What each system's clients send, and what becomes of it: generated from the rows in `src/fastpixel/dialects/` by
`make docs`. `fastpixel dialects` prints the same, and your own. [protocols.md](../protocols.md) says what the kinds and
the reasons mean, and what is the same in all. The end of each page says where fastpixel differs from the vendor.

| system | protocol | requests |
|---|---|---|"""


def as_json(dialects: Sequence[Dialect]) -> str:
    return json.dumps([_plain_data(dialect) for dialect in dialects], indent=2)


def as_text(dialects: Sequence[Dialect]) -> str:
    return "\n".join(line for dialect in dialects for line in _text(dialect))


def as_page(dialect: Dialect, before: str = "") -> str:
    """docs/dialects/<name>.md. `before`: the page as it is, whose part written by hand is kept."""
    by_hand = before.partition(END)[2] or f"\n\n{BY_HAND}\n"
    return "\n".join([*_markdown(dialect), "", END]) + by_hand


def as_index(dialects: Sequence[Dialect]) -> str:
    """docs/dialects/README.md."""
    return "\n".join([INDEX, *map(_index_row, dialects), ""])


def _index_row(dialect: Dialect) -> str:
    requests = ", ".join(map(_coded, _paths(dialect.routes)))
    return f"| [{dialect.title}]({dialect.name}.md) | `{dialect.name}` | {requests} |"


def write(dialects: Sequence[Dialect], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(as_index(dialects), encoding="utf-8")
    for dialect in dialects:
        page = folder / f"{dialect.name}.md"
        before = page.read_text(encoding="utf-8") if page.exists() else ""
        page.write_text(as_page(dialect, before), encoding="utf-8")


# -- JSON ------------------------------------------------------------------------------------------------------------


def _plain_data(value: Any) -> Any:
    """Rows as JSON has them; of a function its name, of bytes their text."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _plain_data(member) for name, member in value.items()}
    if isinstance(value, tuple):
        return [_plain_data(member) for member in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.__name__ if callable(value) else value


# -- Sections: routes that differ in their path and type only ----------------------------------------------------------


class Section(NamedTuple):
    routes: tuple[Route, ...]

    @property
    def first(self) -> Route:
        return self.routes[0]

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """Name, where it goes, kind, rules."""
        fields = [(_coded(row.source), _target(row), row.kind, _says(row)) for row in self.first.fields]
        return fields + [(_coded(row.source), _place(row), "", row.doc) for row in self.first.members]


def _sections(dialect: Dialect) -> list[Section]:
    groups = groupby(dialect.routes, key=lambda route: dataclasses.replace(route, path="", type=""))
    return [Section(tuple(routes)) for _, routes in groups]


def _paths(routes: Sequence[Route]) -> list[str]:
    """Of one method after another, each named once: "GET /a", "/b", "POST /c"."""
    found = []
    for methods, group in groupby(routes, key=lambda route: " ".join(route.method)):
        paths = list(dict.fromkeys(route.path for route in group))
        found += [f"{methods} {paths[0]}", *paths[1:]]
    return found


# -- Text ------------------------------------------------------------------------------------------------------------


def _text(dialect: Dialect) -> Iterator[str]:
    yield f"{dialect.name}: {dialect.title}"
    yield from (f"  {_plain(line)}" for line in _shared(dialect))
    for section in _sections(dialect):
        yield from (f"  {_request(route)}{_arrow(route)}" for route in section.routes)
        yield from (f"    ({_plain(line)})" for line in _whole(section.first))
        lines = [tuple(map(_plain, row)) for row in section.rows]
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        yield from ("    " + "  ".join(f"{c:{w}}" for c, w in zip(line, wide, strict=True)).rstrip() for line in lines)
    yield from (f'  {reason} is answered "{text}"' for reason, text in dialect.errors.items())


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


# -- Markdown --------------------------------------------------------------------------------------------------------


def _markdown(dialect: Dialect) -> Iterator[str]:
    yield from (f"# {dialect.title} (`{dialect.name}`)", "", *(f"- {line}" for line in _shared(dialect)))
    for section in _sections(dialect):
        yield from ("", f"## {_heading(section)}")
        for line in _whole(section.first):
            yield from ("", f"{line[0].upper()}{line[1:]}.")
        if section.rows:
            yield from ("", *_table(section))
    if dialect.errors:
        yield from ("", "## Error texts", "", "| reason | text |", "|---|---|")
        yield from (f"| `{reason}` | {_cell(text)} |" for reason, text in dialect.errors.items())


def _table(section: Section) -> Iterator[str]:
    """Without the column of kinds where no row has one."""
    head = (_input(section.first), "stored as", "kind", "rules")
    kept = [column for column in range(len(head)) if column != 2 or any(row[2] for row in section.rows)]
    for row in (head, ("---",) * len(head), *section.rows):
        cells = [_cell(row[column]) for column in kept]
        yield f"|{'|'.join(cells)}|" if row[0] == "---" else f"| {' | '.join(cells)} |"


def _heading(section: Section) -> str:
    if len(section.routes) == 1:
        return f"{_coded(_request(section.first))}{_arrow(section.first, mark='`')}"
    return ", ".join(map(_coded, _paths(section.routes)))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _coded(text: str) -> str:
    return f"`{text}`"


# -- The sentences, as Markdown ----------------------------------------------------------------------------------------


def _request(route: Route) -> str:
    return f"{' '.join(route.method)} {route.path}"


def _arrow(route: Route, mark: str = "") -> str:
    return f" -> {mark}{route.type}{mark}" if route.type else ""


def _input(route: Route) -> str:
    return "member" if route.handler is not None and route.members else "parameter"


def _target(row: Field) -> str:
    if row.to:
        return f"`{row.to}.*`" if row.source == "*" else f"`{row.to}`"
    return "the event" if row.source == "*" else "nothing"


def _place(row: Member) -> str:
    """A path, or a phrase that stands for several."""
    return row.to if " " in row.to else _coded(row.to) if row.to else "nothing"


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
    if route.handler is not None and route.handler.__doc__:
        yield " ".join(inspect.cleandoc(route.handler.__doc__).partition("\n\n")[0].split()).rstrip(".")
    if route.identity:
        yield f"needs {' or '.join(f'`{name}`' for name in route.identity)}, else `missing_identity`"
    yield from (f"`{path}` is `{json.dumps(value)}` unless given" for path, value in route.defaults)
    if route.visitor:
        yield "`anonymousId` is the visitor cookie's unless given"
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
    if row.on_bad == "ignore":
        yield "ignored if it cannot be read"


if __name__ == "__main__":
    import sys

    from fastpixel.dialects import BUILTIN

    write(BUILTIN, Path(sys.argv[1]))
