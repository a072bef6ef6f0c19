"""Shapes: the second and later requests with the same names go another way, and must end as the first did.

A Plan remembers the names of a query and how their record is written (core/shape.pxi). So here requests come in series:
the same names with other values, between requests of other names that want the same place, against the oracle each
time; and requests that differ a little from one that a Plan knows, against a Plan that knows nothing, byte for byte.
`Plan.shaped` tells which way a request went.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_record import (
    CODINGS,
    DIALECTS,
    HEADERS,
    MISTAKES,
    NOW,
    PLANS,
    SOURCES,
    VALUES,
    assert_same,
    coded,
    names_of,
    requests,
)

import oracle
import vectors
from fastpixel._core import Plan, copy_ns, decode_ns
from fastpixel.dialect import Dialect, Field, Route
from fastpixel.event import FIELDS
from vectors import Vector, fuzz

VECTORS = [vector for vector in vectors.load() if vector.is_the_oracles and "records" in vector.expect[0]]
VECTORS = [v for v in VECTORS if v.expect[0].get("status") not in (204, 404, 405)]
PIXELS = [(d, r) for d in DIALECTS for r in d.routes if "{" not in r.path and "GET" in r.method]


def query_of(names: list[bytes], values: list[bytes]) -> bytes:
    return b"&".join(name + b"=" + value for name, value in zip(names, values, strict=True))


@st.composite
def series(draw: st.DrawFn) -> list[oracle.Request]:
    """Requests of one route whose names are the same and whose values are not."""
    dialect, route = draw(st.sampled_from(PIXELS))
    needed = [row.source for row in route.fields if row.required or row.source in route.identity]
    names = draw(st.permutations(needed + draw(st.lists(names_of(dialect), max_size=8))))
    raw = [coded(name, draw(CODINGS)).replace(b" ", b"+") for name in names if name]
    value = st.builds(lambda text, how, mistake: coded(text, how) + mistake, VALUES, CODINGS, MISTAKES)
    model = draw(requests())
    found = []
    for _ in range(draw(st.integers(2, 4))):
        values = [draw(value).replace(b"&", b"") for _ in raw]
        query = bytes(c for c in query_of(raw, values) if c > 0x20 and c != 0x7F)
        found.append(replace(model, method="GET", target=route.path.encode() + b"?" + query, body=b""))
    return found


@fuzz
@given(series(), st.lists(requests(), max_size=2))
def test_series_are_the_oracles(alike: list[oracle.Request], others: list[oracle.Request]):
    for request in [*alike, *others, *reversed(alike)]:
        assert_same((), request)


def test_values_of_an_earlier_request_never_come_back():
    plan = PLANS[()]
    first = b"/e?_k=k&_p=p&_n=n&secret=of-another&color=red"
    second = b"/e?_k=k&_p=q&_n=n&secret=&color="
    for target in (first, second):
        reason, record = plan.record("GET", target)
        assert reason is None
    assert b"of-another" not in record
    assert b"red" not in record


def test_more_names_than_a_shape_holds():
    query = "&".join(f"name-{i}={i}" for i in range(200))
    request = oracle.Request("GET", f"/e?_k=k&_p=p&_n=n&{query}".encode(), (), b"", "203.0.113.9", 1)
    for _ in range(3):
        assert_same((), request)


def test_plans_share_no_shapes():
    fresh = Plan(DIALECTS, (), fields=FIELDS)
    target = b"/e?_k=k&_p=p&_n=n&a=1"
    assert fresh.record("GET", target, now=1)[1] is not None
    assert PLANS[()].record("GET", target.replace(b"a=1", b"b=1"), now=1)[1] is not None
    assert b"\xa1b" not in fresh.record("GET", target, now=1)[1]


# The same bytes on both ways ------------------------------------------------------------------------------------

# Every kind of a value and every rule of a row, on a path that shapes are kept for.
ROWS = Dialect(
    name="rows",
    title="Rows",
    routes=(
        Route(
            method=("GET",),
            path="/rows",
            type="track",
            identity=("userId", "anonymousId"),
            fields=(
                Field("k", to="writeKey", required="missing_key"),
                Field("u", to="userId", tidy=True, max_chars=8),
                Field("q", to="anonymousId", unquote=True, if_empty="nobody"),
                Field("ts", to="timestamp", kind="unix_ms", when="m=ms", otherwise="originalTimestamp"),
                Field("m"),
                Field("ip", to="context.ip", trusted=True),
                Field("ch", to="context.channel", nonempty="bad_field"),
                Field("mid", to="messageId"),
                Field("check", kind="int"),
                Field("i", to="properties.i", kind="int"),
                Field("f", to="properties.f", kind="number"),
                Field("b", to="properties.b", kind="bool"),
                Field("ms", to="properties.ms", kind="unix_ms"),
                Field("iso", to="properties.iso", kind="iso8601"),
                Field("j", to="traits", kind="json"),
                Field("*", kind="dotpath"),
            ),
        ),
    ),
    receipt=("sentAt",),
    skew=True,
    defaults=(("plan", "free"),),
)
ALL = (*DIALECTS, ROWS)
SHAPED = {sources: Plan(ALL, sources, fields=FIELDS) for sources in ((), SOURCES)}
BASES = {
    "/pixel/v1/track": (
        b"writeKey=k&anonymousId=a&userId=u&event=e&messageId=m&context.library.name=l&properties.a=1"
        b"&properties.list.0=x&properties.list.3=y&timestamp=2024-01-01"
    ),
    "/pixel/v1/page": b"writeKey=k&userId=u&name=n&originalTimestamp=2024-01-01&sentAt=2024-01-02&channel=c&x",
    "/e": b"_k=k&_p=p&_n=n&_t=1262304000&_d=0&_c=c&_ip=1.2.3.4&_ua=x&color=red&a.b=c",
    "/s": b"_k=k&_p=p&color=red",
    "/a": b"_k=k&_p=p&_n=n",
    "/px/money": b"k=k&userId=u&amount=5&when=2024-01-01&a.b=c",
    "/rows": (
        b"k=k&u=u&q=q&ts=1700000000000&m=ms&ip=1.2.3.4&ch=c&mid=m&i=-5&f=1.5&b=true&ms=1&iso=2024-01-01"
        b"&properties.z=1&type=t&context=text&event.x=1"
    ),
}
ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
LONG = st.integers(1, 300).map("x".__mul__) | st.sampled_from(["x" * 70_000, "é" * 40_000])
ODD = st.sampled_from(
    [b"%ff", b"\xff", b"%E2%82", b"%e2%82%ac", b"a%3", b"%", b"+", b";", b"%20", b"%00", b'"', b'"a"']
)


def taken(plan: Plan, request: oracle.Request) -> tuple[str | None, bytes | None]:
    """The plan's answer, with the id that it made itself taken out."""
    reason, record = plan.record(request.method, request.target, request.headers, request.body, request.ip, request.now)
    return reason, record and ID.sub(b"*" * 36, record)


@st.composite
def mutations(draw: st.DrawFn, base: bytes) -> bytes:
    """The query with a few things changed that a shape must notice, or must not."""
    pairs = base.split(b"&")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(pairs) - 1))
        name, equals, value = pairs[at].partition(b"=")
        match draw(st.integers(0, 12)):
            case 0:
                pairs[at] = name + equals
            case 1:
                pairs[at] = name
            case 2:
                pairs[at] = name + draw(st.sampled_from([b"x", b".x", b".0", b"%", b"+"])) + equals + value
            case 3:
                pairs.insert(at, draw(st.sampled_from([b"new=1", b"", b"=", b"__proto__=1", b"timestamp=x", b"a=%zz"])))
            case 4 if len(pairs) > 1:
                del pairs[at]
            case 5:
                pairs.insert(draw(st.integers(0, len(pairs))), pairs[at])
            case 6:
                pairs.append(pairs.pop(at))
            case 7:
                pairs[at] = b"%%%02x" % name[0] + name[1:] + equals + value if name else b""
            case 8:
                pairs[at] = name + equals + value[:1] + draw(ODD) + value[1:]
            case 9:
                pairs[at] = name + equals + coded(draw(LONG), "raw")[:12_000]
            case 10:
                pairs[at] = name + b"=" + coded(draw(VALUES), draw(CODINGS))
            case 11:
                pairs[at] = name + b"=" + draw(st.sampled_from([b"1", b"ms", b"off", b"k", b"%C3%A9", b"0", b"+"]))
            case _:
                pairs[at] = name + equals + value + value
    return re.sub(rb"[\x00-\x20\x7f]", b"", b"&".join(pairs))


@st.composite
def changed(draw: st.DrawFn) -> list[oracle.Request]:
    """A request to warm a Plan with, and some that are like it."""
    path, base = draw(st.sampled_from(sorted(BASES.items())))
    if draw(st.booleans()):
        base = draw(mutations(base))
    headers = tuple(draw(HEADERS).items()) if draw(st.booleans()) else ((b"User-Agent", b"UA"),)
    model = oracle.Request("GET", path.encode() + b"?" + base, headers, b"", "203.0.113.9", NOW)
    found = [model]
    for _ in range(draw(st.integers(1, 4))):
        target = path.encode() + b"?" + draw(mutations(base))
        one = replace(model, target=target, now=NOW + draw(st.sampled_from([0, 1, 10**9, 10**6 * 3])))
        if draw(st.integers(0, 4)) == 0:
            one = replace(one, headers=tuple(draw(HEADERS).items()))
        if draw(st.integers(0, 9)) == 0:
            one = replace(one, ip=None)
        if draw(st.integers(0, 9)) == 0:
            one = replace(one, method=draw(st.sampled_from(["HEAD", "GET"])), body=b"a=b")
        found.append(one)
    return found


@fuzz
@given(changed(), st.sampled_from([(), SOURCES]))
def test_a_shape_writes_what_the_long_way_writes(alike: list[oracle.Request], sources: tuple):
    warm = Plan(ALL, sources, fields=FIELDS)
    for request in [alike[0], *alike, *reversed(alike)]:
        expected = taken(Plan(ALL, sources, fields=FIELDS), request)
        assert taken(warm, request) == expected
        assert taken(SHAPED[sources], request) == expected


@pytest.mark.parametrize("path", BASES)
def test_these_requests_have_shapes(path: str):
    plan = Plan(ALL, SOURCES, fields=FIELDS)
    request = oracle.Request("GET", path.encode() + b"?" + BASES[path], ((b"User-Agent", b"UA"),), b"", None, NOW)
    assert taken(plan, request)[0] is None
    assert taken(plan, request)[0] is None
    assert plan.shaped == 1


@pytest.mark.parametrize("name", ["a=%C3%A9", "a=x", "a=%FF", "a=", "a", "a=+", "a=" + "x" * 5000])
def test_other_values_of_the_same_names_take_the_short_way(name: str):
    plan = Plan(ALL, (), fields=FIELDS)
    for count, value in enumerate(["1", "", "%E2%82%AC+uro", "z" * 300, name.partition("=")[2]]):
        record = plan.record("GET", f"/s?_k=k&_p=p&a={value}".encode(), now=NOW)
        assert record[0] is None
        assert plan.shaped == count


@pytest.mark.parametrize(
    "target",
    [
        b"/rows?k=k&u=u&j={}",  # JSON may be a map or not
        b"/rows?k=k&q=%22u%22",  # a row takes the quotes away
        b"/rows?k=k&u=u&i=x",  # no number
        b"/rows?k=k&u=u&check=1",  # a number that is only looked at
        b"/rows?k=k&u=u&mid=+",  # a blank messageId is replaced
        b"/e?_k=k&_p=p&_n=n&_t=1262304000&_d=1",  # the messageId is a hash
        b"/pixel/v1/page?writeKey=k&userId=u&timestamp=x",  # an unusable time
        b"/pixel/v1/page?writeKey=k&userId=u&a=%zz",  # a pair is dropped
        b"/px/k/hit.gif?n=1",  # the path has variables
    ],
)
def test_these_requests_have_none(target: bytes):
    plan = Plan(ALL, (), fields=FIELDS)
    for _ in range(3):
        assert plan.record("GET", target, now=NOW)[0] is None
    assert plan.shaped == 0


@pytest.mark.parametrize("vector", VECTORS, ids=[vector.id for vector in VECTORS])
def test_vectors_give_the_same_record_again_and_again(vector: Vector):
    request = vectors.parsed(vector)
    assert request is not None
    plan = Plan(vectors.DIALECTS, vector.settings.sources, fields=FIELDS, options=vector.options)
    first, *others = [taken(plan, request) for _ in range(3)]
    assert others == [first, first]
    assert plan.shaped in (0, 2)


def test_most_vectors_of_pixels_have_shapes():
    stored = [
        vector
        for vector in VECTORS
        if vector.id.startswith(("rudderstack/", "kissmetrics/"))  # others have variables in their paths
        and vector.expect[0].get("records")
        and vector.request.get("method") != "POST"
    ]
    short = 0
    for vector in stored:
        plan = Plan(vectors.DIALECTS, vector.settings.sources, fields=FIELDS, options=vector.options)
        for _ in range(2):
            taken(plan, vectors.parsed(vector))
        short += plan.shaped
    assert 2 * short > len(stored)


# The bench request ------------------------------------------------------------------------------------------------

PIXEL = (Path(__file__).parents[2] / "bench/pixel.http").read_bytes().replace(b"@" * 8, b"00000042")
TARGET = PIXEL.split()[1]
LINES = [tuple(line.split(b": ", 1)) for line in PIXEL.splitlines()[1:] if line]


def test_the_bench_request_takes_the_short_way_and_makes_no_python_object():
    """Whatever the number of parameters and requests: the interpreter's blocks stay the same."""
    plan = Plan(vectors.DIALECTS, (), fields=FIELDS)
    decode_ns(plan, "GET", TARGET, LINES, 10)
    before = sys.getallocatedblocks()
    decode_ns(plan, "GET", TARGET, LINES, 100_000)
    assert abs(sys.getallocatedblocks() - before) < 20
    assert plan.shaped == 100_009


def test_the_long_way_makes_no_python_object_either():
    plan = Plan(vectors.DIALECTS, (), fields=FIELDS)
    target = TARGET.replace(b"anonymousId=", b"anonymousId=%22") + b"%22"
    target = target.replace(b"&userId", b"%22&userId")
    decode_ns(plan, "GET", target, LINES, 10)
    before = sys.getallocatedblocks()
    decode_ns(plan, "GET", target, LINES, 10_000)
    assert abs(sys.getallocatedblocks() - before) < 20
    assert plan.shaped == 0


def test_what_decode_ns_cannot_decode():
    plan = Plan(vectors.DIALECTS, (), fields=FIELDS)
    with pytest.raises(LookupError, match="no route answers GET /x"):
        decode_ns(plan, "GET", b"/x", [], 1)
    with pytest.raises(ValueError, match="missing_key"):
        decode_ns(plan, "GET", b"/e", [], 1)
    with pytest.raises(ValueError, match="bad_http"):
        decode_ns(plan, "GET", b"/ e", [], 1)
    assert decode_ns(plan, "GET", b"/e?_k=k&_p=p&_n=n", [], 0) >= 0


def test_copy_ns_copies():
    assert copy_ns(b"x" * 1_000_000, 10) > copy_ns(b"", 10) >= 0
