"""Runs what is missing in the folder of a study; finished runs stay as they are."""

from __future__ import annotations

import functools
import itertools
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.assembly.merge import read_yaml
from agent.engines.engine import Engine, Job, SerialEngine
from agent.engines.processes import ProcessEngine
from agent.recording.atomic import write_text
from agent.recording.run_folder import RunFolder
from agent.studies.grid import (
    PlannedRun,
    check,
    matched,
    runs_of,
    stages,
    trained_folder,
    training_of,
    tuned_folder,
    tuning_of,
)
from agent.studies.study import OLD_FOLDERS, Study, present_names, study_of
from agent.studies.worker import PARTIAL, RESULT, carry_out, train_arm, tune_arm
from modules.messages import ConfigError
from modules.strange_files import TEXT_BYTES, plain_json, read_file

STUDY = "study.yaml"


@dataclass(frozen=True)
class StudyProgress:
    """`done` of `total` jobs are finished, `what` is the last of them."""

    done: int
    total: int
    what: str
    remaining_s: float

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.remaining_s), 60)
        left = f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        return f"{self.done}/{self.total}  left {left}  {self.what}"


OnProgress = Callable[[StudyProgress], object]
_ArmJob = tuple[str, Job]
"""Arm and kind of a job, by which its duration is estimated, and the job."""


def begin(study: Study, place: Path | None) -> Path:
    """A new folder for a study. Raises ConfigError where one of its runs cannot be made."""
    check(study)
    text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, width=100)
    name = f"study-{study.name}"
    return RunFolder.create(place, name, lambda new: write_text(new.path / STUDY, text)).path


def reopen(folder: Path) -> Study:
    """The study of a folder, also of version 0.1. Raises ConfigError where there is none."""
    file = folder / STUDY
    if not file.is_file():
        raise ConfigError(f"study: expected a folder with {STUDY}, got '{folder}'")
    return study_of(present_names(read_yaml(file)), str(file))


def results_in(folder: Path) -> list[dict[str, Any]]:
    """The results of all finished runs of a study's folder, in the order of their names.

    Raises ConfigError, one line, where one of them is damaged.
    """
    places = sorted((folder / "runs").glob(f"*/{RESULT}"))
    return [_result(path) for path in places if not path.parent.name.startswith(".")]


def _result(path: Path) -> dict[str, Any]:
    try:
        return dict(plain_json(read_file(path, TEXT_BYTES)))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"study {path}: expected the result of a run, got {error}") from None


def run_study(study: Study, folder: Path, jobs: int, on_progress: OnProgress) -> None:
    """Runs what is not finished yet, `jobs` runs at a time.

    Raises SextetError, one line, at the first run that fails; what is finished stays.
    """
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    # Unfinished runs and trainings are done again; a tuning is continued, but not one of 0.1.
    for name in ("runs", "trained", *OLD_FOLDERS.values()):
        for partial in (folder / name).glob(f"{PARTIAL}*"):
            shutil.rmtree(partial)
    preparations = list(_preparations(study, folder))
    planned = [run for stage in stages(study) for run in runs_of(study, stage, {}, folder)]
    waiting = [run.arm for run in planned if not _finished(run, runs)]
    schedule = _Schedule([*(arm for arm, _ in preparations), *waiting], jobs, on_progress)
    schedule.run(preparations)
    for stage in stages(study):
        results = results_in(folder)
        matches = {
            (world, arm): matched(study, world, arm, results)
            for world, arm in stage
            if study.arms[arm].match is not None
        }
        unfinished = [
            run for run in runs_of(study, stage, matches, folder) if not _finished(run, runs)
        ]
        schedule.run([(run.arm, _job(run, runs)) for run in unfinished])


def _job(run: PlannedRun, runs: Path) -> Job:
    name = f"{run.arm} · {run.world} · seed {run.seed}"
    return Job(name, functools.partial(carry_out, run, runs))


def _finished(run: PlannedRun, runs: Path) -> bool:
    return (runs / run.name / RESULT).is_file()


def _preparations(study: Study, folder: Path) -> Iterator[_ArmJob]:
    """Trainings and tunings that are not done yet and must precede all runs."""
    for world, (name, arm) in itertools.product(study.worlds, study.arms.items()):
        for seed in study.seeds if arm.train is not None else ():
            place = trained_folder(folder, world.id, name, seed)
            if not place.is_dir():
                work = functools.partial(train_arm, training_of(study, world, name, seed), place)
                job = Job(f"{name} · {world.id} · trained for seed {seed}", work)
                yield f"{name}, trained", job
        if arm.tune is not None:
            place = tuned_folder(folder, world.id, name)
            if not place.is_dir():
                work = functools.partial(tune_arm, *tuning_of(study, world, name), place)
                yield f"{name}, tuned", Job(f"{name} · {world.id} · tuned", work)


class _Schedule:
    """Runs jobs, counts the finished ones by arm, and estimates the time that the others take."""

    def __init__(self, arms: Sequence[str], jobs: int, on_progress: OnProgress) -> None:
        self.left, self.total = Counter(arms), len(arms)
        self.jobs, self.on_progress = jobs, on_progress
        self.durations_s = defaultdict[str, list[float]](list)

    def run(self, waiting: Sequence[_ArmJob]) -> None:
        """Runs jobs, here where there is one alone or one at a time, else in processes.

        Interrupted processes are killed: an unfinished run is done again anyway.
        """
        alone = self.jobs == 1 or len(waiting) < 2
        engine: Engine = SerialEngine() if alone else ProcessEngine(self.jobs)
        arms = {job.name: arm for arm, job in waiting}
        for result in engine.map([job for _, job in waiting]):
            arm, name = arms[result.job.name], result.job.name
            self.left[arm] -= 1
            self.durations_s[arm].append(result.seconds)
            done = self.total - self.left.total()
            self.on_progress(StudyProgress(done, self.total, name, self._remaining_s()))

    def _remaining_s(self) -> float:
        """For each job that is left the mean duration of its arm, or of all where that has none."""
        usual_s = statistics.fmean(itertools.chain(*self.durations_s.values()))
        remaining_s = sum(
            count
            * (statistics.fmean(self.durations_s[arm]) if arm in self.durations_s else usual_s)
            for arm, count in self.left.items()
        )
        return remaining_s / min(self.jobs, self.left.total() or 1)
