"""The engine that runs jobs one after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from agent.engines.engine import Job, JobError, JobResult, OnReport, describe, here
from agent.engines.folders import in_folder
from agent.engines.threads import one_thread


class SerialEngine:
    """Runs jobs one after the other in this process; Ctrl-C reaches the running job."""

    slots = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map(self, jobs: Sequence[Job], on_report: OnReport | None = None) -> Iterator[JobResult]:
        """Yields results in the order of `jobs`; see `Engine.map`."""
        for job in jobs:

            def report(value: Any, job: Job = job) -> None:
                if on_report is not None:
                    on_report(job, value)

            start = time.perf_counter()
            try:
                with in_folder(job) as folder, one_thread():
                    value = job.work(folder, report)
            except Exception as error:
                raise JobError(f"{job.name}: {describe(error)}") from error
            yield JobResult(job, value, time.perf_counter() - start, here())
