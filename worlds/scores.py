"""What people, chance and published agents score in Atari games."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).parent / "data" / "atari_scores.csv"


@cache
def published() -> dict[str, dict[str, float]]:
    """Score by game (`Pong`) and column (`human`, `random`, agents at 100k steps).

    Sources are in `worlds/data/SOURCES.md`; a figure nobody published is missing.
    """
    with _TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        row["game"]: {name: float(text) for name, text in row.items() if name != "game" and text}
        for row in rows
    }


@cache
def columns() -> tuple[str, ...]:
    """The published agents one may compare with, in the table's order."""
    with _TABLE.open(newline="") as file:
        names = next(csv.reader(file))
    return tuple(name for name in names if name not in ("game", "random", "human"))


def game_of(world: str) -> str | None:
    """`Pong` of `ALE/Pong-v5`; None where the world is no game that has published scores."""
    game = world.removeprefix("ALE/").removesuffix("-v5")
    return game if world == f"ALE/{game}-v5" and game in published() else None


def published_score(world: str, column: str) -> float | None:
    """What a column of the table has for a world; None where nobody published one."""
    game = game_of(world)
    return None if game is None else published()[game].get(column)


def human_normalised(world: str, score: float) -> float | None:
    """(score - random) / (human - random) of an id like `ALE/Pong-v5`; None where unknown."""
    game = game_of(world)
    if game is None:
        return None
    known = published()[game]
    return (score - known["random"]) / (known["human"] - known["random"])
