"""Cursors: named positions of exports and shippers, one small JSON file each.

What lives here: `<data_dir>/cursors/<name>.json`, an object of the next seq by slot and `updatedAt` (RFC
3339, UTC). It must not know what a position is used for. A file is replaced durably and as a whole, so
that a cursor is never ahead of what its owner committed, nor half written.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from fastpixel.errors import SpoolError
from fastpixel.spool import files

DIRECTORY = "cursors"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_UPDATED = "updatedAt"


class Cursor(NamedTuple):
    """Everything of a slot before its next seq is done."""

    positions: dict[str, int]
    updated_at: str


def names(data_dir: Path) -> list[str]:
    return sorted(path.stem for path in (data_dir / DIRECTORY).glob("*.json") if not path.name.startswith("."))


def read(data_dir: Path, name: str) -> Cursor | None:
    """None: there is no such cursor. SpoolError: its file is not one."""
    path = _path(data_dir, name)
    try:
        fields = json.loads(path.read_bytes())
        updated = fields.pop(_UPDATED)
        return Cursor({slot: int(seq) for slot, seq in fields.items()}, str(updated))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SpoolError(f"{path} is not a cursor ({error}): remove it with `fastpixel cursors rm {name}`") from error


def write(data_dir: Path, name: str, positions: dict[str, int]) -> None:
    """Durable when it returns: call it after what it stands for is durable."""
    path = _path(data_dir, name)
    files.make_directory(path.parent)
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    files.write(path, json.dumps({**positions, _UPDATED: now}, indent=1) + "\n")


def remove(data_dir: Path, name: str) -> bool:
    """False: there was none."""
    path = _path(data_dir, name)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    files.sync(path.parent)
    return True


def _path(data_dir: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise SpoolError(f"cursor name {name!r}: use 1 to 64 letters, digits, '_', '-' and '.', not '.' first")
    return data_dir / DIRECTORY / f"{name}.json"
