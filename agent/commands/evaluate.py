"""`sextet eval`: whole episodes, and what they came to."""

from __future__ import annotations

import json
import statistics
from typing import Any

from agent.assembly.load import RunRequest, prepared
from agent.commands.failure import running
from agent.learning.evaluation import score, whole_episodes
from agent.reporting.score_table import compared_columns
from worlds.scores import human_normalised, published_score

HELD_SEED = 2_000_000
"""The seed of an evaluation where none was named: no training lives by it, nor judges itself."""


def evaluate(request: RunRequest, as_json: bool, compare: str | None = None) -> None:
    """Plays `request.flags["episodes"]` episodes and prints a table, or one JSON object.

    `compare` names published agents to stand beside, as in `SPR,BBF_RR2`.
    """
    columns = compared_columns(compare)
    assembly = prepared(request)
    settings, world = assembly.config.settings, assembly.world
    wanted = int(request.flags["episodes"])
    seed = int(request.flags.get("seed", HELD_SEED))
    try:
        with running():
            lived = whole_episodes(assembly.agent, world, wanted, seed, settings.steps)
    finally:
        world.close()
    returns, summary, name = lived.returns, lived.summary, world.spec.id
    mean = statistics.fmean(returns) if returns else None
    sure = score(returns) if returns else None
    figures: dict[str, Any] = {
        "agent": request.agent or "showpiece",
        "world": name,
        "protocol": world.spec.protocol,
        "episodes": len(returns),
        "mean_return": mean,
        "std_return": statistics.pstdev(returns) if returns else None,
        "human_normalised": None if mean is None else human_normalised(name, mean),
        "steps": summary.steps,
        "mode2_share": summary.mode2_share,
        "model_calls": summary.model_calls,
        "ms_per_step": 1e3 / summary.steps_per_s if summary.steps_per_s else None,
        "interval": None if sure is None else [sure.low, sure.high],
        "seed": seed,
        "checkpoint": None if assembly.trained is None else str(assembly.trained),
        "compared": {column: _beside(name, column) for column in columns},
        "returns": returns,
    }
    if as_json:
        print(json.dumps(figures))
        return
    compared = figures.pop("compared")
    for field, value in {**figures, **{f"than {c}": v for c, v in compared.items()}}.items():
        print(f"{field:<18} {_shown(value)}")


def _beside(world: str, column: str) -> dict[str, float] | None:
    """A published agent's score in a world and what it is to people's; None where not published."""
    known = published_score(world, column)
    normalised = None if known is None else human_normalised(world, known)
    if known is None or normalised is None:
        return None
    return {"score": known, "human_normalised": normalised}


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(_shown(part) for part in value)}]"
    if isinstance(value, dict):
        return f"{_shown(value['score'])} (human-normalised {_shown(value['human_normalised'])})"
    return str(value)
