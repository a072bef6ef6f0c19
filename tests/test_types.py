"""mypy over the package (strict, see pyproject.toml), and the compiled core against its stub."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = {"mypy": ["mypy"], "stubs": ["mypy.stubtest", "fastpixel._core"]}


@pytest.mark.parametrize("check", CHECKS)
def test_types(check):
    ran = subprocess.run([sys.executable, "-m", *CHECKS[check]], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
