"""Cost of a trace: time a step and bytes by column, in Breakout.

A Mode-1 agent plays one row of Breakout at 84×84, recorded as by `sextet play`, keyframes included;
then the trace is read as the page reads it.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from agent.assembly.load import prepared, request_for
from agent.bench.support.clock import Span, duration
from agent.engines.threads import one_thread
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


@one_thread()
def run(steps: int = 20_000) -> dict[str, Any]:
    """The figures of a run of `steps`.

    `ms_a_step`, `cpu_ms_a_step`: mean wall and processor time to record one step of one row,
    keyframes included; `median_ms_a_step` depends less on other programs. `megabytes`: the trace
    file. `bytes_a_step` by column. `series_s`: reading every small field of all steps.
    """
    with tempfile.TemporaryDirectory() as place:
        return _measured(RunFolder.create(Path(place) / "run", "bench"), steps)


def _measured(folder: RunFolder, steps: int) -> dict[str, Any]:
    settings = ("perception.kind=pixels-nature", "configurator.kind=fixed", "configurator.mode=1")
    assembly = prepared(request_for(WORLD, settings, seed=SEED, num_envs=1))
    spans, began = list[Span](), time.perf_counter()
    with ExitStack() as closing:
        recorder = closing.enter_context(assembly.recorder(folder))
        for moment in live(assembly.agent, assembly.world, steps, SEED):
            spans.append(duration(partial(recorder.add, moment)))
        spans.append(duration(closing.close))
    elapsed = time.perf_counter() - began
    assembly.world.close()
    wall, processor = zip(*spans, strict=True)
    figures: dict[str, Any] = {
        "steps": steps,
        "ms_a_step": sum(wall) / steps * 1e3,
        "cpu_ms_a_step": sum(processor) / steps * 1e3,
        "median_ms_a_step": median(wall) * 1e3,
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
    with Trace.open(path) as trace:
        shown = range(0, trace.steps, max(1, trace.steps // 100))
        series = duration(lambda: [trace.series(name) for name in SERIES])
        reasons = duration(trace.reasons)
        frames = duration(lambda: [trace.frame(step) for step in shown])
        readable = duration(partial(SalvagedTrace, trace))
        if SalvagedTrace(trace).missing:
            raise AssertionError("bench trace: expected a readable trace, got one with gaps")
    return {
        "series_s": series.wall,
        "series_cpu_s": series.processor,
        "reasons_s": reasons.wall,
        "frame_ms": frames.wall / len(shown) * 1e3,
        "readable_s": readable.wall,
    }
