"""`sextet eval`: whole episodes and their returns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from agent.api.evaluate import evaluate as call
from agent.commands.text import bounds, note, number
from agent.reporting.score_table import compared_columns
from agent.view.progress import EvaluationView
from worlds.scores import human_normalised, published_score


def evaluate(
    agent: str | None = None,
    overrides: Sequence[str] = (),
    compare: str | None = None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Plays episodes and prints a table, or one JSON object with `as_json`.

    `compare` names published agents to compare with, as "SPR,BBF_RR2". `options` are those of
    `agent.evaluate`.
    """
    columns = compared_columns(compare)
    with EvaluationView() as view:
        scores = call(agent, *overrides, on_progress=view.show, on_note=note, **options)
    figures = scores.as_dict()
    returns = figures.pop("returns")
    compared = {column: _published(scores.world, column) for column in columns}
    if as_json:
        print(json.dumps({**figures, "compared": compared, "returns": returns}))
        return
    if scores.episodes < scores.episodes_requested:
        figures["episodes"] = (
            f"{scores.episodes} of {scores.episodes_requested} ended; no mean of the short ones"
        )
    del figures["episodes_requested"]
    shown = {**figures, "returns": returns, **{f"than {c}": v for c, v in compared.items()}}
    for field, value in shown.items():
        print(f"{field:<18} {_shown(value)}")


def _published(world: str, column: str) -> dict[str, float] | None:
    """A published agent's score in a world, also human-normalised; None where not published."""
    known = published_score(world, column)
    normalised = None if known is None else human_normalised(world, known)
    if known is None or normalised is None:
        return None
    return {"score": known, "human_normalised": normalised}


def _shown(value: Any) -> str:
    if value is None or isinstance(value, float):
        return number(value)
    if isinstance(value, tuple):
        return bounds(value)
    if isinstance(value, dict):
        return f"{number(value['score'])} (human-normalised {number(value['human_normalised'])})"
    return str(value)
