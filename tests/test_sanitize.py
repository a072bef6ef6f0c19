"""The core's tests once more, on a core built with AddressSanitizer and UndefinedBehaviorSanitizer, in short form."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(400)
def test_core_under_the_sanitizers():
    environment = {**os.environ, "FASTPIXEL_PYTHON": sys.executable}
    ran = subprocess.run(["scripts/sanitize", "--short"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-20000:] + ran.stderr[-20000:]
    assert " passed" in ran.stdout
