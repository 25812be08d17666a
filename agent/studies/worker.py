"""The jobs of a study. Each writes a folder under a partial name and renames it when whole."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from agent.api.training import Observer, start, training_config
from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared
from agent.engines.engine import Report
from agent.engines.threads import one_thread
from agent.live import live
from agent.recording.atomic import new_file, sync_folder, write_json, writing
from agent.recording.drive_guard import guarded
from agent.recording.run_folder import RunFolder
from agent.studies.grid import PlannedRun
from agent.studies.measures import Series, SeriesRecorder, measured
from agent.tuning.evolution import Tuning, tune

RESULT, SERIES = "result.json", "series.npz"
PARTIAL = ".part-"


@contextmanager
def _whole(place: Path, resume: bool = False) -> Iterator[Path]:
    """A partial folder that becomes `place` after the block, which has one thread.

    `resume`: an unfinished one is continued, else it is removed.
    """
    partial = place.parent / f"{PARTIAL}{place.name}"
    if not resume:
        shutil.rmtree(partial, ignore_errors=True)
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    with one_thread():
        yield partial
    with writing(place):
        sync_folder(partial)
        os.replace(partial, place)


def carry_out(run: PlannedRun, runs: Path, _: Report) -> None:
    """Plays one run into `runs`/its name and measures it."""
    with _whole(runs / run.name) as partial:
        partial.mkdir()
        assembly = prepared(run.request())
        try:
            series, seconds, processor = _play(run, assembly, partial)
        finally:
            assembly.world.close()
        drives, signals = assembly.agent.modules.cost.drives, assembly.world.spec.signals
        measures: dict[str, Any] = measured(series, drives, signals)
        measures |= {"wall_s": round(seconds, 3), "cpu_s": round(processor, 3)}
        with new_file(partial / SERIES) as out:
            series.save(out)
        result = {
            "world": run.world,
            "arm": run.arm,
            "seed": run.seed,
            "drives": list(drives),
            "signals": list(signals),
            "measures": measures,
        }
        write_json(partial / RESULT, result)


def _play(run: PlannedRun, assembly: Assembly, place: Path) -> tuple[Series, float, float]:
    """The series of a run, and the seconds it took by the clock and of the processor."""
    world, agent = assembly.world, assembly.agent
    RunFolder(place).write_config(assembly.config.tree())
    series = SeriesRecorder(world.spec.actions, world.num_envs)
    with ExitStack() as stack:
        stack.enter_context(guarded(agent))
        trace = stack.enter_context(assembly.recorder(RunFolder(place))) if run.trace else None
        began, worked = time.perf_counter(), time.process_time()
        for moment in live(agent, world, run.steps * world.num_envs, run.seed):
            if trace is not None:
                trace.add(moment)
            if series.add(moment):
                break
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
    return series.series(), seconds, processor


def train_arm(request: RunRequest, place: Path, _: Report) -> None:
    """Trains an agent into `place`. An interrupted training is not kept: it is done again."""
    with _whole(place) as partial:
        start(training_config(request), partial, Observer(), request.plugins)


def tune_arm(request: RunRequest, tuning: Tuning, place: Path, _: Report) -> None:
    """Tunes the learned configurator of an arm into `place`, or continues an unfinished tuning."""
    with _whole(place, resume=True) as partial:
        tune(request, partial, tuning)
