"""Which rejects are events by now: `<data_dir>/rejects-retried.json`, which `rejects --retry` writes.

What lives here: by slot, ranges [first seq, seq after the last] in which every reject that can be retried was stored,
and `updatedAt` (RFC 3339, UTC). It must not know what can be retried, nor why. Other seqs in a range (events, rejects
that cannot be retried) mean nothing; so ranges are few where most rejects were stored, and one reject that was not is
left out of them. It is no cursor and stands beside their directory: no export has passed what it names.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from fastpixel.errors import SpoolError
from fastpixel.spool import files

FILE = "rejects-retried.json"
_UPDATED = "updatedAt"

Ranges = list[tuple[int, int]]


class Retried:
    """The ranges of all slots, and how one pass over the rejects changes them.

    A pass tells of every reject that can be retried, from the first one on, in order of seq within a slot.
    """

    def __init__(self, ranges: Mapping[str, Ranges] | None = None) -> None:
        self._slots = {slot: _Slot(pairs) for slot, pairs in (ranges or {}).items()}

    @classmethod
    def read(cls, data_dir: Path) -> Retried:
        """SpoolError: the file is not one."""
        path = data_dir / FILE
        try:
            fields = json.loads(path.read_bytes())
            del fields[_UPDATED]
            return cls({slot: [(int(low), int(high)) for low, high in pairs] for slot, pairs in fields.items()})
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SpoolError(
                f"{path} cannot be read ({error}): without it what was retried would be stored twice; mend or remove it"
            ) from error

    def write(self, data_dir: Path) -> None:
        """Durable when it returns: call it after the events are."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        files.write(data_dir / FILE, json.dumps({**self.ranges(), _UPDATED: now}) + "\n")

    def ranges(self) -> dict[str, Ranges]:
        """As of the pass where it is, and as of before beyond it."""
        return {name: slot.ranges() for name, slot in self._slots.items()}

    def has(self, slot: str, seq: int) -> bool:
        """Whether this reject was stored before the pass."""
        return slot in self._slots and self._slots[slot].has(seq)

    def pass_by(self, slot: str, seq: int, stored: bool) -> None:
        """The next reject of the slot that can be retried, and whether it is stored, now or before."""
        self._slots.setdefault(slot, _Slot([])).pass_by(seq, stored)


class _Slot:
    def __init__(self, before: Ranges) -> None:
        self._before = before
        self._found: Ranges = []
        self._low = self._high = 0  # of the range that grows

    def has(self, seq: int) -> bool:
        index = bisect_right(self._before, seq, key=lambda pair: pair[0]) - 1
        return index >= 0 and seq < self._before[index][1]

    def pass_by(self, seq: int, stored: bool) -> None:
        if not stored:
            self._found += [(self._low, self._high)] if self._low < self._high else []
            self._low = seq + 1
        self._high = seq + 1

    def ranges(self) -> Ranges:
        found = [*self._found, *([(self._low, self._high)] if self._low < self._high else [])]
        for low, high in self._before:
            if high > self._high:
                joins = found and low <= found[-1][1]
                found.append((found.pop()[0] if joins else max(low, self._high), high))
        return found
