"""A plain-Python twin of `scan` and `split`: the oracle of test_spool_twin, a stand-in without a core."""

import sys
import types

import msgpack


def split(value):
    if not isinstance(value, bytes):
        raise TypeError("bytes expected")
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(value)
    records, start = [], 0
    while start < len(value):
        try:
            whole = isinstance(unpacker.unpack(), dict)
        except msgpack.OutOfData:
            whole = False
        if not whole:
            raise ValueError(f"not whole msgpack maps at byte {start}")
        records.append(value[start : unpacker.tell()])
        start = unpacker.tell()
    return records


def scan(value):
    times = [msgpack.unpackb(record, strict_map_key=False)["receivedAt"] for record in split(value)]
    if not times:
        return 0, 0, 0
    nanos = [time.to_unix_nano() for time in times]
    return len(nanos), min(nanos), max(nanos)


def install():
    """Makes `fastpixel._core` importable where it is not built."""
    try:
        from fastpixel._core import scan, split  # noqa: F401
    except ImportError:
        core = types.ModuleType("fastpixel._core")
        core.scan, core.split = globals()["scan"], globals()["split"]
        sys.modules["fastpixel._core"] = core
