"""Which records an export writes, and in which order."""

import io
import json
import threading
import time

import msgpack
import pytest

from fastpixel import export
from fastpixel.errors import FastpixelError, SpoolError
from fastpixel.export import Query, moment
from fastpixel.spool.writer import Writer

SECOND = 10**9
T0 = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z


def packed(second, **more):
    fields = {"receivedAt": msgpack.Timestamp.from_unix_nano(T0 + second * SECOND), "n": second, **more}
    return msgpack.packb(fields)


def store(writer, *records, rejects=()):
    times = [msgpack.unpackb(record)["receivedAt"].to_unix_nano() for record in (*records, *rejects)]
    writer.append(b"".join(records), len(records), b"".join(rejects), len(rejects), min(times), max(times))


@pytest.fixture
def spool(tmp_path):
    """Two slots with ten events, one a second, dealt out in turn in batches of three and two; and one reject."""
    with Writer(tmp_path) as even, Writer(tmp_path) as odd:
        store(even, *(packed(n, protocol="kissmetrics", type="track", source="shop") for n in (0, 2, 4)))
        store(odd, *(packed(n, protocol="rudderstack", type="page") for n in (1, 3, 5)))
        store(even, packed(6, protocol="kissmetrics", type="alias"), packed(8, protocol="kissmetrics", type="track"))
        store(odd, packed(7, protocol="rudderstack", type="track"), packed(9, type="track"))
        store(odd, rejects=[packed(4, protocol="rudderstack", reason="bad_json")])
    return tmp_path


def exported(spool, **query):
    out = io.BytesIO()
    count = export.run(spool, Query(**query), out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == count
    return lines


def numbers(spool, **query):
    return [line["n"] for line in exported(spool, **query)]


def test_slots_are_merged_by_receipt(spool):
    assert numbers(spool) == list(range(10))


def test_each_record_has_its_seq(spool):
    identity = (spool / "spool-id").read_text().strip()
    found = {line["n"]: line["seq"] for line in exported(spool)}
    assert [found[n] for n in (0, 2, 4, 6, 8)] == [f"{identity}-0-{i}" for i in range(1, 6)]
    assert [found[n] for n in (1, 3, 5, 7, 9)] == [f"{identity}-1-{i}" for i in range(1, 6)]


@pytest.mark.parametrize("limit", range(12))
def test_a_limit_cuts_inside_a_batch_too(spool, limit):
    assert numbers(spool, limit=limit) == list(range(10))[: limit or None]


def test_since_counts_and_until_does_not(spool):
    assert numbers(spool, since_ns=T0 + 3 * SECOND, until_ns=T0 + 7 * SECOND) == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((("protocol", ("rudderstack",)),), [1, 3, 5, 7]),
        ((("protocol", ("rudderstack", "kissmetrics")),), [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ((("protocol", ("kissmetrics",)), ("type", ("track",))), [0, 2, 4, 8]),
        ((("source", ("shop",)),), [0, 2, 4]),
        ((("protocol", ()), ("type", ())), list(range(10))),
        ((("protocol", ("tracardi",)),), []),
    ],
)
def test_filters(spool, filters, expected):
    assert numbers(spool, filters=filters) == expected


def test_a_limit_counts_what_the_filter_lets_through(spool):
    assert numbers(spool, filters=(("type", ("track",)),), limit=4) == [0, 2, 4, 7]


def test_rejects_instead_of_events(spool):
    assert [line["reason"] for line in exported(spool, database="rejects")] == ["bad_json"]


def test_a_directory_that_is_no_spool(tmp_path):
    with pytest.raises(SpoolError):
        exported(tmp_path / "none")


# -- follow -----------------------------------------------------------------------------------------------------------


class Reader(io.BytesIO):
    """Where a follower writes; `wait` returns the numbers once there are enough."""

    def wait(self, count):
        until = time.monotonic() + 20
        while self.getvalue().count(b"\n") < count:
            assert time.monotonic() < until, self.getvalue()
            time.sleep(0.01)
        return [json.loads(line)["n"] for line in self.getvalue().splitlines()]


def following(spool, **query):
    """A follower in a thread, which ends by its limit."""
    reader = Reader()
    options = {"daemon": True, "kwargs": {"follow": True}}
    thread = threading.Thread(target=export.run, args=(spool, Query(**query), reader), **options)
    thread.start()
    return reader, thread


def test_follow_goes_on_with_what_comes(spool):
    reader, thread = following(spool, since_ns=T0 + 8 * SECOND, limit=4)
    assert sorted(reader.wait(2)) == [8, 9]
    with Writer(spool) as writer:
        store(writer, packed(10), packed(11), packed(12))
        assert reader.wait(4)[2:] == [10, 11]
    thread.join(20)
    assert not thread.is_alive()


def test_follow_leaves_out_what_is_outside_its_range(spool):
    reader, thread = following(spool, since_ns=T0 + SECOND, until_ns=T0 + 5 * SECOND, limit=4)
    thread.join(20)
    assert not thread.is_alive()
    assert sorted(reader.wait(4)) == [1, 2, 3, 4]


def test_follow_starts_now_by_default(spool):
    reader, thread = following(spool, limit=1)
    now = (time.time_ns() - T0) // SECOND + 60
    with Writer(spool) as writer:
        store(writer, packed(now))
        assert reader.wait(1) == [now]
    thread.join(20)


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:01.5Z", 1.5),
        ("2026-01-01T01:00:00+01:00", 0),
        ("2026-01-01 00:00:02", 2),
        ("2026-01-02", 86400),
        ("1767225603", 3),
    ],
)
def test_a_moment_is_a_time(text, seconds):
    assert moment(text) == T0 + int(seconds * SECOND)


@pytest.mark.parametrize(("text", "seconds"), [("2h", 7200), ("1.5m", 90), ("500ms", 0.5), ("7d", 604800)])
def test_or_a_duration_before_now(text, seconds):
    before = time.time_ns()
    assert before <= moment(text) + int(seconds * SECOND) <= time.time_ns()


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "1..h", "2 fortnights", "\udcff", "-2h"])
def test_anything_else_is_an_error_that_says_how(text):
    with pytest.raises(FastpixelError, match="give RFC 3339 such as"):
        moment(text)
