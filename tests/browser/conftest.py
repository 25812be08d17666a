"""A real browser, and runs made for it. Without Chromium these tests skip, and say so; where
`SEXTET_BROWSER=required` stands in the environment they fail instead.
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
    """The browser; whatever its page complained about fails the test."""
    browser.errors.clear()
    browser.dialogs.clear()
    browser.scheme("light")
    yield browser
    # Left before its server is closed, so that it asks nobody who is gone.
    browser.ask("Page.navigate", url="about:blank")
    assert browser.errors == []
    assert browser.dialogs == []


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short real run that thinks now and then, in the simulator."""
    folder = tmp_path_factory.mktemp("lived") / "run"
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
    """Serves runs and gives the page's address."""
    servers = []

    def served(*runs: Path) -> str:
        server = PageServer([Recording(run) for run in runs], port=0)
        server.start()
        servers.append(server)
        return server.url

    yield served
    for server in servers:
        server.close()
