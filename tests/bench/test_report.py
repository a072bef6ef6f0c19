"""Results become tables, verdicts and charts: canned numbers in, text out. Nothing is measured here."""

from xml.etree import ElementTree

import pytest
from bench.results import Commits, Decode, Measurement, Memory, Missing, Results

from bench import chart, closed, report, targets


def measurement(scenario, server, number=1, cpu=10.0, *, cores=1, **changes):
    values = {
        "requests": 1000, "seconds": 0.5, "load_cpu_us": 6000.0, "busy_us": 30000.0, "steal_us": 0.0,
        "p50_us": 400.0, "p99_us": 900.0, "p999_us": 950.0, "unsent": 0, "bytes": 413_000,
    }  # fmt: skip
    return Measurement(scenario, server, cores, number, cpu_us=cpu * 1000, **{**values, **changes})


def canned_results():
    rows = [
        *(measurement("keepalive", "nginx", number, cpu) for number, cpu in enumerate((10, 12, 11), 1)),
        *(measurement("keepalive", "floor", number, cpu) for number, cpu in enumerate((5, 6, 5.5), 1)),
        *(measurement("keepalive", "commit", number, cpu) for number, cpu in enumerate((8, 9, 8.25), 1)),
        measurement("pipeline", "nginx", cpu=9.0),
        measurement("pipeline", "commit", cpu=1.5),
        measurement("keepalive", "commit", cpu=8.0, cores=2),
        measurement("keepalive", "commit2", cpu=9.0, cores=2),
        measurement("rate50", "fsync", p99_us=1900.0, unsent=3),
        measurement("tracardi", "commit", cpu=150.0, events=30, bytes=500_000),
        measurement("batch", "commit", cpu=600.0, events=30),
        measurement("idle-before", "commit", cpu=8.0),
        measurement("idle-held", "commit", cpu=9.0, p99_us=990.0),
        measurement("idle-after", "commit", cpu=10.0),
    ]
    return Results(
        runs=rows,
        missing=[Missing("pipeline", "socketify", 1, "not installed")],
        memory=[Memory("commit", 1, 10 << 20, 20 << 20, (20 << 20) + 2048 * 10_000, 10_000)],
        commits=[Commits(1, 40960, [300.0, 500.0, 700.0])],
        decode=[Decode(500.0, 30_000.0, 20.0)],
    )


def row_of(text, word):
    line = next(line for line in text.splitlines() if word in line and line.startswith("|"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables_show_medians_spreads_and_paired_ratios():
    text = report.tables(canned_results())
    assert "### 64 keep-alive connections (`keepalive`)" in text
    assert row_of(text, "fastpixel, commit") == [
        "fastpixel, commit", "8.25 (8.00..9.00)", "0.75 (0.75..0.80)", "1.50 (1.50..1.60)", "121,212",
        "2,000", "0.40", "0.90", "413",
    ]  # fmt: skip
    assert row_of(text, "socketify")[:3] == ["socketify", "not installed", "-"]
    assert row_of(text, "| fastpixel, fsync | 512")[2:] == ["50 %", "2,000", "0.40", "1.90", "0.95", "3"]
    assert "### Tracardi's POST /track, 30 events a payload (`tracardi`)" in text
    assert row_of(text, "| 5.00 |")[1:6] == ["5.00", "-", "-", "200,000", "60,000"]
    assert row_of(text, "10,000")[1:] == ["10.0", "20.0", "10,000", "2.00", "x 1.00", "x 1.10"]
    assert "took 0.50 ms (median of 3" in text and "the strict figure: 2.00 ms" in text


VERDICTS = {
    ("commit", "nginx+log"): ("0.75", "met"),
    ("commit", "the floor"): ("1.5", "missed"),
    ("events per CPU second", "nginx+log"): ("6", "met"),
    ("2 workers", "one worker"): ("1.125", "missed"),
    ("p99 at 50 %", "ms"): ("1.9", "met"),
    ("decode", "x faster"): ("60", "met"),
    ("after load", "MiB"): ("20", "met"),
    ("idle connection", "KiB"): ("2", "met"),
    ("CPU per event of the others", "x without"): ("1", "met"),
    ("p99 of the others", "x without"): ("1.1", "missed"),
    ("POST /track, 30 events", ""): ("200,000", "met"),
    ("POST /v1/batch, 30 events", ""): ("50,000", "missed"),
}


@pytest.mark.parametrize(("what", "verdict"), VERDICTS.items(), ids=str)
def test_targets_are_judged_by_their_medians(what, verdict):
    rows = [row.cells() for row in targets.judge(canned_results())]
    found = next(row for row in rows if what[0] in row[1] and row[3].endswith(what[1]))
    assert (found[3].removesuffix(what[1]).strip().removesuffix(" x").strip(), found[4]) == verdict


def test_what_was_not_measured_has_no_verdict_and_no_table():
    found = Results(runs=[measurement("keepalive", "commit")])
    assert {row.text for row in targets.judge(found)} == {"not measured"}
    assert "missed" not in report.targets(found) and len(report.targets(found, measured=True).splitlines()) == 2
    assert "(`connect`)" not in report.tables(found)


def test_document_holds_targets_machine_versions_method_and_command():
    how = {"command": "python bench/run.py", "placement": "Pinned.", "date": "2020-01-01 00:00 UTC"}
    length = {"rounds": 3, "warmup": 0.2, "seconds": 2.0}
    text = report.document(canned_results(), {"CPU": "a CPU", "nginx": "1.22.1"}, {**how, **length})
    for part in ("`python bench/run.py`", "- CPU: a CPU", "- nginx: 1.22.1", "3 interl", "Pinned.", "quiet:"):
        assert part in text
    assert text.index("## Targets") < text.index("## CPU per event")
    assert "- pipeline/socketify/1: not installed" in text
    assert "{" not in text


def test_a_busy_machine_is_named():
    loud = measurement("keepalive", "commit", busy_us=400_000.0)
    assert "keepalive/commit/1 in round 1 (0.77)" in report.quiet([loud, measurement("keepalive", "nginx")])
    assert "do not quote" in report.warning(Results(runs=[loud]))
    assert not report.warning(canned_results())


def test_results_are_kept_as_json(tmp_path):
    canned_results().save(tmp_path / "raw.json")
    assert Results.load(tmp_path / "raw.json") == canned_results()


def test_charts_are_xml_with_a_bar_for_each_median():
    drawn = chart.charts(canned_results())
    assert set(drawn) == {"results.svg", "scenarios.svg", "latency.svg"}
    space = "{http://www.w3.org/2000/svg}"
    svg = ElementTree.fromstring(drawn["results.svg"])
    texts = [text.text for text in svg.iter(f"{space}text")]
    bars = [float(bar.get("width")) for bar in svg.iter(f"{space}rect")]
    assert texts[1::2] == ["C floor", "fastpixel, commit", "nginx + JSON log"] and "8.2 µs" in texts
    assert bars[0] / bars[2] == pytest.approx(5.5 / 11, rel=0.01)


def test_every_target_reads_cases_that_are_measured():
    assert {case.key for case in closed.cases()} >= targets.READ
