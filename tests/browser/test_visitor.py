"""The visitor cookie as Chromium keeps it: on the customer's own site, on another, over https, with privacy asked for.

Names below `shop.localhost` are one site. What `HttpOnly` and `SameSite` mean is the browser's to say, so it is asked.
"""

import subprocess
from urllib.parse import urlencode

import pytest
from service import Service
from visit import Visit

CONFIG = """
[privacy]
gpc = "anonymise"
[[dialects]]
name = "acme"
[[dialects.routes]]
path = "/v/hit.gif"
visitor = true
fields = [
    { from = "k", to = "writeKey", required = "missing_key" },
    { from = "id", to = "anonymousId" },
    { from = "n", to = "event", required = "missing_event" },
]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "fastpixel.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def collector(tmp_path_factory, config):
    with Service(tmp_path_factory.mktemp("collector") / "data", config=config) as running:
        yield running


def address(visit, host, event, **more):
    """Of a pixel of the collector under this name."""
    scheme, _, port = visit.collector.url.split(":")
    return f"{scheme}://{host}:{port}/v/hit.gif?{urlencode({'k': visit.key, 'n': event, **more})}"


def hit(visit, host, event, **more):
    assert visit.load_image(address(visit, host, event, **more)) == [1, 1]


def ids(visit):
    return [record.get("anonymousId") for record in visit.records()]


def test_one_site_has_one_visitor(visit):
    visit.open(host="shop.localhost")
    hit(visit, "data.shop.localhost", "first")
    hit(visit, "data.shop.localhost", "second")
    visit.open(path="/next", host="www.shop.localhost")
    hit(visit, "data.shop.localhost", "third")
    assert len({*ids(visit)}) == 1
    (cookie,) = visit.context.cookies()
    assert cookie["value"] == ids(visit)[0]
    assert {name: cookie[name] for name in ("name", "domain", "path", "httpOnly", "secure", "sameSite")} == {
        "name": "_fp",
        "domain": "data.shop.localhost",
        "path": "/",
        "httpOnly": True,
        "secure": False,
        "sameSite": "Lax",
    }
    assert visit.run("document.cookie") == ""


def test_another_visitor_is_another(visit, browser):
    visit.open(host="shop.localhost")
    hit(visit, "data.shop.localhost", "one")
    other = Visit(browser, visit.site, visit.collector, visit.key)
    other.open(host="shop.localhost")
    hit(other, "data.shop.localhost", "two")
    other.context.close()
    first, second = ids(visit)
    assert first != second


def test_an_id_of_the_page_wins(visit):
    visit.open(host="shop.localhost")
    hit(visit, "data.shop.localhost", "first")
    hit(visit, "data.shop.localhost", "second", id="mine")
    first, second = ids(visit)
    assert second == "mine" != first


def test_another_site_without_https_keeps_no_cookie(visit):
    """SameSite=Lax: Chromium drops it, and each event has a visitor of its own."""
    visit.open(host="127.0.0.1")
    hit(visit, "data.shop.localhost", "first")
    hit(visit, "data.shop.localhost", "second")
    assert visit.context.cookies() == []
    first, second = ids(visit)
    assert None not in (first, second) and first != second


def test_who_asks_for_privacy_gets_no_cookie(visit):
    visit.open(host="shop.localhost")
    visit.context.set_extra_http_headers({"Sec-GPC": "1"})
    hit(visit, "data.shop.localhost", "first", id="mine")
    assert visit.context.cookies() == []
    (record,) = visit.records()
    assert "anonymousId" not in record and "ip" not in record["context"]


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory, config):
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:data.shop.localhost"]
    subprocess.run([*made, "-keyout", key, "-out", cert, "-days", "2", *names], check=True, capture_output=True)
    with Service(directory / "data", "--tls-cert", cert, "--tls-key", key, config=config) as running:
        yield running


def test_over_https_other_sites_may_keep_it(browser, site, encrypted):
    """Whether they do is for the browser's settings; opened by itself the pixel is nobody else's site."""
    visit = Visit(browser, site, encrypted, "https")
    for event in ("first", "second"):
        visit.page.goto(address(visit, "data.shop.localhost", event))
    (cookie,) = visit.context.cookies()
    visit.context.close()
    assert (cookie["secure"], cookie["sameSite"], cookie["httpOnly"]) == (True, "None", True)
    assert ids(visit) == [cookie["value"]] * 2
