"""`fastpixel export`: which records, in which order, to whom.

A finite export merges slots by receivedAt; with `follow` order is promised per slot, and it goes on until it is
stopped. Filters look at a record's top-level fields; without any, batches pass as they are and no record is decoded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgpack

from fastpixel._core import parse_time, split
from fastpixel.errors import FastpixelError
from fastpixel.exporters import ndjson
from fastpixel.spool.reader import Batch, Database, Spool
from fastpixel.units import duration

POLL_SECONDS: Final = 0.1
FILTERS: Final = ("protocol", "source", "type")


@dataclass(frozen=True)
class Query:
    """What an export asks for. Times in ns; `limit` 0: all; a filter without values: any."""

    database: Database = "events"
    since_ns: int | None = None
    until_ns: int | None = None
    limit: int = 0
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def admits(self, record: bytes) -> bool:
        fields: dict[str, Any] = msgpack.unpackb(record, strict_map_key=False)
        return all(not values or fields.get(name) in values for name, values in self.filters)

    @property
    def has_filters(self) -> bool:
        return any(values for _, values in self.filters)


def moment(text: str) -> int:
    """ns since the epoch of an RFC 3339 time, or of a duration before now such as `2h`."""
    if (parsed := parse_time(text.encode("utf-8", "replace"))) is not None:
        return parsed
    try:
        return time.time_ns() - int(duration(text) * 1e9)
    except ValueError:
        raise FastpixelError(f"{text!r} is no time: give RFC 3339 such as 2026-01-31T12:00:00Z, or 2h") from None


def run(data_dir: Path, query: Query, out: BinaryIO, *, follow: bool = False) -> int:
    """Writes the records as NDJSON; returns how many. With `follow` until interrupted."""
    spool = Spool(data_dir)
    written = 0
    for batch in _limited(_wanted(_source(spool, query, follow, out.flush), query), query.limit):
        out.write(ndjson.lines(batch.value, spool.spool_id, batch.slot, batch.first_seq))
        written += batch.count
    out.flush()
    return written


def _source(spool: Spool, query: Query, follow: bool, pause: Callable[[], object]) -> Iterator[Batch]:
    if not follow:
        return spool.merged(database=query.database, since_ns=query.since_ns, until_ns=query.until_ns)
    return _follow(spool, query, pause)


def _follow(spool: Spool, query: Query, pause: Callable[[], object]) -> Iterator[Batch]:
    """Everything from `since` on (default: from now on), and then what comes."""
    since = time.time_ns() if query.since_ns is None else query.since_ns
    position = spool.follow(database=query.database)
    try:
        while True:
            batches = position.read()
            yield from _within(batches, since, query.until_ns)
            if not batches:
                pause()
                time.sleep(POLL_SECONDS)
    finally:
        position.close()


def _within(batches: Iterable[Batch], since_ns: int, until_ns: int | None) -> Iterator[Batch]:
    for batch in batches:
        if batch.max_ns < since_ns or (until_ns is not None and batch.min_ns >= until_ns):
            continue
        if batch.min_ns >= since_ns and (until_ns is None or batch.max_ns < until_ns):
            yield batch
        else:
            yield from _singles(
                batch, lambda one: since_ns <= one.min_ns and (until_ns is None or one.min_ns < until_ns)
            )


def _wanted(batches: Iterable[Batch], query: Query) -> Iterator[Batch]:
    if not query.has_filters:
        yield from batches
        return
    for batch in batches:
        yield from _singles(batch, lambda one: query.admits(one.value))


def _singles(batch: Batch, keep: Callable[[Batch], bool]) -> Iterator[Batch]:
    """The records of a batch as batches of one, those that `keep` wants."""
    for index, record in enumerate(split(batch.value)):
        one = batch.part([record], index)
        if keep(one):
            yield one


def _limited(batches: Iterable[Batch], limit: int) -> Iterator[Batch]:
    left = limit
    for batch in batches:
        if not limit or batch.count <= left:
            yield batch
            left -= batch.count
        else:
            yield batch.part(split(batch.value)[:left], 0)
            left = 0
        if limit and left <= 0:
            return
