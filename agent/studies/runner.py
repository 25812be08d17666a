"""Runs what is missing in the folder of a study; finished runs stay as they are."""

from __future__ import annotations

import functools
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agent.assembly.merge import read_yaml
from agent.engines.engine import Engine, Job
from agent.engines.folders import PARTIAL
from agent.engines.schedule import OnProgress, Schedule
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
from agent.studies.worker import RESULT, carry_out, train_arm, tune_arm
from agent.tuning.evolution import is_tuned
from modules.messages import ConfigError
from modules.strange_files import TEXT_BYTES, plain_json, read_file

STUDY = "study.yaml"


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


def run_study(study: Study, folder: Path, engine: Engine, on_progress: OnProgress) -> None:
    """Runs what is not finished yet.

    Raises SextetError, one line, at the first run that fails; what is finished stays.
    """
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    # Unfinished runs and trainings are done again; a tuning is continued, but not one of 0.1.
    for name in ("runs", "trained", *OLD_FOLDERS.values()):
        for partial in (folder / name).glob(f"{PARTIAL}*"):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
    preparations = list(_preparations(study, folder))
    planned = [run for stage in stages(study) for run in runs_of(study, stage, {}, folder)]
    waiting = [run.arm for run in planned if not _finished(run, runs)]
    kinds = [*(job.kind for job in preparations), *waiting]
    schedule = Schedule(engine, kinds, on_progress, folder)
    with engine:
        deque(schedule.run(preparations), maxlen=0)
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
            deque(schedule.run([_job(study, run, folder) for run in unfinished]), maxlen=0)


def _job(study: Study, run: PlannedRun, folder: Path) -> Job:
    arm, reads = study.arms[run.arm], list[Path]()
    if arm.tune is not None:
        reads.append(tuned_folder(folder, run.world, run.arm))
    if run.agent is not None and Path(run.agent).exists():
        reads.append(Path(run.agent))
    name = f"{run.arm} · {run.world} · seed {run.seed}"
    return Job(
        name, functools.partial(carry_out, run), folder / "runs" / run.name,
        reads=tuple(reads), kind=run.arm,
    )  # fmt: skip


def _finished(run: PlannedRun, runs: Path) -> bool:
    return (runs / run.name / RESULT).is_file()


def _preparations(study: Study, folder: Path) -> Iterator[Job]:
    """Trainings and tunings that are not done yet and must precede all runs."""
    for world, name in study.pairs():
        arm = study.arms[name]
        begun = world.agent is not None and Path(world.agent).exists()
        reads = (Path(str(world.agent)),) if begun else ()
        for seed in study.seeds if arm.train is not None else ():
            place = trained_folder(folder, world.id, name, seed)
            if not place.is_dir():
                work = functools.partial(train_arm, training_of(study, world, name, seed))
                yield Job(
                    f"{name} · {world.id} · trained for seed {seed}", work, place,
                    reads=reads, kind=f"{name}, trained",
                )  # fmt: skip
        if arm.tune is not None:
            request, tuning = tuning_of(study, world, name)
            place = tuned_folder(folder, world.id, name)
            if (left := place.with_name(PARTIAL + place.name)).is_dir() and not place.exists():
                left.rename(place)  # a study that was begun when unfinished ones had that name
            if not is_tuned(place, tuning):
                yield Job(
                    f"{name} · {world.id} · tuned", functools.partial(tune_arm, request, tuning),
                    place, resumes=True, reads=reads, kind=f"{name}, tuned",
                )  # fmt: skip
