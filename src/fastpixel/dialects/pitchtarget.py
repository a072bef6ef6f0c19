"""PitchTarget's web tracking pixel: /{app_token}/event.gif and /{app_token}/revenue.gif, by GET or as a form by POST.

Source: the vendor's page "Using the Web Tracking Pixel". Without an app token, or with another category, "the GIF will
not load": no route, so 404 and text. Whatever else is missing, "the GIF will load but the event logging will fail
gracefully": 200, the GIF, and a reason in the X-Fastpixel header.

Rules: the last of a repeated parameter wins; parameters without a row (cache busters, utm_*) are ignored; `amount` wins
over a member `amount` of `params`. What `params` may be, and where its members go, is kind "params" of the core. The
page asks for an amount in the category `purchase`, which it does not have: `revenue` is meant.

A reject keeps those three parameters only, and no access token (`redact`): what stands for a token or an unreadable
`params` is read again as what it stands for, so that a retry stores what the first try would have stored, but for the
raw text of an unreadable `params`.

Not supported: resolving access tokens, and the audiences that the vendor built of them.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

import msgspec
from msgspec import Raw

from fastpixel._core import Call, is_blank, json_lines, pack_params
from fastpixel.dialect import Dialect, Field, Member, Route

# -- rejects -----------------------------------------------------------------------------------------------------------

_KEPT: Final = ("event_token", "amount", "params")
_members: Final = msgspec.msgpack.Decoder(dict[str, Raw]).decode
_BLANKS: Final = "\t\n\v\f\r "
_HASH: Final = re.compile("sha256:[0-9a-f]{64}")
_NOTE: Final = re.compile(
    rf"{_HASH.pattern} [0-9]{{1,9}} bytes (bad_json|bad_encoding|too_deep|not_an_object|bad_base64)"
)


def redact(call: Call) -> tuple[bytes, bytes]:
    """(target, body) as a reject may keep them: only what the pixel reads, and nothing that holds a token."""
    path = call.target.partition(b"?")[0]
    query = _kept(*call.pairs())
    body = _kept(*call.form()) if _has_form(call) else b""
    return path + b"?" + query if query else path, body


def _has_form(call: Call) -> bool:
    """The POST twin: any body but JSON is one."""
    media = call.header("content-type").partition(";")[0].strip().lower()
    return call.method == "POST" and not media.endswith(("/json", "+json"))


def _kept(reason: str | None, pairs: list[tuple[str, str]]) -> bytes:
    """Nothing of what cannot be read, for a `reason`."""
    if reason is not None:
        return b""
    kept = [(name, _without_secrets(text) if name == "params" else text) for name, text in pairs if name in _KEPT]
    return urlencode(kept).encode()


def _without_secrets(params: str) -> str:
    data = params.encode()
    error, packed = pack_params(data)
    if error is not None:
        known = _NOTE.fullmatch(params.strip(_BLANKS))
        return params if known else f"sha256:{sha256(data).hexdigest()} {len(data)} bytes {error}"
    if not packed:
        return ""
    members = _members(packed)
    if token := members.get("access_token"):
        members["access_token"] = Raw(msgspec.msgpack.encode(_hashed(token)))
    return json_lines(msgspec.msgpack.encode(members)).decode().rstrip("\n")


def _hashed(packed: Raw) -> str | None:
    """What the pixel would store of it, as it reads it again; nothing of what is no token to it."""
    token = msgspec.msgpack.decode(packed)
    if not isinstance(token, str) or is_blank(token):
        return None
    return token if _HASH.fullmatch(token) else f"sha256:{sha256(token.encode()).hexdigest()}"


# -- rows --------------------------------------------------------------------------------------------------------------

_KEY = Field("path.app_token", to="writeKey", required="missing_key")
_TOKEN = Field("event_token", to="event", required="missing_event_token")
_PARAMS = Field("params", to="properties", kind="params")
_MEMBERS = (
    Member("params.email", "traits.email", "null and blank count as absent, here and below"),
    Member("params.uuid", "userId", "text, or a whole number as text"),
    Member("params.fbid", "traits.fbid", "digits, as text or as a number; else ignored"),
    Member("params.access_token", "traits.accessTokenSha256", "SHA-256 of the text, in hex; never in clear"),
    Member(
        "params.*", "properties.*", "with its JSON type; names that begin with `$` or `_` or contain `.` are ignored"
    ),
)

EVENT = Route(
    method=("GET", "POST"),
    path="/{app_token}/event.gif",
    type="track",
    visitor=True,
    redact=redact,
    defaults=(("properties.category", "event"),),
    fields=(_KEY, _TOKEN, Field("amount", to="properties.amount", kind="int", on_bad="ignore"), _PARAMS),
    members=_MEMBERS,
)
REVENUE = Route(
    method=("GET", "POST"),
    path="/{app_token}/revenue.gif",
    type="track",
    visitor=True,
    redact=redact,
    defaults=(("properties.category", "revenue"),),
    fields=(_KEY, _TOKEN, Field("amount", to="properties.amount", kind="int", required="bad_amount"), _PARAMS),
    members=_MEMBERS,
)

DIALECT = Dialect(
    name="pitchtarget",
    title="PitchTarget",
    routes=(EVENT, REVENUE),
    unsupported=("resolving access tokens, and the audiences made of them",),
)
