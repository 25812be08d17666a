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


def human_normalised(world: str, score: float) -> float | None:
    """(score - random) / (human - random) of an id like `ALE/Pong-v5`; None where unknown."""
    game = world.removeprefix("ALE/").removesuffix("-v5")
    if not world.startswith("ALE/") or game not in published():
        return None
    known = published()[game]
    return (score - known["random"]) / (known["human"] - known["random"])
