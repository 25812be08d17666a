"""The interface of planners (Mode-2, LeCun 2022, §3.1.2 steps 2 to 5)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modules.messages import ConfigError, WorldSpec
from modules.ports import Imagination

MAX_CANDIDATES = 16
"""Candidates that a planner returns at most."""


class Planned(NamedTuple):
    """The sequences a planner evaluated, cheapest first.

    `candidates` [B N H A] encoded actions, `energies` [B N] float32 their predicted costs,
    ascending; inf where a row had fewer than N. H may be shorter than that of the proposals where
    the budget is small. `subgoals`: as in `Plan`, [B J D], of a planner with levels.
    """

    candidates: Tensor
    energies: Tensor
    subgoals: Tensor | None = None


class Planner(Protocol):
    """Searches in imagination for the sequence of actions of least cost.

    A planner may also offer `size(horizon, budget) -> tuple`, what horizon and budget lead to, such
    as horizon, samples and iterations: rows of equal size are planned for together. One that plans
    on J levels above the lowest has `subgoal_shape`, (J, D).
    """

    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """The cheapest sequences evaluated.

        `proposals` [B P H A] are sequences to begin from, H the horizon in steps; `key` [B] int64
        derives the random numbers; each row spends at most `budget` >= 1 model calls.
        """


def require(kind: str, world: WorldSpec, discrete: bool) -> None:
    """Raises ConfigError where a planner or policy does not fit the world's actions."""
    if world.actions.discrete != discrete:
        expected, got = ("discrete", "continuous") if discrete else ("continuous", "discrete")
        other = "gaussian, cem or icem" if discrete else "categorical, beam or cem-categorical"
        raise ConfigError(
            f"config actor kind {kind!r}: expected {expected} actions, {world.id} has {got} ones; "
            f"try {other}"
        )


def cheapest(sequences: Tensor, costs: Tensor) -> tuple[Tensor, Tensor]:
    """The `MAX_CANDIDATES` cheapest of `sequences` [B N ...] by `costs` [B N], ascending; equal
    costs keep their order.
    """
    costs, order = costs.sort(dim=-1, stable=True)
    order = order[:, :MAX_CANDIDATES]
    return sequences[torch.arange(len(order))[:, None], order], costs[:, :MAX_CANDIDATES]


def ranked(sequences: Tensor, costs: Tensor) -> Planned:
    """`Planned` of `sequences` [B N H A] that cost `costs` [B N]."""
    candidates, energies = cheapest(sequences, costs)
    return Planned(candidates, energies.float())


def held(decisions: Tensor, action_repeat: int, horizon: int) -> Tensor:
    """Sequences [B N H A] in which each of the decisions [B N K A] lasts `action_repeat` steps."""
    return decisions.repeat_interleave(action_repeat, 2)[:, :, :horizon]


def comparable(costs: Tensor) -> Tensor:
    """Costs [B N] in which a NaN or infinity counts as the worst finite one of its row; unchanged
    in rows without a finite one, whose plan is refused.
    """
    finite = costs.isfinite()
    if bool(finite.all()):
        return costs
    worst = costs.where(finite, -torch.inf).amax(1, keepdim=True)
    return costs.where(finite | ~worst.isfinite(), worst)


def one_hot(index: Tensor, size: int) -> Tensor:
    """Encoded discrete actions [... A] of their numbers [...]."""
    return torch.nn.functional.one_hot(index, size).float()
