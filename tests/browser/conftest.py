"""For all tests in a real browser: Debian's Chromium without a window, a collector, and a web server with pages.

One of each a module; a test has a visit of its own (cookies, storage, write key). Chromium is given no name but this
machine's, so that a test reaches nothing else.
"""

import shutil

import pytest
from pages import Site
from playwright.sync_api import sync_playwright
from service import Service
from visit import Visit

CHROMIUM = shutil.which("chromium")
FLAGS = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *localhost", "--disable-quic")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: scripts/apt-packages test")
    with sync_playwright() as driver:
        # Without its sandbox, which does not start for root; every page here is ours.
        running = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS], chromium_sandbox=False)
        yield running
        running.close()


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    with Service(tmp_path_factory.mktemp("collector") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def site():
    with Site() as running:
        yield running


@pytest.fixture
def visit(request, browser, site, collector):
    begun = Visit(browser, site, collector, key=request.node.name.removeprefix("test_"))
    yield begun
    begun.context.close()
    assert not begun.faults
