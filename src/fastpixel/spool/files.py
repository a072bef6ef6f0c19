"""Durable small files, and which filesystems can hold a spool.

What lives here: the system calls that a power cut or a wrong mount punishes. It knows nothing of segments
and slots.

A file is replaced as a whole (temporary file, fsync, rename, fsync of the directory): a reader sees the
old text or the new one, before and after a power cut. LMDB needs a coherent shared map and POSIX locks,
which network and FUSE filesystems do not give, so those are refused before the first byte.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from fastpixel.errors import SpoolError

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750

_REFUSED = re.compile(r"nfs\d?|cifs|smb\w*|fuse(blk|\..*)?|9p|virtiofs|afs|ceph|lustre|gfs2?|ocfs2|beegfs")
_OCTAL = re.compile(r"\\([0-7]{3})")


def has_room(directory: Path, size: int) -> bool:
    """Whether so many bytes can be written there now. Tried with a file that has no name, so nothing is left of it."""
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY, FILE_MODE)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            return False
        free = os.statvfs(directory)
        return free.f_bavail * free.f_frsize >= size
    try:
        os.posix_fallocate(fd, 0, size)
        os.fsync(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def sync(path: Path) -> None:
    """Waits for the device: with a file's bytes, whoever wrote them; with a directory's names."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path: Path, text: str) -> None:
    """Replaces the file's text durably. OSError: the old text is still there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_new(temporary, text.encode())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def create(path: Path, text: str) -> bool:
    """Writes a new file durably; False: it was there, or another process was faster."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _write_new(temporary, text.encode())
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)
    return True


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def make_directory(path: Path) -> None:
    """Creates the directory durably, missing parents too. SpoolError: something else has that name."""
    if path.is_dir():
        return
    if path.exists():
        raise SpoolError(f"{path} is not a directory: check data_dir")
    make_directory(path.parent)
    path.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    sync(path.parent)


def filesystem(path: Path, mounts: str | None = None) -> str:
    """Type of the filesystem that holds the path, as /proc/self/mountinfo (proc(5)) names it; "" if unknown.

    The longest mount point that is a prefix of the path wins; of equal ones the later: it covers the other.
    """
    text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    target = f"{path.resolve()}/"
    best, kind = -1, ""
    for line in text.splitlines():
        mount, _, source = line.partition(" - ")
        point = _OCTAL.sub(lambda code: chr(int(code[1], 8)), mount.split(" ")[4]).rstrip("/") + "/"
        if target.startswith(point) and len(point) >= best:
            best, kind = len(point), source.split(" ")[0]
    return kind


def refuse_remote(path: Path, mounts: str | None = None) -> None:
    """SpoolError if the path lies on a network or FUSE filesystem."""
    kind = filesystem(path, mounts)
    if _REFUSED.fullmatch(kind):
        raise SpoolError(
            f"data directory {path} is on {kind}: LMDB needs a local filesystem (ext4, xfs, btrfs, zfs); "
            "set data_dir to a local disk"
        )
