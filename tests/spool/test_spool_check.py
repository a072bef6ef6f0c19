"""The check finds each planted fault, and repair mends what can be mended."""

import random
import re

import msgpack
import pytest
from spool_data import MS, T0, event, poke, reject, seqs, store, worker

from fastpixel.errors import SpoolError
from fastpixel.spool import segment, slots
from fastpixel.spool.check import KINDS, check
from fastpixel.spool.reader import Spool
from fastpixel.spool.writer import Writer

FIRST = segment.file_name(1)
SECOND = segment.file_name(41)


@pytest.fixture
def sound(tmp_path):
    """Two segments of 10 batches: three events and a reject each."""
    writer = Writer(tmp_path, "commit")
    for index in range(20):
        store(writer, [T0 + index * MS] * 3, rejects=1, pad=200 * (index % 10))
        if index == 9:
            writer.roll()
    writer.close()
    return tmp_path


def kinds(findings):
    assert all(finding.kind in KINDS for finding in findings)
    return [finding.kind for finding in findings]


def content(path):
    read = Spool(path)
    return {name: [(b.first_seq, b.value) for b in read.batches("0", database=name)] for name in ("events", "rejects")}


def key(seq):
    return segment.KEY.pack(seq)


def test_a_sound_spool(sound):
    assert check(sound) == []
    assert check(sound, repair=True) == []


def test_no_directory(tmp_path):
    with pytest.raises(SpoolError, match="not a directory"):
        check(tmp_path / "nothing")


def plant_spool_id(path):
    (path / "spool-id").unlink()


def plant_bad_next(path):
    (path / "0" / "NEXT").write_text("many")


def plant_stale_open(path):
    poke(path / "0" / SECOND, "meta", b"sealed", None)
    slots.write_open(path / "0", slots.Open(slots.boot_id(), "fsync", 1, SECOND))


def plant_empty_file(path):
    (path / "0" / segment.file_name(1000)).touch()


def plant_no_batch(path):
    segment.Segment.create(path / "0" / segment.file_name(1000), 1 << 20, True).close()


def plant_unsealed(path):
    poke(path / "0" / SECOND, "meta", b"sealed", None)


def plant_wrong_seal(path):
    poke(path / "0" / FIRST, "meta", b"sealed", segment.Sealed(40, 31, 10, T0, T0).pack())


def plant_temporary(path):
    (path / "0" / ".OPEN.17.tmp").touch()


def plant_lock(path):
    (path / "0" / (segment.file_name(7) + "-lock")).touch()


REPAIRED = {
    plant_spool_id: ["no_spool_id"],
    plant_bad_next: ["bad_next"],
    plant_stale_open: ["stale_open"],
    plant_empty_file: ["empty"],
    plant_no_batch: ["empty"],
    plant_unsealed: ["unsealed"],
    plant_wrong_seal: ["sealed_mismatch"],
    plant_temporary: ["stray"],
    plant_lock: ["stray"],
}


@pytest.mark.parametrize("plant", REPAIRED)
def test_what_is_repaired_without_loss(sound, plant):
    before = content(sound)
    plant(sound)
    found = {finding.kind for finding in check(sound)}
    assert found >= set(REPAIRED[plant])
    assert found - {"stray"} <= set(REPAIRED[plant])
    repaired = check(sound, repair=True)
    assert all(finding.repaired for finding in repaired)
    assert check(sound) == []
    assert content(sound) == before
    with Writer(sound) as writer:
        assert writer.next_seq >= 81


def plant_format(path):
    poke(path / "0" / FIRST, "meta", b"format", msgpack.packb(2))


def plant_other_spool(path):
    poke(path / "0" / FIRST, "meta", b"spool", msgpack.packb("00000000"))


def plant_overlap_in_a_segment(path):
    poke(path / "0" / FIRST, "events", key(2), event(T0))
    poke(path / "0" / FIRST, "meta", b"sealed", segment.Sealed(40, 31, 10, T0, T0 + 9 * MS).pack())


def plant_overlap_with_rejects(path):
    poke(path / "0" / FIRST, "rejects", key(3), reject(T0))
    poke(path / "0" / FIRST, "meta", b"sealed", segment.Sealed(40, 30, 11, T0, T0 + 9 * MS).pack())


def plant_overlap_of_segments(path):
    (path / "0" / SECOND).rename(path / "0" / segment.file_name(42))


def plant_stray(path):
    (path / "0" / "notes.txt").touch()


REPORTED = {
    plant_format: ["format"],
    plant_other_spool: ["spool_id"],
    plant_overlap_in_a_segment: ["overlap"],
    plant_overlap_with_rejects: ["overlap"],
    plant_overlap_of_segments: ["overlap"],
    plant_stray: ["stray"],
}


@pytest.mark.parametrize("plant", REPORTED)
def test_what_is_only_reported(sound, plant):
    plant(sound)
    assert sorted(set(kinds(check(sound)))) == REPORTED[plant]
    assert not any(finding.repaired for finding in check(sound, repair=True))
    assert sorted(set(kinds(check(sound)))) == REPORTED[plant]


def plant_torn_value(path):
    poke(path / "0" / FIRST, "events", key(5), b"\x00" * 40)


def plant_zero_metas(path):
    data = (path / "0" / FIRST).read_bytes()
    (path / "0" / FIRST).write_bytes(bytes(8192) + data[8192:])


def plant_lost_roots(path):
    """The pages a power cut loses are the youngest: here the roots of everything."""
    data = bytearray((path / "0" / FIRST).read_bytes())
    data[-4 * 4096 :] = bytes(4 * 4096)
    (path / "0" / FIRST).write_bytes(data)


@pytest.mark.parametrize("plant, kept", [(plant_torn_value, 0.9), (plant_zero_metas, 1.0), (plant_lost_roots, 0.5)])
def test_a_damaged_segment_is_salvaged(sound, plant, kept):
    before = content(sound)
    plant(sound)
    assert kinds(check(sound)) == ["damaged"]
    (finding,) = check(sound, repair=True)
    assert re.fullmatch(r"salvaged \d+ records", finding.repaired)
    assert check(sound) == []
    after = content(sound)
    for database, rows in after.items():
        assert set(rows) <= set(before[database])  # every batch in its database, with its seq and its bytes
        assert len(rows) >= 10 + 10 * kept
    assert (sound / "0" / (FIRST + ".salvaged")).exists()


def test_nothing_to_salvage_keeps_the_file(sound):
    (sound / "0" / FIRST).write_bytes(random.Random(1).randbytes(50_000))
    (finding,) = check(sound, repair=True)
    assert "nothing could be read" in finding.repaired
    assert kinds(check(sound)) == ["damaged"]
    assert (sound / "0" / (FIRST + ".damaged")).stat().st_size == 50_000


def test_a_segment_set_aside_at_start_is_salvaged(sound):
    plant_zero_metas(sound)
    slots.write_open(sound / "0", slots.Open("another-boot", "commit", 1, abandoned=(FIRST,)))
    before = 40
    Writer(sound).close()
    assert kinds(check(sound)) == ["damaged"]
    (finding,) = check(sound, repair=True)
    assert finding.repaired == f"salvaged {before} records"
    assert check(sound) == []


def test_a_live_slot_is_only_read(tmp_path):
    process = worker("step", tmp_path, "commit", 64 << 10)
    process.stdout.readline()
    for _ in range(200):
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
    assert check(tmp_path, repair=True) == []
    assert slots.read_open(tmp_path / "0").segment
    process.stdin.close()
    process.wait()
    assert len(seqs(Spool(tmp_path).batches("0"))) == sum(1 + batch % 7 for batch in range(200))
    assert check(tmp_path) == []
