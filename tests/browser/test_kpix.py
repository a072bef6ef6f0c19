"""The kSense script in pages of another origin: every way it has of handing over an event, and what arrives."""

import json
from base64 import urlsafe_b64encode

BOB = "hash1:5ff860bf1190596c7188ab851db691f0f3169c453936e9e1eba2f9a47f7a0018"
EVENTS = "/api/v2/events/post_event"
UUID = 36


def script(visit, attributes=""):
    return f'<script {attributes} src="{visit.collector.url}/t/callbacks.js?sid={visit.key}"></script>'


def kpix(visit, *arguments):
    visit.run("call => { kpix(...call) }", arguments)


def events(records):
    return [record.get("event", record["type"]) for record in records]


def test_the_calls_of_a_page(visit):
    visit.open(script(visit), path="/shoes", host="shop.localhost")
    assert visit.run("Object.keys(localStorage)") == []
    assert visit.records() == []
    kpix(visit, "track", "pv")
    visit.answered_posts(1)
    kpix(visit, "user_info", {"internal_id": "u-1", "email": " Bob@Example.com", "phone": ""})
    visit.answered_posts(2)
    kpix(visit, "track", "conversion", {"labels": ["section=é=ü", "vip"], "conversion_name": "c", "amount": 5})
    page, person, conversion = visit.records(wait_for=3)
    assert [record["type"] for record in (page, person, conversion)] == ["page", "identify", "track"]
    assert page["properties"] == {
        "url": visit.site.url("/shoes", "shop.localhost"),
        "referrer": "",
        "title": "A page",
        "platform": "WEB",
    }
    assert person["traits"] == conversion["traits"] == {"internal_id": "u-1", "email": BOB}
    assert (conversion["event"], conversion["userId"]) == ("conversion", "u-1")
    assert conversion["properties"]["labels"] == {"section": "é=ü", "vip": True}
    assert (conversion["properties"]["conversion_name"], conversion["properties"]["amount"]) == ("c", 5)
    assert len({record["anonymousId"] for record in (page, person, conversion)}) == 1
    assert len({record["messageId"] for record in (page, person, conversion)}) == 3
    assert visit.preflights == []


def test_a_visitor_keeps_an_id(visit):
    for path in ("/one", "/two"):
        visit.open(script(visit), path=path)
        kpix(visit, "track", "pv")
    assert len({record["anonymousId"] for record in visit.records(wait_for=2)}) == 1


def test_calls_before_the_script_is_there(visit):
    stub = "kpix = function () { (kpix.q = kpix.q || []).push(arguments) };"
    calls = "kpix('track', 'early'); kpix({type: 'object', event_id: 'e-1'}); kpix('map', 5)"
    visit.open(f"<script>{stub}{calls}</script>" + script(visit, "async"))
    records = {record["event"]: record for record in visit.records(wait_for=2)}  # beacons may overtake each other
    assert {*records} == {"early", "object"}
    assert records["object"]["messageId"] == "e-1"
    assert records["object"]["anonymousId"] == records["early"]["anonymousId"]


def test_a_strict_policy_of_the_page(visit):
    ours = visit.collector.url
    policy = f"default-src 'none'; script-src {ours}; connect-src {ours}; img-src {ours} data:"
    visit.open(script(visit), headers=[("Content-Security-Policy", policy)])
    kpix(visit, "track", "strict")
    assert events(visit.records(wait_for=1)) == ["strict"]


def test_without_beacons_it_is_fetch(visit):
    visit.open(script(visit))
    visit.run("navigator.sendBeacon = () => false")
    kpix(visit, "track", "fetched")
    assert events(visit.records(wait_for=1)) == ["fetched"]
    ((path, text, status),) = visit.answered_posts(1)
    assert (path, status, json.loads(text)["type"]) == (EVENTS, 200, "fetched")
    assert visit.preflights == []


def test_what_a_beacon_cannot_carry(visit):
    """64 KiB are the most that beacons and fetches that outlive a page may have; a request has no such limit."""
    visit.open(script(visit))
    kpix(visit, "track", "large", {"text": "x" * 100_000})
    (record,) = visit.records(wait_for=1)
    assert len(record["properties"]["text"]) == 100_000
    visit.faults.clear()  # Chromium says that the fetch was too large


def test_as_an_image(visit):
    visit.open(script(visit))
    visit.run("navigator.sendBeacon = fetch = XMLHttpRequest = undefined")
    kpix(visit, "track", "drawn", {"word": "é€😀"})
    (record,) = visit.records(wait_for=1)
    assert (record["event"], record["properties"]["word"]) == ("drawn", "é€😀")
    assert len(record["anonymousId"]) == UUID


def test_an_event_on_leaving(visit):
    visit.open(script(visit))
    visit.run("addEventListener('pagehide', () => kpix('track', 'left'))")
    visit.open(path="/next")
    assert events(visit.records(wait_for=1)) == ["left"]


def test_mappings(visit):
    visit.open(script(visit))
    visit.run("() => { calls = []; fbq = (...given) => calls.push(given) }")
    kpix(visit, "map", {"conversion_name": {"engagement": {"fb": "Lead", "google": ["Videos", "play"]}}})
    kpix(visit, "track", "pv", {"conversion_name": "engagement"})
    assert visit.run("calls") == [["track", "Lead"]]
    assert len(visit.records(wait_for=1)) == 1


def test_a_page_without_scripts(visit, browser):
    encoded = urlsafe_b64encode(json.dumps({"type": "read", "event_data": {"a": 1}}).encode()).decode()
    image = f'<noscript><img src="{visit.collector.url}/t/p.gif?sid={visit.key}&amp;e={encoded}"></noscript>'
    context = browser.new_context(java_script_enabled=False)
    context.new_page().goto(visit.site.page(image), wait_until="load")
    context.close()
    (record,) = visit.records(wait_for=1)
    assert (record["event"], record["properties"], len(record["anonymousId"])) == ("read", {"a": 1}, UUID)
