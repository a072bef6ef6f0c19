"""Ruff over every Python file, and bash's own syntax check over every script."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("scripts/*"), ROOT / ".ci/run"])


@pytest.mark.parametrize("arguments", [("check",), ("format", "--check", "--diff")], ids=" ".join)
def test_ruff(arguments):
    ran = subprocess.run([sys.executable, "-m", "ruff", *arguments, "."], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_an_executable_bash_program(script):
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert script.stat().st_mode & 0o111
    ran = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
