"""The servers that are compared: one row each, and how a row is started, stopped and asked what it stored.

A server gets a kernel-picked loopback port and an empty directory. `stored` gives the events that it kept, as (number
of the request, place in its payload); the floor and the Python servers that answer constant.py's GIF keep none.
`module` is what must be installed for it. What must not be here: load, rounds, statistics.
"""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE

from bench import build, machine
from bench.errors import BenchError, VoidRun

START_SECONDS = 20
STOP_SECONDS = 40  # the collector itself takes at most its shutdown_timeout of 30 s

# The mark of a template, in a line of NDJSON and in a logged request_uri; -PLACE in a payload of many events.
NUMBER = re.compile(rb"0191d2c4-7b3e-7a10-8c55-4f2a(\d{8})(?:-(\d\d))?")
UNKNOWN = (-1, 0)

Ready = Callable[[int, int, str], bool]
Event = tuple[int, int]


@dataclass(frozen=True)
class Server:
    """`command` is given port, directory and whether each request has its own connection."""

    name: str
    title: str
    command: Callable[[int, Path, bool], list[str]]
    ready: Ready  # pid, port, what it has logged
    stored: Callable[[Path], Iterable[Event]] | None = None
    does: str = "answers a constant GIF, stores nothing"
    module: str = ""

    @property
    def installed(self) -> bool:
        return not self.module or importlib.util.find_spec(self.module) is not None


def collector(durability: str, workers: int = 1) -> Server:
    def command(port: int, home: Path, _fresh: bool) -> list[str]:
        fixed = ["--workers", str(workers), "--admin-bind", "off", "--data-dir", str(home / "data")]
        return [*FASTPIXEL, "serve", "--bind", f"127.0.0.1:{port}", "--durability", durability, *fixed]

    name, title = durability, f"fastpixel, {durability}"
    if workers > 1:
        name, title = f"{name}{workers}", f"{title}, {workers} workers"
    when = {"commit": "in the page cache", "fsync": "on the device"}[durability]
    return Server(name, title, command, says_listening, exported, f"answers when the event is stored, {when}")


def python_server(name: str, *words: str) -> Server:
    """One process on constant.py. `@PORT@` in the words of its command is the port."""

    def command(port: int, _home: Path, _fresh: bool) -> list[str]:
        return [sys.executable, *(word.replace("@PORT@", str(port)) for word in words)]

    return Server(name, name, command, answers, module=name)


def nginx_command(port: int, home: Path, _fresh: bool) -> list[str]:
    program = machine.nginx_path()
    if program is None:
        raise BenchError("nginx is not installed: apt-get install nginx-light")
    text = (build.HERE / "nginx.conf").read_text().replace("@PORT@", str(port)).replace("@DIR@", str(home))
    (home / "nginx.conf").write_text(text)
    return [program, "-e", "stderr", "-p", str(home), "-c", str(home / "nginx.conf")]


def floor_command(port: int, _home: Path, fresh: bool) -> list[str]:
    return [str(build.program("floor")), str(port), *(["--close"] if fresh else [])]


def says_listening(_pid: int, _port: int, log: str) -> bool:
    return "listening on http://" in log


def nginx_ready(pid: int, port: int, _log: str) -> bool:
    """The master listens before its worker exists, and the worker's CPU time is what counts."""
    with socket.socket() as probe:
        return len(tree(pid)) > 1 and probe.connect_ex(("127.0.0.1", port)) == 0


def answers(_pid: int, port: int, _log: str) -> bool:
    """A first request is answered: a launcher may listen before its worker has loaded the application."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return peer.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def exported(home: Path) -> Iterator[Event]:
    """The events in `fastpixel export`, one for each line, UNKNOWN for a line without a mark."""
    command = [*FASTPIXEL, "export", "--data-dir", str(home / "data")]
    with (home / "export.log").open("wb") as errors:
        process = subprocess.Popen(command, cwd=home, env=environment(), stdout=PIPE, stderr=errors)
    with process:
        yield from map(number, process.stdout or ())
    if process.returncode:
        raise VoidRun(f"fastpixel export: exit {process.returncode}: {last_line(home / 'export.log')}")


def logged(home: Path) -> Iterator[Event]:
    with (home / "access.log").open("rb") as lines:
        yield from map(number, lines)


def number(line: bytes) -> Event:
    found = NUMBER.search(line)
    return (int(found[1]), int(found[2] or 0)) if found else UNKNOWN


CONSTANT = build.HERE / "constant.py"
FASTPIXEL = (sys.executable, "-m", "fastpixel")
SERVERS = {
    server.name: server
    for server in (
        Server(
            "nginx", "nginx + JSON log", nginx_command, nginx_ready, logged,
            "answers a constant GIF, writes a log line for each request, a buffer of 64 KiB at a time",
        ),
        Server("floor", "C floor", floor_command, says_listening),
        collector("commit"),
        collector("fsync"),
        collector("commit", workers=2),
        collector("fsync", workers=2),
        python_server("socketify", str(CONSTANT), "@PORT@"),
        python_server(
            "granian",
            *("-m", "granian", "--host", "127.0.0.1", "--port", "@PORT@", "--interface", "rsgi", "--http", "1"),
            *("--no-ws", "--workers", "1", "--loop", "uvloop", "--runtime-mode", "st", "--backlog", "4096"),
            *("--log-level", "warning", "--working-dir", str(build.HERE), "constant:rsgi"),
        ),
        python_server(
            "uvicorn",
            *("-m", "uvicorn", "--host", "127.0.0.1", "--port", "@PORT@", "--interface", "asgi3", "--ws", "none"),
            *("--loop", "uvloop", "--http", "httptools", "--lifespan", "off", "--no-access-log"),
            *("--no-server-header", "--log-level", "warning", "--backlog", "4096", "--timeout-keep-alive", "75"),
            *("--app-dir", str(build.HERE), "constant:asgi"),
        ),
    )
}  # fmt: skip
PYTHON_SERVERS = tuple(name for name, server in SERVERS.items() if server.module)


@contextmanager
def running(server: Server, home: Path, cores: set[int], *, fresh: bool = False) -> Iterator[tuple[int, int]]:
    """(pid, port) of the started server; it is stopped at the end, and must end well."""
    port = free_port()
    with machine.on_cores(cores), (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            server.command(port, home, fresh),
            cwd=home, env=environment(), stdin=DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # Ctrl-C reaches run.py alone, which then stops the server in order
        )  # fmt: skip
    try:
        _wait_ready(server, process, port, home / "server.log")
        yield process.pid, port
    except BaseException:
        _stop(process)
        raise
    _check_end(server, _stop(process), home / "server.log")


def environment() -> dict[str, str]:
    """Without the caller's FASTPIXEL_* variables: the collector runs with its defaults, but for more connections."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTPIXEL_")}
    return {**kept, "FASTPIXEL_MAX_CONNECTIONS": "20000"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_ready(server: Server, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.ready(process.pid, port, log.read_text(errors="replace")):
        if process.poll() is not None:
            raise VoidRun(f"{server.title} ended at once with exit {process.returncode}: {last_line(log)}")
        if time.monotonic() > deadline:
            raise VoidRun(f"{server.title} is not ready after {START_SECONDS} s: {last_line(log)}")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status after SIGTERM; None: it did not stop, and was killed with its children."""
    family = tree(process.pid)
    process.terminate()
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _kill(family)
        process.wait()
        return None


def _check_end(server: Server, status: int | None, log: Path) -> None:
    if status is None:
        raise VoidRun(f"{server.title} did not stop within {STOP_SECONDS} s of SIGTERM")
    if status not in (0, -signal.SIGTERM):
        raise VoidRun(f"{server.title} ended with exit {status}: {last_line(log)}")


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it logged nothing"


def tree(root: int) -> list[int]:
    """The process and all its descendants."""
    parents = dict(_parents())
    found = [root]
    for pid in found:  # grows while it is walked: children of children follow
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while /proc was read
            # The second field is the program's name in brackets and may hold blanks (proc(5)).
            yield int(entry.name), int(text.rpartition(")")[2].split()[1])
