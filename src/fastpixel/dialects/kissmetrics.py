"""Kissmetrics: /e (event), /s (set properties), /a (alias), by GET or as a form by POST.

Source: the vendor's "API specifications" page, and what its clients do: the browser library counts the image's load
event, mobile SDKs retry for ever on anything but 200 or 304. So the answer is always 200 and the GIF; a reason is in
the X-Fastpixel header.

Rules: parameter names are literal (no dot paths), the last of a repeated one wins, `_t` is the event's time only
together with `_d=1`, and then the messageId is a hash of the request, so that an export can drop repeats.

Not supported: the vendor's list of customer ids.
"""

from __future__ import annotations

from fastpixel.dialect import Dialect, Field, Route

_PERSON_CHARS = 255

_KEY = Field("_k", to="writeKey", required="missing_key")
_PERSON = Field("_p", to="userId", required="missing_person", max_chars=_PERSON_CHARS)
_SHARED = (
    Field("_t", to="timestamp", kind="unix", when="_d=1", otherwise="originalTimestamp"),
    Field("_d"),
    Field("_c", to="context.channel"),
    Field("_u", to="context.library.version"),
    Field("_ip", to="context.ip", trusted=True),
    Field("_ua", to="context.userAgent", trusted=True),
)

EVENT = Route(
    method=("GET", "POST"),
    path="/e",
    type="track",
    dedupe=("_k", "_p", "_n", "_t"),
    fields=(
        _KEY,
        _PERSON,
        Field("_n", to="event", required="missing_event"),
        *_SHARED,
        Field("*", to="properties"),
    ),
)
SET = Route(
    method=("GET", "POST"),
    path="/s",
    type="identify",
    dedupe=("_k", "_p", "_n", "_t"),
    fields=(_KEY, _PERSON, Field("_n"), *_SHARED, Field("*", to="traits")),
)
ALIAS = Route(
    method=("GET", "POST"),
    path="/a",
    type="alias",
    dedupe=("_k", "_p", "_n", "_t"),
    fields=(
        _KEY,
        Field("_p", to="previousId", required="missing_person", max_chars=_PERSON_CHARS),
        Field("_n", to="userId", required="missing_identity", max_chars=_PERSON_CHARS),
        *_SHARED,
        Field("*", to="properties"),
    ),
)

DIALECT = Dialect(
    name="kissmetrics",
    title="Kissmetrics",
    routes=(EVENT, SET, ALIAS),
    unsupported=("the vendor's list of customer ids",),
)
