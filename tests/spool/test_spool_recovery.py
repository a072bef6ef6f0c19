"""What a killed process, a reboot or a broken disk leave, and what the next holder makes of it."""

import logging
import re

import pytest
from spool_data import T0, ids, plain, seqs, store, worker

from fastpixel.spool import recovery, segment, slots
from fastpixel.spool.check import check
from fastpixel.spool.reader import Spool
from fastpixel.spool.writer import Writer

FIRST = "00000000000000000001.mdb"


@pytest.mark.parametrize("mode", ["fsync", "commit"])
@pytest.mark.parametrize("lines", [0, 1, 2, 3, 10, 50, 51, 52, 300, 2000])
def test_everything_answered_survives_kill_9(tmp_path, mode, lines):
    """Killed after some answers, wherever it then is; whatever it answered until then counts."""
    process = worker("flood", tmp_path, mode, 64 << 10)
    head = [process.stdout.readline() for _ in range(lines + 1)]
    process.kill()
    answers = (head + process.stdout.read().splitlines(keepends=True))[1:]
    process.wait()
    promised = {}
    for line in answers:
        if line.endswith("\n"):
            first, *names = line.split()
            promised.update({int(first) + index: name for index, name in enumerate(names)})
    with Writer(tmp_path, mode) as writer:
        batches = list(Spool(tmp_path).batches("0"))
        stored = dict(zip(seqs(batches), ids(batches), strict=True))
        assert promised.items() <= stored.items()
        assert len(stored) - len(promised) <= 7  # at most the batch that was not answered
        assert writer.next_seq == max(stored, default=0) + 1
        assert store(writer, [T0])[0] == writer.next_seq - 1
    assert check(tmp_path) == []


def killed(path, mode="commit", batches=5, segment_bytes=1 << 20):
    """A spool whose only writer was killed after this many batches."""
    process = worker("step", path, mode, segment_bytes)
    process.stdout.readline()
    for _ in range(batches):
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
    process.kill()
    process.wait()
    return path / "0" / FIRST


def rebooted(path):
    """As if the machine had been restarted since: another boot id in OPEN."""
    left = slots.read_open(path.parent)
    slots.write_open(path.parent, left._replace(boot="another-boot"))


@pytest.mark.parametrize("mode, following", [("fsync", 16), ("commit", 1 + segment.SEQ_SPAN)])
def test_a_sound_segment_of_another_boot_is_sealed(tmp_path, mode, following):
    """Mode `commit` may have answered more than is there: those seqs are not given again."""
    path = killed(tmp_path, mode)
    rebooted(path)
    with Writer(tmp_path, mode) as writer:
        assert writer.next_seq == following
    assert plain(path)[1]["sealed"]["counts"] == {"events": 15, "rejects": 0}
    assert {file.name for file in path.parent.iterdir()} - {"NEXT"} == {FIRST}


def damage_garbage(data):
    return b"\xa5" * len(data)


def damage_truncate(data):
    return data[: len(data) - 4096]


def damage_zero_page(data):
    """Pages that the kernel never wrote back, while the meta page that points at them is there."""
    return data[:8192] + bytes(8192) + data[16384:]


def damage_zero_data(data):
    """Sound structure, torn values: only reading them finds it."""
    return data.replace(b"\xa9messageId", bytes(10))


@pytest.mark.parametrize("damage", [damage_garbage, damage_truncate, damage_zero_page, damage_zero_data])
def test_what_cannot_prove_itself_after_a_reboot_is_set_aside_loudly(tmp_path, caplog, damage):
    path = killed(tmp_path, batches=40)
    rebooted(path)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.ERROR), Writer(tmp_path) as writer:
        assert writer.next_seq == 1 + segment.SEQ_SPAN
        assert store(writer, [T0])[0] == writer.next_seq - 1
    assert re.search(r"damaged.*renamed.*check --repair", caplog.text)
    assert path.with_name(FIRST + ".damaged").exists()
    assert not path.exists()
    path.with_name(FIRST + ".damaged").unlink()
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 2 + segment.SEQ_SPAN


def test_seqs_stay_above_a_damaged_segment_that_was_thrown_away(tmp_path):
    path = killed(tmp_path)
    rebooted(path)
    path.write_bytes(b"\xa5" * 8192)
    Writer(tmp_path).close()
    path.with_name(FIRST + ".damaged").unlink()
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 1 + segment.SEQ_SPAN


@pytest.mark.parametrize("content", [None, b""])
def test_a_segment_that_never_got_a_batch_is_removed(tmp_path, content):
    with Writer(tmp_path) as writer:
        store(writer, [T0] * 9)
    path = tmp_path / "0" / segment.file_name(10)
    if content is not None:
        path.write_bytes(content)
    slots.write_open(tmp_path / "0", slots.Open(slots.boot_id(), "fsync", 1, segment=path.name))
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 10
    assert [file.name for file in (tmp_path / "0").iterdir()] == [FIRST]


def test_a_file_with_only_lmdbs_first_pages_is_removed(tmp_path):
    Writer(tmp_path).close()
    path = tmp_path / "0" / FIRST
    segment.Segment.create(path, 1 << 20, durable=True).close()
    slots.write_open(tmp_path / "0", slots.Open("another-boot", "fsync", 1, segment=path.name))
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 1
    assert list((tmp_path / "0").iterdir()) == []


@pytest.mark.parametrize("text", ["", "boot=x\n", "\0\0\0\0", "boot=a\nmode=fsync\npid=nobody\n"])
def test_an_unreadable_open_means_that_the_newest_segment_must_prove_itself(tmp_path, text):
    path = killed(tmp_path)
    (tmp_path / "0" / "OPEN").write_text(text)
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 1 + segment.SEQ_SPAN
    assert "sealed" in plain(path)[1]


def test_start_does_not_open_complete_segments(tmp_path):
    with Writer(tmp_path, segment_bytes=64 << 10) as writer:
        for _ in range(60):
            store(writer, [T0] * 20, pad=300)
    *others, _ = segment.listing(tmp_path / "0")
    for path in others:
        path.write_bytes(b"no LMDB file")
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 1201
    assert len(others) > 3


def test_a_power_cut_while_a_rolled_segment_was_flushed(tmp_path):
    """OPEN names two segments then; both prove themselves."""
    path = killed(tmp_path)
    Writer(tmp_path).close()
    with Writer(tmp_path) as writer:
        store(writer, [T0])
    names = [path.name for path in segment.listing(tmp_path / "0")]
    slots.write_open(tmp_path / "0", slots.Open("another-boot", "commit", 1, names[0]))
    path.write_bytes(damage_garbage(path.read_bytes()))
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 16 + segment.SEQ_SPAN
    assert [path.name for path in segment.listing(tmp_path / "0")] == [names[1]]


def test_a_slot_that_no_later_writer_takes_is_recovered_too(tmp_path):
    writers = [worker("step", tmp_path, "commit", 1 << 20) for _ in range(2)]
    for writer in writers:  # both hold a slot before one of them ends
        writer.stdout.readline()
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
        writer.stdout.readline()
    for writer in writers:
        writer.kill()
        writer.wait()
    recovery.recover_all(tmp_path)
    assert slots.names(tmp_path) == ["0", "1"]
    assert check(tmp_path) == []


def test_a_slot_that_is_held_is_left_alone(tmp_path):
    with Writer(tmp_path, "commit") as writer:
        store(writer, [T0])
        recovery.recover_all(tmp_path)
        assert slots.read_open(tmp_path / "0") is not None
        store(writer, [T0 + 1])
    assert check(tmp_path) == []
