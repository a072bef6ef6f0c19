"""Reading: by slot, in order of time, by range; while others write, roll and delete."""

import random
from pathlib import Path

import pytest
from spool_data import MS, T0, ids, seqs, store, unpack, worker

from fastpixel._core import split
from fastpixel.errors import SpoolError
from fastpixel.spool import segment, slots
from fastpixel.spool.reader import Spool
from fastpixel.spool.retention import remove
from fastpixel.spool.writer import Writer


def spool(path, *slots, mode="commit", segment_bytes=1 << 20):
    """A spool whose slots hold these batches, each a list of times in ms."""
    writers = [Writer(path, mode, segment_bytes) for _ in slots]
    for writer, batches in zip(writers, slots, strict=True):
        for times in batches:
            store(writer, [T0 + time * MS for time in times])
    for writer in writers:
        writer.close()
    return Spool(path)


def order(records):
    return [((record.received_ns - T0) // MS, record.slot, record.seq) for record in records]


# -- one slot


def test_batches_of_a_slot(tmp_path):
    with Writer(tmp_path) as writer:
        stored = [store(writer, [T0 + index * MS] * 3, rejects=1) for index in range(4)]
        batches = list(Spool(tmp_path).batches("0"))  # in the writing process too
    assert [(batch.slot, batch.first_seq, batch.count) for batch in batches] == [("0", s, 3) for s in (1, 5, 9, 13)]
    assert [split(batch.value) for batch in batches] == [events for _, events in stored]
    assert [(batch.min_ns, batch.max_ns) for batch in batches] == [(T0 + i * MS,) * 2 for i in range(4)]
    rejects = list(Spool(tmp_path).batches("0", database="rejects"))
    assert seqs(rejects) == [4, 8, 12, 16]


@pytest.mark.parametrize("after, rest", [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (9, 10), (10, 99), (99, 99)])
def test_a_position_may_lie_inside_a_batch(tmp_path, after, rest):
    read = spool(tmp_path, [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]])
    batches = list(read.batches("0", after))
    assert seqs(batches) == list(range(rest, 11))
    assert [record["receivedAt"].to_unix_nano() for b in batches for record in unpack(b.value)] == [
        T0 + time * MS for time in range(rest, 11)
    ]


def test_ranges_of_time_leave_out_segments_and_batches(tmp_path):
    writer = Writer(tmp_path, "commit")
    for start in range(0, 100, 10):
        store(writer, [T0 + (start + index) * MS for index in range(5)])
        store(writer, [T0 + (start + 5 + index) * MS for index in range(5)])
        writer.roll()
    writer.close()
    read = Spool(tmp_path)
    since, until = T0 + 27 * MS, T0 + 45 * MS
    assert [b.first_seq for b in read.batches("0", since_ns=since, until_ns=until)] == [26, 31, 36, 41]
    assert [r[0] for r in order(read.records(since_ns=since, until_ns=until))] == list(range(27, 45))
    for path in read.segments("0")[:2] + read.segments("0")[5:]:
        assert read.sealed(path).events == 10


def test_a_gap_where_segments_were_deleted(tmp_path):
    writer = Writer(tmp_path, "commit")
    for time in range(5):
        store(writer, [T0 + time * MS] * 2)
        writer.roll()
    writer.close()
    read = Spool(tmp_path)
    tail = read.tail("0")
    assert seqs(tail.read()) == [1, 2]
    for path in read.segments("0")[:3]:
        remove(path)
    assert seqs(tail.read()) == [7, 8]
    assert seqs(tail.read()) == [9, 10]
    assert tail.read() == []
    assert seqs(read.batches("0", 4)) == [7, 8, 9, 10]


def test_what_is_no_spool_or_damaged_is_said(tmp_path):
    with pytest.raises(SpoolError, match="not a spool"):
        Spool(tmp_path)
    read = spool(tmp_path, [[1]])
    assert list(read.batches("7")) == []
    read.segments("0")[0].write_bytes(b"\xa5" * 8192)
    with pytest.raises(SpoolError, match=r"cannot be read.*fastpixel check"):
        list(read.batches("0"))


# -- order of time


def test_slots_are_merged_record_by_record(tmp_path):
    read = spool(tmp_path, [[1, 4, 5], [9]], [[2, 3, 5, 5], [6, 7]], [[0], [10, 11]])
    assert order(read.records()) == [
        *[
            (0, "2", 1),
            (1, "0", 1),
            (2, "1", 1),
            (3, "1", 2),
            (4, "0", 2),
            (5, "0", 3),
            (5, "1", 3),
            (5, "1", 4),
        ],
        *[(6, "1", 5), (7, "1", 6), (9, "0", 4), (10, "2", 2), (11, "2", 3)],
    ]


def test_batches_stay_whole_with_one_slot_and_where_nothing_comes_between(tmp_path):
    one = spool(tmp_path / "one", [[1, 2], [3, 4], [4, 5]])
    assert [batch.value for batch in one.merged()] == [batch.value for batch in one.batches("0")]
    two = spool(tmp_path / "two", [[1, 2], [7, 9]], [[3, 4], [8, 10]])
    assert [(b.slot, b.first_seq, b.count) for b in two.merged()] == [
        *[("0", 1, 2), ("1", 1, 2), ("0", 3, 1), ("1", 3, 1), ("0", 4, 1), ("1", 4, 1)]
    ]


def test_a_clock_that_is_set_back_keeps_the_slots_order(tmp_path):
    read = spool(tmp_path, [[5, 3, 7], [2]], [[4, 6]])
    assert order(read.records()) == [
        (4, "1", 1),
        (5, "0", 1),
        (3, "0", 2),
        (6, "1", 2),
        (7, "0", 3),
        (2, "0", 4),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_any_spool_is_merged_as_sorting_would(tmp_path, seed):
    chance = random.Random(seed)
    lists = [sorted(chance.choices(range(40), k=chance.randrange(30))) for _ in range(3)]
    read = spool(tmp_path, *[[times[i : i + 4] for i in range(0, len(times), 4)] for times in lists])
    expected = sorted((t, str(s), i + 1) for s, times in enumerate(lists) for i, t in enumerate(times))
    assert order(read.records()) == expected
    low, high, start = chance.randrange(20), chance.randrange(20, 40), chance.randrange(1, 8)
    got = order(read.records({"1": start}, since_ns=T0 + low * MS, until_ns=T0 + high * MS))
    assert got == [row for row in expected if low <= row[0] < high and (row[1] != "1" or row[2] >= start)]


# -- while it is written


def test_a_tail_sees_new_records_segments_and_slots(tmp_path):
    writer = Writer(tmp_path, "commit")
    follow = Spool(tmp_path).follow()
    assert follow.read() == []
    for round_ in range(3):
        store(writer, [T0] * 2)
        assert seqs(follow.read()) == [3 * round_ + 1, 3 * round_ + 2]
        assert follow.read() == []
        writer.roll()
        store(writer, [T0])
        assert seqs(follow.read()) == [3 * round_ + 3]
    with Writer(tmp_path, "commit") as other:
        store(other, [T0] * 4)
        assert [(batch.slot, batch.count) for batch in follow.read()] == [("1", 4)]
    assert follow.positions == {"0": 10, "1": 5}
    follow.close()
    store(writer, [T0])
    again = Spool(tmp_path).follow(follow.positions)
    assert [(batch.slot, seq) for batch in again.read() for seq in seqs([batch])] == [("0", 10)]
    again.close()
    writer.close()


def test_a_limit_is_kept_and_nothing_lost(tmp_path):
    read = spool(tmp_path, [[time] for time in range(10)])
    tail = read.tail("0")
    parts = [seqs(tail.read(limit=4)) for _ in range(4)]
    assert parts == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], []]
    tail.close()


@pytest.mark.parametrize("mode", ["fsync", "commit"])
def test_reading_what_another_process_writes_rolls_and_deletes(tmp_path, mode):
    """Everything answered is read once and in order, while segments are deleted behind the reader."""
    process = worker("flood", tmp_path, mode, 64 << 10)
    process.stdout.readline()
    follow = Spool(tmp_path).follow()
    answered, read = [], []
    while len(answered) < 3000:
        for _ in range(20):
            answered += process.stdout.readline().split()[1:]
        while batches := follow.read(limit=5):
            read += zip(seqs(batches), ids(batches), strict=True)
            if len(read) > len(answered) + 500:
                break
        paths = Spool(tmp_path).segments("0")
        for path in sorted({*paths} - {*slots.unfinished(tmp_path / "0", paths)}):
            if segment.first_seq(path) < follow.positions["0"] - 1000:
                remove(path)
    process.kill()
    answered += [word for line in process.stdout.read().splitlines()[:-1] for word in line.split()[1:]]
    process.wait()
    while batches := follow.read():
        read += zip(seqs(batches), ids(batches), strict=True)
    follow.close()
    assert [seq for seq, _ in read] == list(range(1, len(read) + 1))
    assert [name for _, name in read][: len(answered)] == answered
    assert (tmp_path / "0" / "OPEN").exists()


def test_reading_does_not_hold_files_open(tmp_path):
    writer = Writer(tmp_path, "commit", segment_bytes=64 << 10)
    for _ in range(100):
        store(writer, [T0] * 10, pad=300)
    writer.close()
    read = Spool(tmp_path)
    assert len(read.segments("0")) > 4
    batches = read.batches("0")
    next(batches)
    assert len(mapped(tmp_path)) == 1
    assert sum(batch.count for batch in batches) == 990
    assert mapped(tmp_path) == set()


def mapped(directory):
    """The segments that this process has open."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if str(directory) in line and line.endswith(".mdb")}


def test_two_readers_of_one_segment_in_one_process(tmp_path):
    read = spool(tmp_path, [[1], [2]])
    one, two = read.batches("0"), read.batches("0")
    assert next(one) == next(two)
    assert [next(one).first_seq, next(two).first_seq] == [2, 2]
    assert [*one, *two] == []


def test_large_values_go_through_several_transactions(tmp_path):
    with Writer(tmp_path, "commit") as writer:
        for _ in range(6):
            store(writer, [T0], pad=3 << 20)
    tail = Spool(tmp_path).tail("0")
    assert [len(tail.read()) for _ in range(4)] == [2, 2, 2, 0]
    tail.close()
