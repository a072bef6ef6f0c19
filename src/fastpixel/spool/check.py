"""The check: does the spool on disk hold what format 1 promises, and mending what can be mended.

What lives here: the list of faults (`KINDS`), how each is found and what `repair` does about it. It must
not run in the way of a writer: a slot that is held is only read, and of its unfinished segments only what
readers may see.

Repair never drops a record that can be read: a segment is replaced by its salvage, the damaged file stays
beside it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import lmdb

from fastpixel._core import scan
from fastpixel.errors import SpoolError
from fastpixel.spool import files, recovery, segment, slots
from fastpixel.spool.salvage import SALVAGED, salvage
from fastpixel.spool.segment import DATABASES, FORMAT, Sealed, Segment

KINDS = {
    "no_spool_id": "the file spool-id is missing or unreadable; repair: restored from the segments",
    "bad_next": "the file NEXT does not hold a number; repair: removed, above the newest segment's seqs",
    "stale_open": "OPEN is left of a process that ended; repair: its segments are sealed",
    "damaged": "not a sound LMDB file, or a value is not whole records; repair: what can be read is salvaged",
    "format": "a format version that this release does not know; use the release that wrote it",
    "spool_id": "the segment belongs to another spool; move it to a data directory of its own",
    "overlap": "two batches use the same seqs; no repair: look which one is right",
    "empty": "a segment without a batch; repair: removed",
    "unsealed": "complete, but not sealed; repair: sealed",
    "sealed_mismatch": "sealed with other numbers than it holds; repair: sealed anew",
    "stray": "a file that is no part of a spool; repair: removed if it is temporary, or a lock of nothing",
}


class Finding(NamedTuple):
    """One fault. `repaired` says what was done about it, "" if nothing."""

    path: Path
    kind: str
    detail: str
    repaired: str = ""


def check(data_dir: Path, repair: bool = False) -> list[Finding]:
    """Reads every record. [] : the spool is sound. SpoolError: the directory is none, or remote."""
    files.refuse_remote(data_dir)
    if not data_dir.is_dir():
        raise SpoolError(f"{data_dir} is not a directory: check data_dir")
    findings = list(_check_id(data_dir, repair))
    try:
        spool_id = slots.spool_id(data_dir)
    except SpoolError:
        spool_id = None
    for name in slots.names(data_dir):
        with slots.holding(data_dir / name) as held:
            findings += _Slot(data_dir / name, spool_id, held, repair and held).check()
    return findings


# -- the data directory


def _check_id(data_dir: Path, repair: bool) -> Iterator[Finding]:
    path = data_dir / slots.ID_FILE
    try:
        slots.spool_id(data_dir)
    except SpoolError as error:
        done = ""
        if repair:
            found = _id_of_segments(data_dir) or secrets.token_hex(4)
            files.write(path, found + "\n")
            done = f"set to {found}"
        yield Finding(path, "no_spool_id", str(error), done)


def _id_of_segments(data_dir: Path) -> str | None:
    for name in slots.names(data_dir):
        for path in segment.listing(data_dir / name):
            if not slots.unfinished(path.parent, [path]) and not segment.verify(path):
                with Segment.share(path, locked=False) as opened:
                    if opened.started:
                        return str(opened.meta("spool"))
    return None


# -- one slot


class _Slot:
    """The check of one slot directory. `held`: by us, so nobody writes in it."""

    def __init__(self, path: Path, spool_id: str | None, held: bool, repair: bool) -> None:
        self.path = path
        self.spool_id = spool_id
        self.held = held
        self.repair = repair
        self._end = 0
        self._hopeless: set[Path] = set()

    def check(self) -> list[Finding]:
        findings = [*self._next(), *self._open()]
        paths = segment.listing(self.path)
        live = [] if self.held else slots.unfinished(self.path, paths)
        for path in paths:
            try:
                findings += self._segment(path, path in live)
            except FileNotFoundError:  # deleted by its owner while we came to it
                continue
        return [*findings, *self._leftovers()]

    def _next(self) -> Iterator[Finding]:
        path = self.path / slots.NEXT_FILE
        try:
            slots.read_next(self.path)
        except SpoolError as error:
            done = ""
            if self.repair:
                newest = [segment.first_seq(found) for found in segment.listing(self.path)[-1:]]
                files.write(path, f"{max(newest, default=0) + segment.SEQ_SPAN}\n")
                done = "set above the newest segment"
            yield Finding(path, "bad_next", str(error), done)

    def _open(self) -> Iterator[Finding]:
        left = slots.read_open(self.path)
        if left is None or not self.held:
            return
        names = [path.name for path in slots.unfinished(self.path, segment.listing(self.path))]
        detail = f"process {left.pid} left {', '.join(names) or 'nothing'}"
        done = ""
        if self.repair:
            later = recovery.recover(self.path)
            done = f"could not finish {', '.join(later)}" if later else "sealed or set aside"
        yield Finding(self.path / slots.OPEN_FILE, "stale_open", detail, done)

    # -- one segment

    def _segment(self, path: Path, live: bool) -> Iterator[Finding]:
        for kind, detail in self._faults(path, live):
            yield Finding(path, kind, detail, self._mend(path, kind, detail) if self.repair else "")

    def _faults(self, path: Path, live: bool) -> list[tuple[str, str]]:
        if not path.stat().st_size:
            return [] if live else [("empty", "the file has no bytes")]
        problems = [] if live else segment.verify(path)
        if problems:
            return [("damaged", "; ".join(problems[:3]))]
        try:
            with Segment.share(path, locked=live) as opened:
                return list(self._contents(opened, live))
        except (lmdb.Error, ValueError) as error:
            return [("damaged", str(error))]

    def _contents(self, opened: Segment, live: bool) -> Iterator[tuple[str, str]]:
        """ValueError: a value is not whole records."""
        if not opened.started:
            if not live:
                yield "empty", "no batch was ever committed"
            return
        version, spool_id = opened.meta("format"), opened.meta("spool")
        if version != FORMAT:
            yield "format", f"format version {version!r}, this release knows {FORMAT}"
            return
        if self.spool_id not in (None, spool_id):
            yield "spool_id", f"it says spool {spool_id}, the data directory is spool {self.spool_id}"
        spans, found = _read(opened)
        yield from self._overlaps(opened.path, spans)
        yield from self._seal(opened, found, live)

    def _overlaps(self, path: Path, spans: list[tuple[int, int]]) -> Iterator[tuple[str, str]]:
        """Seqs rise through events and rejects together, and from segment to segment."""
        self._end = max(self._end, segment.first_seq(path))
        for start, end in sorted(spans):
            if start < self._end:
                yield "overlap", f"seq {start} was used before, or lies below the segment's name"
            self._end = max(self._end, end)

    def _seal(self, opened: Segment, found: Sealed, live: bool) -> Iterator[tuple[str, str]]:
        said = opened.sealed()
        if said is None:
            if not live and not slots.unfinished(self.path, [opened.path]):
                yield "unsealed", "OPEN does not name it either"
        elif said != found:
            yield "sealed_mismatch", f"it says {said} and holds {found}"

    def _mend(self, path: Path, kind: str, detail: str) -> str:
        if kind == "damaged":
            recovery.set_aside(path, [detail])
            return self._salvage(path.with_name(path.name + recovery.DAMAGED))
        if kind == "empty":
            segment.delete(path)
            return "removed"
        if kind in ("unsealed", "sealed_mismatch"):
            with Segment.reopen(path) as opened:
                opened.seal(opened.survey())
            segment.lock_path(path).unlink()
            return "sealed"
        return ""

    def _salvage(self, damaged: Path) -> str:
        if self.spool_id is None:
            return ""
        count = salvage(damaged, self.spool_id)
        self._hopeless.add(damaged)
        return f"salvaged {count} records" if count else f"nothing could be read; kept as {damaged.name}"

    # -- other files

    def _leftovers(self) -> Iterator[Finding]:
        if not self.held:  # its owner makes temporary files and locks all the time
            return
        segments = segment.listing(self.path)
        expected = {slots.OPEN_FILE, slots.NEXT_FILE, *(path.name for path in segments)}
        expected |= {segment.lock_path(path).name for path in segments}  # a late reader may leave one behind
        for path in sorted(self.path.iterdir()):
            if path.name not in expected and path.suffix != SALVAGED and path not in self._hopeless:
                yield self._leftover(path)

    def _leftover(self, path: Path) -> Finding:
        if path.suffix == recovery.DAMAGED:
            done = self._salvage(path) if self.repair else ""
            return Finding(path, "damaged", "set aside by an earlier start", done)
        done = ""
        if self.repair and (path.name.endswith("-lock") or path.suffix == ".tmp"):
            path.unlink()
            done = "removed"
        return Finding(path, "stray", "not a file of the spool", done)


def _read(opened: Segment) -> tuple[list[tuple[int, int]], Sealed]:
    """Seq range of each batch, and what `sealed` should say. ValueError: a value is not whole records."""
    spans = []
    found = Sealed(0)
    for database in DATABASES:
        for key, value in opened.values(database):
            count, low, high = scan(value)
            events = count if database == "events" else 0
            found = found.plus(key + count - 1, events, count - events, low, high)
            spans.append((key, key + count))
    return spans, found
