"""The writer: one process's way of storing batches. When `append` returns the batch is stored, and only then
answered.

What lives here: taking a slot; creating, rolling, sealing and abandoning its segments. It must not know
what a record is, nor look at free space and limits (the supervisor does).

Mode `fsync`: LMDB's own synchronous commit (data, then the meta page); sealing is one too. Mode `commit`:
a commit reaches the page cache, and nothing in `append` waits for the device after the first segment. In
both a thread moves OPEN past a sealed segment, in `commit` after flushing it, which can take seconds;
until then OPEN covers both it and its successor.

Errors. MapFullError: abort, roll, once more. Disk full: SpoolFull, the segment stays and the next `append`
tries again. Any other error: SpoolFull, and the segment is abandoned: after EIO the kernel may have
dropped pages that LMDB believes written. It stays there for readers, and the next holder of the slot
verifies it. The next `append` starts a new one, with seqs above every seq that was tried, since nobody
knows what the failed commit left.
"""

from __future__ import annotations

import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import lmdb

from fastpixel.errors import SpoolFull
from fastpixel.spool import files, recovery, segment, slots
from fastpixel.spool.segment import Batch, Sealed, Segment

Mode = Literal["fsync", "commit"]

SEGMENT_BYTES = 256 << 20
_SLACK = 1 << 20
_NO_BATCH = Sealed(0)

log = logging.getLogger(__name__)


class Writer:
    """Holds a slot from construction to `close`. Not tied to a thread, but one call at a time."""

    def __init__(self, data_dir: Path, mode: Mode = "fsync", segment_bytes: int = SEGMENT_BYTES) -> None:
        """SpoolError: the directory cannot be a spool, or a segment is of an unknown format."""
        self.mode = mode
        self.segment_bytes = segment_bytes
        self.spool_id = slots.prepare(data_dir)
        self._slot = slots.take(data_dir)
        try:
            later = recovery.recover(self._slot.path)
            self.next_seq = self._tried = recovery.next_seq(self._slot.path, self.spool_id)
        except BaseException:
            self._slot.release()
            raise
        self._segment: Segment | None = None
        self._sealed = _NO_BATCH
        self._unmeasured = 0
        self._head = slots.boot_id(), mode, os.getpid()
        self._covered = False
        self._abandoned = later
        self._unflushed: tuple[str, ...] = ()
        self._flusher = ThreadPoolExecutor(1, "spool-flush")

    @property
    def slot(self) -> str:
        return self._slot.name

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(  # noqa: PLR0917
        self,
        events: bytes | bytearray | memoryview,
        event_count: int,
        rejects: bytes | bytearray | memoryview = b"",
        reject_count: int = 0,
        min_received_ns: int = 0,
        max_received_ns: int = 0,
    ) -> int:
        """Stores one batch; returns the seq of its first record (events first, then rejects).

        SpoolFull: the batch is refused and must not be answered as stored.
        """
        first = self.next_seq
        count = event_count + reject_count
        if not count:
            return first
        batch = Batch(events, event_count, rejects, reject_count, min_received_ns, max_received_ns)
        self._tried = max(self._tried, first + count)
        try:
            self._store(first, batch)
        except (lmdb.Error, OSError) as error:
            raise self._refuse(error, batch) from error
        self._account(first + count - 1, batch)
        return first

    def roll(self) -> None:
        """Seals the open segment; the next batch starts a new one. lmdb.Error: it stays open."""
        if self._segment is None:
            return
        self._segment.seal(self._sealed)
        path = self._drop()
        segment.lock_path(path).unlink(missing_ok=True)
        self._flusher.submit(self._flush, path, segment.file_name(self.next_seq))

    def close(self) -> None:
        """Seals, waits until everything is on the device, and lets go of the slot."""
        try:
            self._close_segment()
            self._flusher.shutdown()
            self._cover(None)
        except OSError as error:
            log.warning("slot %s keeps its OPEN (%s); the next start reads it", self.slot, error)
        finally:
            self._slot.release()

    # -- one batch

    def _store(self, first: int, batch: Batch) -> None:
        if self._unmeasured >= self.segment_bytes >> 6:
            self._measure()
        if self._segment is None:
            self._create(first, batch)
            return
        self._segment.path.stat()  # a file that somebody deleted would take batches, and nobody would find them
        try:
            self._segment.append(first, batch)
        except lmdb.MapFullError:  # aborted: nothing of the batch is in the old segment
            self.roll()
            self._create(first, batch)

    def _measure(self) -> None:
        """Rolls a segment that has its size. Done once in every 64th of the size: asking costs 2 us."""
        if self._segment is not None and self._segment.used >= self.segment_bytes:
            self.roll()
        self._unmeasured = 0

    def _create(self, first: int, batch: Batch) -> None:
        """A segment with its first batch. In this order: OPEN covers it, it exists, its name lasts."""
        path = self._slot.path / segment.file_name(first)
        if not self._covered:
            self._cover(path.name)
        try:
            self._segment = self._started(path, first, batch)
        except BaseException:
            segment.delete(path)
            raise
        self._sealed = _NO_BATCH
        self._unmeasured = 0
        if self.mode == "fsync":
            files.sync(self._slot.path)  # LMDB does not: without it a power cut takes the file's name

    def _started(self, path: Path, first: int, batch: Batch) -> Segment:
        map_size = max(self.segment_bytes, 2 * batch.size) + segment.HEADROOM
        opened = Segment.create(path, map_size, durable=self.mode == "fsync")
        try:
            opened.start(self.spool_id, first, batch)
        except BaseException:
            opened.close()
            raise
        return opened

    def _account(self, last: int, batch: Batch) -> None:
        self.next_seq = self._tried = last + 1
        self._unmeasured += batch.size + 256
        self._sealed = self._sealed.plus(last, batch.event_count, batch.reject_count, batch.min_ns, batch.max_ns)

    # -- the end of a segment

    def _refuse(self, error: lmdb.Error | OSError, batch: Batch) -> SpoolFull:
        directory = self._slot.path
        if _is_full(error, directory, batch.size):
            return SpoolFull(f"no space left in {directory}: free some, then it goes on ({error})")
        self._abandon()
        return SpoolFull(f"storing in {directory} failed ({error}): check the disk; the next batch is tried")

    def _abandon(self) -> None:
        """OPEN is not rewritten here: it covers the segment, and the disk is in trouble."""
        self.next_seq = self._tried
        if self._segment is None:
            return
        path = self._drop()
        self._abandoned += (path.name,)
        log.error("segment %s is abandoned after a failed commit; the next start verifies it", path)

    def _close_segment(self) -> None:
        try:
            self.roll()
        except lmdb.Error as error:
            log.warning("slot %s keeps an unsealed segment (%s); the next start seals it", self.slot, error)
            self._unflushed += (self._drop().name,)

    def _drop(self) -> Path:
        opened, self._segment = self._segment, None
        assert opened is not None
        opened.close()
        return opened.path

    # -- OPEN: written by `append` once, then by the flushing thread, at last by `close`

    def _flush(self, path: Path, following: str) -> None:
        """In the flushing thread: with the segment on the device, OPEN moves on to `following`."""
        try:
            if self.mode == "commit":
                files.sync(path)
        except OSError as error:
            self._unflushed += (path.name,)
            log.error("segment %s may not be on the device (%s); the next start verifies it", path, error)
        try:
            self._cover(following)
        except OSError as error:
            log.warning("%s could not be replaced (%s); it covers more than it needs", slots.OPEN_FILE, error)

    def _cover(self, name: str | None) -> None:
        """OPEN covers this segment and all newer ones, and those not to be trusted."""
        slots.write_open(self._slot.path, slots.Open(*self._head, name, self._abandoned + self._unflushed))
        self._covered = True


def _is_full(error: lmdb.Error | OSError, directory: Path, need: int) -> bool:
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", None)
    if code == errno.EIO:  # LMDB's word for a short write, which is what a filling disk gives first
        free = os.statvfs(directory)
        return free.f_bavail * free.f_frsize < need + _SLACK
    return code in (errno.ENOSPC, errno.EDQUOT)
