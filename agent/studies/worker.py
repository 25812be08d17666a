"""One run of a study, in whatever process: lived, measured, kept whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest, prepared
from agent.live import live
from agent.recording.drive_guard import guarded
from agent.recording.run_folder import RunFolder
from agent.studies.grid import PlannedRun
from agent.studies.measures import Recorder, Series, measured
from agent.studies.study import Tutoring
from modules.messages import SextetError

RESULT, SERIES = "result.json", "series.npz"
_PARTIAL = ".part-"


def carry_out(run: PlannedRun, runs: Path) -> str | None:
    """Lives one run into `runs`/its name; None, or in one line why it could not be done.

    Until it is finished the folder has another name, so what is there under its own is whole.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    partial = runs / f"{_PARTIAL}{run.name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        assembly = prepared(run.request())
        try:
            series, seconds, processor = _lived(run, assembly, partial)
        finally:
            assembly.world.close()
        drives, signals = assembly.agent.modules.cost.drives, assembly.world.spec.signals
        measures: dict[str, Any] = measured(series, drives, signals)
        measures |= {"wall_s": round(seconds, 3), "cpu_s": round(processor, 3)}
        series.save(partial / SERIES)
        result = {
            "world": run.world,
            "arm": run.arm,
            "seed": run.seed,
            "drives": list(drives),
            "signals": list(signals),
            "measures": measures,
        }
        (partial / RESULT).write_text(json.dumps(result, indent=1), encoding="utf-8")
        os.replace(partial, runs / run.name)
    except SextetError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)
    return None


def _lived(run: PlannedRun, assembly: Assembly, place: Path) -> tuple[Series, float, float]:
    """The series of the run, and how long it took by the clock and of the processor, seconds."""
    world, agent = assembly.world, assembly.agent
    RunFolder(place).write_config(assembly.config.tree())
    recorder = Recorder(world.spec.actions, world.num_envs)
    with ExitStack() as stack:
        stack.enter_context(guarded(agent))
        chronicle = None
        if run.trace:
            chronicle = stack.enter_context(assembly.recorder(RunFolder(place)))
        began, worked = time.perf_counter(), time.process_time()
        for moment in live(agent, world, run.steps * world.num_envs, run.seed):
            if chronicle is not None:
                chronicle.add(moment)
            if recorder.add(moment):
                break
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
    return recorder.series(), seconds, processor


def school(request: RunRequest, place: Path) -> str | None:
    """Trains an agent into `place`, as `sextet train` does; None or why not.

    A training that is told to stop keeps a checkpoint and returns: here it is an interruption,
    and is done again.
    """
    from agent.commands.train import Watching, begin, for_training

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    partial = place.parent / f"{_PARTIAL}{place.name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            training = for_training(request)
            figures = begin(training, partial, Watching(live=False), request.plugins)
        if figures["stopped"]:
            raise KeyboardInterrupt
        os.replace(partial, place)
    except SextetError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)
    return None


def teach(request: RunRequest, tutoring: Tutoring, place: Path) -> str | None:
    """Trains the learned configurator of one arm in one world into `place`; None or why not.

    One that was left unfinished is gone on with.
    """
    from agent.tuning.evolution import tutor

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    partial = place.parent / f"{_PARTIAL}{place.name}"
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        tutor(request, partial, report=lambda _: None, **tutoring.model_dump())
        os.replace(partial, place)
    except SextetError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        torch.set_num_threads(threads)
    return None
