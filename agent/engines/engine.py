"""Jobs, the port of an engine, and the engine that runs jobs in this process."""

from __future__ import annotations

import functools
import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from modules.messages import SextetError

Report = Callable[[Any], None]
"""Sends a value from a running job to the caller of `Engine.map`."""

OnReport = Callable[["Job", Any], object]
"""Receives what a job reports."""


class JobError(SextetError):
    """A job raised, or its process was killed; the message begins with the name of the job."""

    exit_code = 1


@dataclass(frozen=True)
class Job:
    """A piece of work that depends on no other job and may be done again.

    `work(folder, report)` returns the result; meanwhile it may call `report` with intermediate
    values. Unless the engine is serial, `work`, the result and the values must be picklable.

    `folder`: the job makes this folder; None: it writes none, and `work` gets None. `work` writes
    into the folder that it is given, which may have another name or be on another machine, and
    which does not exist yet; `folder` appears when it is whole. With `resumes` an attempt goes on
    with what an earlier one left: `work` gets `folder` itself where it can be reached, and what
    the folder holds, not that it exists, says whether the job is done.

    `reads`: files and folders that `work` reads, beside the package.
    `kind`: jobs of one kind are expected to take equally long.
    """

    name: str
    work: Callable[[Any, Report], Any]
    folder: Path | None = None
    resumes: bool = False
    reads: tuple[Path, ...] = ()
    kind: str = ""


class Where(NamedTuple):
    """The host, the name of its processor, and the process in which a job ran."""

    host: str
    processor: str
    pid: int


@dataclass(frozen=True)
class JobResult:
    """The value that a job returned, the seconds its last attempt ran, and where.

    `retries`: attempts that ended with the death of their worker.
    """

    job: Job
    value: Any
    seconds: float
    where: Where
    retries: int = 0


class Engine(Protocol):
    """Runs jobs.

    Within `with engine:` its workers live on from one `map` to the next; else they end with it.
    Such blocks may be nested: workers end with the outermost.
    """

    @property
    def slots(self) -> int:
        """The number of jobs that run at a time."""

    def map(self, jobs: Sequence[Job], on_report: OnReport | None = None) -> Iterator[JobResult]:
        """Yields the result of each job as it ends; `on_report` receives what jobs report.

        Raises JobError, one line, at the first job that raises; no further job is started.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def describe(error: BaseException) -> str:
    """An error of ours by its message, another one also by its type."""
    return str(error) if isinstance(error, SextetError) else f"{type(error).__name__}: {error}"


@functools.cache
def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def here() -> Where:
    """The host, processor and id of the process that calls."""
    return Where(socket.gethostname(), processor(), os.getpid())
