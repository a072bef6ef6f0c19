"""A real `fastpixel serve` under test, and the other commands as subprocesses.

A Service is started on free ports, is waited for by what it logs (never by time), and at its end its log is read: a
traceback, or anything at ERROR that the test did not announce in `errors`, fails the test. Processes are ended by
their ids, and only those that were started here.
"""

import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from wire import Client

PATIENCE = 20.0  # seconds; the bound of every wait, far above what it takes
PROGRAM = [sys.executable, "-m", "fastpixel"]
TROUBLE = re.compile(r"Traceback|Exception|Error:|never retrieved|Fatal|core dumped")


def environment(**more):
    """This process's, without settings of a person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTPIXEL_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}


def command(*arguments, timeout=PATIENCE, **options):
    """Runs `fastpixel ARGUMENTS` to its end: (exit code, stdout, stderr)."""
    ran = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        timeout=timeout,
        env=environment(**options.pop("env", {})),
        **options,
    )
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


def export(data_dir, *flags):
    """What `fastpixel export` says, as dicts."""
    code, out, err = command("export", "--data-dir", data_dir, *flags)
    assert (code, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


def await_true(condition, what, timeout=PATIENCE):
    """Polls what has no event to wait for, such as /proc; returns what it gave."""
    deadline = time.monotonic() + timeout
    while not (got := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)
    return got


def is_alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid):
    """Process ids of its children, oldest first."""
    try:
        return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except (FileNotFoundError, ProcessLookupError):
        return []


def rss_anon(pid):
    """Bytes of memory of its own; pages of the map are not counted."""
    line = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line[1]) * 1024


class Log:
    """The lines of a pipe, read by a thread so that it never fills."""

    def __init__(self, pipe):
        self.lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe):
        with pipe:
            for line in pipe:
                self._add(line.decode("utf-8", "replace").rstrip("\n"))
        self._add(None)

    def _add(self, line):
        with self._changed:
            if line is None:
                self._ended = True
            else:
                self.lines.append(line)
            self._changed.notify_all()

    def wait_for(self, pattern, start=0, timeout=PATIENCE):
        """The first match in a line from number `start` on."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self.find(pattern, start), timeout)
            found = self.find(pattern, start)
        assert found, f"the log never said {pattern!r}:\n{self.text}"
        return found[0]

    def find(self, pattern, start=0):
        return [found for line in self.lines[start:] if (found := re.search(pattern, line))]

    def join(self):
        self._thread.join(PATIENCE)

    @property
    def text(self):
        return "\n".join(self.lines)


class Service:
    """`with Service(data_dir, "--workers", "2") as service:`; `errors`: patterns of ERROR lines that are expected."""

    def __init__(self, data_dir, *flags, workers=1, config=None, bind="127.0.0.1:0", errors=(), cwd=None):
        self.data_dir = Path(data_dir)
        self.workers = workers
        self.errors = [*errors]
        settings = ["--bind", bind, "--admin-bind", "127.0.0.1:0", "--workers", workers, "--data-dir", data_dir]
        arguments = ["serve", *(["--config", config] if config else []), *settings, *flags]
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), cwd=cwd
        )
        self.log = Log(self.process.stderr)
        self.out = Log(self.process.stdout)
        self.seen = set()

    def __enter__(self):
        try:
            self.url = self.log.wait_for(r"listening on (\S+)")[1]
            self.admin = self.log.wait_for(r"admin on (\S+)")[1]
            self.pids()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            self.kill()
            sys.stderr.write(f"log of the service:\n{self.log.text}\n")
            return
        self.stop()
        self.assert_clean()

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def pids(self):
        """The workers' process ids, as soon as all run."""
        found = await_true(self._all_children, "all workers run")
        self.seen |= {*found}
        return found

    def _all_children(self):
        found = [pid for pid in children(self.process.pid) if is_alive(pid)]
        return found if len(found) == self.workers else None

    # -- talking

    def connect(self, timeout=PATIENCE):
        return Client(("127.0.0.1", self.port), timeout)

    def get(self, target, *headers):
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.ask(target, *headers)

    def ask_admin(self, path, host=None):
        """(status, text) of the admin listener."""
        request = urllib.request.Request(self.admin + path, headers={"Host": host} if host else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self):
        """Series as Prometheus names them -> value."""
        lines = [line for line in self.ask_admin("/metrics")[1].splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def await_metric(self, name, value):
        """Counters of closed connections move when the server sees the close, which no answer tells."""
        await_true(lambda: self.metrics()[name] == value, f"{name} is {value}")

    # -- the end

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=PATIENCE):
        """The exit code, with the whole log read."""
        code = self.process.wait(timeout)
        self.log.join()
        self.out.join()
        return code

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.send_signal(number)
        return self.wait()

    def kill(self):
        """SIGKILL to supervisor and workers; returns when none is left."""
        pids = {*children(self.process.pid), *self.seen}
        if self.process.poll() is None:
            self.process.kill()
        for pid in filter(self._is_ours, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()
        for pid in pids:
            await_true(lambda pid=pid: not self._is_ours(pid), f"worker {pid} is gone")

    def _is_ours(self, pid):
        """A process id may have been given to somebody else since."""
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return b"fastpixel" in said and is_alive(pid)

    def assert_clean(self):
        trouble = [line for line in self.log.lines if TROUBLE.search(line)]
        loud = [line for line in self.log.lines if " ERROR " in line]
        unexpected = [line for line in loud if not any(re.search(known, line) for known in self.errors)]
        assert not trouble + unexpected, self.log.text
        assert self.out.text == "", "standard output is for data"


def free_ports(count):
    """Ports that nobody has, for what must be told a number; below those that the kernel gives to connections."""
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = filter(_is_free, random.sample(range(10_000, least), 1000))
    return list(itertools.islice(found, count))


def _is_free(port):
    with socket.socket() as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False
