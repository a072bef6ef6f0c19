"""The benchmark's own tests: the loader against the floor and against wrong answers, and run.py's tables.

gcc is required, as `make bench` requires it. Nothing here asserts a speed.
"""

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import pytest

from bench import build, chart, errors, machine, report, run, scenarios, servers

GIF_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 43\r\n"
GIF = GIF_HEAD + b"\r\n" + b"G" * 43
REQUEST_SIZE = len(run.PIXEL.read_bytes().replace(b"\n", b"\r\n"))


def load(port, *options, template=run.PIXEL):
    fixed = ["127.0.0.1", str(port), "--template", str(template), "--seconds", "0.3"]
    command = [str(build.program("load")), *fixed, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def floor(tmp_path):
    with servers.running(servers.SERVERS["floor"], tmp_path, machine.all_cores()) as (pid, port):
        yield pid, port


@contextmanager
def canned(answer, *, close=False, keep=None) -> Iterator[int]:
    """The port of a server that answers every head with these bytes, or part by part if it is a list."""
    parts = answer if isinstance(answer, list) else [answer]

    def talk(peer):
        with peer:
            rest = b""
            while data := peer.recv(65536):
                *heads, rest = (rest + data).split(b"\r\n\r\n")
                for head in heads:
                    if keep is not None:
                        keep.append(head)
                    for part in parts:
                        peer.sendall(part)
                if heads and close:
                    return

    def accept():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return  # the listener was shut down: the test is over
            threading.Thread(target=talk, args=(peer,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("options", [(), ("--depth", 16), ("--connections", 512), ("--rate", 2000)], ids=str)
def test_the_loader_gets_all_answers_of_the_floor(floor, options):
    pid, port = floor
    shot = load(port, "--cpu-of", pid, *options)
    assert shot["failures"] == 0
    assert shot["sent"] == shot["answered"] >= shot["requests"] > 0
    assert 0 < shot["p50_us"] <= shot["p99_us"] <= shot["p999_us"] <= shot["max_us"]
    assert 0 < shot["cpu_us"] <= shot["seconds"] * 1.1e6
    assert shot["bytes"] % shot["requests"] == 0


def test_a_connection_per_request(tmp_path):
    with servers.running(servers.SERVERS["floor"], tmp_path, machine.all_cores(), fresh=True) as (_, port):
        shot = load(port, "--new-connection", "--connections", 8)
    assert shot["failures"] == 0
    assert shot["sent"] == shot["answered"] > 8


def test_requests_bounds_the_run_and_numbers_it(floor):
    shot = load(floor[1], "--requests", 1001, "--depth", 16, "--connections", 3)
    assert (shot["sent"], shot["answered"], shot["failures"]) == (1001, 1001, 0)


def test_every_request_is_the_template_with_its_own_number():
    heads = []
    with canned(GIF, keep=heads) as port:
        load(port, "--requests", 50, "--depth", 4, "--connections", 2)
    assert {len(head) + 4 for head in heads} == {REQUEST_SIZE}
    assert sorted(map(servers.number, heads)) == list(range(50))
    assert b"@" not in b"".join(heads)


def test_a_connection_per_request_asks_the_server_to_close():
    heads = []
    with canned(GIF, close=True, keep=heads) as port:
        assert load(port, "--new-connection", "--requests", 20, "--connections", 2)["failures"] == 0
    assert all(b"\r\nConnection: close\r\n" in head and b"keep-alive" not in head for head in heads)


def test_a_fixed_rate_is_kept(floor):
    shot = load(floor[1], "--rate", 1000)
    assert shot["unsent"] < 15  # of 300; a busy machine may take some ms away at the end
    assert shot["requests"] == pytest.approx(300, abs=30)


def test_a_stall_counts_from_when_each_request_was_due():
    """One connection, an answer that takes 50 ms, 100 requests a second: those that had to wait say so."""
    gate = threading.Event()
    with slow(gate, 0.05) as port:
        shot = load(port, "--rate", 100, "--connections", 1)
    assert shot["failures"] == 0
    assert shot["p99_us"] > 100_000
    assert shot["unsent"] > 10


@contextmanager
def slow(gate, seconds) -> Iterator[int]:
    def serve():
        peer, _ = listener.accept()
        with peer:
            while peer.recv(65536):
                gate.wait(seconds)
                peer.sendall(GIF)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        gate.set()
        thread.join()


WRONG = {
    "wrong status": GIF.replace(b"200 OK", b"503 Service Unavailable"),
    "wrong length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
    "X-Fastpixel: dropped": GIF_HEAD + b"x-fastpixel: dropped; reason=missing_event\r\n\r\n" + b"G" * 43,
    "not an answer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("why", WRONG)
def test_the_loader_counts_wrong_answers(why):
    with canned(WRONG[why]) as port:
        shot = load(port, "--requests", 40, "--connections", 4)
    assert shot["first_failure"] == why
    assert shot["answered"] == shot["requests"] == 0
    assert shot["failures"] == shot["sent"] > 0


def test_an_answer_more_than_asked_is_no_answer():
    with canned(GIF + GIF) as port:
        shot = load(port, "--requests", 10, "--connections", 1)
    assert shot["failures"] >= 1
    assert shot["first_failure"] == "not an answer"


def test_the_loader_reads_answers_in_pieces():
    with canned([bytes([byte]) for byte in GIF]) as port:
        shot = load(port, "--requests", 20, "--connections", 2, "--depth", 2)
    assert (shot["answered"], shot["failures"]) == (20, 0)


def test_a_lost_connection_is_a_failure_and_ends_the_run():
    with canned(b"HTTP/1.1 200 OK\r\nContent-", close=True) as port:
        shot = load(port, "--connections", 3)
    assert (shot["failures"], shot["first_failure"]) == (3, "connection lost")


def test_a_refused_connection_is_a_failure_and_ends_the_run():
    shot = load(servers.free_port(), "--connections", 3)
    assert (shot["failures"], shot["first_failure"]) == (3, "connection refused")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["127.0.0.1", "80"], "usage"),
        (["192.0.2.1", "80", "--template", "x"], "only a 127"),
        (["127.0.0.1", "0", "--template", "x"], "--port 0"),
        (["127.0.0.1", "80", "--template", "x", "--depth", "0"], "--depth 0"),
        (["127.0.0.1", "80", "--template", "x", "--seconds", "nan"], "--seconds nan"),
        (["127.0.0.1", "80", "--template", "/nowhere"], "No such file"),
        (["127.0.0.1", "80", "--template", "x", "--depth", "2", "--new-connection"], "no --depth"),
    ],
)
def test_the_loader_says_what_is_wrong_with_its_arguments(words, message):
    done = subprocess.run([build.program("load"), *words], capture_output=True, text=True, timeout=10)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_pixel_is_the_reference_request():
    head = run.PIXEL.read_text()
    target = head.split()[1]
    assert target.startswith("/pixel/v1/track?")
    assert len(re.findall(r"[?&][^=&]+=", target)) == 15
    assert "\nAccept: image/" in head and "\nConnection: keep-alive\n" in head and head.endswith("\n\n")
    assert head.count("@@@@@@@@") == head.count("@") // 8 == 2


# ---- run.py ----


def measurement(scenario, server, number=1, cpu=10.0, **changes):
    values = {
        "requests": 1000, "seconds": 0.5, "load_cpu_us": 6000.0, "busy_us": 30000.0, "steal_us": 0.0,
        "p50_us": 400.0, "p99_us": 900.0, "bytes": 413_000,
    }  # fmt: skip
    return report.Measurement(scenario, server, number, cpu_us=cpu * 1000, **{**values, **changes})


CANNED = [
    *(measurement("keepalive", "nginx", number, cpu) for number, cpu in enumerate((10, 12, 11), 1)),
    *(measurement("keepalive", "floor", number, cpu) for number, cpu in enumerate((5, 6, 5.5), 1)),
    *(measurement("keepalive", "commit", number, cpu) for number, cpu in enumerate((8, 9, 8.25), 1)),
    measurement("pipeline", "nginx", cpu=9.0),
    measurement("pipeline", "commit", cpu=1.5),
]


def test_tables_show_medians_spreads_paired_ratios_and_verdicts():
    text = report.tables(CANNED)
    assert "### 64 keep-alive connections (`keepalive`)" in text
    row = next(line for line in text.splitlines() if "fastpixel, commit" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == [
        "fastpixel, commit", "8.25 (8.00..9.00)", "0.75 (0.75..0.80)", "1.50 (1.50..1.60)", "121,212"
    ]  # fmt: skip
    assert cells[5:9] == ["2,000", "0.40", "0.90", "413"]
    assert cells[9] == "<= 0.85 x nginx+log CPU: met (0.75); <= 1.4 x floor CPU: missed (1.50)"


def test_a_rate_target_is_read_from_cpu_seconds():
    assert ">= 4.5 x nginx+log events per CPU s: met (6.00)" in report.tables(CANNED)


def test_what_was_not_measured_has_no_verdict_and_no_table():
    text = report.tables([measurement("keepalive", "commit")])
    assert "met" not in text and "missed" not in text and "(`connect`)" not in text


def test_document_holds_machine_versions_method_and_command():
    how = {"command": "python bench/run.py", "placement": "Pinned.", "date": "2020-01-01 00:00 UTC"}
    length = {"rounds": 3, "warmup": 0.2, "seconds": 2.0}
    text = report.document(CANNED, {"CPU": "a CPU", "nginx": "1.22.1"}, {**how, **length})
    for part in ("`python bench/run.py`", "- CPU: a CPU", "- nginx: 1.22.1", "3 interl", "Pinned.", "quiet:"):
        assert part in text
    assert "{" not in text


def test_chart_is_xml_with_a_bar_for_each_median():
    svg = ElementTree.fromstring(chart.chart(CANNED))
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in svg.iter(f"{space}text")]
    bars = [float(bar.get("width")) for bar in svg.iter(f"{space}rect")]
    assert texts.count("nginx + JSON log") == 2 and "8.2 µs" in texts
    assert len(bars) == 5
    assert bars[1] / bars[0] == pytest.approx(5.5 / 11, rel=0.01)


def test_targets_and_scenarios_name_each_other():
    names = {scenario.name: scenario.servers for scenario in scenarios.SCENARIOS}
    for target in scenarios.TARGETS:
        assert {target.server, target.against} <= set(names[target.scenario])
    assert all(set(of) <= set(servers.SERVERS) for of in names.values())


def test_conserved_finds_lost_doubled_and_unknown_events():
    assert run.conserved(4, [3, 1, 0, 2]) == (0, 0)
    assert run.conserved(4, [0, 1, 1, 9, -1]) == (2, 3)


def test_a_server_that_lost_an_event_voids_the_run(tmp_path):
    case = run.chosen(["keepalive/nginx"])[0]
    (tmp_path / "access.log").write_bytes(b"messageId=0191d2c4-7b3e-7a10-8c55-4f2a00000000\n")
    run.check(case, {"failures": 0, "requests": 1, "answered": 1}, tmp_path)
    with pytest.raises(errors.BenchError, match="1 were not stored"):
        run.check(case, {"failures": 0, "requests": 2, "answered": 2}, tmp_path)


def test_a_wrong_answer_voids_the_run(tmp_path):
    case = run.chosen(["keepalive/floor"])[0]
    with pytest.raises(errors.BenchError, match="floor is void: 1 failures, the first: wrong status"):
        run.check(case, {"failures": 1, "first_failure": "wrong status", "requests": 2}, tmp_path)


def test_only_chooses_cases_and_names_them_when_there_is_none():
    assert [case.name for case in run.chosen(["connect/fsync"])] == ["connect/fsync"]
    assert {case.scenario.name for case in run.chosen(["pipeline"])} == {"pipeline"}
    with pytest.raises(errors.BenchError, match="no such case; there are keepalive/nginx"):
        run.chosen(["nope"])


def test_rounds_rotate_the_servers_within_a_scenario():
    cases = run.chosen(["keepalive"])
    firsts = {run.rotated(cases, number)[0].name for number in range(len(cases))}
    assert firsts == {case.name for case in cases}


def test_a_missing_compiler_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "BUILD", tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(errors.BenchError, match="gcc is not installed: apt-get install gcc"):
        build.program("load")


def command_line(*words):
    command = [sys.executable, run.__file__, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_run_from_the_command_line_prints_the_floor():
    done = command_line("--quick", "--seconds", "0.1", "--only", "keepalive/floor")
    assert done.returncode == 0, done.stderr
    assert "| C floor |" in done.stdout
    assert "round 1/1  keepalive/floor" in done.stderr


def test_an_unknown_case_is_one_line_and_exit_1():
    done = command_line("--only", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("bench: --only nope:") and done.stderr.count("\n") == 1
