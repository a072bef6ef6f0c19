"""Deleting segments, without a seq ever being used twice.

What lives here: the one safe way to remove a complete segment. Which ones to remove, and when, the
supervisor says.
"""

from __future__ import annotations

from pathlib import Path

from fastpixel.errors import SpoolError
from fastpixel.spool import segment, slots
from fastpixel.spool.segment import Segment


def remove(path: Path) -> int:
    """Deletes a complete segment; returns the bytes freed. SpoolError: it may still be written.

    The newest segment of a slot is where the next holder finds its next seq, so that goes to NEXT first.
    """
    if slots.unfinished(path.parent, [path]):
        raise SpoolError(f"{path} may still be written: only complete segments can be deleted")
    if path == segment.listing(path.parent)[-1]:
        slots.raise_next(path.parent, _seq_after(path))
    freed = path.stat().st_blocks * 512
    segment.delete(path)
    return freed


def _seq_after(path: Path) -> int:
    with Segment.share(path, locked=False) as opened:
        sealed = opened.sealed()
        return opened.next_seq() if sealed is None else sealed.last_seq + 1
