"""Dialect rows that cannot work are refused in one line, before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from fastpixel import config, dialects
from fastpixel.dialect import REASON_DOCS, Dialect, Field, Route, validate
from fastpixel.errors import DialectError

KEY = '{from = "k", to = "writeKey", required = "missing_key"}'
ROWS = ",".join([KEY, *(f'{{from = "f{i}", to = "properties.f{i}"}}' for i in range(64))])


def dialect(fields: str = KEY, path: str = "/px", name: str = "acme", method: str = "GET") -> str:
    route = f'method = ["{method}"]\npath = "{path}"\ntype = "track"\nfields = [{fields}]'
    return f'[[dialects]]\nname = "{name}"\n[[dialects.routes]]\n{route}\n'


def load(tmp_path: Path, text: str) -> tuple[str, ...]:
    file = tmp_path / "fastpixel.toml"
    file.write_text(text)
    return dialects.plan(config.load(file, {}, {}, REASON_DOCS)).protocols


REFUSED = {
    "no-key": (dialect('{from = "a", to = "event"}'), "exactly one row must set writeKey"),
    "two-rows": (dialect(f'{KEY}, {{from = "k", to = "event"}}'), "two rows read 'k'"),
    "rest-is-a-number": (dialect(f'{KEY}, {{from = "*", to = "properties", kind = "int"}}'), "kind text or dotpath"),
    "rest-is-required": (
        dialect(f'{KEY}, {{from = "*", to = "properties", required = "bad_field"}}'),
        "nothing is required",
    ),
    "rest-is-the-key": (dialect('{from = "*", to = "writeKey", required = "missing_key"}'), "'*' is many"),
    "rest-into-a-text": (dialect(f'{KEY}, {{from = "*", to = "event"}}'), "'*' goes to one, such as properties"),
    "taken": (dialect(path="/e"), "dialect kissmetrics answers GET there already"),
    "taken-by-itself": (dialect() + dialect(name="other"), "dialect acme answers GET there already"),
    "rows": (dialect(ROWS), "more than 64 fields"),
    "depth": (dialect(f'{KEY}, {{from = "a", to = "properties{".a" * 20}"}}'), "is deeper than"),
    "dialects": ("".join(dialect(name=f"a{i}", path=f"/{i}") for i in range(63)), "at most 64 fit"),
    "routes": (
        dialect() + "".join(dialect(path=f"/{i}").split("\n", 2)[2] for i in range(256)),
        "more than 256 routes without variables",
    ),
    "sources": ("".join(f'[[sources]]\nkey = "k{i}"\n' for i in range(32001)), "at most 32000 fit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_work_are_refused(name: str, tmp_path: Path):
    text, words = REFUSED[name]
    with pytest.raises(DialectError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


PARAMS = Field("p", to="properties", kind="params")
CONTRADICTIONS = {
    "params-elsewhere": ((replace(PARAMS, to="traits"),), "it goes with to = 'properties'"),
    "params-twice": ((PARAMS, replace(PARAMS, source="q")), "two rows of kind params"),
    "ignored-and-required": (
        (Field("a", to="properties.a", kind="int", required="bad_amount", on_bad="ignore"),),
        "what is required, and a timestamp, cannot be ignored",
    ),
    "ignored-time": ((Field("a", to="timestamp", kind="unix", on_bad="ignore"),), "a timestamp, cannot be ignored"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_rows_of_built_in_dialects_that_contradict_each_other(name: str):
    fields, words = CONTRADICTIONS[name]
    key = Field("k", to="writeKey", required="missing_key")
    with pytest.raises(DialectError, match=words):
        validate(Dialect("acme", "Acme", (Route(("GET",), "/px", "track", (key, *fields)),)))


def test_one_path_may_have_two_dialects_by_method(tmp_path: Path):
    text = dialect() + dialect(name="other", method="POST")
    assert load(tmp_path, text)[-2:] == ("acme", "other")


def test_a_protocol_that_is_not_asked_for_leaves_its_paths(tmp_path: Path):
    assert load(tmp_path, 'protocols = ["acme"]\n' + dialect(path="/e")) == ("acme",)
