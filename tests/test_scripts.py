"""The commands of a clone: what the Makefile lists, what the scripts do when nothing is to be done, the rule of CI."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)


def run(*command, cwd=ROOT, **environment):
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True)


def test_plain_make_lists_every_target():
    listed = re.findall(r"^  make ([a-z-]+) +\S", run("make", MAKEFLAGS="").stdout, re.MULTILINE)
    assert listed == TARGETS
    assert {"serve", "test", "bench", "bench-quick", "sanitize", "lint"} <= set(listed)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_names_only_programs_that_are_there(target):
    planned = run("make", "--dry-run", target, MAKEFLAGS="")
    assert planned.returncode == 0, planned.stderr
    for script in re.findall(r"scripts/[a-z-]+", planned.stdout):
        assert os.access(ROOT / script, os.X_OK)


def test_ci_runs_the_same_gate():
    assert "make test" in (ROOT / ".ci/run").read_text()


@pytest.fixture
def clone(tmp_path):
    """A directory that scripts/venv takes for a clone whose environment was built a moment ago."""
    for name in ("pyproject.toml", "setup.py", "src/fastpixel/_core.pyx", "src/fastpixel/_core.pxd", "scripts/venv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "src/fastpixel/core").mkdir()
    (tmp_path / "src/fastpixel/core/span.pxi").touch()
    (tmp_path / ".venv").mkdir()
    return tmp_path


NO_PYTHON = "/bin/false"  # stands for an interpreter that is too old: a build is refused before it starts


def builds(clone, *arguments):
    ran = run("scripts/venv", *arguments, cwd=clone, PYTHON=NO_PYTHON, PATH=f"{clone}:/usr/bin:/bin")
    assert ran.returncode == (1 if "is not Python 3.10 or newer" in ran.stderr else 0), ran.stderr
    return ran.returncode == 1


def built(clone, name, at):
    (clone / f".venv/built-{name}").touch()
    os.utime(clone / f".venv/built-{name}", (at, at))


def test_nothing_is_built_twice(clone):
    (clone / "scripts/apt-packages").write_text("#!/bin/sh\n")
    (clone / "scripts/apt-packages").chmod(0o755)
    newest = max(path.stat().st_mtime for path in clone.rglob("*"))
    assert builds(clone)
    built(clone, "test", newest + 10)
    assert not builds(clone)
    assert not builds(clone, "test")
    assert builds(clone, "bench")
    os.utime(clone / "src/fastpixel/core/span.pxi", (newest + 20, newest + 20))
    assert builds(clone)
    assert builds(clone, "test")


def apt_packages(tmp_path, *programs, **fakes):
    """Runs scripts/apt-packages on a machine without packages that has bash, these programs and these fakes."""
    for name in ("bash", "env", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    for name, text in {"dpkg-query": "exit 1", **dict.fromkeys(programs, "exit 0"), **fakes}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return run("scripts/apt-packages", "test", PATH=str(tmp_path))


BUILD = "gcc libc6-dev python3-dev python3-venv"


def test_missing_packages_are_named_to_who_may_not_install_them(tmp_path):
    ran = apt_packages(tmp_path, id="echo 1000", sudo="exit 1")
    assert ran.returncode == 0
    assert f"sudo apt-get install {BUILD} chromium curl" in ran.stderr


def test_a_program_that_came_another_way_is_not_installed(tmp_path):
    ran = apt_packages(tmp_path, "chromium", "curl", "nginx", "node", "npm", "openssl", id="echo 1000", sudo="exit 1")
    assert ran.stderr.endswith(f"install {BUILD}\n")


def test_an_installation_that_fails_is_said_and_ends_nothing(tmp_path):
    ran = apt_packages(tmp_path, id="echo 0", **{"apt-get": "echo no mirror >&2; exit 100"})
    assert ran.returncode == 0
    assert "no mirror\ncould not install them" in ran.stderr


def test_apt_packages_refuses_what_it_does_not_know():
    assert run("scripts/apt-packages", "everything").returncode == 2


SKIPPING = {
    "test": "import pytest\n\n@pytest.mark.skip(reason='no nginx')\ndef test_it():\n    pass\n",
    "module": "import pytest\n\npytest.importorskip('no_such_package')\n\ndef test_it():\n    pass\n",
    "expected failure": "import pytest\n\n@pytest.mark.xfail(strict=True)\ndef test_it():\n    assert False\n",
}


@pytest.mark.parametrize(
    ("text", "ci", "ends"),
    [("test", "", 0), ("test", "true", 1), ("module", "true", 2), ("expected failure", "true", 0)],
)
def test_ci_skips_nothing(tmp_path, text, ci, ends):
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(SKIPPING[text])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-c", os.devnull]
    ran = run(*command, cwd=tmp_path, CI=ci)
    assert ran.returncode == ends, ran.stdout
