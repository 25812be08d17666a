"""Carrying out a study: what is finished is kept, what is half done is done again."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.recording.run_folder import RunFolder
from agent.studies.grid import (
    PlannedRun,
    check,
    lesson_of,
    matched,
    request_of,
    runs_of,
    schooled_folder,
    settings_of_arm,
    stages,
    tutored_folder,
)
from agent.studies.study import Study, study_of
from agent.studies.worker import RESULT, carry_out, school, teach
from modules.messages import ConfigError, SextetError

STUDY = "study.yaml"


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is. `done` of `total` pieces of work; `what` was just finished."""

    done: int
    total: int
    what: str
    remaining_s: float


Tell = Callable[[StudyProgress], None]
_Job = tuple[str, str, Callable[[], str | None]]
"""What it is, the arm, and the work, which answers None or why it could not be done."""


def begin(study: Study, place: Path | None) -> Path:
    """A new folder for a study, which has been checked. Raises ConfigError; nothing is made."""
    check(study)
    folder = RunFolder.create(place, f"study-{study.name}").path
    text = yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, width=100)
    (folder / STUDY).write_text(text, encoding="utf-8")
    return folder


def reopen(folder: Path) -> Study:
    """The study a folder was begun with. Raises ConfigError where there is none."""
    try:
        tree = yaml.safe_load((folder / STUDY).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise ConfigError(
            f"study: expected a folder with {STUDY}, got '{folder}' ({line})"
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"study: expected a study in {folder / STUDY}, got {tree!r:.60}")
    return study_of(tree, str(folder / STUDY))


def results_in(folder: Path) -> list[dict[str, Any]]:
    """What every finished run of a study's folder came to, in the order of their names."""
    return [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "runs").glob(f"*/{RESULT}"))
        if not path.parent.name.startswith(".")
    ]


def run_study(study: Study, folder: Path, jobs: int, tell: Tell) -> None:
    """Carries out what is not finished yet, `jobs` runs at a time.

    Raises SextetError, one line, at the first run that fails; what is finished stays.
    """
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    for left in (*runs.glob(".part-*"), *(folder / "schooled").glob(".part-*")):
        shutil.rmtree(left)
    ahead = _Count(study, runs, folder)
    given = dict[tuple[str, str], Mapping[str, Any]]()
    lessons = list(_lessons(study, folder, given))
    _work(lessons, jobs, ahead, tell)
    for stage in stages(study):
        for world, arm in stage:
            match = study.arms[arm].match
            if match is not None:
                found = [
                    one["measures"]
                    for one in results_in(folder)
                    if (one["world"], one["arm"]) == (world, match.arm)
                    and one["seed"] in study.seeds
                ]
                given[world, arm] = {**given.get((world, arm), {}), **matched(study, arm, found)}
        waiting = [run for run in runs_of(study, stage, given, folder) if not _finished(run, runs)]
        jobs_of_stage: list[_Job] = [
            (f"{run.arm} · {run.world} · seed {run.seed}", run.arm,
             functools.partial(carry_out, run, runs))
            for run in waiting
        ]  # fmt: skip
        _work(jobs_of_stage, jobs, ahead, tell)


def _finished(run: PlannedRun, runs: Path) -> bool:
    return (runs / run.name / RESULT).is_file()


def _lessons(
    study: Study, folder: Path, given: dict[tuple[str, str], Mapping[str, Any]]
) -> Iterator[_Job]:
    """What must be learned before any run; writes into `given` where the weights will be."""
    for world in study.worlds:
        for name, arm in study.arms.items():
            if arm.school is not None:
                for seed in study.seeds:
                    place = schooled_folder(folder, world.id, name, seed)
                    if not place.is_dir():
                        work = functools.partial(school, lesson_of(study, world, name, seed), place)
                        what = f"{name} · {world.id} · schooled for seed {seed}"
                        yield what, f"{name}, schooled", work
            if arm.tutor is None:
                continue
            place = tutored_folder(folder, world.id, name)
            given[world.id, name] = {"configurator.weights": str(place)}
            if not place.is_dir():
                settings = settings_of_arm(study, world, arm, {})
                request = request_of(settings, study.plugins, world.agent)
                price = arm.tutor.price if world.price is None else world.price
                lesson = arm.tutor.model_copy(update={"price": price})
                work = functools.partial(teach, request, lesson, place)
                yield f"{name} · {world.id} · tutored", f"{name}, tutored", work


class _Count:
    """Counts work done, and how long what is left will take."""

    def __init__(self, study: Study, runs: Path, folder: Path) -> None:
        every = [run for stage in stages(study) for run in runs_of(study, stage, {}, folder)]
        self.left: dict[str, int] = {}
        for run in every:
            if not _finished(run, runs):
                self.left[run.arm] = self.left.get(run.arm, 0) + 1
        for world in study.worlds:
            for name, arm in study.arms.items():
                if arm.school:
                    for seed in study.seeds:
                        if not schooled_folder(folder, world.id, name, seed).is_dir():
                            key = f"{name}, schooled"
                            self.left[key] = self.left.get(key, 0) + 1
                if arm.tutor and not tutored_folder(folder, world.id, name).is_dir():
                    key = f"{name}, tutored"
                    self.left[key] = self.left.get(key, 0) + 1
        self.total = sum(self.left.values())
        self.took: dict[str, list[float]] = {}

    def finished(self, arm: str, seconds: float, what: str, jobs: int) -> StudyProgress:
        """One more is done, which took so long."""
        self.left[arm] -= 1
        self.took.setdefault(arm, []).append(seconds)
        usual = statistics.fmean(one for took in self.took.values() for one in took)
        remaining = sum(
            count * (statistics.fmean(self.took[name]) if name in self.took else usual)
            for name, count in self.left.items()
        )
        left = sum(self.left.values())
        return StudyProgress(self.total - left, self.total, what, remaining / min(jobs, left or 1))


def _timed(work: Callable[[], str | None]) -> tuple[str | None, float]:
    """What a piece of work answers, and how long it took, seconds."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def _work(waiting: Sequence[_Job], jobs: int, count: _Count, tell: Tell) -> None:
    """Does all that waits, here or in `jobs` processes."""
    if jobs == 1 or len(waiting) < 2:
        for what, arm, work in waiting:
            failed, seconds = _timed(work)
            _say(what, arm, failed, seconds, jobs, count, tell)
        return
    ours = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(jobs, len(waiting)),
        multiprocessing.get_context("spawn"),
        initializer=_serve,
        initargs=(os.getpid(),),
    )
    try:
        going = {pool.submit(_timed, work): (what, arm) for what, arm, work in waiting}
        while going:
            for done in wait(going, return_when=FIRST_COMPLETED).done:
                what, arm = going.pop(done)
                failed, seconds = done.result()
                _say(what, arm, failed, seconds, jobs, count, tell)
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        # Whether interrupted or failed, what is still going on would only be done again. A training
        # that is asked to stop would keep a checkpoint first, and its process take more work.
        workers = set(multiprocessing.active_children()) - ours
        for process in workers:
            process.kill()
        for process in workers:
            process.join(5)
        if isinstance(error, BrokenProcessPool):
            raise SextetError(
                "study: a process was killed, perhaps for want of memory; use fewer --jobs"
            ) from None
        raise
    pool.shutdown()


def _serve(parent: int) -> None:
    """A worker leaves Ctrl-C to the process that started it, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _say(
    what: str, arm: str, failed: str | None, seconds: float, jobs: int, count: _Count, tell: Tell
) -> None:
    if failed is not None:
        raise SextetError(f"study: {what}: {failed}")
    tell(count.finished(arm, seconds, what, jobs))
