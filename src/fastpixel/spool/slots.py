"""Slots: the directories of a spool, each written by one process at a time; and the small text files beside
segments.

What lives here: the data directory's lay-out and ownership. It must not open a segment.

    <data_dir>/spool-id     8 hex digits, made at first start; part of every exported seq
    <data_dir>/<slot>/      "0", "1", ...: held by `flock` on the directory: a killed holder lets go at once
    <data_dir>/<slot>/OPEN  while segments are unfinished: who wrote them, and in which boot. A line
                            is `name=value`: boot, mode, pid;
                            segment=    this and all newer ones may be written, or not be on the device yet
                            abandoned=  any number: a commit failed in it, it is not to be trusted
    <data_dir>/<slot>/NEXT  if present, the slot's next seq is at least this: written before segments with
                            lower seqs are deleted or set aside, so that a seq never means two records

OPEN is made durable before the first segment it covers is created, and moves on when a segment is sealed
and on the device. So what it does not cover can be opened without checks, however many segments there are,
and a roll need not wait for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fastpixel.errors import SpoolError
from fastpixel.spool import files, segment

ID_FILE = "spool-id"
OPEN_FILE = "OPEN"
NEXT_FILE = "NEXT"
_ID = re.compile(r"[0-9a-f]{8}")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# -- the data directory


def prepare(data_dir: Path) -> str:
    """Makes the data directory a spool if it is none yet; returns the spool id."""
    files.refuse_remote(data_dir)
    files.make_directory(data_dir)
    path = data_dir / ID_FILE
    if not path.exists():
        if any(segment.listing(data_dir / name) for name in names(data_dir)):
            raise SpoolError(f"{path} is missing: `fastpixel check --repair` restores it from the segments")
        files.create(path, secrets.token_hex(4) + "\n")
    return spool_id(data_dir)


def spool_id(data_dir: Path) -> str:
    """SpoolError: the directory is not a spool."""
    path = data_dir / ID_FILE
    try:
        text = path.read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpoolError(f"{data_dir} is not a spool (it has no file {ID_FILE}): check data_dir") from error
    if not _ID.fullmatch(text):
        raise SpoolError(f"{path} does not hold 8 hex digits: run `fastpixel check --repair` to restore it")
    return text


def names(data_dir: Path) -> list[str]:
    """The slots that exist, in numeric order."""
    found = [entry.name for entry in os.scandir(data_dir) if entry.name.isdecimal() and entry.is_dir()]
    return sorted(found, key=int)


# -- ownership


class Slot:
    """A slot directory held by this process until `release` or its end."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.name = path.name
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def take(data_dir: Path) -> Slot:
    """The lowest slot that no process holds."""
    number = 0
    while True:
        path = data_dir / str(number)
        files.make_directory(path)
        slot = hold(path)
        if slot is not None:
            return slot
        number += 1


def hold(path: Path) -> Slot | None:
    """This slot, or None while another holds it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return Slot(path, fd)


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """Holds the slot while the block runs; False: another process holds it, so it may only be read."""
    slot = hold(path)
    try:
        yield slot is not None
    finally:
        if slot is not None:
            slot.release()


# -- OPEN


class Open(NamedTuple):
    """The text of OPEN. `boot` is "" if it was unreadable: nothing is to be trusted then."""

    boot: str
    mode: str
    pid: int
    segment: str | None = None
    abandoned: tuple[str, ...] = ()

    def covers(self, path: Path) -> bool:
        """Whether LMDB must not be given this segment without locks or checks."""
        return path.name in self.abandoned or (self.segment is not None and path.name >= self.segment)

    def text(self) -> str:
        lines = [f"boot={self.boot}", f"mode={self.mode}", f"pid={self.pid}"]
        lines += [f"abandoned={name}" for name in self.abandoned]
        lines += [f"segment={self.segment}"] if self.segment else []
        return "\n".join(lines) + "\n"


def read_open(directory: Path) -> Open | None:
    """What OPEN says; None without one. If it is unreadable, it covers the newest segment."""
    try:
        text = (directory / OPEN_FILE).read_text(errors="replace")
    except FileNotFoundError:
        return None
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        fields.setdefault(name, []).append(value)
    try:
        head = fields["boot"][0], fields["mode"][0], int(fields["pid"][0])
    except (KeyError, ValueError):
        return Open("", "", 0, next((path.name for path in reversed(segment.listing(directory))), None))
    return Open(*head, fields.get("segment", [None])[0], tuple(fields.get("abandoned", ())))


def unfinished(directory: Path, paths: list[Path]) -> list[Path]:
    """Those of the segments that OPEN covers. List them first: what is created later is covered too."""
    left = read_open(directory)
    return [] if left is None else [path for path in paths if left.covers(path)]


def write_open(directory: Path, text: Open) -> None:
    """Replaces OPEN durably, or removes it if it covers nothing."""
    if text.segment is not None or text.abandoned:
        files.write(directory / OPEN_FILE, text.text())
        return
    (directory / OPEN_FILE).unlink(missing_ok=True)
    files.sync(directory)


def sweep(directory: Path) -> None:
    """Removes what a holder that was killed while it replaced OPEN left; only the holder does this."""
    for path in directory.glob(f".{OPEN_FILE}.*.tmp"):
        path.unlink()


# -- NEXT


def read_next(directory: Path) -> int:
    """The least seq that the slot may use next, as far as NEXT says."""
    try:
        return int((directory / NEXT_FILE).read_text())
    except FileNotFoundError:
        return segment.FIRST_SEQ
    except ValueError as error:
        path = directory / NEXT_FILE
        raise SpoolError(f"{path} does not hold a number: run `fastpixel check --repair`") from error


def raise_next(directory: Path, seq: int) -> None:
    """Makes sure, durably, that the slot will not use seqs below this one again."""
    if seq > read_next(directory):
        files.write(directory / NEXT_FILE, f"{seq}\n")
