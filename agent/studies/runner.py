"""Runs what is missing in the folder of a study; finished runs stay as they are."""

from __future__ import annotations

import functools
import json
import shutil
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.assembly.merge import one_line
from agent.engines.engine import Engine, Job, SerialEngine
from agent.engines.processes import ProcessEngine
from agent.recording.atomic import write_text
from agent.recording.run_folder import RunFolder
from agent.studies.grid import (
    PlannedRun,
    check,
    lesson_of,
    matched,
    request_of,
    runs_of,
    settings_of_arm,
    stages,
    trained_folder,
    tuned_folder,
)
from agent.studies.study import OLD_FOLDERS, Study, present_names, study_of
from agent.studies.worker import PARTIAL, RESULT, carry_out, train_arm, tune_arm
from modules.messages import ConfigError

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
    folder = RunFolder.create(place, f"study-{study.name}").path
    text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, width=100)
    write_text(folder / STUDY, text)
    return folder


def reopen(folder: Path) -> Study:
    """The study of a folder, also of version 0.1. Raises ConfigError where there is none."""
    try:
        tree = yaml.safe_load((folder / STUDY).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"study: expected a folder with {STUDY}, got '{folder}' ({one_line(error)})"
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"study: expected a study in {folder / STUDY}, got {tree!r:.60}")
    return study_of(present_names(tree), str(folder / STUDY))


def results_in(folder: Path) -> list[dict[str, Any]]:
    """The results of all finished runs of a study's folder, in the order of their names."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "runs").glob(f"*/{RESULT}"))
        if not path.parent.name.startswith(".")
    ]


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
    settings = dict[tuple[str, str], Mapping[str, Any]]()
    lessons = list(_lessons(study, folder, settings))
    planned = [run for stage in stages(study) for run in runs_of(study, stage, {}, folder)]
    waiting = [run.arm for run in planned if not _finished(run, runs)]
    count = _Count([*waiting, *(arm for arm, _ in lessons)])
    _work(lessons, jobs, count, on_progress)
    for stage in stages(study):
        for world, arm in stage:
            match = study.arms[arm].match
            if match is not None:
                measures = [
                    one["measures"]
                    for one in results_in(folder)
                    if (one["world"], one["arm"]) == (world, match.arm)
                    and one["seed"] in study.seeds
                ]
                own = settings.get((world, arm), {})
                settings[world, arm] = {**own, **matched(study, arm, measures)}
        stage_jobs: list[_ArmJob] = [
            (run.arm, Job(f"{run.arm} · {run.world} · seed {run.seed}",
                          functools.partial(carry_out, run, runs)))
            for run in runs_of(study, stage, settings, folder)
            if not _finished(run, runs)
        ]  # fmt: skip
        _work(stage_jobs, jobs, count, on_progress)


def _finished(run: PlannedRun, runs: Path) -> bool:
    return (runs / run.name / RESULT).is_file()


def _lessons(
    study: Study, folder: Path, settings: dict[tuple[str, str], Mapping[str, Any]]
) -> Iterator[_ArmJob]:
    """Trainings and tunings that must precede all runs.

    Writes into `settings` where the weights of tuned arms will be.
    """
    for world in study.worlds:
        for name, arm in study.arms.items():
            for seed in study.seeds if arm.train is not None else ():
                place = trained_folder(folder, world.id, name, seed)
                if not place.is_dir():
                    lesson = lesson_of(study, world, name, seed)
                    work = functools.partial(train_arm, lesson, place)
                    yield (
                        f"{name}, trained",
                        Job(f"{name} · {world.id} · trained for seed {seed}", work),
                    )
            if arm.tune is None:
                continue
            place = tuned_folder(folder, world.id, name)
            settings[world.id, name] = {"configurator.weights": str(place)}
            if not place.is_dir():
                own = settings_of_arm(study, world, arm, {})
                price = arm.tune.price if world.price is None else world.price
                tuning = arm.tune.model_copy(update={"price": price})
                request = request_of(own, study.plugins, world.agent)
                work = functools.partial(tune_arm, request, tuning, place)
                yield f"{name}, tuned", Job(f"{name} · {world.id} · tuned", work)


class _Count:
    """Counts finished jobs by arm, and estimates the time that the others take."""

    def __init__(self, waiting: Sequence[str]) -> None:
        self.left, self.total = Counter(waiting), len(waiting)
        self.durations: dict[str, list[float]] = {}

    def finished(self, arm: str, seconds: float, what: str, jobs: int) -> StudyProgress:
        """The progress after one more job of an arm, which took `seconds`."""
        self.left[arm] -= 1
        self.durations.setdefault(arm, []).append(seconds)
        usual = statistics.fmean(one for some in self.durations.values() for one in some)
        remaining = sum(
            count * (statistics.fmean(self.durations[name]) if name in self.durations else usual)
            for name, count in self.left.items()
        )
        left = self.left.total()
        return StudyProgress(self.total - left, self.total, what, remaining / min(jobs, left or 1))


def _work(waiting: Sequence[_ArmJob], jobs: int, count: _Count, on_progress: OnProgress) -> None:
    """Runs jobs, here where there is one alone or one at a time, else in `jobs` processes.

    Interrupted processes are killed: an unfinished run is done again anyway.
    """
    engine: Engine = SerialEngine() if jobs == 1 or len(waiting) < 2 else ProcessEngine(jobs)
    arms = {job.name: arm for arm, job in waiting}
    for done in engine.map([job for _, job in waiting]):
        on_progress(count.finished(arms[done.job.name], done.seconds, done.job.name, jobs))
