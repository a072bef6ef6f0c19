"""The canonical record: its fields, declared once.

The core is given this table when a Plan is made; exports, filters and docs read it too. What lives here is the schema
and nothing else: no vendor's name for a field (see `dialects/`), no bytes (see `core/record.pxi`).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

FieldType = Literal["text", "time", "map"]


class RecordField(NamedTuple):
    """One top-level name of a record."""

    name: str
    type: FieldType
    doc: str
    server_owned: bool = False
    numeric: bool = False  # a client's number is kept as its text


FIELDS: Final = (
    RecordField("messageId", "text", "the client's id, else a UUIDv7"),
    RecordField("protocol", "text", "the dialect that received it", server_owned=True),
    RecordField("type", "text", "track, page, screen, identify, alias, group, merge", server_owned=True),
    RecordField("event", "text", "name of a track event"),
    RecordField("name", "text", "name of a page"),
    RecordField("writeKey", "text", "the key as it was sent", server_owned=True),
    RecordField("source", "text", "name of the configured source", server_owned=True),
    RecordField("userId", "text", "the person, as the client names them", numeric=True),
    RecordField("anonymousId", "text", "the browser or device", numeric=True),
    RecordField("previousId", "text", "of an alias: the identity that is merged into userId", numeric=True),
    RecordField("sessionId", "text", "the visit", numeric=True),
    RecordField("timestamp", "time", "when it happened; receivedAt if the client gave no usable time", numeric=True),
    RecordField("receivedAt", "time", "the server's clock when the request was complete", server_owned=True),
    RecordField("originalTimestamp", "text", "the client's time as it was sent", numeric=True),
    RecordField("sentAt", "text", "the client's clock when it sent", numeric=True),
    RecordField("properties", "map", "of the event"),
    RecordField("traits", "map", "of the person"),
    RecordField("context", "map", "of the client: ip, userAgent, referrer, page, library, ..."),
    RecordField("integrations", "map", "which destinations the client wished for (data only)"),
    RecordField("seq", "text", "added by exports: <spool>-<slot>-<n>", server_owned=True),
)

FIELD_TYPES: Final[dict[str, FieldType]] = {row.name: row.type for row in FIELDS}
TYPES: Final = ("track", "page", "screen", "identify", "alias", "group", "merge")


def names(kind: FieldType, *, server_owned: bool) -> tuple[str, ...]:
    """Names of the fields of one type, those that only the server sets or those that a client may set."""
    return tuple(f.name for f in FIELDS if f.type == kind and f.server_owned is server_owned)


SERVER_OWNED: Final = tuple(f.name for f in FIELDS if f.server_owned)
