"""What every planner is asked and answers (Mode-2, LeCun 2022, §3.1.2 steps 2 to 5)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modules.messages import ConfigError, WorldSpec
from modules.ports import Imagination


class Planned(NamedTuple):
    """The sequences a planner considered, the cheapest first.

    `candidates` [B N H A] encoded actions, `energies` [B N] what each is predicted to cost,
    ascending; inf where a row had fewer than N. H may be shorter than asked where the budget is.
    """

    candidates: Tensor
    energies: Tensor


class Planner(Protocol):
    """Searches for a cheaper sequence of actions in imagination."""

    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """The cheapest sequences found.

        `proposals` [B N H A] are the sequences to begin from, H the horizon; `key` [B] derives
        the random numbers; no row spends more than `budget` >= 1 model calls.
        """


def require(kind: str, world: WorldSpec, discrete: bool) -> None:
    """Raises ConfigError where a planner or policy does not fit the world's actions."""
    if world.actions.discrete != discrete:
        wanted, got = ("discrete", "continuous") if discrete else ("continuous", "discrete")
        other = "gaussian, cem or gradient" if discrete else "categorical, beam or cem-categorical"
        raise ConfigError(
            f"config actor kind {kind!r}: expected {wanted} actions, {world.id} has {got} ones; "
            f"try {other}"
        )


def ranked(sequences: Tensor, costs: Tensor, most: int) -> Planned:
    """The `most` cheapest of `sequences` [B N H A] by `costs` [B N]."""
    energies, order = costs.sort(dim=-1, stable=True)
    order = order[:, :most]
    index = order[:, :, None, None].expand(-1, -1, *sequences.shape[2:])
    return Planned(sequences.gather(1, index), energies[:, :most])


def one_hot(index: Tensor, size: int) -> Tensor:
    """Encoded discrete actions [... A] of their numbers [...]."""
    return torch.nn.functional.one_hot(index, size).float()
