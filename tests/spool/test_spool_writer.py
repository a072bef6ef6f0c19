"""Storing: slots, rolls, maps, a full disk, failing commits."""

import os
import shutil
import subprocess
import sys
import threading

import pytest
from spool_data import HERE, T0, plain, seqs, store, worker

from fastpixel.errors import SpoolFull
from fastpixel.spool import segment, slots
from fastpixel.spool.check import check
from fastpixel.spool.reader import Spool
from fastpixel.spool.retention import remove
from fastpixel.spool.writer import Writer

MODES = pytest.mark.parametrize("mode", ["fsync", "commit"])


@MODES
def test_seqs_go_on_after_a_restart(tmp_path, mode):
    with Writer(tmp_path, mode) as writer:
        assert [store(writer, [T0] * 3, rejects=2)[0], store(writer, [T0])[0]] == [1, 6]
    with Writer(tmp_path, mode) as writer:
        assert writer.next_seq == 7
        assert store(writer, [T0])[0] == 7
    assert [path.name[-7:] for path in Spool(tmp_path).segments("0")] == ["001.mdb", "007.mdb"]
    assert check(tmp_path) == []


def test_nothing_is_created_before_the_first_batch(tmp_path):
    with Writer(tmp_path) as writer:
        assert writer.append(b"", 0, b"", 0) == 1
        assert list((tmp_path / "0").iterdir()) == []


@MODES
def test_a_segment_is_rolled_at_its_size(tmp_path, mode):
    with Writer(tmp_path, mode, segment_bytes=256 << 10) as writer:
        stored = [event for _ in range(200) for event in store(writer, [T0] * 20, pad=300)[1]]
        sizes = [path.stat().st_size for path in Spool(tmp_path).segments("0")]
        assert len(sizes) > 4
        assert all(256 << 10 <= size < 300 << 10 for size in sizes[:-1])
    assert list((tmp_path / "0").glob("OPEN")) == []
    batches = list(Spool(tmp_path).batches("0"))
    assert b"".join(batch.value for batch in batches) == b"".join(stored)
    assert seqs(batches) == list(range(1, 4001))
    assert check(tmp_path) == []


@MODES
def test_open_names_the_segment_being_written(tmp_path, mode):
    writer = Writer(tmp_path, mode)
    store(writer, [T0])
    left = slots.read_open(tmp_path / "0")
    assert (left.boot, left.mode, left.pid) == (slots.boot_id(), mode, os.getpid())
    assert left.segment == "00000000000000000001.mdb"
    writer.close()
    assert slots.read_open(tmp_path / "0") is None


@MODES
def test_a_full_map_rolls_and_stores(tmp_path, mode):
    with Writer(tmp_path, mode, segment_bytes=1 << 20) as writer:
        store(writer, [T0])
        stored = [store(writer, [T0] * 2, pad=20 << 20) for _ in range(2)]  # 80 MiB, the map is 65
    assert [first for first, _ in stored] == [2, 4]
    assert seqs(Spool(tmp_path).batches("0")) == [1, 2, 3, 4, 5]
    assert check(tmp_path) == []


def test_a_batch_larger_than_any_map_is_stored(tmp_path):
    with Writer(tmp_path, "commit", segment_bytes=1 << 20) as writer:
        store(writer, [T0])
        _, (big,) = store(writer, [T0], pad=150 << 20)
        assert store(writer, [T0])[0] == 3
    assert [batch.value for batch in Spool(tmp_path).batches("0")][1] == big
    assert check(tmp_path) == []


def test_append_works_on_any_thread(tmp_path):
    with Writer(tmp_path) as writer:
        for _ in range(5):
            thread = threading.Thread(target=store, args=(writer, [T0]))
            thread.start()
            thread.join()
        assert store(writer, [T0])[0] == 6


# -- slots


def test_two_processes_take_two_slots_and_the_lowest_free_one(tmp_path):
    first = worker("step", tmp_path)
    assert first.stdout.readline() == "slot 0\n"
    with Writer(tmp_path) as second:
        assert second.slot == "1"
        first.kill()
        first.wait()
        with Writer(tmp_path) as third:
            assert third.slot == "0"


def test_a_slot_is_let_go_by_close(tmp_path):
    for _ in range(2):
        with Writer(tmp_path) as writer:
            assert writer.slot == "0"
            assert slots.hold(tmp_path / "0") is None


# -- deleting


def test_seqs_go_on_after_all_segments_were_deleted(tmp_path):
    with Writer(tmp_path) as writer:
        store(writer, [T0] * 10)
        with pytest.raises(Exception, match="may still be written"):
            remove(Spool(tmp_path).segments("0")[0])
    assert remove(Spool(tmp_path).segments("0")[0]) > 0
    assert [path.name for path in (tmp_path / "0").iterdir()] == ["NEXT"]
    with Writer(tmp_path) as writer:
        assert writer.next_seq == 11


# -- trouble


@pytest.fixture
def small_disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@MODES
@pytest.mark.parametrize("size", [300, 30_000])
def test_a_full_disk_refuses_and_resumes_by_itself(small_disk, mode, size):
    ballast = small_disk / "ballast"
    with Writer(small_disk, mode) as writer:
        kept = list(store(writer, [T0], pad=size)[1])
        ballast.write_bytes(bytes(2 << 20))
        for _ in range(3):
            kept += _fill(writer, size)
        segments = segment.listing(small_disk / "0")
        ballast.unlink()
        kept += store(writer, [T0], pad=size)[1]
        assert segment.listing(small_disk / "0") == segments  # the same segment goes on
    batches = list(Spool(small_disk).batches("0"))
    assert b"".join(batch.value for batch in batches) == b"".join(kept)
    assert seqs(batches) == list(range(1, len(kept) + 1))
    assert check(small_disk) == []


def _fill(writer, size):
    kept = []
    with pytest.raises(SpoolFull, match="no space left"):
        for _ in range(100_000):
            kept += store(writer, [T0], pad=size)[1]
    return kept


@MODES
@pytest.mark.parametrize("left", [0, 4096, 12288, 40960])
def test_a_disk_too_full_for_a_new_segment(small_disk, mode, left):
    """No SIGBUS from the lock file's map, no litter; then the batch is stored."""
    with Writer(small_disk, mode) as writer:
        free = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - left))
        for _ in range(3):
            with pytest.raises(SpoolFull, match="no space left"):
                store(writer, [T0], pad=100_000)
        assert [path.name for path in (small_disk / "0").iterdir() if path.name != "OPEN"] == []
        (small_disk / "ballast").unlink()
        assert store(writer, [T0], pad=100_000)[0] == 1
    assert check(small_disk) == []


def test_a_full_disk_at_the_end_leaves_the_seal_to_the_next_start(small_disk):
    writer = Writer(small_disk)
    store(writer, [T0])
    kept = 1 + len(_fill(writer, 3000))
    writer.close()
    found, meta = plain(small_disk / "0" / "00000000000000000001.mdb")
    if "sealed" not in meta:
        assert (small_disk / "0" / "OPEN").exists()
        with Writer(small_disk) as writer:  # still full: the slot can be taken, seqs go on
            assert writer.next_seq == kept + 1
    subprocess.run(["mount", "-o", "remount,size=6m", small_disk], check=True)
    Writer(small_disk).close()
    assert len(found["events"]) == kept
    assert check(small_disk) == []


LIMITED = """
import resource, sys
sys.path.insert(0, {here!r})
import spool_twin; spool_twin.install()
from pathlib import Path
from spool_data import T0, store
from fastpixel.errors import SpoolFull
from fastpixel.spool.writer import Writer
writer = Writer(Path({path!r}), {mode!r})
kept = [store(writer, [T0])[0]]
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
try:
    while True:
        kept.append(store(writer, [T0], pad=3000)[0])
except SpoolFull as error:
    print(error, file=sys.stderr)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
kept.append(store(writer, [T0])[0])
writer.close()
print(*kept)
"""


@MODES
def test_another_error_abandons_the_segment_and_starts_a_new_one(tmp_path, mode):
    code = LIMITED.format(here=str(HERE), path=str(tmp_path), mode=mode)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept = [int(word) for word in done.stdout.split()]
    assert "is abandoned" in done.stderr
    assert kept == [*range(1, len(kept)), len(kept) + 1]  # the refused batch's seq is not used again
    assert seqs(Spool(tmp_path).batches("0")) == kept
    assert slots.read_open(tmp_path / "0").abandoned == ("00000000000000000001.mdb",)
    Writer(tmp_path).close()  # verifies and seals it
    assert seqs(Spool(tmp_path).batches("0")) == kept
    assert check(tmp_path) == []


@pytest.mark.parametrize("mode", ["fsync", "commit"])
def test_nothing_is_stored_in_a_directory_that_was_deleted(tmp_path, mode):
    """LMDB would go on writing into the unlinked file, and every answer would be untrue."""
    data_dir = tmp_path / "spool"
    writer = Writer(data_dir, mode)
    store(writer, [T0])
    shutil.rmtree(data_dir)
    for _ in range(2):
        with pytest.raises(SpoolFull, match=r"storing in .*/0 failed"):
            store(writer, [T0 + 1])
    writer.close()
