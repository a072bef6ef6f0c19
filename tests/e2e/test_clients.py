"""Real clients, unchanged but for the host they are told: what they send comes out of `fastpixel export`.

The vendors' libraries are installed by tests/clients/install into .cache/clients.
"""

import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from service import environment, export

CLIENTS = Path(__file__).parents[1] / "clients"
INSTALLED = Path(__file__).parents[2] / ".cache/clients"


@pytest.fixture(scope="module")
def installed():
    ran = subprocess.run([CLIENTS / "install"], capture_output=True, text=True, timeout=110)
    if ran.returncode:
        pytest.skip(f"tests/clients/install: {ran.stderr.strip()[-300:]}")
    return INSTALLED


def run(*arguments, **more):
    ran = subprocess.run([*map(str, arguments)], capture_output=True, timeout=20, env=environment(**more))
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


def only(record, *names):
    return {name: record.get(name) for name in names}


def test_pypi_kissmetrics(installed, service):
    said = run(installed / "python/bin/python", CLIENTS / "record_by_pypi.py", f"127.0.0.1:{service.port}")
    assert said == b"200 200 200 200\n"
    signed_up, imported, identify, alias = records = export(service.data_dir)
    assert [record["type"] for record in records] == ["track", "track", "identify", "alias"]
    assert {record["writeKey"] for record in records} == {"py-key"}
    assert only(signed_up, "userId", "event") == {"userId": "ann@example.com", "event": "Signed Up"}
    assert signed_up["properties"] == {"Plan Name": "Pro & more", "Billing.Amount": "42"}
    assert only(imported, "event", "timestamp") == {"event": "Imported", "timestamp": "2023-11-14T22:13:20.000Z"}
    assert imported["messageId"][14] == "8", "a time of the sender's makes the id a hash"
    assert only(identify, "userId", "traits") == {"userId": "ann@example.com", "traits": {"gender": "weiblich, ä"}}
    assert only(alias, "previousId", "userId") == {"previousId": "ann@example.com", "userId": "user-17"}


def test_npm_kissmetrics(installed, service):
    modules = str(installed / "node/node_modules")
    assert run("node", CLIENTS / "record_by_npm.js", service.port, NODE_PATH=modules) == b"done\n"
    viewed, identify, *aliases = export(service.data_dir)
    assert only(viewed, "type", "userId", "event") == {
        "type": "track",
        "userId": "bob@example.com",
        "event": "Viewed Page",
    }
    assert viewed["properties"] == {"Page Name": "Start ä"}
    assert viewed["originalTimestamp"].isdecimal(), "it sends milliseconds without _d"
    assert viewed["timestamp"] == viewed["receivedAt"]
    assert only(identify, "type", "traits") == {"type": "identify", "traits": {"plan": "free"}}
    assert {alias["previousId"] for alias in aliases} == {"bob@example.com"}
    assert {alias["userId"] for alias in aliases} == {"user-18", "user-19"}


# -- curl


def curl(*arguments):
    """(status codes, connections made) of its requests."""
    form = "%{http_code} %{http_version} %{num_connects}\n"
    said = run("curl", "--silent", "--show-error", "--write-out", form, "--output", "/dev/null", *arguments).decode()
    return [tuple(line.split()) for line in said.splitlines()]


WAYS = [[], ["--http1.0"], ["--http2"], ["-X", "POST", "-d", "x=1"]]


def test_curl(service):
    """--http2 asks for an upgrade; the server's version is its own in any case (RFC 9110, 6.2)."""
    for number, flags in enumerate(WAYS):
        assert curl(*flags, f"{service.url}/e?_k=k&_p=p&_n=curl{number}") == [("200", "1.1", "1")], flags
    records = export(service.data_dir)
    assert [record["event"] for record in records] == ["curl0", "curl1", "curl2", "curl3"]
    assert all(record["context"]["userAgent"].startswith("curl/") for record in records)


def test_curl_uses_one_connection_for_many(service):
    urls = [part for n in range(5) for part in ("--output", "/dev/null", f"{service.url}/e?_k=k&_p=p&_n={n}")]
    said = curl(*urls[2:])
    assert [connects for _, _, connects in said] == ["1", "0", "0", "0", "0"]
    assert [record["event"] for record in export(service.data_dir)] == ["0", "1", "2", "3", "4"]


def test_curl_posts_a_form_and_a_large_body(service, tmp_path):
    form = ["--data-urlencode", "_p=ä b", "--data-urlencode", "_n=posted", f"{service.url}/e?_k=k"]
    assert curl(*form)[0][0] == "200"
    body = tmp_path / "body"
    body.write_text("_p=p&_n=large&long=" + "x" * 100_000)
    # Above 1 MiB, or for any chunked body, curl asks first: Expect: 100-continue.
    assert curl("-H", "Expect: 100-continue", "--data-binary", f"@{body}", f"{service.url}/e?_k=k")[0][0] == "200"
    chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{body}", f"{service.url}/e?_k=k"]
    assert curl(*chunked)[0][0] == "200"
    first, second, third = export(service.data_dir)
    assert only(first, "userId", "event") == {"userId": "ä b", "event": "posted"}
    assert len(second["properties"]["long"]) == 100_000
    assert second["properties"] == third["properties"]


# -- the vendor's example

AMP = {
    "writeKey": "amp-key",
    "context.library.name": "Rudderstack AMP SDK",
    "context.library.version": "1.0.0",
    "context.platform": "AMP",
    "anonymousId": '"amp-7Xq"',
    "context.locale": "de-DE",
    "context.userAgent": "Mozilla/5.0 (X11; Linux) AMP/1",
    "context.page.path": "/artikel/ä",
    "context.page.url": "https://news.example/artikel?a=1&b=2",
    "context.page.referrer": "https://www.google.com/",
    "context.page.title": "Größe & mehr",
    "context.screen.width": "1280",
    "context.screen.height": "720",
    "properties.path": "/artikel/ä",
    "properties.url": "https://news.example/artikel?a=1&b=2",
    "properties.referrer": "https://www.google.com/",
    "properties.title": "Größe & mehr",
    "name": "Artikel",
}


def test_the_amp_example_of_rudderstack(service):
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in AMP.items())
    curl("-H", "Accept: image/webp,*/*", f"{service.url}/pixel/v1/page?{query}")
    (record,) = export(service.data_dir)
    page = {"path": AMP["properties.path"], "url": AMP["properties.url"], "title": AMP["properties.title"]}
    page["referrer"] = AMP["properties.referrer"]
    assert record["properties"] == page
    assert record["context"] == {
        "ip": "127.0.0.1",
        "library": {"name": "Rudderstack AMP SDK", "version": "1.0.0"},
        "platform": "AMP",
        "locale": "de-DE",
        "userAgent": AMP["context.userAgent"],
        "page": page,
        "screen": {"width": "1280", "height": "720"},
    }
    assert only(record, "type", "name", "anonymousId", "writeKey", "channel", "integrations") == {
        "type": "page",
        "name": "Artikel",
        "anonymousId": "amp-7Xq",
        "writeKey": "amp-key",
        "channel": "web",
        "integrations": {"All": True},
    }
