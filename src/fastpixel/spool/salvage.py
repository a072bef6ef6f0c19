"""Salvage: the batches that can still be read in the bytes of a damaged segment.

What lives here: LMDB's page lay-out (data format 1, native byte order), as far as finding values needs it.
It must not let LMDB touch the damaged file: a bad page can crash the process.

How it works. A segment only ever grows, so every leaf page in the file, reachable or not, holds batches
that were stored; one whose commit failed may be among them, and was never answered. All pages are looked
at; a value counts if its key may belong to the segment and it is whole records. An older copy of a leaf
page has fewer entries than a newer one, so of two values of one key the one from the fuller page is taken.
Events are told from rejects by `messageId`, which every event has and no reject.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgpack

from fastpixel._core import scan, split
from fastpixel.spool import files, recovery, segment
from fastpixel.spool.segment import Batch, Segment

SALVAGED = ".salvaged"

_HEADER = struct.Struct("=QHHHH")  # page number, pad, flags, lower, upper
_NODE = struct.Struct("=HHHH")  # low and high half of the value's size, flags, key size
_PAGE_NUMBER = struct.Struct("=Q")
_LEAF, _OVERFLOW, _BIG = 0x02, 0x04, 0x01
_PAGE_SIZES = (4096, 8192, 16384, 32768)
_PSIZE_AT = 16 + 24
_NUMBER_BYTES = 8


class Found(NamedTuple):
    """A value in a leaf page with `fullness` entries."""

    key: int
    value: bytes
    fullness: int


def salvage(damaged: Path, spool_id: str) -> int:
    """Puts a sound segment in the place of `<segment>.damaged`; returns how many records it has.

    0: nothing could be read, nothing was changed. The damaged file stays as `<segment>.salvaged`.
    """
    path = damaged.with_name(damaged.name.removesuffix(recovery.DAMAGED))
    rows = _without_overlaps(_newest(_found(damaged)))
    if not rows or path.exists():
        return 0
    fresh = path.with_name(f".{path.name}.tmp")
    segment.delete(fresh)
    count = _store(fresh, spool_id, rows)
    fresh.rename(path)
    damaged.rename(path.with_name(path.name + SALVAGED))
    files.sync(path.parent)
    return count


def _store(path: Path, spool_id: str, rows: list[Found]) -> int:
    size = sum(len(row.value) for row in rows)
    with Segment.create(path, 2 * size + segment.HEADROOM, durable=False) as fresh:
        for index, row in enumerate(rows):
            if index:
                fresh.append(row.key, _batch(row.value))
            else:
                fresh.start(spool_id, row.key, _batch(row.value))
        sealed = fresh.survey()
        fresh.seal(sealed)
    segment.lock_path(path).unlink()
    files.sync(path)
    return sealed.events + sealed.rejects


def _batch(value: bytes) -> Batch:
    count, low, high = scan(value)
    if "messageId" in msgpack.unpackb(split(value)[0], strict_map_key=False, unicode_errors="replace"):
        return Batch(value, count, b"", 0, low, high)
    return Batch(b"", 0, value, count, low, high)


def _newest(found: Iterator[Found]) -> dict[int, Found]:
    newest: dict[int, Found] = {}
    for row in found:
        if row.key not in newest or row.fullness >= newest[row.key].fullness:
            newest[row.key] = row
    return newest


def _without_overlaps(rows: dict[int, Found]) -> list[Found]:
    kept: list[Found] = []
    end = 0
    for key in sorted(rows):
        if key >= end:
            kept.append(rows[key])
            end = key + scan(rows[key].value)[0]
    return kept


# -- the file's pages


def _found(path: Path) -> Iterator[Found]:
    first = segment.first_seq(path)
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        size = _page_size(data)
        for number in range(2, len(data) // size):
            for row in _leaf(data, number, size):
                if first <= row.key < first + segment.SEQ_SPAN and _whole(row.value):
                    yield row


def _page_size(data: mmap.mmap) -> int:
    """What the first meta page says, if that is sense; else this machine's."""
    said = int.from_bytes(data[_PSIZE_AT : _PSIZE_AT + 4], "little")
    return said if said in _PAGE_SIZES else mmap.PAGESIZE


def _leaf(data: mmap.mmap, number: int, size: int) -> Iterator[Found]:
    """The entries of a page that may be those of `events` or `rejects`; none if it is not a leaf page."""
    base = number * size
    itself, _, flags, lower, _ = _HEADER.unpack_from(data, base)
    if itself != number or flags != _LEAF or not _HEADER.size <= lower <= size:
        return
    entries = (lower - _HEADER.size) // 2
    start = base + _HEADER.size
    for (offset,) in struct.iter_unpack("=H", data[start : start + 2 * entries]):
        if offset + _NODE.size + segment.KEY.size + _NUMBER_BYTES > size:
            continue
        low, high, kind, key_size = _NODE.unpack_from(data, base + offset)
        if key_size == segment.KEY.size and kind in (0, _BIG):
            at = base + offset + _NODE.size
            value = _value(data, at + key_size, low | high << 16, kind == _BIG, size)
            yield Found(segment.KEY.unpack_from(data, at)[0], value, entries)


def _value(data: mmap.mmap, at: int, length: int, big: bool, size: int) -> bytes:
    """The value at this offset or, if it is big, in the overflow pages named there; b"" if they are not."""
    if not big:
        return data[at : at + length]
    (number,) = _PAGE_NUMBER.unpack_from(data, at)
    base = number * size
    if base + _HEADER.size + length > len(data):
        return b""
    itself, _, flags, _, _ = _HEADER.unpack_from(data, base)
    if itself != number or flags != _OVERFLOW:
        return b""
    return data[base + _HEADER.size : base + _HEADER.size + length]


def _whole(value: bytes) -> bool:
    try:
        return scan(value)[0] > 0
    except ValueError:
        return False
