"""`sextet eval`: whole episodes, and what they came to."""

from __future__ import annotations

import json
import statistics
from typing import Any

from agent.commands.failure import running
from agent.evaluation import whole_episodes
from agent.loading import Request, prepared
from worlds.scores import human_normalised


def evaluate(request: Request, as_json: bool) -> None:
    """Plays `request.flags["episodes"]` episodes and prints a table, or one JSON object."""
    assembly = prepared(request)
    settings, world = assembly.config.settings, assembly.world
    wanted = int(request.flags["episodes"])
    try:
        with running():
            lived = whole_episodes(assembly.agent, world, wanted, settings.seed, settings.steps)
    finally:
        world.close()
    returns, summary = lived.returns, lived.summary
    mean = statistics.fmean(returns) if returns else None
    figures: dict[str, Any] = {
        "agent": request.agent or "showpiece",
        "world": world.spec.id,
        "protocol": world.spec.protocol,
        "episodes": len(returns),
        "mean_return": mean,
        "std_return": statistics.pstdev(returns) if returns else None,
        "human_normalised": None if mean is None else human_normalised(world.spec.id, mean),
        "steps": summary.steps,
        "mode2_share": summary.mode2_share,
        "model_calls": summary.model_calls,
    }
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        shown = "–" if value is None else f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name:<18} {shown}")
