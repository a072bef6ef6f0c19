"""The benchmark's own tests: the loader against the floor and against wrong answers, trials, and run.py.

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

import pytest
from bench.results import Missing, Results

from bench import (
    build,
    closed,
    decode,
    errors,
    idle,
    latency,
    machine,
    memory,
    run,
    servers,
    trial,
)

GIF_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 43\r\n"
GIF = GIF_HEAD + b"\r\n" + b"G" * 43
PIXEL = build.HERE / "pixel.http"
REQUEST_SIZE = len(PIXEL.read_bytes().replace(b"\n", b"\r\n"))
PAYLOADS = [row.payload for row in closed.SCENARIOS if row.payload.events > 1]


def load(port, *options, template=PIXEL):
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
    """The port of a server that answers every request with these bytes, or part by part if it is a list."""
    parts = answer if isinstance(answer, list) else [answer]

    def talk(peer):
        with peer:
            rest = b""
            while data := peer.recv(65536):
                found, rest = requests_in(rest + data)
                for request in found:
                    if keep is not None:
                        keep.append(request)
                    for part in parts:
                        peer.sendall(part)
                if found and close:
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


def requests_in(data):
    """(whole requests, the rest); of one without a body the empty line is left out."""
    found = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int((re.search(rb"Content-Length: (\d+)", head) or [0, 0])[1])
        if len(rest) < length:
            break
        found.append(head + b"\r\n\r\n" + rest[:length] if length else head)
        data = rest[length:]
    return found, data


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


def test_numbers_may_start_later(floor):
    heads = []
    with canned(GIF, keep=heads) as port:
        load(port, "--requests", 9, "--first", 1000, "--connections", 2)
    assert sorted(map(servers.number, heads)) == [(number, 0) for number in range(1000, 1009)]


def test_every_request_is_the_template_with_its_own_number():
    heads = []
    with canned(GIF, keep=heads) as port:
        load(port, "--requests", 50, "--depth", 4, "--connections", 2)
    assert {len(head) + 4 for head in heads} == {REQUEST_SIZE}
    assert sorted(map(servers.number, heads)) == [(number, 0) for number in range(50)]
    assert b"@" not in b"".join(heads)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.template)
def test_every_payload_is_the_template_with_its_own_numbers(payload):
    found, answer = [], b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nnull"
    with canned(answer, keep=found) as port:
        shot = load(port, "--requests", 50, "--connections", 8, "--length", 4, template=build.HERE / payload.template)
    assert (shot["answered"], shot["failures"]) == (50, 0)
    assert len({len(request) for request in found}) == 1
    for request in found:
        marks = [(int(mark[1]), int(mark[2])) for mark in servers.NUMBER.finditer(request) if mark[2]]
        assert marks == [(marks[0][0], place) for place in range(payload.events)]
        assert json.loads(request.partition(b"\r\n\r\n")[2])
    assert sorted(servers.NUMBER.search(request)[1] for request in found) == [b"%08d" % number for number in range(50)]


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
    assert shot["requests"] < 10  # what was not sent is in the latencies, not in the answers
    assert shot["p50_us"] > 50_000


def test_an_answer_after_the_window_counts_from_when_it_was_due():
    gate = threading.Event()
    with slow(gate, 0.4) as port:
        shot = load(port, "--rate", 1, "--connections", 1)
    assert (shot["requests"], shot["answered"]) == (0, 1)
    assert shot["max_us"] > 350_000


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
    head = PIXEL.read_text()
    target = head.split()[1]
    assert target.startswith("/pixel/v1/track?")
    assert len(re.findall(r"[?&][^=&]+=", target)) == 15
    assert "\nAccept: image/" in head and "\nConnection: keep-alive\n" in head and head.endswith("\n\n")
    assert head.count("@@@@@@@@") == head.count("@") // 8 == 2


# ---- servers and trials ----


def small(tmp_path):
    return trial.Plan(1, 0.1, tmp_path)


@pytest.mark.parametrize("name", [name for name in servers.PYTHON_SERVERS if servers.SERVERS[name].installed])
def test_a_python_server_answers_the_gif(tmp_path, name):
    server = servers.SERVERS[name]
    case = closed.Case(closed.SCENARIOS[0], server)
    assert closed.measure(small(tmp_path), case, 1).requests > 0


@pytest.mark.parametrize("scenario", [row for row in closed.SCENARIOS if row.only], ids=lambda row: row.name)
def test_every_event_of_a_payload_is_stored(tmp_path, scenario):
    """Or the run is void: a trial looks for each of them."""
    run = closed.measure(small(tmp_path), closed.Case(scenario, servers.SERVERS["commit"]), 1)
    assert run.requests > 0 and run.events == scenario.payload.events
    assert run.rate == pytest.approx(run.requests * run.events / run.seconds)


def test_a_server_that_is_not_installed_is_named_and_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(servers.importlib.util, "find_spec", lambda _: None)
    choice = run.chosen(["keepalive/granian/1"])
    runner = run.Runner(small(tmp_path), choice)
    assert runner.run().missing == [Missing("keepalive", "granian", 1, "not installed")]
    assert not runner.failed


def test_a_server_that_does_not_start_ends_nothing_else(tmp_path):
    gone = servers.python_server("uvicorn", "-m", "no_such_module")
    case = closed.Case(closed.SCENARIOS[0], gone)
    runner = run.Runner(small(tmp_path), run.Choice([case], []))
    assert "ended at once with exit 1" in runner.run().missing[0].why and not runner.failed


def test_decode_is_timed_beside_its_twin_and_a_copy():
    assert len(decode.HEAD) == REQUEST_SIZE
    for row in decode.measure(2):
        assert 0 < row.copy_ns < row.core_ns < row.plain_ns
    plan = decode._core.Plan([decode.rudderstack.DIALECT], fields=decode.FIELDS)
    assert plan.record("GET", decode.TARGET, decode.HEADERS, now=1)[0] is None


def test_latency_of_fsync_comes_with_its_probe(tmp_path):
    found = Results()
    latency.measure(small(tmp_path), "fsync", 1, found)
    assert [run.scenario for run in found.runs] == ["rate100", "rate25", "rate50", "rate75"]
    assert found.commits[0].value_bytes > 1000 and len(found.commits[0].times_us) == latency.COMMITS


def test_memory_is_that_of_the_worker_beside_idle_connections(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "IDLE", 200)
    found = Results()
    memory.measure(small(tmp_path), "commit", 1, found)
    assert [run.scenario for run in found.runs] == ["idle-before", "idle-held", "idle-after"]
    assert found.memory[0].connections == 200 and found.memory[0].held > 1 << 20


def test_an_idle_connection_without_an_answer_is_void():
    with canned(WRONG["wrong status"], close=True) as port:
        with pytest.raises(errors.VoidRun, match="idle connection 1 got no GIF"):
            with idle.held(port, trial.requests(0, 3)):
                pass


def test_conserved_finds_lost_doubled_and_unknown_events():
    assert trial.conserved(4, [3, 1, 0, 2]) == (0, 0)
    assert trial.conserved(4, [0, 1, 1, 9, -1]) == (2, 3)


def test_a_server_that_lost_an_event_voids_the_run(tmp_path):
    (tmp_path / "access.log").write_bytes(b"messageId=0191d2c4-7b3e-7a10-8c55-4f2a00000000\n")
    trial.check(servers.SERVERS["nginx"], 1, tmp_path)
    with pytest.raises(errors.VoidRun, match="1 were not stored"):
        trial.check(servers.SERVERS["nginx"], 2, tmp_path)


def test_every_event_of_a_payload_is_looked_for(tmp_path):
    lines = [b"0191d2c4-7b3e-7a10-8c55-4f2a%08d-%02d\n" % (number, place) for number in (0, 1) for place in (0, 1, 2)]
    log = tmp_path / "access.log"
    log.write_bytes(b"".join(lines))
    trial.check(servers.SERVERS["nginx"], 2, tmp_path, 3)
    log.write_bytes(b"".join([*lines[:4], lines[4], lines[4]]))
    with pytest.raises(errors.VoidRun, match="of 6 answered events 1 were not stored, 1 records are too many"):
        trial.check(servers.SERVERS["nginx"], 2, tmp_path, 3)


def test_a_wrong_answer_voids_the_run(tmp_path):
    with canned(WRONG["wrong status"]) as port:
        one = trial.Trial(small(tmp_path), servers.SERVERS["floor"], 1, 1, 0, port, tmp_path, [])
        with pytest.raises(errors.VoidRun, match="failures, the first: wrong status"):
            one.load(closed.SCENARIOS[0], "keepalive")


# ---- run.py ----


def test_only_chooses_cases_and_parts_and_names_them_when_there_is_none():
    assert [case.name for case in run.chosen(["connect/fsync"]).cases] == ["connect/fsync/1", "connect/fsync/2"]
    assert {case.scenario.name for case in run.chosen(["pipeline"]).cases} == {"pipeline"}
    assert run.chosen(["memory"]) == ([], ["memory"])
    assert all(case.cores == 2 for case in run.chosen([], 2).cases)
    with pytest.raises(errors.BenchError, match="no such case; there are keepalive/nginx/1"):
        run.chosen(["nope"])


def test_rounds_rotate_the_servers_within_a_scenario():
    cases = run.chosen(["keepalive"], 1).cases
    order = list(closed.ordered(cases, 5))
    firsts = {next(case.server.name for turn, case in order if turn == number) for number in range(1, 6)}
    assert firsts == {"nginx", "floor", "commit"}  # those of the targets, which run in every round
    assert sum(case.server.name == "nginx" for _, case in order) == 5
    assert sum(case.server.name == "uvicorn" for _, case in order) == 2


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
    assert "round 2  keepalive/floor/1" in done.stderr


def test_an_unknown_case_is_one_line_and_exit_1():
    done = command_line("--only", "nope")
    assert done.returncode == 1
    assert done.stderr.startswith("bench: --only nope:") and done.stderr.count("\n") == 1
