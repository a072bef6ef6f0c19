"""Server SDKs, unchanged but for the URL they are told: every event they send comes out of `fastpixel export`."""

import json
from datetime import datetime, timedelta, timezone

import pytest
from service import Service, export
from test_clients import CLIENTS, installed, run

__all__ = ["installed"]  # a fixture

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
SERVERS = ("seq", "receivedAt", "protocol", "source", "writeKey", "sentAt")


def send(installed, sdk, service, key, *options):
    """(events as the client queued them, errors it was told of)."""
    said = run(installed / "python/bin/python", CLIENTS / "record_by_sdk.py", sdk, service.url, key, *options)
    told = json.loads(said)
    return told["sent"], told["errors"]


def millis(text):
    return (datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH) // timedelta(milliseconds=1)


def said(event):
    """What a client says in an event: null is nothing, a time counts to the millisecond."""
    named = {name: value for name, value in event.items() if value is not None}
    return {**named, "timestamp": millis(named["timestamp"])}


def kept(record):
    """What a record keeps of that, without what the server adds."""
    named = {name: value for name, value in record.items() if name not in SERVERS}
    added = {"userAgent"} | ({"ip"} if record["context"]["ip"] == "127.0.0.1" else set())
    named["context"] = {name: value for name, value in record["context"].items() if name not in added}
    return said(named)


WAYS = [
    ("rudder", []),
    ("rudder", ["gzip=false"]),
    ("rudder", ["sync_mode=true"]),
    ("segment", []),
    ("segment", ["gzip=true"]),
    ("segment", ["upload_size=2"]),
]


@pytest.mark.parametrize(("sdk", "options"), WAYS, ids=[" ".join([sdk, *options]) for sdk, options in WAYS])
def test_every_event_comes_out_complete(installed, service, sdk, options):
    sent, errors = send(installed, sdk, service, "sdk-key", *options)
    assert errors == []
    records = export(service.data_dir)
    assert [kept(record) for record in records] == [said(event) for event in sent]
    assert {record["writeKey"] for record in records} == {"sdk-key"}
    assert {record["protocol"] for record in records} == {"rudderstack"}
    assert all(millis(record["sentAt"]) >= millis(record["timestamp"]) for record in records)
    assert {record["context"]["userAgent"].partition("/")[0] for record in records} == {"analytics-python"}


SOURCES = """
[[sources]]
key = "segment-key"
name = "shop"
protocols = ["segment"]

[[sources]]
key = "old-key"
enabled = false
"""


@pytest.fixture
def strict(data_dir, tmp_path):
    """A service that knows its keys."""
    config = tmp_path / "fastpixel.toml"
    config.write_text(SOURCES)
    with Service(data_dir, config=config) as running:
        yield running


def test_a_source_may_be_segments_only(installed, strict):
    sent, errors = send(installed, "segment", strict, "segment-key")
    assert errors == []
    records = export(strict.data_dir)
    assert [record["messageId"] for record in records] == [event["messageId"] for event in sent]
    assert {(record["protocol"], record["source"]) for record in records} == {("segment", "shop")}


@pytest.mark.parametrize("sdk", ["rudder", "segment"])
@pytest.mark.parametrize(("key", "text"), [("no-key", "invalid write key"), ("old-key", "source is disabled")])
def test_a_client_is_told_why_it_is_refused(installed, strict, sdk, key, text):
    """And does not try again, which would take its retries' time."""
    _, errors = send(installed, sdk, strict, key)
    assert len(errors) == 1
    assert text in errors[0]
    assert export(strict.data_dir) == []
