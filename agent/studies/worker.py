"""The jobs of a study. Each writes a folder."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent.api.training import Observer, start, training_config
from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared
from agent.engines.engine import Report
from agent.live import live
from agent.recording.atomic import new_file, write_json
from agent.recording.drive_guard import guarded
from agent.recording.run_folder import RunFolder
from agent.studies.grid import PlannedRun
from agent.studies.measures import Series, SeriesRecorder, measured
from agent.tuning.evolution import Tuning, tune

RESULT, SERIES = "result.json", "series.npz"


def carry_out(run: PlannedRun, folder: Path, _: Report) -> None:
    """Plays one run into a new folder and measures it."""
    folder.mkdir()
    assembly = prepared(run.request())
    try:
        series, seconds, processor = _play(run, assembly, folder)
    finally:
        assembly.world.close()
    drives, signals = assembly.agent.modules.cost.drives, assembly.world.spec.signals
    measures: dict[str, Any] = measured(series, drives, signals)
    measures |= {"wall_s": round(seconds, 3), "cpu_s": round(processor, 3)}
    with new_file(folder / SERIES) as out:
        series.save(out)
    result = {
        "world": run.world,
        "arm": run.arm,
        "seed": run.seed,
        "drives": list(drives),
        "signals": list(signals),
        "measures": measures,
    }
    write_json(folder / RESULT, result)


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


def train_arm(request: RunRequest, folder: Path, _: Report) -> None:
    """Trains an agent into a new folder. An interrupted training is not kept: it is done again."""
    start(training_config(request), folder, Observer(), request.plugins)


def tune_arm(request: RunRequest, tuning: Tuning, folder: Path, _: Report) -> None:
    """Tunes the learned configurator of an arm into a folder, or continues there."""
    tune(request, folder, tuning)
