"""Which stage of an event a profiler's sample belongs to: one table, read from the top; the first row that fits counts.

A row is a stage, a pattern for the binary and one for the symbol. In the core a symbol names its noun: head_parse is
`__pyx_f_9fastpixel_5_core_head_parse`, a method `__pyx_f_9fastpixel_5_core_10Connection_feed`.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    stage: str
    binary: str
    symbol: str = ""


def core(stage: str, *nouns: str) -> Row:
    return Row(stage, r"/_core\.", rf"_9fastpixel_5_core_(\d+_?)?({'|'.join(nouns)})")


KERNEL, CORE = r"^\[(kernel|guest|vdso|vsyscall)|\.ko|^\[unknown", r"/_core\."
ROWS = (
    Row(
        "kernel: sockets",
        KERNEL,
        r"tcp|skb|sock|\b_*(sk|ip|ep|dev)_|inet|net_|loopback|bbr|cubic|epoll|qdisc|xmit|napi",
    ),
    Row(
        "kernel: files", KERNEL, r"ext4|jbd2|folio|filemap|page_cache|iomap|xfs|btrfs|blk|bio|buffer_|inode|pwrite|sync"
    ),
    Row("kernel: the rest", KERNEL),
    Row("uvloop and libuv", r"/uvloop/"),
    Row("httptools (llhttp)", r"/httptools/"),
    Row("LMDB", r"/lmdb/"),
    core(
        "core: connection and head",
        "Connection",
        "Carrier",
        "_?Wires?",
        "wir_",
        "_Window",
        "Proxies",
        "head_",
        "_head_",
        "chunk_",
        "body_",
        "chr_",
        "prx_",
    ),
    core("core: decode", "Plan", "plan_", "path_", "names_", "hsh_", "cur_", "qry_", "pct_", "utf_", "shape_", "b64_"),
    core("core: values", "kind_", "num_", "flt_", "time_", "clock_", "jsn_", "prm_", "uuid_"),
    core("core: pack", "rec_", "tree_", "pk_", "blk_", "out_", "_?span_"),
    core("core: answers and batch", "Replies", "reply_", "rej_", "Intake", "Batch", "bucket_"),
    Row("core: the rest", CORE),
    Row("libc: copies", r"/libc[.-]", r"^_*mem(cpy|move|set)"),
    Row("libc: the rest", r"/(libc|libpthread|libm|ld)[.-]|/ld-linux"),
    Row("Python interpreter", r"python"),
    Row("other", ""),
)
SAMPLE = re.compile(r"^\s*[0-9a-f]+ (.+?) \((.+)\)$")  # `perf script -F ip,sym,dso`


def stage(symbol: str, binary: str) -> str:
    return next(row.stage for row in ROWS if re.search(row.binary, binary) and re.search(row.symbol, symbol))


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Stage -> share of the samples, in the order of ROWS."""
    found = Counter(stage(*sample.groups()) for line in lines if (sample := SAMPLE.match(line)))
    total = found.total()
    return {row.stage: found[row.stage] / total for row in ROWS if found[row.stage]}
