"""A module under test: an agent that contains it, after a few steps in a real environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import SLOTS, Kinds
from agent.contracts.promises import require_equal
from agent.imagination import Imagination
from agent.live import live
from modules import chance
from modules.messages import Directive, Message, Moment, Situation

WORLD = "CartPole-v1"
ROWS, STEPS, SEED = 3, 12, 11
HORIZON, CALLS = 4, 24


def port_of(slot: str) -> str:
    """The port of a slot: that of `planner` is `actor`, that of `drive` is `cost`."""
    if slot == "drive":
        return "cost"
    return next((outer for outer, inner in SLOTS.items() if slot in inner), slot)


@dataclass(frozen=True)
class Subject:
    """An agent in a world, and the moments of its first `STEPS` steps in `ROWS` environments."""

    slot: str
    tree: ConfigTree
    kinds: Kinds
    assembly: Assembly
    moments: list[Moment]

    @property
    def module(self) -> Any:
        """The module at the port of the slot under test."""
        return getattr(self.modules, port_of(self.slot))

    @property
    def modules(self) -> Any:
        """The six modules of the agent."""
        return self.assembly.agent.modules

    @property
    def last(self) -> Moment:
        """The last moment."""
        return self.moments[-1]

    @property
    def dims(self) -> dict[str, int]:
        """The length of each named axis of the agent's messages."""
        return dict(self.assembly.agent.dims)

    def situation(self) -> Situation:
        """The situation in which the last moment was decided."""
        return self.last.situation(self.moments[-2], chance.keys(SEED, ROWS, STEPS - 1))

    def imagination(self, situation: Situation, directive: Directive) -> Imagination:
        """The agent's imagination in a situation."""
        return self.assembly.agent.imagination(situation, directive)

    def random_actions(self, count: int, place: str) -> Tensor:
        """Encoded actions [count A], drawn at random."""
        spec = self.assembly.agent.world.actions
        key = chance.keys(SEED, count, 0)
        if spec.discrete:
            return spec.encode(chance.integers(key, place, spec.size, 1)[:, 0])
        return chance.uniform(key, place, spec.size) * 2 - 1


@contextmanager
def running(
    slot: str, kind: str, world: str = WORLD, kinds: Kinds | None = None
) -> Iterator[Subject]:
    """An agent with this kind of module in `slot` and default modules elsewhere, run some steps.

    `kinds` are the known kinds; by default those of this package and of installed plugins (see
    `agent.assembly.build.known_kinds`). Raises ConfigError where the kind does not fit the world.
    """
    kinds = kinds or known_kinds()
    tree = settings(slot, kind, world)
    if has_levels(slot, kind, kinds):
        tree = merge(tree, {"world_model": {"kind": "hierarchical-jepa"}})
    assembly = assemble(tree, kinds)
    try:
        moments = list(live(assembly.agent, assembly.world, STEPS * ROWS, SEED))
        yield Subject(slot, tree, kinds, assembly, moments)
    finally:
        assembly.world.close()


def has_levels(slot: str, kind: str, kinds: Kinds) -> bool:
    """Whether this is a planner that needs a world model with levels."""
    return slot == "planner" and "levels_above" in signature(kinds.find(slot, kind)).parameters


def settings(slot: str, kind: str, world: str) -> ConfigTree:
    """The configuration of `running`; short horizons and few model calls keep it quick."""
    port = port_of(slot)
    inner: ConfigTree = {"drives": [kind]} if slot == "drive" else {slot: {"kind": kind}}
    directive = {"horizon_steps": HORIZON, "model_calls": CALLS}
    if slot == "latent":
        inner["kind"] = "latent-jepa"
        directive["futures"] = 2
    tree: ConfigTree = {port: {"kind": kind} if port == slot else inner}
    configurator: ConfigTree = {"kind": kind} if slot == "configurator" else {"kind": "surprise"}
    if slot in ("policy", "planner"):
        configurator = {"kind": "fixed", "mode": 1 if slot == "policy" else 2}
    rest = {
        "world": {"id": world, "num_envs": ROWS},
        "seed": SEED,
        "configurator": configurator,
        "directive": directive,
    }
    if kind == "world-state":
        # A memory that the world model writes to is refused where none writes or reads.
        writer = {"world_model": {"memory_writes": 4, "reads_memory": True}}
        rest |= {**writer, "cost": {"critic": {"reads_memory": True}}}
    return merge(tree, rest)


def single(row: int) -> Tensor:
    """The index [1] that selects one row."""
    return torch.tensor([row])


def require_independent_rows(whole: Message, alone: Callable[[Tensor], Message]) -> None:
    """Requires that `alone(index)`, with one row, returns what `whole` has in that row."""
    for index in map(single, range(ROWS)):
        require_equal(whole.select(index), alone(index), exact=False)
