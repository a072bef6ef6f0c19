"""What the numbers were measured on: CPU, kernel, filesystem, versions, and which core does what."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

LIBRARIES = ("uvloop", "httptools", "lmdb", "msgpack", "uvicorn", "granian", "socketify")


def facts(data: Path) -> dict[str, str]:
    """Name -> text, in the order in which RESULTS.md shows them. `data` is where the servers write."""
    return {
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "filesystem of the data": filesystem(data),
        "python": platform.python_version(),
        **{name: _library(name) for name in LIBRARIES},
        "nginx": _first_line([nginx_path() or "nginx", "-v"]).removeprefix("nginx version: nginx/"),
        "gcc": _first_line(["gcc", "--version"]),
    }


def cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or "unknown CPU"


def filesystem(path: Path) -> str:
    """Type and mount point of the filesystem that holds `path`."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    real = path.resolve()
    holding = [(point, kind) for point, kind in mounts if real.is_relative_to(point)]
    # Of two mounts on one point the later one is seen.
    point, kind = max(enumerate(holding), key=lambda entry: (len(entry[1][0]), entry[0]))[1]
    return f"{kind} on {point}"


def nginx_path() -> str | None:
    """nginx lies in an sbin directory, which is not on every user's PATH."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def _library(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _first_line(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0]


def all_cores() -> set[int]:
    return os.sched_getaffinity(0)


def two_cores() -> tuple[set[int], set[int]]:
    """One for the server, one for the loader, not two threads of one core; a single core is shared."""
    mine = sorted(all_cores())
    server = mine[0]
    others = [core for core in mine[1:] if core not in _siblings(server)] or mine[1:] or mine
    return {server}, {others[0]}


def places(cores: int) -> tuple[set[int], set[int]]:
    """Where server and loader run: 1: a core for each; 2: both may use both, nothing is pinned to one."""
    server, loader = two_cores()
    return (server, loader) if cores == 1 else (server | loader, server | loader)


def _siblings(core: int) -> set[int]:
    listed = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not listed.exists():
        return {core}
    ranges = [part.split("-") for part in listed.read_text().strip().split(",")]
    return {number for part in ranges for number in range(int(part[0]), int(part[-1]) + 1)}


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """A process started inside inherits these cores; afterwards this process has its own again."""
    before = all_cores()
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
