"""Jobs, the port of an engine, and the engine that runs jobs in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modules.messages import SextetError

Report = Callable[[Any], None]
"""Sends a value from a running job to the caller of `Engine.map`."""


class JobError(SextetError):
    """A job raised, or its process was killed; the message begins with the name of the job."""

    exit_code = 1


@dataclass(frozen=True)
class Job:
    """A piece of work that depends on no other job.

    `work(report)` returns the result; meanwhile it may call `report` with intermediate values. For
    processes `work`, the result and the values must be picklable.
    """

    name: str
    work: Callable[[Report], Any]


@dataclass(frozen=True)
class JobResult:
    """The value that a job returned, and the seconds it ran."""

    job: Job
    value: Any
    seconds: float


class Engine(Protocol):
    """Runs jobs."""

    def map(
        self, jobs: Sequence[Job], on_report: Callable[[Job, Any], object] | None = None
    ) -> Iterator[JobResult]:
        """Yields the result of each job as it ends; `on_report` receives what jobs report.

        Raises JobError, one line, at the first job that raises; no further job is started.
        """


def describe(error: BaseException) -> str:
    """An error of ours by its message, another one also by its type."""
    return str(error) if isinstance(error, SextetError) else f"{type(error).__name__}: {error}"


class SerialEngine:
    """Runs jobs one after the other in this process; Ctrl-C reaches the running job."""

    def map(
        self, jobs: Sequence[Job], on_report: Callable[[Job, Any], object] | None = None
    ) -> Iterator[JobResult]:
        """Yields results in the order of `jobs`; see `Engine.map`."""
        for job in jobs:

            def report(value: Any, job: Job = job) -> None:
                if on_report is not None:
                    on_report(job, value)

            start = time.perf_counter()
            try:
                value = job.work(report)
            except Exception as error:
                raise JobError(f"{job.name}: {describe(error)}") from error
            yield JobResult(job, value, time.perf_counter() - start)
