"""The line between a wrong request, exit 2, and a run that failed, exit 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from modules.messages import SextetError


class RunFailedError(SextetError):
    """A run that had begun could not go on; exit 1."""

    exit_code = 1


@contextmanager
def running(kept: str | None = None) -> Iterator[None]:
    """Whatever goes wrong within is a failed run, said in one line; `kept` is its folder."""
    where = f" (kept: {kept})" if kept else ""
    try:
        yield
    except SextetError as error:
        raise RunFailedError(f"{error}{where}") from error
    except Exception as error:
        raise RunFailedError(f"{type(error).__name__}: {error}{where}") from error
