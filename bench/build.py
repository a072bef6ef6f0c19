"""Compiles the C programs of this directory on demand into build/, which git ignores."""

import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"


def program(name: str) -> Path:
    """The compiled NAME.c; compiled now if the source is newer."""
    source, target = HERE / f"{name}.c", BUILD / name
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        _compile(source, target)
    return target


def _compile(source: Path, target: Path) -> None:
    if shutil.which("gcc") is None:
        raise BenchError("gcc is not installed: apt-get install gcc libc6-dev")
    BUILD.mkdir(exist_ok=True)
    # Renamed at the end: a compilation that is broken off leaves no half program that looks up to date.
    part = target.with_suffix(".part")
    command = ["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", str(part), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"gcc does not compile {source.name}:\n{done.stderr}")
    part.replace(target)
