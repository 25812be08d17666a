"""Whether a training can be resumed from a checkpoint: checked before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, Field
from torch import Tensor

from agent.learning.learner import Learner
from agent.recording.checkpoint import Checkpoint, Fits
from modules.messages import ConfigError, MessageError
from modules.validation import LARGEST, validated


@runtime_checkable
class _FormsKnown(Protocol):
    """A memory that knows the names, shapes and types of its tensors."""

    def require(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises MessageError where those of `tensors` differ."""


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


def resumable_forms(learner: Learner, rows: int) -> Fits:
    """A check of the forms of a checkpoint's tensors against a learner in `rows` environments,
    before they are read; it raises ConfigError. The agent is reset.
    """
    # The forms of a memory's state are known once it is reset, as a training does anyway.
    learner.agent.reset(rows, learner.seed)
    memory = learner.agent.modules.memory

    def fits(group: str, forms: Mapping[str, Tensor]) -> None:
        if group == "weights":
            learner.require_weights(forms)
        elif group == "learner":
            learner.require_state(forms)
        elif group == "memory" and isinstance(memory, _FormsKnown):
            try:
                memory.require(forms)
            except MessageError as error:
                raise ConfigError(f"{error}; resume with its own settings") from None

    return fits


def require_resumable(saved: Checkpoint, learner: Learner, rows: int) -> None:
    """Raises ConfigError, one line, where a checkpoint is not of the training of this learner in
    `rows` environments.
    """
    for group in ("weights", "learner", "memory"):
        if group not in saved.tensors:
            raise ConfigError(
                f"checkpoint: expected tensors of {group}, got none; resume from a numbered one"
            )
    learner.require(saved.tensors["weights"], saved.tensors["learner"])
    for name, tensor in saved.tensors["memory"].items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ConfigError(
                f"checkpoint: memory {name}: expected finite numbers, got others; take an older one"
            )
    modules, world = learner.agent.modules, learner.agent.world
    facts = validated(TrainingFacts, saved.facts, "checkpoint facts.json ")
    health = facts.health
    counts = {
        "running": ([facts.running], rows),
        "health.actions": (health.actions, world.actions.size),
        "health.most": ([health.most], len(modules.cost.drives)),
    }
    for name, (lists, expected) in counts.items():
        for numbers in lists:
            if len(numbers) != expected:
                raise ConfigError(
                    f"checkpoint facts.json {name}: expected {expected} numbers, got "
                    f"{len(numbers)}; resume with the settings it was written with"
                )
    # A training that is stopped amid the updates of a turn owes the rest of them.
    most = rows * learner.config.replay_ratio + 1
    if facts.owed > most:
        raise ConfigError(
            f"checkpoint facts.json owed: expected at most {most:g} updates, got {facts.owed:g}; "
            "take an older checkpoint"
        )
