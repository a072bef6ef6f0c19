"""Records: Plan.record against the oracle, on requests made from the dialects' own rows.

The strategies lean on the tables: names of rows, their targets, what the server owns, paths that conflict; values
of every kind, right and nearly right; encodings with mistakes. FASTPIXEL_FUZZ_EXAMPLES raises the number of
examples.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import oracle
import vectors
from fastpixel._core import REASONS, Intake, Plan, parse_time
from fastpixel.dialect import Dialect, Field, Route, validate
from fastpixel.event import FIELDS, SERVER_OWNED
from vectors import fuzz

NOW = vectors.NOW
HOST = (b"Host", b"t.example.com")
PEER = vectors.PEER

# A dialect of one's own that has every kind of value and every rule of a row.
ACME = Dialect(
    name="acme",
    title="Acme",
    routes=(
        Route(
            method=("GET", "POST"),
            path="/px/{key}/hit.gif",
            type="track",
            fields=(
                Field("path.key", to="writeKey", required="missing_key"),
                Field("n", to="event", required="missing_event"),
                Field("i", to="properties.i", kind="int"),
                Field("f", to="properties.f", kind="number"),
                Field("b", to="properties.b", kind="bool"),
                Field("u", to="properties.u", kind="unix"),
                Field("ms", to="properties.ms", kind="unix_ms"),
                Field("iso", to="properties.iso", kind="iso8601"),
                Field("j", to="properties.j", kind="json"),
                Field("bj", to="traits", kind="base64_json"),
                Field("ts", to="timestamp", kind="unix_ms", when="m=ms", otherwise="originalTimestamp"),
                Field("m"),
                Field("id", to="userId", tidy=True, max_chars=8),
                Field("q", to="anonymousId", unquote=True, if_empty="nobody"),
                Field("ip", to="context.ip", trusted=True),
                Field("ch", to="context.channel", nonempty="bad_field"),
                Field("mid", to="messageId"),
                Field("*", to="properties", kind="dotpath"),
            ),
        ),
        Route(
            method=("GET",),
            path="/px/money",
            type="track",
            answer="text",
            identity=("userId",),
            fields=(
                Field("userId", to="userId"),
                Field("k", to="writeKey", required="missing_key"),
                Field("amount", to="properties.amount", kind="int", required="bad_amount"),
                Field("when", to="timestamp", kind="iso8601", required="bad_field"),
                Field("d", to="integrations", kind="json"),
            ),
        ),
    ),
    defaults=(("plan", "free"),),
)
# Two that take any path and have rows whose names are not their targets; the first or the last of a repeated path.
LOOSE = Dialect(
    name="loose",
    title="Loose",
    routes=(
        Route(
            method=("GET", "POST"),
            path="/l/{v}/{w}",
            type="track",
            fields=(
                Field("k", to="writeKey", required="missing_key"),
                Field("u", to="userId", required="missing_identity", max_chars=5),
                Field("x", to="properties.y", kind="int"),
                Field("path.v", to="context.v"),
                Field("path.w", to="plan"),
                Field("m"),
                Field("*", kind="dotpath"),
            ),
        ),
    ),
    repeat="first",
    receipt=("sentAt",),
    skew=True,
)
# Rows with a gate, which a dialect in which the first of a repeated parameter counts cannot have.
GATED = {
    "path.w": Field("path.w", to="plan", when="m=1", otherwise="context.w"),
    "m": Field("m"),
}
LOOSER = replace(
    LOOSE,
    name="looser",
    repeat="last",
    skew=False,
    routes=(
        replace(
            LOOSE.routes[0],
            path="/m/{v}/{w}",
            fields=(
                Field("ip", to="context.ip", trusted=True),
                *(GATED.get(row.source, row) for row in LOOSE.routes[0].fields),
            ),
        ),
    ),
)
DIALECTS = (*vectors.DIALECTS, ACME, LOOSE, LOOSER)
VARIABLE = re.compile(r"\{\w+\}")
PATHS = {dialect.name: [route.path for route in dialect.routes] for dialect in DIALECTS}
SOURCES = (
    oracle.Source("k", "shop", trust_client_ip=True),
    oracle.Source("é", "other", ("acme", "rudderstack")),
    oracle.Source("off", "gone", (), False),
)
PLANS = {sources: Plan(DIALECTS, sources, fields=FIELDS) for sources in ((), SOURCES)}

# Values ---------------------------------------------------------------------------------------------------

INVISIBLE = "\t\n\u00a0\u00ad\u200b\u2800\u3000\u3164\ufeff\U000e0001\x00"
DIGITS = st.text("0123456789", min_size=1, max_size=20)
NUMBERS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", " ", "-", "+", "--"]),
        DIGITS,
        st.sampled_from(["", ".", ".5", ".0", "e3", " ", "\n"]),
    ),
) | st.builds("{}.{}".format, DIGITS, DIGITS)
EDGES = st.sampled_from(
    [
        *[
            "99999999999",
            "100000000000",
            "-99999999999",
            "-62135596800",
            "-62135596801",
            "-62135596800.5",
            "253402300799",
        ],
        *[
            "9999999999999",
            "99999999999999",
            "0",
            "-0",
            "-0.0",
            "00",
            "1.",
            ".5",
            "0.1",
            "1e5",
            "0.0000000000001",
            "NaN",
            "true",
            "false",
            "True",
        ],
        *["999999999999999999", "-999999999999999999", "1000000000000000000"],
        " 1 ",
    ]
)
DATES = st.builds(
    "{:04d}-{:02d}-{:02d}{}{}{}".format,
    st.sampled_from([0, 1, 1900, 1970, 2000, 2023, 2024, 9999]),
    st.integers(0, 13),
    st.sampled_from([0, 1, 28, 29, 30, 31, 32]),
    st.sampled_from(["", "T", "t", " ", "  ", "_"]),
    st.sampled_from(["", "00:00", "23:59:60", "24:00", "12:34:56", "12:34:56.789", "1:2:3", "12:34:56,123456789123"]),
    st.sampled_from(["", "Z", "z", "+00:00", "-00:01", "+0530", "+14", "-23:59", "+24:00", " ", "+1", "+05:", "Z "]),
)
JSON_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
JSON_EDGES = [
    *[
        r"{",
        r"[1,]",
        r"NaN",
        r"-Infinity",
        r"nul",
        r'"\ud800"',
        r'{"\udc00":1,"\ud800":2}',
        r'{"a":1,"a":{"b":2}}',
        r"1e999",
        r"-1e999",
        r"01",
        r"1.",
        r"-0",
    ],
    *[r"18446744073709551615", r"18446744073709551616", r"-9223372036854775808", r"-9223372036854775809", r"0.1e-400"],
    *[r'"\u0000"', r'"\ud83d\ude00"', r'"\/\x"', r"[]x", r"{}", r"-0.0"],
    *["[" * 32 + "]" * 32, "[" * 33 + "]" * 33, '{"a":' * 32 + "1" + "}" * 32, '{"a":' * 33 + "1" + "}" * 33],
    *["[" * 32 + "1" + "]" * 32, " [1 , 2]\n", '"\x01"', "1" * 1024, "1" * 1025, "\ufeff1", '{"a" :1}'],
]
JSON_TEXTS = JSON_TREES.map(json.dumps) | st.sampled_from(JSON_EDGES)
BASE64_FORMS = [
    lambda coded: coded,
    lambda coded: coded.rstrip(b"="),
    lambda coded: coded + b"=",
    lambda coded: b"\r\n\t" + coded,
    lambda coded: coded[:-1],
    lambda coded: coded.replace(b"+", b" "),
]


def in_base64(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda text, coding, form: form(coding(text)).decode(),
        texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=20),
        st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
        st.sampled_from(BASE64_FORMS),
    )


BASE64_TEXTS = in_base64(JSON_TEXTS)
# Objects with the names that `params` knows; whole, nearly, and cut.
SHA256 = "sha256:" + "0123456789abcdef" * 4
PARAMS_NAMES = st.sampled_from(
    [
        "email",
        "uuid",
        "fbid",
        "access_token",
        "amount",
        "category",
        "a",
        "$a",
        "_a",
        "a.b",
        "",
        "event",
        "é",
        "Access_Token",
    ]
)
PARAMS_VALUES = (
    JSON_TREES
    | st.sampled_from(
        ["", " ", "\u200b", "12", "-12", "１", "t", SHA256, SHA256.upper(), SHA256 + "0", -1, -0.0, 2**64]
    )
    | st.dictionaries(PARAMS_NAMES, JSON_TREES, max_size=3)
    | st.lists(st.dictionaries(PARAMS_NAMES, st.text(max_size=3), max_size=3), max_size=2)
)
PARAMS_OBJECTS = st.dictionaries(PARAMS_NAMES, PARAMS_VALUES, max_size=6).map(json.dumps)
PARAMS_CUT = st.builds(lambda text, end: text[:end], PARAMS_OBJECTS, st.integers(0, 60))
PARAMS_JSON = PARAMS_OBJECTS | PARAMS_CUT | JSON_TEXTS
PARAMS_NOTES = st.builds(
    "{}{} {} bytes{}{}".format,
    st.sampled_from(["", " "]),
    st.just(SHA256),
    st.sampled_from(["0", "12", "123456789", "1234567890", "000000012", "0000000012", "", "x"]),
    st.sampled_from([" bad_json", " too_deep", " bad_base64", " blank", "", " bad_jso", " bad_jsons"]),
    st.sampled_from(["", "", " "]),
)
PARAMS_TEXTS = st.one_of(
    PARAMS_JSON,
    PARAMS_JSON.map(" {}\n".format),
    in_base64(PARAMS_JSON),
    in_base64(in_base64(PARAMS_JSON)),
    PARAMS_NOTES,
)
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            " ",
            "1",
            "ms",
            "k",
            "é",
            "off",
            "p",
            '"q"',
            '""',
            '"',
            '"a',
            "x" * 8,
            "x" * 9,
            "é" * 255,
            "é" * 256,
        ]
    ),
    st.text(INVISIBLE + " ab", max_size=10),
    st.text(max_size=12),
)
VALUES = st.one_of(TEXTS, NUMBERS, EDGES, DATES, JSON_TEXTS, BASE64_TEXTS, PARAMS_TEXTS)

# Names ----------------------------------------------------------------------------------------------------

ROWS = {dialect.name: [row for route in dialect.routes for row in route.fields] for dialect in DIALECTS}
SEGMENTS = st.sampled_from(["a", "b", "x", "0", "1", "2", "300", "999", "1000", "00", "", "__proto__", "client", "é"])


def names_of(dialect: Dialect) -> st.SearchStrategy[str]:
    """Names that mean something to the dialect or to the record, and paths below and beside them."""
    known = {row.source for row in ROWS[dialect.name]} | {row.to for row in ROWS[dialect.name]} - {""}
    listed = {field.name for field in FIELDS} | {
        "context.ip",
        "context.client",
        "context.userAgent",
        "path.key",
    }
    listed |= {name + ".x" for name in SERVER_OWNED} | {
        "integrations.All",
        "context.client.timestamp",
        "channel",
    }
    bases = st.sampled_from(sorted(known | listed))
    paths = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)
    below = st.builds("{}.{}".format, bases, paths)
    return st.one_of(st.sampled_from(sorted(known)), bases, below, paths, st.text(max_size=6))


def coded(text: str, how: str) -> bytes:
    """One of the ways in which clients write a text into a query."""
    octets = text.encode("utf-8", "surrogatepass")
    if how == "all":
        return b"".join(b"%%%02X" % byte for byte in octets)
    kept = rb"[^A-Za-z0-9._~!*'(),/:@?$|\[\]{}^`<>#\"\\-]" if how == "ascii" else rb"[\x00-\x20&=%+\x7f]"
    found = re.sub(kept, lambda m: b"%%%02x" % m[0][0], octets)
    return found.replace(b"%20", b"+")


MISTAKES = st.sampled_from(
    [b"", b"", b"", b"%", b"%4", b"%zz", b";", b"%FF", b"\xff", b"%C3", b"+", b"=", b"&", b"\xe2\x82"]
)
CODINGS = st.sampled_from(["ascii", "raw", "all"])


def pairs_of(dialect: Dialect) -> st.SearchStrategy[list[bytes]]:
    pair = st.builds(
        lambda name, value, how, other, mistake, equals: coded(name, how) + equals + coded(value, other) + mistake,
        names_of(dialect), VALUES, CODINGS, CODINGS, MISTAKES, st.sampled_from([b"=", b"=", b"=", b""]),
    )  # fmt: skip
    return st.lists(pair, max_size=10)


# Most requests carry what the route requires, in any order, so that they get as far as a record.
NEEDED = {
    "rudderstack": [b"writeKey=k", b"anonymousId=a", b"event=e"],
    "kissmetrics": [b"_k=k", b"_p=p", b"_n=n", b"_d=1", b"_t=1262304000"],
    "loose": [b"k=k", b"u=u"],
    "looser": [b"k=k", b"u=u"],
    "pitchtarget": [b"event_token=t", b"amount=5", b"params={%22a%22:1}"],
    "acme": [b"k=k", b"n=n", b"userId=u", b"amount=5", b"when=2024-01-01", b"m=ms"],
}
SAFE_BYTES = st.binary(max_size=30).map(lambda data: re.sub(rb"[\x00-\x20\x7f]", b"", data))
HEADER_VALUES = st.binary(max_size=20).map(lambda data: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", data).strip(b" \t"))
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        b"User-Agent": HEADER_VALUES,
        b"Referer": HEADER_VALUES,
        b"Accept": st.sampled_from([b"image/*", b"text/plain", b"*/*"]),
        b"Content-Type": st.sampled_from(
            [
                b"application/json",
                b"application/x+JSON; a=b",
                b"text/plain",
                b"application/jsonp",
                b"+json",
                b"x/json",
            ]
        ),
        b"Content-Encoding": st.sampled_from([b"gzip", b"identity", b"IDENTITY", b"br", b"identity, gzip"]),
    },
)


# Texts of path variables, written in Latin-1: one character is one byte.
VARIABLES = st.sampled_from(["k", "k", "k", "%C3%A9", "a+b", "%zz", "off", "%2F", "%FF", "\xe9", ".", "{v}", ";", ""])


@st.composite
def requests(draw: st.DrawFn) -> oracle.Request:
    dialect = draw(st.sampled_from(DIALECTS))
    pairs = draw(pairs_of(dialect))
    needed = [pair for pair in NEEDED[dialect.name] if draw(st.integers(0, 9))]
    every = draw(st.permutations(pairs + needed))
    method = draw(st.sampled_from(["GET", "GET", "POST", "POST", "HEAD"]))
    cut = draw(st.integers(0, len(every))) if method == "POST" else len(every)
    path = draw(st.sampled_from(PATHS[dialect.name]))
    path = VARIABLE.sub(lambda match: draw(VARIABLES), path).encode("latin-1")
    query = re.sub(rb"[\x00-\x20\x7f]", b"", b"&".join(every[:cut]))
    headers = (HOST, *draw(HEADERS).items())
    return oracle.Request(method, path + b"?" + query, headers, b"&".join(every[cut:]), PEER, NOW)


# Comparing ------------------------------------------------------------------------------------------------


def recorded(sources: tuple[oracle.Source, ...], request: oracle.Request) -> tuple[str | None, Any]:
    """What the core makes of it: (reason, record)."""
    reason, record = PLANS[sources].record(
        request.method, request.target, request.headers, request.body, request.ip, request.now
    )
    return reason, msgpack.unpackb(record, timestamp=0) if record is not None else None


def assert_same(sources: tuple[oracle.Source, ...], request: oracle.Request) -> None:
    try:
        verdict = oracle.judge(DIALECTS, sources, request)
    except oracle.NoRoute:
        with pytest.raises(LookupError):
            recorded(sources, request)
        return
    reason, record = recorded(sources, request)
    expected = verdict.record
    if record is not None and expected is not None:
        record = vectors.alike(record, expected)
    assert (reason, record) == (verdict.reason, expected)


@pytest.mark.parametrize("dialect", [ACME, LOOSE, LOOSER])
def test_the_dialects_of_this_test_are_valid(dialect: Dialect):
    validate(dialect)


@fuzz
@given(requests(), st.sampled_from([(), SOURCES]))
def test_records_are_the_oracles(request: oracle.Request, sources: tuple[oracle.Source, ...]):
    assert_same(sources, request)


@fuzz
@given(PARAMS_TEXTS, st.sampled_from(["event", "revenue"]), st.sampled_from(["", "5", "-0", "x", " 7 "]), CODINGS)
def test_params_are_the_oracles(params: str, category: str, amount: str, how: str):
    query = b"event_token=t&params=" + coded(params, how) + b"&amount=" + coded(amount, how)
    target = re.sub(rb"[\x00-\x20\x7f]", b"", b"/k/%s.gif?%s" % (category.encode(), query))
    assert_same((), oracle.Request("GET", target, (HOST,), b"", PEER, NOW))
    assert_same((), oracle.Request("POST", target.partition(b"?")[0], (HOST,), query, PEER, NOW))


@fuzz
@given(
    st.sampled_from(sorted(path for paths in PATHS.values() for path in paths)),
    SAFE_BYTES,
    st.binary(max_size=40),
)
def test_any_bytes_are_the_oracles(path: str, query: bytes, body: bytes):
    assert_same((), oracle.Request("GET", path.encode() + b"?" + query, (HOST,), b"", PEER, NOW))
    assert_same((), oracle.Request("POST", path.encode() + b"?" + query, (HOST,), body, PEER, NOW))


@fuzz
@given(requests(), st.data())
def test_mutated_requests_are_the_oracles(request: oracle.Request, data: st.DataObject):
    target = bytearray(request.target)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(target) - 1))
        target[at] = data.draw(st.sampled_from(b'%&=+.;0a1_"\xc3\xff-'))
    assert_same((), oracle.Request(request.method, bytes(target), request.headers, request.body, PEER, NOW))


@fuzz
@given(
    st.sampled_from(["GET", "POST", "HEAD", "PUT", ""]) | st.text(max_size=5),
    st.binary(max_size=60) | st.binary(max_size=40).map(lambda query: b"/e?" + query),
    st.lists(st.tuples(st.binary(max_size=10), st.binary(max_size=10)), max_size=4),
    st.binary(max_size=60),
)
def test_any_bytes_are_a_record_or_a_reason(method: str, target: bytes, headers: list, body: bytes):
    try:
        reason, record = PLANS[()].record(method, target, headers, body, None, NOW)
    except LookupError:
        return
    assert (reason in REASONS) if record is None else isinstance(msgpack.unpackb(record, timestamp=0), dict)


@pytest.mark.parametrize("kind", ["unix", "unix_ms", "iso8601"])
@fuzz
@given(st.one_of(NUMBERS, EDGES, DATES, st.text(max_size=10)))
@example("2024-02-29T23:59:60.5+14:00")
def test_times_are_the_oracles(kind: str, text: str):
    try:
        expected = oracle.parse_time(text, kind)
    except oracle.Unusable:
        expected = None
    assert parse_time(text.encode("utf-8", "surrogatepass"), kind) == expected


@pytest.mark.parametrize("length", [3000, 5000, 100_000, 1_000_000])
def test_base64_of_any_length(length: int):
    """The text is decoded from the form first, so that it and what it becomes lie in one buffer, which grows."""
    document = json.dumps({"a": "?" * length})
    value = b"%65" + base64.b64encode(document.encode())[1:]
    request = oracle.Request("POST", b"/px/k/hit.gif?n=n", (HOST,), b"bj=" + value, PEER, NOW)
    assert_same((), request)
    _, record = recorded((), request)
    assert record["traits"] == {"a": "?" * length}


def test_a_record_needs_no_headers():
    reason, record = PLANS[()].record("GET", b"/s?_k=k&_p=p", now=NOW)
    assert reason is None
    assert msgpack.unpackb(record, timestamp=0)["userId"] == "p"


# Answers ------------------------------------------------------------------------------------------------------

ORIGINS = st.sampled_from([b"", b"null", b"https://shop.example.com", b"a b", b"\xc3\xa9", b"x" * 64])
ACCEPTS = st.sampled_from(
    [b"", b"*/*", b"IMAGE/*", b"text/plain", b"application/json;q=1", b"text/html, image/png", b"text/plain2"]
)


def on_the_wire(request: oracle.Request) -> bytes:
    lines = [request.method.encode() + b" " + request.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers]
    lines += [b"Content-Length: %d" % len(request.body)] if request.body else []
    return b"\r\n".join(lines) + b"\r\n\r\n" + request.body


@fuzz
@given(requests(), st.sampled_from([(), SOURCES]), ORIGINS, ACCEPTS)
def test_answers_are_the_oracles(request: oracle.Request, sources: tuple, origin: bytes, accept: bytes):
    """The whole way: bytes in; answer, record and reject out."""
    headers = [(name, value) for name, value in request.headers if name != b"Accept"]
    request = replace(request, headers=(*headers, (b"Origin", origin), (b"Accept", accept)))
    door = Intake(PLANS[sources], now=lambda: NOW, rejects_per_second=1_000_000)
    found = vectors.exchange(door, [on_the_wire(request)], [request.method == "HEAD"])
    assert len(found.answers) == 1
    try:
        verdict = oracle.judge(DIALECTS, sources, request)
    except oracle.NoRoute as no_route:
        assert found.answers[0].status == (405 if no_route.allowed else 404)
        return
    assert_answered(request, verdict, found)


def assert_answered(request: oracle.Request, verdict: oracle.Verdict, found: vectors.Exchange) -> None:
    (answer,) = found.answers
    reply, reason = oracle.reply_of(verdict, request.header("accept"), {})
    body = oracle.body_of(verdict, reply, reason)
    assert (answer.status, answer.body) == (reply.status, b"" if request.method == "HEAD" else body)
    vectors.check_headers(answer, {**oracle.headers_of(request, reply, reason), "Content-Length": str(len(body))})
    kept = oracle.reject_of(request, verdict)
    assert found.rejects == ([kept] if kept else [])
    expected = [verdict.record] if verdict.record else []
    assert [vectors.alike(record, to) for record, to in zip(found.records, expected, strict=True)] == expected
