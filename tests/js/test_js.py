"""The scripts' own tests, run by Node's test runner."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_script(path):
    ran = subprocess.run(["node", "--test", path], capture_output=True, text=True, cwd=HERE)
    assert ran.returncode == 0, ran.stdout + ran.stderr
