"""Cost of a trace: time a step and bytes by column, in Breakout.

A Mode-1 agent plays one row of Breakout at 84×84, recorded as by `sextet play`, keyframes included;
then the trace is read as the page reads it.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from agent.assembly.load import RunRequest, prepared
from agent.live import live
from agent.recording.run_folder import RunFolder
from agent.recording.trace import SalvagedTrace, Trace

WORLD, SEED = "ALE/Breakout-v5", 0
SERIES = (
    "surprise", "episode_model_calls", "episode_step", "mode", "model_calls", "energy",
    "novelty", "signals",
    "observation.first", "observation.terminated", "observation.truncated", "energies.intrinsic",
    "energies.critic", "energies.disagreement", "directive.horizon_steps", "directive.u",
    "directive.v", "directive.risk", "recollection.weights", "recollection.ages", "plan.steps",
    "plan.remaining_commit",
)  # fmt: skip
"""The small fields, which the page draws."""


def run(steps: int = 20_000) -> dict[str, Any]:
    """The figures of a run of `steps`.

    `ms_a_step`, `cpu_ms_a_step`: mean wall and processor time to record one step of one row,
    keyframes included; `median_ms_a_step` depends less on other programs. `megabytes`: the trace
    file. `bytes_a_step` by column. `series_s`: reading every small field of all steps.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as place:
            return _measured(RunFolder.create(Path(place) / "run", "bench"), steps)
    finally:
        torch.set_num_threads(threads)


def _measured(folder: RunFolder, steps: int) -> dict[str, Any]:
    assembly = prepared(
        RunRequest(
            agent=WORLD,
            overrides=(
                "perception.kind=pixels-nature", "configurator.kind=fixed", "configurator.mode=1"
            ),
            flags={"seed": SEED, "num_envs": 1},
        )
    )  # fmt: skip
    spent: list[float] = []
    processor, began = 0.0, time.perf_counter()
    recorder = assembly.recorder(folder)
    with recorder:
        for moment in live(assembly.agent, assembly.world, steps, SEED):
            start, used = time.perf_counter(), time.process_time()
            recorder.add(moment)
            processor += time.process_time() - used
            spent.append(time.perf_counter() - start)
        start, used = time.perf_counter(), time.process_time()
    spent.append(time.perf_counter() - start)
    processor += time.process_time() - used
    elapsed = time.perf_counter() - began
    assembly.world.close()
    figures: dict[str, Any] = {
        "steps": steps,
        "ms_a_step": sum(spent) / steps * 1e3,
        "cpu_ms_a_step": processor / steps * 1e3,
        "median_ms_a_step": median(spent) * 1e3,
        "megabytes": folder.trace.stat().st_size / 1e6,
        "steps_per_s": steps / elapsed,
        **{f"bytes_a_step_{name}": size / steps for name, size in _bytes(folder.trace).items()},
    }
    return figures | _read(folder.trace)


def _bytes(trace: Path) -> dict[str, int]:
    """Bytes of each column, and of the file beyond them."""
    database = sqlite3.connect(trace)
    sizes = dict[str, int]()
    for table, columns in (
        ("moments", ("timeline", "dense", "plans", "reasons")),
        ("frames", ("frames",)),
        ("keyframes", ("snapshot", "agent")),
    ):
        for column in columns:
            query = f"SELECT COALESCE(SUM(LENGTH(CAST({column} AS BLOB))), 0) FROM {table}"
            prefix = "keyframe_" if table == "keyframes" else ""
            sizes[prefix + column] = int(database.execute(query).fetchone()[0])
    database.close()
    sizes["overhead"] = trace.stat().st_size - sum(sizes.values())
    return sizes


def _read(path: Path) -> dict[str, float]:
    """Seconds to open the trace and read every small field, the reasons, and one frame."""
    began, used = time.perf_counter(), time.process_time()
    with Trace.open(path) as trace:
        for name in SERIES:
            trace.series(name)
        series, processor = time.perf_counter() - began, time.process_time() - used
        began = time.perf_counter()
        trace.reasons()
        reasons = time.perf_counter() - began
        began = time.perf_counter()
        for step in range(0, trace.steps, max(1, trace.steps // 100)):
            trace.frame(step)
        frames = (time.perf_counter() - began) / min(100, trace.steps)
        began = time.perf_counter()
        whole = SalvagedTrace(trace)
        readable = time.perf_counter() - began
        if whole.missing:
            raise AssertionError("bench trace: expected a readable trace, got one with gaps")
    return {
        "series_s": series,
        "series_cpu_s": processor,
        "reasons_s": reasons,
        "frame_ms": frames * 1e3,
        "readable_s": readable,
    }
