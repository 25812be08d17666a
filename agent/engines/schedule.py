"""Jobs on an engine with progress, the time that is left, and a ledger."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.engines import ledger
from agent.engines.engine import Engine, Job, JobResult, OnReport


def clock(seconds: float) -> str:
    """Seconds as 01:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


@dataclass(frozen=True)
class JobProgress:
    """`done` of `total` jobs are finished, `what` is the last of them, repeated `retries` times."""

    done: int
    total: int
    what: str
    remaining_s: float
    retries: int = 0

    def __str__(self) -> str:
        again = f"  (worker lost {self.retries}×, repeated)" if self.retries else ""
        return f"{self.done}/{self.total}  left {clock(self.remaining_s)}  {self.what}{again}"


OnProgress = Callable[[JobProgress], object]


class Schedule:
    """Runs jobs, counts the finished ones by kind, and estimates the time that the others take.

    `kinds`: that of each job that is to be run, by this schedule's calls of `run` together.
    `folder`: where the ledger is; None: there is none.
    """

    def __init__(
        self,
        engine: Engine,
        kinds: Sequence[str],
        on_progress: OnProgress,
        folder: Path | None = None,
    ) -> None:
        self.engine, self.on_progress, self.folder = engine, on_progress, folder
        self.left, self.total = Counter(kinds), len(kinds)
        self.durations_s = defaultdict[str, list[float]](list)

    def run(self, jobs: Sequence[Job], on_report: OnReport | None = None) -> Iterator[JobResult]:
        """Yields results as `Engine.map`."""
        for result in self.engine.map(jobs, on_report):
            if self.folder is not None:
                ledger.enter(self.folder, result)
            self.left[result.job.kind] -= 1
            self.durations_s[result.job.kind].append(result.seconds)
            done = self.total - self.left.total()
            left_s = self._remaining_s()
            self.on_progress(JobProgress(done, self.total, result.job.name, left_s, result.retries))
            yield result

    def _remaining_s(self) -> float:
        """For each job that is left the mean duration of its kind, or of all where it has none."""
        usual_s = statistics.fmean(itertools.chain(*self.durations_s.values()))
        remaining_s = sum(
            count
            * (statistics.fmean(self.durations_s[kind]) if kind in self.durations_s else usual_s)
            for kind, count in self.left.items()
        )
        return remaining_s / min(self.engine.slots, self.left.total() or 1)
