"""Keys pressed while the agent plays, passed to a configurator that reacts to them."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Mapping
from typing import Any, Protocol, Self, TextIO, runtime_checkable

_POLL_S = 0.1
"""Seconds after which a closed listener ends."""


@runtime_checkable
class Steerable(Protocol):
    """A module that keys can steer, such as the `manual` configurator."""

    @property
    def keys(self) -> Mapping[str, str]:
        """The keys, and what each does."""

    @property
    def status(self) -> str:
        """The present settings, in a few words."""

    def press(self, key: str) -> str | None:
        """Applies a key; what it changed, in words. May be called from any thread."""


def steerable(module: Any) -> Steerable | None:
    """The module, or one that it wraps, that keys can steer; None where there is none."""
    while module is not None:
        if isinstance(module, Steerable):
            return module
        module = getattr(module, "wrapped", None)
    return None


class Keys:
    """Passes each key to the steered module; a context manager.

    Inside the block the terminal passes keys one by one and does not echo them; afterwards its
    settings are restored. Without a terminal it does nothing.
    """

    def __init__(self, steered: Steerable, source: TextIO | None = None) -> None:
        self.steered = steered
        self._source = sys.stdin if source is None else source
        self._before: list[Any] = []
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        try:
            handle = self._source.fileno()
            self._before = termios.tcgetattr(handle)
        except (OSError, ValueError, termios.error):
            return self
        tty.setcbreak(handle)
        self._thread = threading.Thread(
            target=self._listen, args=(handle,), name="keys", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        self._closed.set()
        self._thread.join(timeout=1)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._source.fileno(), termios.TCSADRAIN, self._before)

    def _listen(self, handle: int) -> None:
        while not self._closed.is_set():
            if not select.select([handle], [], [], _POLL_S)[0]:
                continue
            if not (pressed := os.read(handle, 64)):
                return
            # An arrow or function key comes as several characters and means nothing here.
            if pressed[:1] == b"\x1b":
                continue
            for key in pressed.decode(errors="ignore"):
                self.steered.press(key)
