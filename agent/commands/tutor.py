"""`sextet tutor`: teaches the learned configurator when to think."""

from __future__ import annotations

import json
import time
from pathlib import Path

from agent.assembly.load import RunRequest
from agent.recording import checkpoint
from agent.recording.run_folder import RunFolder
from agent.tuning.evolution import tutor as teach

SEED = 1_000_000
"""Added to the seed of the run, so that no episode of a study taught what it measures."""


def tutor(
    request: RunRequest,
    run: Path | None,
    *,
    price: float,
    generations: int,
    population: int,
    episodes: int,
    steps: int,
    traces: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Teaches into a folder, new or unfinished, and prints what it came to."""
    began = time.monotonic()
    folder = run
    if folder is None:
        made = RunFolder.create(None, f"tutor-{request.agent}")
        folder = made.path
    new = run is None
    try:
        best = teach(
            request,
            folder,
            price=price,
            generations=generations,
            population=population,
            episodes=episodes,
            steps=steps,
            seed=int(request.flags.get("seed", 0)) + SEED,
            report=lambda told: print(told, flush=True),
            traces=traces,
        )
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()
    facts = checkpoint.load(best).facts
    untaught, judged = facts["untaught"], facts["judged"]
    print(f"untaught  {_outcome(untaught)}")
    if facts["from_traces"]:
        print(f"by traces {_outcome(facts['from_traces'])}")
    print(f"best      {_outcome(judged)}")
    print(f"use it    --configurator.kind=learned --configurator.weights={folder}")
    if as_json:
        figures = {
            "world": request.agent, "price": price, "generations": facts["generation"],
            "population": population, "episodes": episodes, "steps": steps,
            "untaught": untaught, "from_traces": facts["from_traces"], "best": judged,
            "seconds": round(time.monotonic() - began, 1), "run": str(folder),
        }  # fmt: skip
        print(json.dumps(figures))


def _outcome(found: dict[str, float]) -> str:
    return (
        f"{found['value']:.4g}: return {found['score']:.4g} for {found['model_calls']:.0f} model "
        "calls an episode (of those that chose the best)"
    )
