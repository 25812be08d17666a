"""A real browser, and runs made for it. Without Chromium these tests skip, and say so; where
`SEXTET_BROWSER=required` stands in the environment they fail instead.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, found
from handmade import by_hand, resealed, write

from agent.cli import run
from agent.view.page.data import Recording
from agent.view.page.server import PageServer


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    if found() is None:
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
    """20 000 steps with frames: 500 put together by hand, over and over."""
    file = tmp_path_factory.mktemp("long") / "trace.sqlite"
    write(file, [by_hand.moment(step, 2, (84, 84, 1), 0) for step in range(500)])
    database = sqlite3.connect(file)
    stored = database.execute("SELECT * FROM moments ORDER BY step").fetchall()
    frames = database.execute("SELECT * FROM frames ORDER BY step").fetchall()
    (layout,) = {line[1] for line in stored}
    ((text,),) = database.execute("SELECT layout FROM layouts WHERE id = ?", (layout,))
    for turn in range(1, 40):
        for line in stored:
            step = line[0] + 500 * turn
            database.execute(
                "INSERT INTO moments VALUES (?, ?, ?, ?, ?, ?)",
                (step, *resealed(step, text, line[1:])),
            )
        database.executemany(
            "INSERT INTO frames VALUES (?, ?)", [(s + 500 * turn, f) for s, f in frames]
        )
    database.commit()
    database.close()
    return file


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
