"""`sextet tune`: trains the learned configurator when to think."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.assembly.load import request_for
from agent.commands.text import number
from agent.engines.choice import engine_for
from agent.engines.schedule import clock
from agent.recording import checkpoint
from agent.recording.plain_json import dumps
from agent.recording.run_folder import RunFolder
from agent.tuning.evolution import Generation, Tuning
from agent.tuning.evolution import tune as call
from modules.validation import validated

SEED = 1_000_000
"""Added to the seed of the run, so that no episode of a study is one of the tuning."""


def tune(
    world: str,
    overrides: Sequence[str] = (),
    run: Path | None = None,
    seed: int | None = None,
    recordings: Sequence[Path] = (),
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Tunes into a folder, new or unfinished, and prints the outcome of the best weights.

    `options` are the fields of `Tuning` other than its seed, and those of an agent.
    """
    start, done = time.monotonic(), 0
    engine = engine_for(
        options.pop("engine", None), options.pop("jobs", None), options.pop("address", None),
        usual_jobs=1,
    )  # fmt: skip
    tuning = {name: options.pop(name) for name in Tuning.model_fields if name in options}
    plan = validated(Tuning, {**tuning, "seed": (seed or 0) + SEED}, "tune ")
    folder = RunFolder.free(f"tune-{world}") if run is None else run

    def show(generation: Generation) -> None:
        nonlocal done
        done += 1
        left_s = (time.monotonic() - start) / done * (generation.of - generation.number)
        print(f"{generation}  left {clock(left_s)}", flush=True)

    try:
        best = call(
            request_for(world, overrides, seed=seed, **options),
            folder,
            plan,
            report=show,
            traces=recordings,
            engine=engine,
        )
    except KeyboardInterrupt:
        if folder.is_dir():
            print(f"run       {folder}  (stopped, kept)")
        raise
    facts = checkpoint.load(best).facts
    print(f"untuned   {_outcome(facts['untaught'])}")
    if facts["from_traces"]:
        print(f"by traces {_outcome(facts['from_traces'])}")
    print(f"best      {_outcome(facts['judged'])}")
    print(f"use it    --configurator.kind=learned --configurator.weights={folder}")
    if as_json:
        figures = {
            "world": world, **tuning, "generations": facts["generation"],
            "untaught": facts["untaught"], "from_traces": facts["from_traces"],
            "best": facts["judged"],
            "seconds": round(time.monotonic() - start, 1), "run": str(folder),
        }  # fmt: skip
        print(dumps(figures))


def _outcome(outcome: dict[str, float]) -> str:
    return (
        f"{number(outcome['value'])}: return {number(outcome['score'])} for "
        f"{outcome['model_calls']:.0f} model calls an episode (in held-out episodes)"
    )
