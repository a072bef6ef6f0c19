"""`fastpixel explain` answers as the collector does, without one."""

import json

import pytest

from fastpixel import config
from fastpixel.errors import FastpixelError
from fastpixel.explain import explain


def ask(url, *, headers=(), method="GET", body=b"", ip="192.0.2.1", **settings):
    return explain(config.load(flags=settings), url, method=method, headers=headers, body=body, ip=ip)


def records(found):
    return [json.loads(line) for line in found.records.splitlines()]


@pytest.mark.parametrize(
    "url",
    [
        "/e?_k=key&_p=jane&_n=Hi+there",
        "e?_k=key&_p=jane&_n=Hi there",
        "http://trk.example.com/e?_k=key&_p=jane&_n=Hi%20there#part",
        "https://trk.example.com:8443/e?_k=key&_p=jane&_n=Hi there",
        "//trk.example.com/e?_k=key&_p=jane&_n=Hi there",
    ],
)
def test_a_url_or_only_its_path(url):
    found = ask(url)
    assert found.status == "200 OK"
    assert found.body.startswith(b"GIF89a")
    assert found.reason == ""
    (record,) = records(found)
    assert (record["event"], record["userId"]) == ("Hi there", "jane")
    assert record["context"] == {"ip": "192.0.2.1"}


def test_a_url_in_the_query_is_none_of_ours():
    (record,) = records(ask("/e?_k=key&_p=jane&_n=Hi&page=https://a.example/"))
    assert record["properties"] == {"page": "https://a.example/"}


def test_why_nothing_would_be_stored():
    found = ask("/e?_k=key&_p=jane")
    assert (found.reason, found.records) == ("missing_event", "")
    assert json.loads(found.rejects)["reason"] == "missing_event"


def test_a_path_that_nobody_answers():
    found = ask("/nothing")
    assert (found.status, found.reason, found.records, found.rejects) == ("404 Not Found", "", "", "")


def test_headers_count():
    found = ask("/pixel/v1/track?writeKey=k", headers=["Accept: text/plain", "User-Agent: test/1"])
    assert found.status == "400 Bad Request"
    assert found.reason == "missing_identity"
    found = ask("/pixel/v1/track?writeKey=k&userId=u", headers=["Accept: text/plain", "User-Agent: test/1"])
    assert found.body == b"OK"
    assert records(found)[0]["context"]["userAgent"] == "test/1"


def test_a_body_is_a_form():
    found = ask("/e?_k=key", method="POST", body=b"_p=jane&_n=Posted")
    assert records(found)[0]["event"] == "Posted"
    found = ask("/e?_k=key", method="POST", body=b"_p=jane&_n=Posted", headers=["Content-Length: 8"])
    assert found.reason == "missing_event"


def test_settings_count():
    source = '[{"key": "known", "name": "shop"}]'
    assert ask("/e?_k=key&_p=p&_n=n", sources=source).reason == "unknown_key"
    assert records(ask("/e?_k=known&_p=p&_n=n", sources=source))[0]["source"] == "shop"
    assert ask("/e?_k=" + "k" * 2000, max_request_line="1KiB").status.startswith("414 ")


@pytest.mark.parametrize("header", ["nothing", "A: b\r\nC: d", "A: b\nC: d"])
def test_what_is_no_header(header):
    with pytest.raises(FastpixelError, match="--header 'Name: value'"):
        ask("/e", headers=[header])


def test_what_is_no_url():
    with pytest.raises(FastpixelError, match="is no URL"):
        ask("http://[::1/e")


def test_bytes_that_are_no_text():
    assert records(ask("/e?_k=key&_p=jane&_n=\udcff"))[0]["event"] == "\N{REPLACEMENT CHARACTER}"
