"""Format 1 as other programs see it: names, bytes, permissions; read with lmdb and msgpack alone."""

import os
import re
import stat
import subprocess
import sys

import msgpack
import pytest
from spool_data import HERE, MS, T0, event, plain, poke, reject, store

from fastpixel.errors import SpoolError
from fastpixel.spool import slots
from fastpixel.spool.reader import Spool
from fastpixel.spool.writer import Writer


def test_a_sealed_segment(tmp_path):
    with Writer(tmp_path / "data") as writer:
        events, rejects = [event(T0 + MS), event(T0 + 3 * MS)], [reject(T0 + 2 * MS)]
        assert writer.append(memoryview(b"".join(events)), 2, rejects[0], 1, T0 + MS, T0 + 3 * MS) == 1
        assert writer.append(b"", 0, bytearray(rejects[0]), 1, T0 + 2 * MS, T0 + 2 * MS) == 4
        assert writer.append(events[0], 1, b"", 0, T0 + MS, T0 + MS) == 5
    found, meta = plain(tmp_path / "data" / "0" / "00000000000000000001.mdb")
    one, two, bad = (msgpack.unpackb(value) for value in (*events, rejects[0]))
    assert found == {"events": [(1, [one, two]), (5, [one])], "rejects": [(3, [bad]), (4, [bad])]}
    assert meta == {
        "format": 1,
        "spool": (tmp_path / "data" / "spool-id").read_text().strip(),
        "sealed": {
            "lastSeq": 5,
            "counts": {"events": 3, "rejects": 2},
            "minReceivedAt": msgpack.Timestamp.from_unix_nano(T0 + MS),
            "maxReceivedAt": msgpack.Timestamp.from_unix_nano(T0 + 3 * MS),
        },
    }
    assert re.fullmatch(r"[0-9a-f]{8}", meta["spool"])


def test_any_library_reads_a_segment_while_it_is_written(tmp_path):
    writer = Writer(tmp_path)
    store(writer, [T0, T0])
    path = tmp_path / "0" / "00000000000000000001.mdb"
    code = f"import spool_data; print(spool_data.plain({str(path)!r}, lock=True))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True)
    assert printed.stdout.count("messageId") == 2
    assert "sealed" not in printed.stdout
    writer.close()


def test_files_and_directories_are_not_for_everybody(tmp_path):
    old = os.umask(0)
    try:
        writer = Writer(tmp_path / "new" / "data", "commit", segment_bytes=1 << 16)
        while len(Spool(tmp_path / "new" / "data").segments("0")) < 2:
            store(writer, [T0] * 100)
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    finally:
        os.umask(old)
        writer.close()
    assert {path.name for path in modes} >= {"data", "0", "spool-id", "OPEN"}
    assert any(path.name.endswith("-lock") for path in modes)
    assert all(mode == (0o750 if path.is_dir() else 0o640) for path, mode in modes.items())


def test_an_unknown_format_version_is_refused(tmp_path):
    with Writer(tmp_path) as writer:
        store(writer, [T0])
    poke(tmp_path / "0" / "00000000000000000001.mdb", "meta", b"format", msgpack.packb(2))
    with pytest.raises(SpoolError, match=r"format 2.*knows format 1"):
        Writer(tmp_path)
    with pytest.raises(SpoolError, match="format 2"):
        list(Spool(tmp_path).batches("0"))
    assert slots.hold(tmp_path / "0") is not None  # a refused start lets go of its slot


def test_a_segment_of_another_spool_is_refused(tmp_path):
    with Writer(tmp_path) as writer:
        store(writer, [T0])
    (tmp_path / "spool-id").write_text("00000000\n")
    with pytest.raises(SpoolError, match="belongs to spool"):
        Writer(tmp_path)


def test_the_spool_id_is_made_once_and_missed_when_lost(tmp_path):
    with Writer(tmp_path) as writer:
        store(writer, [T0])
    with Writer(tmp_path) as again:
        assert again.spool_id == writer.spool_id
    (tmp_path / "spool-id").unlink()
    with pytest.raises(SpoolError, match="missing"):
        Writer(tmp_path)
    with pytest.raises(SpoolError, match="not a spool"):
        Spool(tmp_path)
