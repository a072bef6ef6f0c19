"""Shapes: the second and later requests with the same names go another way, and must end as the first did.

A Plan remembers the names of a query and the tree they make (core/shape.pxi). So here requests come in series: the same
names with other values, between requests of other names that want the same place, against the oracle each time.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from test_record import CODINGS, DIALECTS, MISTAKES, PLANS, VALUES, assert_same, coded, names_of, requests

import oracle
from fastpixel._core import Plan
from fastpixel.event import FIELDS
from vectors import fuzz

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
