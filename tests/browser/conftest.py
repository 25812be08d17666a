"""A browser, and runs for it to show. Without Chromium these tests are skipped; where the
environment has `SEXTET_BROWSER=required` they fail instead.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.cli import run
from agent.view.page.data import Recording
from agent.view.page.server import PageServer
from tests.browser.chromium import Chromium, executable
from tests.browser.handmade import write_long


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    if executable() is None:
        if os.environ.get("SEXTET_BROWSER") == "required":
            pytest.fail("Chromium is required here and not installed: apt-get install chromium")
        pytest.skip("the page is not tested: Chromium is not installed (apt-get install chromium)")
    with Chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Chromium, serve: Any) -> Iterator[Chromium]:
    """The browser; an error on its page fails the test."""
    browser.errors.clear()
    browser.dialogs.clear()
    browser.scheme("light")
    yield browser
    # Left before its server is closed, so that its next request does not fail.
    browser.ask("Page.navigate", url="about:blank")
    assert browser.errors == []
    assert browser.dialogs == []


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that plans at some steps, in the simulator."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    code = run([
        "play", "ALE/Breakout-v5", "--world_model.kind=clairvoyant", "--steps", "70", "--seed", "5",
        "--directive.horizon_steps=8", "--directive.model_calls=64",
        "--directive.commit_steps=2", "--configurator.warmup_steps=2",
        "--no-live", "--run", str(folder),
    ])  # fmt: skip
    assert code == 0
    return folder


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 000 steps with frames."""
    return write_long(tmp_path_factory.mktemp("long") / "trace.sqlite")


@pytest.fixture
def serve() -> Iterator[Any]:
    """Serves runs; returns the address of the page."""
    servers = []

    def served(*runs: Path) -> str:
        server = PageServer([Recording(run) for run in runs], port=0)
        server.start()
        servers.append(server)
        return server.url

    yield served
    for server in servers:
        server.close()
