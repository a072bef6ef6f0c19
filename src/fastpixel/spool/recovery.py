"""Recovery: what a new holder of a slot does with the segments that the last one left unfinished.

It must not know how batches are written or read. The cost is that of the segments OPEN covers (usually one),
whatever the backlog.

In the same boot the page cache is coherent, so LMDB may open the file at once: `kill -9` leaves the last
commit. After a reboot, or after a failed commit, the file proves itself first (`segment.verify` does not let
LMDB touch it; then every value is read). What fails is renamed `.damaged`, loudly.

Where answered records may be lost (damage; mode `commit` after a reboot) a follower may have seen seqs that
are gone. The slot's seqs then go on `segment.SEQ_SPAN` above the name of the newest segment, beyond
anything it could have held: a seq given twice would overwrite events downstream, while a gap costs nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path

import lmdb

from fastpixel.errors import SpoolError
from fastpixel.spool import files, segment, slots
from fastpixel.spool.segment import Segment

DAMAGED = ".damaged"

log = logging.getLogger(__name__)


def recover(directory: Path) -> tuple[str, ...]:
    """Seals or sets aside what OPEN covers; the names that could not be finished now (disk full, I/O error).

    The caller holds the slot and goes on naming those in OPEN.
    """
    slots.sweep(directory)
    left = slots.read_open(directory)
    if left is None:
        return ()
    coherent = left.boot == slots.boot_id()
    paths = segment.listing(directory)
    if paths and not coherent and left.mode != "fsync":
        slots.raise_next(directory, segment.first_seq(paths[-1]) + segment.SEQ_SPAN)
    later = []
    for path in paths:
        if left.covers(path) and not _finish(path, coherent and path.name not in left.abandoned):
            later.append(path.name)
    slots.write_open(directory, left._replace(segment=None, abandoned=tuple(later)))
    return tuple(later)


def recover_all(data_dir: Path) -> None:
    """Recovers every slot that a writer left and that nobody holds: a later start may have fewer writers."""
    for name in slots.names(data_dir):
        with slots.holding(data_dir / name) as held:
            if held:
                recover(data_dir / name)


def next_seq(directory: Path, spool_id: str) -> int:
    """The seq after all that the slot ever stored. SpoolError: unknown format, or another spool's segment."""
    least = slots.read_next(directory)
    for path in reversed(segment.listing(directory)):
        found = _seq_after(path, spool_id)
        if found:
            return max(least, found)
    return least


def set_aside(path: Path, problems: list[str]) -> None:
    """Renames a segment that cannot be read, so that nothing but `check --repair` opens it."""
    slots.raise_next(path.parent, segment.first_seq(path) + segment.SEQ_SPAN)
    aside = path.with_name(path.name + DAMAGED)
    path.rename(aside)
    segment.lock_path(path).unlink(missing_ok=True)
    files.sync(path.parent)
    log.error(
        "segment %s is damaged (%s) and was renamed %s; `fastpixel check --repair` salvages its records",
        path,
        "; ".join(problems[:3]),
        aside.name,
    )


def _finish(path: Path, trusted: bool) -> bool:
    """False: not now; it stays as it is."""
    if not path.stat().st_size:  # killed between creating the file and writing LMDB's first pages
        segment.delete(path)
        return True
    problems = [] if trusted else segment.verify(path)
    try:
        problems = problems or _seal(path, trusted)
    except OSError as error:
        log.warning("segment %s cannot be sealed now (%s); it is retried at the next start", path, error)
        return False
    if problems:
        set_aside(path, problems)
    return True


def _seal(path: Path, trusted: bool) -> list[str]:
    """Seals the segment, or deletes it if it never got a batch. OSError: not now. Else what is damaged."""
    try:
        with Segment.reopen(path) as opened:
            started = opened.started
            if started:
                opened.require_format()
                _seal_open(opened, trusted)
    except (lmdb.Error, ValueError) as error:
        if isinstance(error, lmdb.Error) and error.code > 0:  # an errno: the machine's trouble
            raise OSError(error.code, str(error)) from error
        return [str(error)]
    if started:
        segment.lock_path(path).unlink(missing_ok=True)
    else:
        segment.delete(path)
    return []


def _seal_open(opened: Segment, trusted: bool) -> None:
    said = opened.sealed()
    if said is not None and trusted:
        files.sync(opened.path)
        return
    found = opened.survey()
    if said is not None and said != found:
        log.error("segment %s was sealed as %s and holds %s: sealed anew", opened.path, said, found)
    opened.seal(found)  # a durable commit: it also flushes what the last holder left in the page cache


def _seq_after(path: Path, spool_id: str) -> int | None:
    """The seq after this segment; None if it never got a batch."""
    try:
        with Segment.share(path, locked=bool(slots.unfinished(path.parent, [path]))) as opened:
            if not opened.started:
                return None
            opened.require_format()
            _require_spool(opened, spool_id)
            sealed = opened.sealed()
            return opened.next_seq() if sealed is None else sealed.last_seq + 1
    except FileNotFoundError:
        return None
    except (lmdb.Error, ValueError) as error:
        log.error("segment %s cannot be read (%s); run `fastpixel check --repair`", path, error)
        return segment.first_seq(path) + segment.SEQ_SPAN


def _require_spool(opened: Segment, spool_id: str) -> None:
    found = opened.meta("spool")
    if found != spool_id:
        raise SpoolError(
            f"{opened.path} belongs to spool {found}, this data directory is spool {spool_id}: "
            "give each spool its own data_dir"
        )
