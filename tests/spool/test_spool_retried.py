"""Which rejects were stored by a retry: the file agrees with a plain set, whatever passes there were."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spool_data import T0, store

from fastpixel.errors import SpoolError
from fastpixel.spool import cursors, recovery, slots
from fastpixel.spool.check import check
from fastpixel.spool.retried import FILE, Retried
from fastpixel.spool.writer import Writer

SEQS = st.sets(st.integers(1, 40))
# Which seqs are rejects that can be retried, and for some passes: how many of them it comes to, and which it stores.
PASSES = st.lists(st.tuples(st.integers(0, 40), SEQS), max_size=6)


@given(SEQS, PASSES)
def test_ranges_are_the_set_of_what_was_stored(retryable, passes):
    stored: set[int] = set()
    retried = Retried()
    for length, wanted in passes:
        retried = Retried(retried.ranges())
        for seq in sorted(retryable)[:length]:
            assert retried.has("0", seq) is (seq in stored)
            retried.pass_by("0", seq, seq in stored or seq in wanted)
        stored |= {*sorted(retryable)[:length]} & wanted
        after = Retried(retried.ranges())
        assert {seq for seq in retryable if after.has("0", seq)} == stored
        ranges = retried.ranges().get("0", [])
        assert ranges == sorted(ranges) and all(low < high for low, high in ranges)
        assert all(before[1] < following[0] for before, following in itertools.pairwise(ranges))


def test_a_run_of_stored_rejects_is_one_range():
    retried = Retried()
    for seq in (3, 9, 10, 30):
        retried.pass_by("2", seq, True)
    assert retried.ranges() == {"2": [(0, 31)]}
    retried.pass_by("2", 40, False)
    retried.pass_by("2", 41, True)
    assert retried.ranges() == {"2": [(0, 31), (41, 42)]}
    assert not retried.has("1", 3) and not retried.has("2", 3), "a pass does not see what it has stored itself"


def test_the_file(tmp_path):
    assert Retried.read(tmp_path).ranges() == {}
    retried = Retried()
    retried.pass_by("0", 7, True)
    retried.write(tmp_path)
    (path,) = tmp_path.iterdir()
    fields = json.loads(path.read_bytes())
    assert (path.name, fields.pop("updatedAt")[-1], fields) == (FILE, "Z", {"0": [[0, 8]]})
    assert Retried.read(tmp_path).has("0", 7)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"0": 5, "updatedAt": ""}', '{"0": [[1]], "updatedAt": ""}', "\xff"])
def test_a_file_that_is_none_is_said(text, tmp_path):
    (tmp_path / FILE).write_text(text, "latin-1")
    with pytest.raises(SpoolError, match=r"rejects-retried\.json cannot be read .* mend or remove it"):
        Retried.read(tmp_path)


def test_nothing_else_stumbles_over_the_file(tmp_path: Path):
    with Writer(tmp_path) as writer:
        store(writer, [T0], rejects=1)
    Retried({"0": [(0, 3)]}).write(tmp_path)
    assert check(tmp_path) == [] == check(tmp_path, repair=True)
    recovery.recover_all(tmp_path)
    assert slots.names(tmp_path) == ["0"]
    assert cursors.names(tmp_path) == [], "retention must not take it for an export's"
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 3
    assert Retried.read(tmp_path).has("0", 2)
