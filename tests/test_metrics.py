"""The shared page and what /metrics makes of it."""

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fastpixel import metrics
from fastpixel._core import COUNTERS, PAGE_LAYOUT, REASONS
from fastpixel.metrics import STALE_SECONDS, STATES, Cells, Collector, Counts, Page, Snapshot


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


def counting(page, *protocols):
    counts = Counts(page)
    counts.begin(range(2), protocols)
    counts.serve(range(2))
    return counts


def scraped(counts):
    registry = CollectorRegistry()
    registry.register(Collector(counts))
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
    found = page.read(0, ["a", "b"])
    assert {name: count for name, count in found.reasons().items() if count} == {"bad_json": 3}
    assert found.protocols() == {"a": 0, "b": 4}
    assert found.stored == 4


def test_a_scrape_sums_the_workers(page):
    put(page, 0, requests=1, connections=2, commit_nanos=1_500_000_000)
    put(page, 1, requests=10, connections=3, commit_nanos=500_000_000)
    alive(page, 1)
    poke(page, 0, "protocols", 0, 5)
    poke(page, 1, "protocols", 0, 6)
    poke(page, 1, "reasons", REASONS.index("head"), 2)
    found = scraped(counting(page, "kissmetrics"))
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
    found = scraped(counting(page))
    counts = [found[f'fastpixel_batch_events_bucket{{le="{bound}"}}'] for bound in ("0.0", "1.0", "7.0", "+Inf")]
    assert counts == ["0.0", "4.0", "6.0", "7.0"]
    assert found["fastpixel_batch_events_count"] == "7.0"


def test_every_series_reads_a_counter_that_exists():
    assert {row[1] for row in metrics.SERIES} <= set(COUNTERS)


# -- generations


def stored(counts):
    return {name: int(float(value)) for name, value in scraped(counts).items() if "events_stored_total" in name}


def of(protocol):
    return f'fastpixel_events_stored_total{{protocol="{protocol}"}}'


@pytest.fixture
def two():
    """Two generations of one worker, the second of which has another dialect before that of the first."""
    page = Page.create(2)
    counts = Counts(page)
    counts.begin([0], ["a"])
    counts.serve([0])
    put(page, 0, requests=1, connections=4, inflight_bytes=9)
    poke(page, 0, "protocols", 0, 5)
    counts.begin([1], ["b", "a"])
    put(page, 1, requests=2, connections=3)
    poke(page, 1, "protocols", 0, 7)
    poke(page, 1, "protocols", 1, 1)
    return page, counts


def test_generations_that_overlap_add_up(two):
    page, counts = two
    assert stored(counts) == {of("a"): 6, of("b"): 7}
    assert scraped(counts)["fastpixel_connections"] == "7.0"
    alive(page, 1)
    assert scraped(counts)['fastpixel_worker_up{worker="0"}'] == "0.0", "the one that serves"
    counts.serve([1])
    assert scraped(counts)['fastpixel_worker_up{worker="0"}'] == "1.0"
    assert [worker["requests"] for worker in counts.workers()] == [2]


def test_what_a_generation_counted_outlives_it(two):
    page, counts = two
    counts.serve([1])
    counts.end([0])
    assert not any(page.part(0)), "the next generation starts from zero, and may have other protocols"
    found = scraped(counts)
    assert (found["fastpixel_requests_total"], found["fastpixel_connections"]) == ("3.0", "3.0")
    assert found["fastpixel_inflight_bytes"] == "0.0", "what a worker held is gone with it"
    assert stored(counts) == {of("a"): 6, of("b"): 7}
    for protocols in (["a"], ["a", "b"]):
        counts.begin([0], protocols)
        poke(page, 0, "protocols", 0, 10)
        put(page, 0, requests=1)
        counts.end([0])
    assert stored(counts) == {of("a"): 26, of("b"): 7}
    assert scraped(counts)["fastpixel_requests_total"] == "5.0"


def test_a_worker_that_ended_holds_nothing(page):
    put(page, 1, connections=3, inflight_bytes=4, requests=5, reject_budget=6)
    page.bury(1)
    found = page.read(1)
    assert (found["connections"], found["inflight_bytes"]) == (0, 0)
    assert (found["requests"], found["reject_budget"]) == (5, 6), "the next one in its place goes on"
    assert found.state == "ended"


def test_those_that_drain_are_counted(two):
    page, counts = two
    put(page, 0, state=STATES.index("draining"))
    assert scraped(counts)["fastpixel_workers_draining"] == "1.0"
    counts.serve([1])
    counts.end([0])
    assert scraped(counts)["fastpixel_workers_draining"] == "0.0"


def test_cells_are_shared_by_their_descriptor():
    assert Cells.create(0) is None
    cells = Cells.create(3)
    assert bytes(cells.view) == bytes(24)
    Cells(cells.fd, cells.count).view.cast("Q")[2] = 7
    assert cells.view.cast("Q").tolist() == [0, 0, 7]
    cells.close()
    assert cells.view.cast("Q")[2] == 7
