"""Segment: its pixel, GET /v1/pixel/*, and the HTTP API that it shares with RudderStack, POST /v1/*.

Source: the vendor's "Pixel Tracking API" page. The event is `data`, the base64 of a JSON object, or the query itself
read as dot paths; the answer is 200 and the GIF whatever happens, and a reason is in the X-Fastpixel header.

Rules: beside `data` only `writeKey` of the query counts, and only if the JSON has none; the first of a repeated
parameter wins; required is what RudderStack's pixel requires.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastpixel._core import unbase64
from fastpixel.dialect import GIF, GIF_UNAVAILABLE, Dialect, Field, Member, Route
from fastpixel.dialects.rudderstack_api import EVENTS, ROWS, key_inside

if TYPE_CHECKING:
    from fastpixel._core import Call
    from fastpixel.dialect import Reply

_DEPTH: Final = 32  # of JSON inside a parameter
_MEMBERS: Final = (
    Member("writeKey", "writeKey", "the key; the query's, if the JSON of `data` has none"),
    Member("type", "context.client.type", "unless it is the path's"),
    Member("*", "*", "of `data` with its JSON types; of a query as text, its name a dot path"),
)


def _pixel(call: Call) -> Reply:
    """One event, in `data` or in the query; its type is the path's, whatever it says itself."""
    reason = _add(call)
    return GIF if reason is None else call.refuse(reason, GIF)


def _add(call: Call) -> str | None:
    """Adds the event; gives the reason against it."""
    reason, pairs = call.pairs()
    if reason:
        return reason
    data = _first(pairs, "data")
    reason, event = _decoded(call, data) if data else call.dotted()
    if reason:
        return reason
    key = key_inside(event) or _first(pairs, "writeKey")
    if not key:
        return "missing_write_key"
    return call.source(key) or call.add(event)


def _first(pairs: list[tuple[str, str]], name: str) -> str:
    return next((value for given, value in pairs if given == name), "")


def _decoded(call: Call, data: str) -> tuple[str | None, bytes]:
    """(reason, msgpack) of base64 JSON."""
    document = unbase64(data.strip().encode())
    if document is None:
        return "invalid_data", b""
    reason, event = call.json(document, _DEPTH)
    return ("invalid_data" if reason in ("bad_json", "bad_encoding") else reason), event


def _route(type: str, *rows: Field) -> Route:
    return Route(
        method=("GET",),
        path=f"/v1/pixel/{type}",
        type=type,
        identity=("anonymousId", "userId"),
        fields=(*ROWS, *rows),
        handler=_pixel,
        members=_MEMBERS,
        limited=GIF,
        unavailable=GIF_UNAVAILABLE,
    )


DIALECT: Final = Dialect(
    name="segment",
    title="Segment",
    routes=(
        *map(_route, ("identify", "group", "alias", "screen")),
        _route("page", Field("name", to="name", if_empty="Unknown Page")),
        _route("track", Field("event", to="event", nonempty="missing_event")),
        *EVENTS,
    ),
    repeat="first",
    skew=True,
)
