"""npm @rudderstack/analytics-js in Chromium, told the collector as its config and data plane: every event comes out.

The page is another site than the collector, so that Chromium asks before each request, as it does for customers.
"""

import json
import re
from datetime import datetime

import pytest
from service import Service
from test_clients import installed
from visit import Visit

__all__ = ["installed"]  # a fixture

BUILD = "node/node_modules/@rudderstack/analytics-js/dist/npm/modern/bundled/esm"
PAGE = """
<script type="module">
import {RudderAnalytics} from "/sdk/index.mjs";
const analytics = window.analytics = new RudderAnalytics();
analytics.load(KEY, COLLECTOR, {configUrl: COLLECTOR, ...OPTIONS});
CALLS
</script>"""
CALLS = """
analytics.page("Docs", "Start", {section: "intro"});
analytics.identify("ann@example.com", {plan: "pro", seats: 3});
analytics.track("Größe gewählt 😀", {price: 49.5, tags: ["a", null, {b: true}], big: 2 ** 53, text: "\\u2028\\ud800"});
analytics.group("g-1", {name: "Acme"});
analytics.alias("ann", "ann@example.com");
"""
NAMES = ["page", "identify", "track", "group", "alias"]
OF_THE_SERVER = ("seq", "receivedAt", "protocol", "writeKey", "timestamp")


@pytest.fixture(autouse=True)
def sdk(installed, site):
    site.folders["sdk"] = installed / BUILD


def begin(visit, calls=CALLS, **options):
    page = PAGE.replace("CALLS", calls)
    for name, value in {"KEY": visit.key, "COLLECTOR": visit.collector.url, "OPTIONS": options}.items():
        page = page.replace(name, json.dumps(value))
    visit.open(page, host="shop.localhost")


def said(event):
    """What the SDK says in an event; null is nothing, and half a surrogate pair, which browsers send, is U+FFFD."""
    event = json.loads(re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(event, ensure_ascii=False)))
    return {name: value for name, value in event.items() if value is not None}


def kept(record):
    """What a record keeps of that, without what the server adds."""
    added = {"ip": "127.0.0.1", "referrer": record["context"]["page"]["url"].rpartition("page")[0]}
    assert {name: record["context"][name] for name in added} == added
    context = {name: value for name, value in record["context"].items() if name not in added}
    return {**{name: value for name, value in record.items() if name not in OF_THE_SERVER}, "context": context}


def by_id(events):
    return {event["messageId"]: event for event in events}


def test_every_event_comes_out_complete(visit):
    begin(visit)
    paths, bodies, statuses = zip(*visit.answered_posts(len(NAMES)), strict=True)
    assert sorted(paths) == sorted(f"/v1/{name}" for name in NAMES)
    assert {*statuses} == {200}
    records = visit.records()
    assert by_id(map(kept, records)) == by_id(map(said, map(json.loads, bodies)))
    assert {record["protocol"] for record in records} == {"rudderstack"}
    assert sorted(visit.preflights) == [("GET", "/sourceConfig/"), *(("POST", path) for path in sorted(paths))]
    for record in records:  # without a time of the client: receipt, less what lies between its own two times
        sent, original, received, when = (
            datetime.fromisoformat(record[name].replace("Z", "+00:00")).timestamp()
            for name in ("sentAt", "originalTimestamp", "receivedAt", "timestamp")
        )
        assert when == pytest.approx(received - (sent - original), abs=0.002)


def test_a_batch(visit):
    begin(visit, queueOptions={"batch": {"enabled": True, "maxItems": len(NAMES), "flushInterval": 60_000}})
    ((path, body, status),) = visit.answered_posts(1)
    assert (path, status) == ("/v1/batch", 200)
    records = visit.records()
    assert [record["type"] for record in records] == NAMES
    assert [kept(record) for record in records] == [said(event) for event in json.loads(body)["batch"]]


def test_a_beacon_of_a_page_that_is_left(visit):
    begin(visit, useBeacon=True, beaconQueueOptions={"flushQueueInterval": 60_000})
    visit.page.wait_for_function("window.analytics.getSessionId()")
    visit.open("the next page", path="/next", host="shop.localhost")
    records = visit.records(wait_for=len(NAMES))
    assert [record["type"] for record in records] == NAMES
    assert visit.preflights == [("GET", "/sourceConfig/")]


@pytest.fixture
def disabled(tmp_path):
    config = tmp_path / "fastpixel.toml"
    config.write_text('[[sources]]\nkey = "off"\nenabled = false\n')
    with Service(tmp_path / "data", config=config) as running:
        yield running


def test_a_disabled_source_makes_the_sdk_send_nothing(browser, site, disabled):
    visit = Visit(browser, site, disabled, key="off")
    with visit.page.expect_console_message(lambda message: "disabled" in message.text):
        begin(visit)
    assert visit.posts == [] and visit.preflights == [("GET", "/sourceConfig/")]
    visit.context.close()
