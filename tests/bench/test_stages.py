"""A profile's samples become stages: every kind of line that perf prints, and no perf is needed."""

import re
from pathlib import Path

import pytest

from bench import breakdown, stages
from fastpixel import _core

CORE = "/src/fastpixel/_core.cpython-311-x86_64-linux-gnu.so"
SITE = "/venv/lib/python3.11/site-packages"

SAMPLES = {
    "tcp_ack ([kernel.kallsyms])": "kernel: sockets",
    "ext4_es_insert_delayed_extent ([kernel.kallsyms])": "kernel: files",
    "finish_task_switch.isra.0 ([kernel.kallsyms])": "kernel: the rest",
    "[unknown] ([vdso])": "kernel: the rest",
    f"__pyx_f_6uvloop_4loop_8UVStream_write ({SITE}/uvloop/loop.cpython-311.so)": "uvloop and libuv",
    f"llhttp__internal__run ({SITE}/httptools/parser/parser.cpython-311.so)": "httptools (llhttp)",
    f"mdb_page_flush ({SITE}/lmdb/cpython.cpython-311.so)": "LMDB",
    f"__pyx_f_9fastpixel_5_core_head_parse ({CORE})": "core: connection and head",
    f"__pyx_f_9fastpixel_5_core_10Connection_work ({CORE})": "core: connection and head",
    f"__pyx_f_9fastpixel_5_core_qry_cut ({CORE})": "core: decode",
    f"__pyx_f_9fastpixel_5_core_tree_pack_members.isra.0 ({CORE})": "core: pack",
    f"__pyx_f_9fastpixel_5_core_6Intake_event ({CORE})": "core: answers and batch",
    f"__popcountdi2 ({CORE})": "core: the rest",
    "__memmove_avx512_unaligned_erms (/usr/lib/x86_64-linux-gnu/libc.so.6)": "libc: copies",
    "_int_free (/usr/lib/x86_64-linux-gnu/libc.so.6)": "libc: the rest",
    "_PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)": "Python interpreter",
    "PyObject_GetAttr (/usr/bin/python3.11)": "Python interpreter",
    "deflate (/usr/lib/libz.so.1)": "other",
}


@pytest.mark.parametrize(("line", "stage"), SAMPLES.items())
def test_a_sample_has_a_stage(line, stage):
    assert stages.shares([f"     7f39d18d3ca2 {line}"]) == {stage: 1.0}


def test_shares_add_up_and_keep_the_order_of_the_table():
    found = stages.shares([f"  ff {line}" for line in SAMPLES])
    assert sum(found.values()) == pytest.approx(1)
    assert list(found) == [row.stage for row in stages.ROWS if row.stage in found]


def test_nearly_every_function_of_the_core_has_a_noun_in_the_table():
    text = Path(_core.__file__).read_bytes().decode("latin-1")
    symbols = set(re.findall(r"__pyx_f_9fastpixel_5_core_\w+", text))
    lost = [name for name in symbols if stages.stage(name, CORE) == "core: the rest"]
    assert len(lost) <= len(symbols) // 10, lost


def test_the_profile_shows_microseconds_that_add_up():
    profile = breakdown.Profile("pipeline", "commit", 6.0, 300, {"LMDB": 0.25, "core: decode": 0.75})
    text = breakdown.document([profile], {"CPU": "a CPU"}, "2020-01-01")
    for line in ("| LMDB | 25.0 % | 1.50 |", "| core: decode | 75.0 % | 4.50 |", "| **sum** | 100.0 % | 6.00 |"):
        assert line in text
    assert "## fastpixel, commit: 64 connections, 16 requests a write" in text and "- CPU: a CPU" in text


def test_without_perf_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(breakdown.BenchError, match="apt-get install linux-perf"):
        breakdown.perf_version()
