"""RudderStack's HTTP API under any input: a documented answer, nothing raised, and strict exports of what was taken."""

import base64
import functools
import gzip
import json

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

import vectors
from fastpixel._core import json_lines
from fastpixel.dialects import rudderstack_api

NAMES = ["batch", "type", "userId", "anonymousId", "messageId", "timestamp", "originalTimestamp", "sentAt", "context",
    "integrations", "writeKey", "properties", "traits", "event", "client", "ip", "__proto__", "seq"]  # fmt: skip
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(), max_size=8),
    st.sampled_from(["u", "", " ", "\u200b", "\ud800", "2024-05-04T12:00:00Z", "track"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=4)), inner)
    ),
    max_leaves=6,
)
EVENTS = st.one_of(VALUES, st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8))
BATCHES = st.fixed_dictionaries(
    {"batch": st.one_of(VALUES, st.lists(EVENTS, max_size=5))},
    optional=dict.fromkeys(("sentAt", "context", "integrations", "writeKey", "userId"), VALUES),
)
DOCUMENTS = st.one_of(EVENTS, BATCHES).map(lambda value: json.dumps(value).encode())
GOOD = b'{"batch":[{"type":"track","userId":"u","event":"E"}],"userId":"u","writeKey":"k"}'


@st.composite
def damaged(draw, bodies):
    """Bodies with some bytes put in place of others."""
    body = draw(bodies)
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]


@st.composite
def requests(draw):
    body = draw(st.one_of(DOCUMENTS, damaged(DOCUMENTS), damaged(st.just(GOOD)), st.binary()))
    coding = draw(st.sampled_from([None, "gzip", "gzip", "br", "GZIP"]))
    if coding and draw(st.booleans()):
        body = draw(st.one_of(st.just(gzip.compress(body)), damaged(st.just(gzip.compress(body)))))
    names = ["track", "identify", "merge", "batch", "import"]
    target = draw(st.sampled_from([f"/v1/{name}" for name in names] + ["/beacon/v1/batch?writeKey=k", "/rsaMetrics"]))
    user = draw(st.one_of(st.just(b"k:"), st.binary(max_size=6)))
    scheme = draw(st.sampled_from(["Basic", "basic", "Bearer"]))
    headers = {"Authorization": f"{scheme} {base64.b64encode(user).decode()}"} if draw(st.booleans()) else {}
    headers |= {"Content-Encoding": coding} if coding else {}
    return {"method": "POST", "target": target, "headers": headers, "body": body.decode("latin-1")}


def post(body, *, target="/v1/batch", headers=None, **config):
    """What a request is answered and stored as."""
    request = {"method": "POST", "target": target, "headers": {"Authorization": "Basic azo=", **(headers or {})}}
    return ask({**request, "body": body.decode("latin-1")}, **config)


def ask(request, **config):
    return vectors.exchange(intake(**config), [vectors.wire(request)], [False])


@functools.cache
def intake(**config):
    """One for all requests, as in a worker."""
    return vectors.intake_of(vectors.Vector("test", "", {}, [{}], config))


def strictly(records):
    """The records as an export writes them, read by a strict reader."""
    lines = json_lines(b"".join(msgpack.packb(record) for record in records), "s-0-", 1).decode().splitlines()

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in lines]


@vectors.fuzz
@given(requests())
@example({"method": "POST", "target": "/v1/batch", "headers": {}, "body": GOOD.decode()})
def test_any_request_gets_a_documented_answer(request):
    found = ask(request)
    (answer,) = found.answers
    stored = answer.status == 200 and "x-fastpixel" not in answer.headers
    assert answer.status in (200, 400, 401, 413)
    assert answer.body in (b"ok", b"{}") if stored else answer.body.endswith(b"\n")
    assert stored or not found.records
    assert len(found.rejects) == (0 if stored else 1)
    assert len(strictly(found.records)) == len(found.records)


@vectors.fuzz
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), min_size=1, max_size=3))
def test_a_batch_is_its_events_one_by_one(events):
    """All are kept or none; and each is kept as a batch of its own would keep it."""
    events = [{**event, "userId": "u", "messageId": "m"} for event in events]
    together = post(json.dumps({"batch": events}).encode())
    alone = [post(json.dumps({"batch": [event]}).encode()) for event in events]
    assert together.records == [record for one in alone for record in one.records]


# -- What is not the handler's to say ----------------------------------------------------------------------------------

LIMITED = {"sources": [{"key": "k", "name": "shop", "rate_limit": "1/s"}]}


def ask_twice(request, stored=True, **config):
    door = vectors.intake_of(vectors.Vector("test", "", request, [{}], config))
    connection = door.connection(vectors.PEER)
    connection.feed(vectors.wire(request) * 2)
    found = vectors.Exchange([], [], [], False)
    vectors.store(door, found, stored)
    found.answers = list(vectors.answers(connection.output(), [False, False]))
    return found


TRACK = {"method": "POST", "target": "/v1/track", "headers": {"Authorization": "Basic azo="}, "body": '{"userId":"u"}'}
PIXEL = {"target": "/v1/pixel/track?writeKey=k&userId=u"}


def test_over_its_rate_a_source_is_told_to_wait():
    found = ask_twice(TRACK, **LIMITED)
    first, second = found.answers
    assert (first.status, first.body) == (200, b"ok")
    assert (second.status, second.body) == (429, b"max requests limit reached\n")
    assert int(second.headers["retry-after"]) > 0
    assert [(reject["reason"], reject["body"]) for reject in found.rejects] == [("rate_limited", '{"userId":"u"}')]


def test_over_its_rate_a_pixel_is_the_image():
    found = ask_twice(PIXEL, **LIMITED)
    assert [(answer.status, answer.headers["content-type"]) for answer in found.answers] == [(200, "image/gif")] * 2
    assert found.answers[1].headers["x-fastpixel"] == "dropped; reason=rate_limited"


@pytest.mark.parametrize(("request_", "kind"), [(TRACK, "text/plain; charset=utf-8"), (PIXEL, "image/gif")])
def test_what_cannot_be_stored_is_to_be_sent_again(request_, kind):
    for answer in ask_twice(request_, stored=False).answers:
        assert (answer.status, answer.headers["content-type"]) == (503, kind)
        assert answer.headers["x-fastpixel"] == "dropped; reason=spool_full"
        assert int(answer.headers["retry-after"]) > 0


# -- Deciding parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 14, 15, 16, 17, 65534, 65535, 65536])
def test_joined_maps_are_as_if_packed_whole(count):
    event = {str(number): number for number in range(count)}
    more = {"sentAt": "x", "context": {"a": [1]}}
    packed = [msgpack.packb(name) + msgpack.packb(value) for name, value in more.items()]
    assert rudderstack_api.joined(Raw(msgpack.packb(event)), packed) == msgpack.packb({**event, **more})
    assert rudderstack_api.joined(Raw(msgpack.packb(event)), packed[:1]) == msgpack.packb({**event, "sentAt": "x"})


USERS = {
    "Basic azo=": "k",
    "basic azo=": "k",
    "BASIC   azo=": "k",
    "Basic azo": "k",
    "Basic azpwOng=": "k",  # k:p:x
    "Basic w6Q6": "ä",
    "Basic Ojo=": "",  # ::
    "Basic aw==": "",  # k
    "Basic": "",
    "Basic ": "",
    "": "",
    "azo=": "",
    "Basicazo=": "",
    "Bearer azo=": "",
    "Basic azo=, Basic azo=": "",
    "Basic az\ufffd=": "",
}


@pytest.mark.parametrize("header", USERS)
def test_the_user_of_a_header(header):
    assert rudderstack_api.basic_user(header) == USERS[header]


@given(st.text(max_size=20))
def test_any_header(header):
    assert isinstance(rudderstack_api.basic_user(f"Basic {header}"), str)


# -- Bounds ------------------------------------------------------------------------------------------------------------


def test_a_number_of_ten_megabytes():
    found = post(b'{"userId":"u","n":%s}' % (b"7" * 10_000_000), target="/v1/track", max_body_bytes=20_000_000)
    assert [(answer.status, answer.body) for answer in found.answers] == [(400, b"invalid json\n")]


def test_a_batch_of_many_events_is_one_append():
    event = b'{"type":"track","userId":"u"}'
    body = b'{"batch":[%s],"sentAt":"x"}' % b",".join([event] * 5000)
    assert len(post(body).records) == 5000


def test_what_a_batch_says_for_all_cannot_fill_the_memory():
    """A megabyte of context for each of a hundred thousand events would be 100 GB."""
    body = b'{"context":{"a":"%s"},"batch":[%s]}' % (b"x" * 1_000_000, b",".join([b'{"userId":"u"}'] * 100_000))
    found = post(body)
    assert [(answer.status, answer.body) for answer in found.answers] == [(413, b"request size exceeds max limit\n")]
    assert not found.records
