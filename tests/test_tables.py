"""What is printed of a dialect: every rule of a row has its sentence, and a page keeps what is written by hand."""

import json
from dataclasses import replace

import pytest

from fastpixel import tables
from fastpixel.dialect import GIF, Dialect, Field, Member, Reply, Route
from fastpixel.dialects import BUILTIN

KEY = Field("k", to="writeKey", required="missing_key")
OF_ROUTE = ("identity", "dedupe", "visitor", "handler", "members")


def dialect(*fields, **more):
    shared = {name: more.pop(name) for name in OF_ROUTE if name in more}
    shared["defaults"] = more.pop("route_defaults", ())
    route = Route(method=("GET",), path="/px", type="track", fields=(KEY, *fields), **shared)
    return Dialect(name="acme", title="Acme", routes=(route,), **more)


def handler(call):
    """Takes one event.

    And more than that.
    """
    return GIF


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
    (Field("a", to="properties.a", kind="json", on_bad="ignore"), "ignored if it cannot be read"),
]
SHARED = [
    ({"repeat": "first"}, "the first of a repeated parameter counts"),
    ({"bad_escape": "drop"}, "a bad escape or a raw `;` is dropped"),
    ({"defaults": (("channel", "web"),)}, '`channel` is `"web"` unless given'),
    ({"route_defaults": (("plan", "free"),)}, '`plan` is `"free"` unless given'),
    ({"receipt": ("sentAt",)}, "`sentAt` is the time of receipt unless given"),
    ({"skew": True}, "receipt - (`sentAt` - `originalTimestamp`)"),
    ({"options": {"reply": "auto"}}, "option `reply`, by default `auto`"),
    ({"unsupported": ("everything else",)}, "not supported: everything else"),
    ({"identity": ("userId",)}, "eeds `userId`, else `missing_identity`"),
    ({"dedupe": ("k", "t")}, "`messageId` is a hash of k, t and the rest"),
    ({"visitor": True}, "`anonymousId` is the visitor cookie's unless given"),
    ({"handler": handler}, "akes one event"),
]


@pytest.mark.parametrize(("row", "sentence"), RULES, ids=lambda value: value if isinstance(value, str) else "")
def test_each_rule_of_a_row_is_said(row, sentence):
    cells = f"| `{row.source}` | `{row.to}` | {row.kind} | {sentence} |"
    assert cells in tables.as_page(dialect(row)).splitlines()
    assert tables.as_text([dialect(row)]).endswith(f"{row.kind}  {sentence.replace('`', '')}")


@pytest.mark.parametrize(("more", "sentence"), SHARED, ids=lambda value: value if isinstance(value, str) else "")
def test_each_rule_of_a_dialect_is_said(more, sentence):
    assert sentence in tables.as_page(dialect(**more))
    assert sentence.replace("`", "") in tables.as_text([dialect(**more)])
    assert sentence not in tables.as_page(dialect())


def test_rules_of_one_row_stand_in_one_cell():
    row = Field("e", to="event", required="missing_event", max_chars=9)
    cell = "| required, else `missing_event`; at most 9 characters, else `value_too_long` |"
    assert cell in tables.as_page(dialect(row))


def test_where_a_parameter_goes():
    rest = tables.as_page(dialect(Field("*", to="properties")))
    assert "| `*` | `properties.*` | text |  |" in rest
    assert "| `*` | the event | dotpath |  |" in tables.as_page(dialect(Field("*", kind="dotpath")))
    assert "| `d` | nothing | text |  |" in tables.as_page(dialect(Field("d")))


def test_members_of_a_body_stand_below_the_fields():
    members = (Member("a.b", "properties.b", "text | number"), Member("metadata", "", "ignored"))
    page = tables.as_page(dialect(Field("id", to="messageId", tidy=True), handler=handler, members=members))
    rows = page[page.index("| member |") :].splitlines()
    assert rows[3:6] == [
        "| `id` | `messageId` | text | invisible characters are removed |",
        "| `a.b` | `properties.b` |  | text \\| number |",
        "| `metadata` | nothing |  | ignored |",
    ]
    only = replace(dialect().routes[0], fields=(), handler=handler, members=(*members, Member("e", "the event")))
    page = tables.as_page(replace(dialect(), routes=(only,)))
    assert "| `e` | the event |  |" in page
    assert "| member | stored as | rules |\n|---|---|---|\n| `a.b` | `properties.b` | text \\| number |\n" in page
    assert "    a.b       properties.b        text | number" in tables.as_text(
        [dialect(handler=handler, members=members)]
    )


def test_routes_that_differ_in_path_and_type_only_are_one_section():
    (route,) = dialect().routes
    others = [
        replace(route, path="/py", type="page"),
        replace(route, path="/py", method=("POST",)),
        replace(route, fields=()),
    ]
    several = replace(dialect(), routes=(route, *others))
    assert "\n## `GET /px`, `/py`\n" in tables.as_page(several)
    assert "\n## `POST /py` -> `track`\n" in tables.as_page(several)
    assert "  GET /px -> track\n  GET /py -> page\n    k  writeKey" in tables.as_text([several])
    assert "| [Acme](acme.md) | `acme` | `GET /px`, `/py`, `POST /py`, `GET /px` |" in tables.as_index([several])


def test_a_route_without_rows_and_type_has_no_table():
    asked = dialect(errors={"missing_key": "no | key"})
    bare = replace(asked, routes=(replace(asked.routes[0], fields=(), type=""),))
    assert "\n## `GET /px`\n\n## Error texts" in tables.as_page(bare)
    assert "| `missing_key` | no \\| key |" in tables.as_page(bare)
    assert tables.as_text([bare]).splitlines()[-2:] == ["  GET /px", '  missing_key is answered "no | key"']


def test_a_page_keeps_what_is_written_by_hand(tmp_path):
    tables.write([dialect()], tmp_path)
    page = tmp_path / "acme.md"
    assert page.read_text().endswith(f"{tables.END}\n\n{tables.BY_HAND}\n")
    by_hand = f"{tables.BY_HAND}\n\nNone: {tables.END}\n"
    page.write_text(page.read_text().replace(f"{tables.BY_HAND}\n", by_hand))
    tables.write([dialect(repeat="first")], tmp_path)
    assert page.read_text().endswith(by_hand)
    assert "the first of a repeated parameter" in page.read_text()
    assert (tmp_path / "README.md").read_text() == tables.as_index([dialect()])


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


def test_json_says_what_has_no_json():
    (entry,) = json.loads(tables.as_json([dialect(handler=handler, not_found=Reply(404, "text/plain", b"no"))]))
    assert entry["routes"][0]["handler"] == "handler"
    assert entry["not_found"]["body"] == "no"
