"""What is printed of a dialect: every rule of a row has its sentence."""

import json

import pytest

from fastpixel import tables
from fastpixel.dialect import Dialect, Field, Route
from fastpixel.dialects import BUILTIN

KEY = Field("k", to="writeKey", required="missing_key")


def dialect(*fields, **more):
    shared = {name: more.pop(name) for name in ("identity", "dedupe") if name in more}
    route = Route(method=("GET",), path="/px", type="track", fields=(KEY, *fields), **shared)
    return Dialect(name="acme", title="Acme", routes=(route,), **more)


RULES = [
    (Field("e", to="event", required="missing_event"), "required, else `missing_event`"),
    (Field("e", to="event", nonempty="missing_event"), "not empty, else `missing_event`"),
    (Field("e", to="event", if_empty="None"), 'empty is "None"'),
    (Field("e", to="event", max_chars=9), "at most 9 characters, else `value_too_long`"),
    (Field("t", to="timestamp", kind="unix", when="d=1"), "only with `d=1`"),
    (Field("t", to="timestamp", kind="unix", when="d=1", otherwise="sentAt"), "only with `d=1`, else to `sentAt`"),
    (Field("i", to="context.ip", trusted=True), "only for sources with `trust_client_ip`"),
    (Field("u", to="userId", unquote=True), "one pair of quotes is stripped"),
    (Field("u", to="userId", tidy=True), "invisible characters are removed"),
]
SHARED = [
    ({"repeat": "first"}, "the first of a repeated parameter counts"),
    ({"bad_escape": "drop"}, "a bad escape or a raw `;` is dropped"),
    ({"defaults": (("channel", "web"),)}, '`channel` is `"web"` unless given'),
    ({"receipt": ("sentAt",)}, "`sentAt` is the time of receipt unless given"),
    ({"skew": True}, "receipt - (`sentAt` - `originalTimestamp`)"),
    ({"options": {"reply": "auto"}}, "option `reply`, by default `auto`"),
    ({"unsupported": ("everything else",)}, "not supported: everything else"),
    ({"identity": ("userId",)}, "eeds `userId`, else `missing_identity`"),
    ({"dedupe": ("k", "t")}, "`messageId` is a hash of k, t and the rest"),
]


@pytest.mark.parametrize(("row", "sentence"), RULES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_rule_of_a_row_is_said(row, sentence):
    cells = f"| `{row.source}` | `{row.to}` | {row.kind} | {sentence} |"
    assert cells in tables.as_markdown([dialect(row)]).splitlines()
    assert tables.as_text([dialect(row)]).endswith(f"{row.kind}  {sentence.replace('`', '')}")


@pytest.mark.parametrize(("more", "sentence"), SHARED, ids=lambda value: value if isinstance(value, str) else "")
def test_each_rule_of_a_dialect_is_said(more, sentence):
    assert sentence in tables.as_markdown([dialect(**more)])
    assert sentence.replace("`", "") in tables.as_text([dialect(**more)])
    assert sentence not in tables.as_markdown([dialect()])


def test_rules_of_one_row_stand_in_one_cell():
    row = Field("e", to="event", required="missing_event", max_chars=9)
    assert "| required, else `missing_event`; at most 9 characters, else `value_too_long` |" in tables.as_markdown(
        [dialect(row)]
    )


def test_where_a_parameter_goes():
    rest = tables.as_markdown([dialect(Field("*", to="properties"))])
    assert "| `*` | `properties.*` | text |  |" in rest
    assert "| `*` | the event | dotpath |  |" in tables.as_markdown([dialect(Field("*", kind="dotpath"))])
    assert "| `d` | nothing | text |  |" in tables.as_markdown([dialect(Field("d"))])


def test_text_is_in_columns():
    lines = tables.as_text([dialect(Field("longer", to="properties.n", kind="number"))]).splitlines()
    assert lines[-2:] == [
        "    k       writeKey      text    required, else missing_key",
        "    longer  properties.n  number",
    ]


def test_json_has_every_row():
    found = json.loads(tables.as_json(BUILTIN))
    assert [entry["name"] for entry in found] == [entry.name for entry in BUILTIN]
    rows = [row["source"] for entry in found for route in entry["routes"] for row in route["fields"]]
    assert rows == [row.source for entry in BUILTIN for route in entry.routes for row in route.fields]
