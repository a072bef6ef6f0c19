"""The shared page and what /metrics makes of it."""

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fastpixel import metrics
from fastpixel._core import COUNTERS, PAGE_LAYOUT, REASONS
from fastpixel.metrics import STALE_SECONDS, STATES, Collector, Page, Snapshot


@pytest.fixture
def page():
    return Page.create(2)


def put(page, worker, **counters):
    for name, value in counters.items():
        page.set(worker, name, value)


def alive(page, worker):
    put(page, worker, heartbeat_ms=time.time_ns() // 1_000_000)


def poke(page, worker, array, index, value):
    page.part(worker).cast("Q")[PAGE_LAYOUT[array] + index] = value


def scraped(page, *protocols):
    registry = CollectorRegistry()
    registry.register(Collector(page, protocols))
    lines = generate_latest(registry).decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_the_layout_has_room_for_every_array():
    starts = [0, *(PAGE_LAYOUT[name] for name in ("reasons", "protocols", "commit_times", "batch_sizes"))]
    lengths = [len(COUNTERS), len(REASONS), 64, PAGE_LAYOUT["buckets"], PAGE_LAYOUT["buckets"]]
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    assert all(end <= following for end, following in zip(ends, [*starts[1:], PAGE_LAYOUT["words"]], strict=True))


def test_a_page_is_shared_by_its_descriptor(page):
    put(Page(page.fd, 2), 1, requests=7)
    assert page.read(1)["requests"] == 7
    assert page.read(0)["requests"] == 0


def test_a_part_is_one_workers_bytes(page):
    page.part(0)[:] = b"\xff" * len(page.part(0))
    assert page.read(1)["requests"] == 0
    assert len(page.part(0)) == 8 * PAGE_LAYOUT["words"]


@pytest.mark.parametrize("name", COUNTERS)
def test_every_counter_is_read_where_it_is_set(page, name):
    put(page, 1, **{name: 5})
    assert page.read(1)[name] == 5
    assert sum(page.read(1)[other] for other in COUNTERS) == 5


@pytest.mark.parametrize("state", STATES)
def test_only_a_living_serving_storing_worker_is_ready(page, state):
    put(page, 0, state=STATES.index(state), storable=1)
    assert page.read(0).state == state
    assert not page.read(0).is_ready
    alive(page, 0)
    assert page.read(0).is_ready is (state == "serving")
    put(page, 0, storable=0)
    assert not page.read(0).is_ready


def test_an_old_heartbeat_is_death():
    words = [0] * PAGE_LAYOUT["words"]
    words[COUNTERS.index("heartbeat_ms")] = int((time.time() - STALE_SECONDS - 1) * 1000)
    assert not Snapshot(words).is_alive
    words[COUNTERS.index("heartbeat_ms")] += 2000
    assert Snapshot(words).is_alive


def test_reasons_and_protocols_by_name(page):
    poke(page, 0, "reasons", REASONS.index("bad_json"), 3)
    poke(page, 0, "protocols", 1, 4)
    found = page.read(0)
    assert {name: count for name, count in found.reasons().items() if count} == {"bad_json": 3}
    assert found.protocols(["a", "b"]) == {"a": 0, "b": 4}
    assert found.stored == 4


def test_a_scrape_sums_the_workers(page):
    put(page, 0, requests=1, connections=2, commit_nanos=1_500_000_000)
    put(page, 1, requests=10, connections=3, commit_nanos=500_000_000)
    alive(page, 1)
    poke(page, 0, "protocols", 0, 5)
    poke(page, 1, "protocols", 0, 6)
    poke(page, 1, "reasons", REASONS.index("head"), 2)
    found = scraped(page, "kissmetrics")
    assert found["fastpixel_requests_total"] == "11.0"
    assert found["fastpixel_connections"] == "5.0"
    assert found['fastpixel_events_stored_total{protocol="kissmetrics"}'] == "11.0"
    assert found['fastpixel_dropped_total{reason="head"}'] == "2.0"
    assert found["fastpixel_commit_seconds_sum"] == "2.0"
    assert found["fastpixel_batch_events_sum"] == "11.0"
    assert found['fastpixel_worker_up{worker="0"}'] == "0.0"
    assert found['fastpixel_worker_up{worker="1"}'] == "1.0"


def test_buckets_are_cumulative_over_the_workers(page):
    poke(page, 0, "batch_sizes", 1, 4)  # four batches of one event
    poke(page, 1, "batch_sizes", 3, 2)  # two of 4 to 7
    poke(page, 1, "batch_sizes", PAGE_LAYOUT["buckets"] - 1, 1)  # beyond every bound
    found = scraped(page)
    counts = [found[f'fastpixel_batch_events_bucket{{le="{bound}"}}'] for bound in ("0.0", "1.0", "7.0", "+Inf")]
    assert counts == ["0.0", "4.0", "6.0", "7.0"]
    assert found["fastpixel_batch_events_count"] == "7.0"


def test_every_series_reads_a_counter_that_exists():
    assert {row[1] for row in metrics.SERIES} <= set(COUNTERS)
