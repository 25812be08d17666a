"""The counters of a training's checkpoint, checked before they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from modules.messages import ConfigError
from modules.validation import LARGEST, validated


class _Health(BaseModel):
    """Counts of the collapse monitor: actions [2 A] summed and squared, largest energies [K]."""

    actions: list[list[float]] = Field(min_length=2, max_length=2)
    steps: int = Field(ge=0)
    most: list[float] = Field(max_length=1024)


class TrainingFacts(BaseModel):
    """What `Training.facts` wrote: finite numbers of the right kinds."""

    steps: int = Field(ge=0)
    updates: int = Field(ge=0)
    owed: float = Field(ge=0)
    episodes: int = Field(ge=0)
    returns: list[float] = Field(max_length=1000)
    running: list[float] = Field(max_length=65_536)
    best: float | None
    evaluation: tuple[float, float, float, int] | None
    unjudged: bool
    sums: dict[str, float]
    updates_seen: int = Field(ge=0)
    health: _Health
    agent_steps: int = Field(ge=0)
    drives: dict[str, str]
    seconds: float = Field(ge=0, le=LARGEST)
    cpu_seconds: float = Field(ge=0, le=LARGEST)
    traces: list[str] = []


def require_facts(
    facts: Mapping[str, Any], rows: int, replay_ratio: float, actions: int, drives: int
) -> None:
    """Raises ConfigError, one line, where the facts of a checkpoint are not those of a training
    with `rows` environments, `actions` numbers an action and `drives` drives.
    """
    checked = validated(TrainingFacts, facts, "checkpoint facts.json ")
    counts: dict[str, tuple[int, int]] = {
        "running": (len(checked.running), rows),
        "health.actions": (max(map(len, checked.health.actions)), actions),
        "health.actions.1": (min(map(len, checked.health.actions)), actions),
        "health.most": (len(checked.health.most), drives),
    }
    for name, (got, expected) in counts.items():
        if got != expected:
            raise ConfigError(
                f"checkpoint facts.json {name}: expected {expected} numbers, got {got}; resume "
                "with the settings it was written with"
            )
    # A training that is stopped amid the updates of a turn owes the rest of them.
    if checked.owed > rows * replay_ratio + 1:
        raise ConfigError(
            f"checkpoint facts.json owed: expected at most {rows * replay_ratio + 1:g} updates, "
            f"got {checked.owed:g}; take an older checkpoint"
        )
