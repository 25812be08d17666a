"""Published Atari scores: human, random, and agents at 100k steps."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).parent / "data" / "atari_scores.csv"


@cache
def _table() -> list[dict[str, str]]:
    with _TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


@cache
def published() -> dict[str, dict[str, float]]:
    """Unclipped score by game (`Pong`) and column (`human`, `random`, agents at 100k steps).

    Sources are in `worlds/data/SOURCES.md`; unpublished scores are absent.
    """
    return {
        row["game"]: {name: float(text) for name, text in row.items() if name != "game" and text}
        for row in _table()
    }


def columns() -> tuple[str, ...]:
    """Names of the published agents, in the order of the table."""
    return tuple(name for name in _table()[0] if name not in ("game", "random", "human"))


def game_of(world: str) -> str | None:
    """`Pong` for `ALE/Pong-v5`; None for an id that is no Atari game with published scores."""
    game = world.removeprefix("ALE/").removesuffix("-v5")
    return game if world == f"ALE/{game}-v5" and game in published() else None


def published_score(world: str, column: str) -> float | None:
    """The unclipped score of an id like `ALE/Pong-v5` in `column`; None where unpublished."""
    game = game_of(world)
    return None if game is None else published()[game].get(column)


def human_normalised(world: str, score: float) -> float | None:
    """(score - random) / (human - random) for an id like `ALE/Pong-v5`, else None.

    0 is the random policy's score, 1 the human one (Mnih et al. 2015).
    """
    game = game_of(world)
    if game is None:
        return None
    scores = published()[game]
    return (score - scores["random"]) / (scores["human"] - scores["random"])
