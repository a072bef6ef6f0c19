"""For every test: Hypothesis profiles, the order of files, and the rule that CI skips nothing.

Profiles are chosen by HYPOTHESIS_PROFILE: default, CI (more examples, the same ones every time; taken when CI is set)
and short (a few; the run under the sanitizers).
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# They compile the core; begun first, they run beside everything else (make test has several processes, a file in each).
LONGEST = ("test_sanitize.py", "test_package.py")

IN_CI = bool(os.environ.get("CI"))
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.filter_too_much]}

settings.register_profile("default", **COMMON)
settings.register_profile("CI", **COMMON, max_examples=400, derandomize=True)
settings.register_profile("short", **COMMON, max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "CI" if IN_CI else "default"))


def fail_if_skipped(report):
    """A missing program or package must not turn a test into none: what CI did not run, CI did not see."""
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where everything must run: {reason}"
    return report


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return fail_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return fail_if_skipped((yield))
