"""How a run ends early: an error is RunFailedError, Ctrl-C is RunInterrupted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.engines.engine import describe
from modules.messages import SextetError


class RunFailedError(SextetError):
    """A run that had started could not continue; exit 1."""

    exit_code = 1


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C ended a run; `run` is what the function would have returned, with what is done."""

    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run


@contextmanager
def running(folder: Path | str) -> Iterator[None]:
    """Any error within becomes RunFailedError, one line that names the run's `folder`."""
    try:
        yield
    except Exception as error:
        raise RunFailedError(f"{describe(error)} (kept: {folder})") from error
