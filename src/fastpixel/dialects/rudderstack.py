"""RudderStack: its pixel, GET /pixel/v1/page and /pixel/v1/track, and the HTTP API, which is in rudderstack_api.py.

Sources: the vendor's "Pixel API" page (200 `OK` / 400 and an error string) and its open-source gateway (200 and a GIF
whatever happens, since 2021). `reply` chooses: "gif", "text", or "auto", which looks at the Accept header.

Rules: every parameter is a dot path into the event; all values are text; the first of a repeated parameter wins; a
pair with a bad escape or a raw ';' is dropped, as Go's url.ParseQuery does. `integrations` is data and selects nothing.

Not supported here: POST (405), /pixel/v1/identify (404).
"""

from __future__ import annotations

from fastpixel.dialect import (
    AS_GIF,
    AS_TEXT,
    GIF,
    GIF_UNAVAILABLE,
    REASON,
    TEXT_LIMITED,
    Answer,
    Dialect,
    Field,
    Outcome,
    Route,
)
from fastpixel.dialects.rudderstack_api import BEACON, EVENTS, SDK

_SHARED = (
    Field("writeKey", to="writeKey", required="missing_write_key"),
    Field("anonymousId", to="anonymousId", unquote=True),
    Field("userId", to="userId"),
    Field("messageId", to="messageId", tidy=True),
    Field("timestamp", to="timestamp", kind="iso8601"),
)
_REST = Field("*", kind="dotpath")

PAGE = Route(
    method=("GET",),
    path="/pixel/v1/page",
    type="page",
    answer="reply",
    identity=("anonymousId", "userId"),
    fields=(*_SHARED, Field("name", to="name", if_empty="Unknown Page"), _REST),
)
TRACK = Route(
    method=("GET",),
    path="/pixel/v1/track",
    type="track",
    answer="reply",
    identity=("anonymousId", "userId"),
    fields=(*_SHARED, Field("event", to="event", nonempty="missing_event"), _REST),
)

DIALECT = Dialect(
    name="rudderstack",
    title="RudderStack",
    routes=(PAGE, TRACK, *EVENTS, BEACON, *SDK),
    repeat="first",
    bad_escape="drop",
    defaults=(("channel", "web"), ("integrations.All", True)),
    receipt=("originalTimestamp", "sentAt"),
    skew=True,
    options={"reply": "auto"},
    answers={
        "auto": Answer(image=AS_GIF, text=AS_TEXT, other=Outcome(GIF, REASON, GIF_UNAVAILABLE, TEXT_LIMITED)),
    },
    errors={
        "missing_write_key": "failed to read writekey from query params",
        "unknown_key": "invalid write key",
        "source_disabled": "source is disabled",
        "missing_identity": "request neither has anonymousId nor userId",
        "missing_event": "track: Mandatory field 'event' missing",
        "rate_limited": "max requests limit reached",
    },
    unsupported=(
        "POST on the pixel paths (405)",
        "/pixel/v1/identify (404)",
        "members of a batch beside `batch`, `writeKey`, `sentAt`, `context` and `integrations`",
    ),
)
