"""Cursor files."""

import json

import pytest

from fastpixel.errors import SpoolError
from fastpixel.spool import cursors


def test_written_read_listed_removed(tmp_path):
    assert cursors.names(tmp_path) == []
    assert cursors.read(tmp_path, "daily") is None
    cursors.write(tmp_path, "daily", {"0": 17, "10": 1})
    cursors.write(tmp_path, "a.b", {})
    assert cursors.names(tmp_path) == ["a.b", "daily"]
    cursor = cursors.read(tmp_path, "daily")
    assert cursor.positions == {"0": 17, "10": 1}
    stored = json.loads((tmp_path / "cursors" / "daily.json").read_text())
    assert stored == {"0": 17, "10": 1, "updatedAt": cursor.updated_at}
    assert cursors.remove(tmp_path, "daily")
    assert not cursors.remove(tmp_path, "daily")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "a\n"])
def test_a_name_never_leaves_the_directory(tmp_path, name):
    with pytest.raises(SpoolError, match="cursor name"):
        cursors.write(tmp_path, name, {})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"0": "x", "updatedAt": ""}', '{"0": 1}'])
def test_a_file_that_is_no_cursor_is_said(tmp_path, text):
    cursors.write(tmp_path, "c", {})
    (tmp_path / "cursors" / "c.json").write_text(text)
    with pytest.raises(SpoolError, match="not a cursor"):
        cursors.read(tmp_path, "c")
