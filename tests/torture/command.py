"""Commands as a user gives them, run in this process: exit code, output, time and memory."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

MOST_BYTES, MOST_SECONDS, HANGS_S = 200 * 2**20, 1.0, 60.0
"""The bounds of a refusal: memory beside what the process had, processor time; and when a command
is given up, wall time.
"""


class Hung(BaseException):
    """A command did not end. No part of the program may catch it."""


@dataclass(frozen=True)
class Ran:
    """`seconds`: of the processor. `grown`: peak memory beyond that before, bytes."""

    code: int
    out: str
    err: str
    seconds: float
    grown: int

    @property
    def lines(self) -> list[str]:
        """The lines on stderr that are no notes."""
        return [line for line in self.err.splitlines() if not line.startswith("note ")]

    def fault(self, *codes: int) -> str:
        """What is wrong with it, where these are the allowed codes of an error; "" if nothing."""
        if self.code == 0:
            return ""
        if self.code not in codes:
            return f"exit {self.code}: {self.err.strip()[-200:]}"
        if len(self.lines) != 1 or not self.lines[0].startswith("sextet: ") or "Traceb" in self.err:
            return f"expected one line, got {self.err.strip()[-300:]!r}"
        if self.grown > MOST_BYTES:
            return f"refused after {self.grown / 2**20:.0f} MB"
        if self.code == 2 and self.seconds > MOST_SECONDS:
            return f"refused after {self.seconds:.1f} s"
        return ""


def sextet(*arguments: str) -> Ran:
    """Runs a command. Raises Hung where it does not end."""
    from agent.cli import run

    out, err = io.StringIO(), io.StringIO()
    with measured() as figures, redirect_stdout(out), redirect_stderr(err):
        code = run(list(arguments))
    return Ran(code, out.getvalue(), err.getvalue(), figures["seconds"], int(figures["bytes"]))


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Yields a dict that holds seconds of the processor and bytes of memory after the block.

    Raises Hung where the block does not end.
    """

    def late(number: int, frame: FrameType | None) -> None:
        raise Hung(f"did not end within {HANGS_S:.0f} s")

    figures: dict[str, float] = {}
    before, began = _peak(fresh=True), time.process_time()
    handler = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, HANGS_S)
    try:
        yield figures
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        figures |= {"seconds": time.process_time() - began, "bytes": _peak() - before}


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The block runs in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _peak(fresh: bool = False) -> int:
    """The largest resident memory of this process so far, bytes; `fresh`: counted anew from now."""
    if fresh:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
