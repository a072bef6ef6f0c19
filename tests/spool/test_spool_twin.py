"""The core's `scan` and `split` against their plain-Python twin."""

import pytest
import spool_twin
from spool_data import MS, T0, event, reject

from fastpixel._core import scan, split

GOOD = [event(T0 + 5 * MS), reject(T0 + 2 * MS), event(T0 + 9 * MS, pad=70_000)]


def test_counts_and_times():
    assert scan(b"".join(GOOD)) == spool_twin.scan(b"".join(GOOD)) == (3, T0 + 2 * MS, T0 + 9 * MS)
    assert scan(b"") == spool_twin.scan(b"") == (0, 0, 0)


def test_split_gives_the_records_back():
    assert split(b"".join(GOOD)) == spool_twin.split(b"".join(GOOD)) == GOOD
    assert split(b"") == []


@pytest.mark.parametrize("value", [GOOD[0][:-1], GOOD[0] + b"\x00", b"\x00" * 100, b"\xc1", b"\x91\x01"])
def test_what_is_not_whole_maps_is_refused(value):
    for door in (scan, split, spool_twin.scan, spool_twin.split):
        with pytest.raises(ValueError):
            door(value)
