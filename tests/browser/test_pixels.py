"""Pixels as a page in Chromium sends them: images, fetch, beacons; from other origins, sites and frames."""

import json
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Error

FETCH = """
async ([address, options]) => {
  const answer = await fetch(address, options);
  const body = new Uint8Array(await answer.arrayBuffer());
  return {status: answer.status, mark: answer.headers.get("x-fastpixel"), text: new TextDecoder("latin1").decode(body)};
}"""


def kissmetrics(visit, event, **more):
    return f"{visit.collector.url}/e?" + urlencode({"_k": visit.key, "_p": "ann@example.com", "_n": event, **more})


def rudderstack(visit, event, **more):
    names = {"writeKey": visit.key, "anonymousId": "a-1", "event": event, **more}
    return f"{visit.collector.url}/pixel/v1/track?{urlencode(names)}"


def events(records):
    return [record["event"] for record in records]


@pytest.mark.parametrize("pixel", [kissmetrics, rudderstack], ids=lambda pixel: pixel.__name__)
def test_an_image(visit, pixel):
    visit.open("shoes", path="/shoes")
    address = pixel(visit, "Viewed ä & ö", **{"properties.price": "9.90"})
    assert visit.load_image(address) == [1, 1]
    (record,) = visit.records()
    assert (record["type"], record["event"], record["protocol"]) == ("track", "Viewed ä & ö", pixel.__name__)
    # A browser tells another origin only where it comes from, not the page (its default Referrer-Policy).
    shared = {"ip": "127.0.0.1", "userAgent": visit.run("navigator.userAgent"), "referrer": visit.site.url("/")}
    assert {name: record["context"].get(name) for name in shared} == shared


def test_an_image_that_is_refused_loads_all_the_same(visit):
    visit.open()
    assert visit.load_image(rudderstack(visit, "")) == [1, 1]
    assert visit.load_image(f"{visit.collector.url}/e?_k={visit.key}") == [1, 1]
    assert visit.records() == []


def test_an_image_of_a_page_without_scripts(visit, browser):
    image = f'<img src="{kissmetrics(visit, "Read").replace("&", "&amp;")}">'
    context = browser.new_context(java_script_enabled=False)
    context.new_page().goto(visit.site.page(f"<noscript>{image}</noscript>"), wait_until="load")
    context.close()
    assert events(visit.records()) == ["Read"]


def test_an_image_of_an_isolated_page(visit):
    """Such a page takes nothing of others that does not say that it may: Cross-Origin-Resource-Policy."""
    isolated = [("Cross-Origin-Embedder-Policy", "require-corp"), ("Cross-Origin-Opener-Policy", "same-origin")]
    visit.open(host="localhost", headers=isolated)
    assert visit.run("crossOriginIsolated")
    assert visit.load_image(kissmetrics(visit, "Seen")) == [1, 1]
    assert events(visit.records()) == ["Seen"]


def test_fetch_reads_the_answer_and_why_nothing_was_stored(visit):
    visit.open()
    good = visit.run(FETCH, [rudderstack(visit, "Opened"), {"credentials": "include"}])
    assert (good["status"], good["mark"], good["text"][:6]) == (200, None, "GIF89a")
    bad = visit.run(FETCH, [rudderstack(visit, ""), {"credentials": "include"}])
    mark, text = "dropped; reason=missing_event", "track: Mandatory field 'event' missing\n"
    assert bad == {"status": 400, "mark": mark, "text": text}
    assert events(visit.records()) == ["Opened"]
    visit.faults.clear()  # Chromium reports every 400


def test_fetch_with_a_header_of_its_own_asks_first(visit):
    visit.open(host="shop.localhost")
    options = {"method": "POST", "headers": {"X-Sent-By": "test", "Content-Type": "text/x-form"}, "body": "_n=Bought"}
    address = f"{visit.collector.url}/e?_k={visit.key}&_p=p"
    assert visit.run(FETCH, [address, options])["status"] == 200
    assert events(visit.records()) == ["Bought"]
    assert visit.preflights == [("POST", "/e")]


def test_a_method_that_a_path_does_not_take_is_not_sent(visit):
    visit.open()
    with pytest.raises(Error, match="Failed to fetch"):
        visit.run(FETCH, [kissmetrics(visit, "Bought"), {"method": "PUT"}])
    assert visit.records() == []
    assert visit.preflights == [("PUT", "/e")]
    visit.faults.clear()  # Chromium reports what it did not send


BODIES = {
    "text": "'_p=p&_n=Left'",  # Content-Type: text/plain, so nothing is asked first
    "form": "new URLSearchParams({_p: 'p', _n: 'Left'})",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_beacon_of_a_page_that_is_left(visit, body):
    address = json.dumps(f"{visit.collector.url}/e?_k={visit.key}")
    visit.open(f"<script>onpagehide = () => navigator.sendBeacon({address}, {BODIES[body]})</script>")
    visit.open("the next page", path="/next")
    assert events(visit.records(wait_for=1)) == ["Left"]
    assert visit.preflights == []


def test_a_frame_without_an_origin(visit):
    """A sandboxed frame says `Origin: null`, and may read the answer like any other."""
    address = json.dumps(rudderstack(visit, "Framed"))
    script = f"fetch({address}, {{credentials: 'include'}}).then(a => parent.postMessage(a.status, '*'))"
    frame = f"<iframe sandbox='allow-scripts' srcdoc='<script>{script.replace(chr(39), '&#39;')}</script>'></iframe>"
    listen = "<script>window.told = new Promise(resolve => onmessage = event => resolve(event.data))</script>"
    visit.open(listen + frame)
    assert visit.run("window.told") == 200
    assert events(visit.records()) == ["Framed"]
