"""What is published: the sdist and the wheel of a fresh clone, and the wheel in an empty environment.

The build works on a copy of what git knows (and of new files that it does not ignore), so that a file which only lies
around cannot help it.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]
CYTHON = {".pyx", ".pxd", ".pxi"}


def run(*command, **options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def repository_files():
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in repository_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source))
    return out


@pytest.fixture(scope="module")
def wheel(dist):
    (found,) = dist.glob("*.whl")
    return found


def packaged(suffixes=None):
    """The package's files in the repository, as paths below src."""
    paths = {name.removeprefix("src/") for name in repository_files() if name.startswith("src/fastpixel/")}
    return {name for name in paths if suffixes is None or PurePath(name).suffix in suffixes}


@pytest.mark.timeout(300)
def test_the_sdist_is_all_that_a_build_needs(dist):
    (found,) = dist.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in packaged()} <= held
    assert {"LICENSE", "README.md", "CHANGELOG.md", "Makefile", "setup.py", "pyproject.toml"} <= held
    beside = ("tests/", "docs/", "scripts/", "bench/", ".ci/")
    assert {name for name in repository_files() if name.startswith(beside)} <= held
    assert not {name for name in held if name.endswith((".so", "_core.c", ".pyc")) or name.startswith("build/")}


def test_the_wheel_holds_the_package_and_no_sources_of_the_core(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    compiled = {name for name in held if name.startswith("fastpixel/_core.") and name.endswith(".so")}
    assert len(compiled) == 1
    assert held - compiled == packaged() - packaged(CYTHON)
    assert {"fastpixel/_core.pyi", "fastpixel/py.typed"} <= held
    assert licences


@pytest.mark.timeout(300)
def test_the_wheel_runs_in_an_empty_environment(wheel, tmp_path):
    run(sys.executable, "-m", "venv", str(tmp_path / "venv"))
    binaries = tmp_path / "venv/bin"
    run(binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel))
    version = wheel.name.split("-")[1]
    assert version in run(binaries / "fastpixel", "--version", cwd=tmp_path)
    assert "serve" in run(binaries / "fastpixel", "--help", cwd=tmp_path)
    explained = run(binaries / "fastpixel", "explain", "/e?_k=key&_p=jane&_n=signup", cwd=tmp_path)
    assert "answer: 200 OK" in explained
    assert '"event": "signup"' in explained
