"""NDJSON: one line of strict JSON a record, written by the core."""

from __future__ import annotations

from fastpixel._core import json_lines


def lines(value: bytes, spool_id: str, slot: str, first_seq: int) -> bytes:
    """The records of one batch; each gets its `seq`, <spool>-<slot>-<n>."""
    return json_lines(value, f"{spool_id}-{slot}-", first_seq)
