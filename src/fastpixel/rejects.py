"""`fastpixel rejects`: what was refused and kept, looked at, and sent in again.

A retry makes of a reject the request that it was, as far as it was kept, and gives it to an Intake with the
configuration as it is now and the clock as it was then. The events that come out are stored, with their old receivedAt,
in a slot of the retry's own, so it runs beside a service. All rules of live requests hold but two: rate limits counted
them when they came, and no visitor's id is made, for nobody would get it (the one that came in a cookie was not kept).

Nothing is stored twice: `spool/retried.py` keeps which rejects are events by now, and is written after each batch. Only
a retry that is killed between the two stores that one batch again. A reject that is refused again, or that the filters
leave out, is simply not written there. It stays where it is, with its first reason, and can be retried as often as it
takes: no reject is copied, so retries take no room of `max_reject_bytes`. Rejects that a retry has stored are listed no
more.

Not retried: reasons that no configuration changes, whose bodies may be cut, and bodies of which only a hash was kept.
"""

from __future__ import annotations

import base64
import fcntl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import msgpack
import msgspec

from fastpixel import dialects
from fastpixel._core import Intake, split
from fastpixel.config import Config
from fastpixel.errors import SpoolError
from fastpixel.export import Query
from fastpixel.exporters import ndjson
from fastpixel.spool import slots
from fastpixel.spool.reader import Spool
from fastpixel.spool.retried import Retried
from fastpixel.spool.writer import Writer
from fastpixel.units import printable

RETRYABLE: Final = ("unknown_key", "source_disabled", "origin_not_allowed", "rate_limited")
BASIC_AUTH: Final = ("rudderstack", "segment")  # protocols whose POST carries the key in a header that is never kept
LONGEST: Final = max(map(len, RETRYABLE))
BATCH_BYTES: Final = 1 << 20
BATCH_REJECTS: Final = 1000


@dataclass(frozen=True)
class Reject:
    """One reject: where it is kept, and what it says."""

    slot: str
    seq: int
    record: bytes
    fields: dict[str, Any] = field(repr=False)

    @property
    def reason(self) -> str:
        return str(self.fields["reason"])

    @property
    def received_ns(self) -> int:
        return int(self.fields["receivedAt"].to_unix_nano())

    @property
    def time(self) -> str:
        """receivedAt as RFC 3339 with milliseconds."""
        moment = datetime.fromtimestamp(self.received_ns // 10**9, timezone.utc)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{self.received_ns // 10**6 % 1000:03d}Z"

    @property
    def request_line(self) -> str:
        return f"{self.fields['method']} {self.fields['target']}"

    def line(self) -> str:
        """For a terminal: time, reason, protocol, key and request line; control characters are escaped."""
        columns = f"{self.reason:{LONGEST}}  {self.get('protocol'):11}  {self.get('writeKey') or '-'}"
        return printable(f"{self.time}  {columns}  {self.request_line}")

    def get(self, name: str) -> str:
        return str(self.fields.get(name, ""))

    @property
    def is_retryable(self) -> bool:
        """Whether a changed configuration may make an event of it; of some bodies only a hash may be kept."""
        return self.reason in RETRYABLE and ("body" in self.fields or "bodySha256" not in self.fields)


# -- looking


class Listing:
    """The rejects that a query asks for, in order of receivedAt; when they have been read, what they were."""

    def __init__(self, data_dir: Path, query: Query, *, everything: bool = False) -> None:
        """`everything`: those too that a retry has stored."""
        self._spool = Spool(data_dir)
        self._query = query
        self._everything = everything
        self._retried = Retried.read(data_dir)
        self.reasons: Counter[str] = Counter()
        self.stored_since = 0  # left out for that

    def __iter__(self) -> Iterator[Reject]:
        for reject in _all(self._spool):
            if not _wants(self._query, reject):
                continue
            if not self._everything and reject.is_retryable and self._retried.has(reject.slot, reject.seq):
                self.stored_since += 1
                continue
            self.reasons[reject.reason] += 1
            yield reject
            if self.reasons.total() == self._query.limit:
                return

    def json(self, reject: Reject) -> bytes:
        """A line of everything that is kept, as `export --rejects` writes it."""
        return ndjson.lines(reject.record, self._spool.spool_id, reject.slot, reject.seq)


def _all(spool: Spool) -> Iterator[Reject]:
    for batch in spool.merged(database="rejects"):
        for index, record in enumerate(split(batch.value)):
            fields = msgpack.unpackb(record, strict_map_key=False)
            yield Reject(batch.slot, batch.first_seq + index, record, fields)


def _wants(query: Query, reject: Reject) -> bool:
    since, until = query.since_ns, query.until_ns
    in_time = (since is None or reject.received_ns >= since) and (until is None or reject.received_ns < until)
    return in_time and all(not values or reject.fields.get(name) in values for name, values in query.filters)


# -- retrying


@dataclass
class Outcome:
    """What a retry has done, in rejects; those that were not stored by reason."""

    stored: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    hopeless: Counter[str] = field(default_factory=Counter)

    @property
    def tried(self) -> int:
        return self.stored + self.refused.total()

    def add(self, reason: str) -> bool:
        """One more: refused for the reason, or stored (True) if there is none."""
        self.stored += not reason
        self.refused.update([reason] * bool(reason))
        return not reason

    def __str__(self) -> str:
        parts = [f"{self.stored} stored", f"{self.refused.total()} refused again{_by_reason(self.refused)}"]
        if self.hopeless:
            parts.append(f"{self.hopeless.total()} cannot be retried{_by_reason(self.hopeless)}")
        return f"retried {self.tried}: {', '.join(parts)}"


def _by_reason(counts: Counter[str]) -> str:
    return f" ({listed(counts)})" if counts else ""


def listed(counts: Counter[str]) -> str:
    """`missing_event: 1, unknown_key: 3`."""
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))


class Replay:
    """Rejects as requests, to one configuration."""

    def __init__(self, config: Config) -> None:
        """DialectError: as `dialects.plan`."""
        self._now = 0
        without_cookie = msgspec.structs.replace(config.visitor, cookie=False)
        self._intake = Intake(
            dialects.plan(msgspec.structs.replace(config, visitor=without_cookie)),
            now=lambda: self._now,
            replaying=True,
            max_request_line=config.max_request_line,
            max_header_bytes=config.max_header_bytes,
            max_body_bytes=config.max_body_bytes,
            max_inflight_bytes=config.max_inflight_bytes,
            rejects_per_second=0,
        )

    def offer(self, reject: Reject) -> tuple[str, bytes, int]:
        """("", its events, how many), or the reason why it is none now."""
        self._now = reject.received_ns
        connection = self._intake.connection(reject.get("ip"))  # and no header says another one: no proxy is trusted
        connection.feed(request_of(reject))
        batch = self._intake.take()
        if batch is not None:
            self._intake.done(batch, True)
        answer = connection.output()
        connection.lose()
        if batch is not None and batch.event_count:
            return "", batch.events, batch.event_count
        return _reason_of(answer), b"", 0


def request_of(reject: Reject) -> bytes:
    """The bytes of the request, with what is left of its headers.

    A key with a colon cannot have come in one (RFC 7617, 2), so it is in the body.
    """
    headers = dict(reject.fields["headers"])
    body = reject.fields.get("body", b"")
    body = body.encode() if isinstance(body, str) else body
    key = reject.get("writeKey")
    if key and ":" not in key and reject.fields["method"] == "POST" and reject.fields["protocol"] in BASIC_AUTH:
        headers["authorization"] = f"Basic {base64.b64encode(f'{key}:'.encode()).decode()}"
    if body:
        headers["content-length"] = str(len(body))
    version = "1.1" if "host" in headers else "1.0"  # 1.1 demands it (RFC 9112, 3.2)
    lines = [f"{reject.request_line} HTTP/{version}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _reason_of(answer: bytes) -> str:
    """Why it stored nothing; an answer that gives no reason speaks by its status."""
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    marked = head.partition("\r\nX-Fastpixel: dropped; reason=")[2]
    return marked.partition("\r\n")[0] or f"answer {head[9:12]}"


class Retry:
    """One run. `progress` is told now and then how many were tried."""

    def __init__(self, config: Config, query: Query, progress: Callable[[int], object] = lambda tried: None) -> None:
        self._config = config
        self._query = query
        self._progress = progress
        self._spool = Spool(config.data_dir)
        self._began_ns = time.time_ns()

    def run(self) -> Outcome:
        """SpoolError: somebody else retries, or there is no room; what was stored until then stays stored."""
        with _alone(self._config.data_dir):
            found = self._try(None)
            if not found.stored:  # nothing would change, so nothing is touched
                return found
            # Its slot may be the one that was just read: no segment of it is open in this process now.
            with Writer(self._config.data_dir, "fsync", self._config.segment_bytes) as writer:
                return self._try(_Sink(writer))

    def _try(self, sink: _Sink | None) -> Outcome:
        """Without a sink only up to the first one that would be stored."""
        outcome, replay = Outcome(), Replay(self._config)
        retried = Retried.read(self._config.data_dir)
        for reject in _all(self._spool):
            wanted = self._wants(reject)
            if not reject.is_retryable:
                outcome.hopeless.update([reject.reason] * wanted)
                continue
            stored = retried.has(reject.slot, reject.seq)
            if wanted and not stored:
                reason, events, count = replay.offer(reject)
                stored = outcome.add(reason)
                if stored and sink is None:
                    return outcome
                if stored and sink is not None:
                    sink.add(events, count, reject.received_ns)
            retried.pass_by(reject.slot, reject.seq, stored)
            if sink is not None and sink.is_full:
                self._flush(sink, retried)
            self._progress(outcome.tried)
            if self._query.limit and outcome.tried >= self._query.limit:
                break
        if sink is not None:
            self._flush(sink, retried)
        return outcome

    def _flush(self, sink: _Sink, retried: Retried) -> None:
        # In this order: killed in between, the batch is stored once more, and not forgotten.
        sink.flush()
        retried.write(self._config.data_dir)

    def _wants(self, reject: Reject) -> bool:
        """A service that goes on refusing does not keep a retry from its end: what is new is left for the next one."""
        return reject.received_ns < self._began_ns and _wants(self._query, reject)


class _Sink:
    """Events on their way to the spool, in batches."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._clear()

    def _clear(self) -> None:
        self._events = bytearray()
        self._count = 0
        self._times: list[int] = []

    def add(self, events: bytes, count: int, received_ns: int) -> None:
        self._events += events
        self._count += count
        self._times.append(received_ns)

    @property
    def is_full(self) -> bool:
        return len(self._events) >= BATCH_BYTES or len(self._times) >= BATCH_REJECTS

    def flush(self) -> None:
        """Everything added is durable. SpoolFull: there is no room."""
        if self._count:
            low, high = min(self._times), max(self._times)
            self._writer.append(self._events, self._count, min_received_ns=low, max_received_ns=high)
            self._clear()


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Two retries at once would store everything twice."""
    with (data_dir / slots.ID_FILE).open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolError(f"another `rejects --retry` is running on {data_dir}; wait for its end") from None
        yield
