"""The cross-entropy method: sample plans, refit to the best, again (Rubinstein 1999; §3.1.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, one_hot, ranked, require
from modules.messages import WorldSpec
from modules.ports import Imagination


def rounds(budget: int, horizon: int, samples: int, iterations: int) -> tuple[int, int, int]:
    """(horizon, samples, iterations) whose product is within `budget` >= 1.

    Too small a budget first costs samples, down to an eighth of those wanted, then iterations,
    then the horizon.
    """
    fewest = max(2, samples // 8)
    iterations = max(1, min(iterations, budget // (fewest * horizon)))
    horizon = max(1, min(horizon, budget // fewest))
    return horizon, max(1, min(samples, budget // (horizon * iterations))), iterations


def elites(sequences: Tensor, costs: Tensor, count: int) -> Tensor:
    """The `count` cheapest of `sequences` [B N ...] by `costs` [B N], [B count ...]."""
    best = costs.topk(count, largest=False).indices
    return sequences[torch.arange(len(sequences))[:, None], best]


def refit_gaussian(best: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (of the population) of the elites [B E ...], the latter at
    `least` that; each [B ...].
    """
    return best.mean(1), best.std(1, correction=0).clamp_min(least)


def refit_categorical(best: Tensor, smoothing: float) -> Tensor:
    """(1 - smoothing) × how often the elites [B E H A] (one-hot) take an action + smoothing / A,
    [B H A].
    """
    return (1 - smoothing) * best.mean(1) + smoothing / best.shape[-1]


class _Search(ABC):
    """What both methods share: the rounds, the held decisions, the best plan kept."""

    def __init__(
        self, *, samples: int, iterations: int, elite_fraction: float, action_repeat: int
    ) -> None:
        self.samples, self.iterations = samples, iterations
        self.elite_fraction, self.action_repeat = elite_fraction, action_repeat

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        wanted = proposals.shape[2]
        horizon, samples, iterations = rounds(budget, wanted, self.samples, self.iterations)
        knots = proposals[:, :, : horizon : self.action_repeat]
        bends = knots.shape[2]
        # The first round tries the proposals, each later one keeps the best plan of the last.
        carried = knots[:, :samples]
        found, costs = [], []
        first, second = self._begin(carried)
        for turn in range(iterations):
            fresh = samples - carried.shape[1]
            drawn = self._draw(first, second, key, f"cem {turn}", fresh, bends)
            knots = torch.cat([carried, drawn], 1)
            sequences = knots.repeat_interleave(self.action_repeat, 2)[:, :, :horizon]
            if turn == 0:
                sequences[:, : carried.shape[1]] = proposals[:, : carried.shape[1], :horizon]
            cost = imagination.cost(imagination.rollout(sequences))
            found.append(sequences)
            costs.append(cost)
            best = elites(knots, cost, max(1, round(self.elite_fraction * samples)))
            first, second = self._refit(best)
            carried = best[:, :1]
        return ranked(torch.cat(found, 1), torch.cat(costs, 1), 16)

    @abstractmethod
    def _begin(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution to begin with, in two numbers a decision and action."""

    @abstractmethod
    def _draw(
        self, first: Tensor, second: Tensor, key: Tensor, name: str, count: int, bends: int
    ) -> Tensor:
        """`count` sequences of decisions, [B count bends A]."""

    @abstractmethod
    def _refit(self, best: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution fitted to the elites [B E bends A]."""


class CEM(_Search):
    """For continuous actions: normal distributions, narrowed round by round.

    It begins around the rest of the last plan, as wide as `spread`.
    """

    class Config(BaseModel):
        """The cross-entropy method for continuous actions.

        `samples` a round and `iterations`: fewer where the budget is smaller. `elite_fraction` of
        the samples is refitted to. `action_repeat`: every decision lasts this many steps. `spread`
        and `min_std`: standard deviations at first and at least, actions being in [-1, 1].
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["cem"] = "cem"
        samples: int = Field(64, ge=2, le=4096)
        iterations: int = Field(4, ge=1, le=64)
        elite_fraction: float = Field(0.125, gt=0, le=1)
        action_repeat: int = Field(1, ge=1, le=32)
        init_std: float = Field(0.6, gt=0, le=2)
        min_std: float = Field(0.05, ge=0, le=1)

    def __init__(
        self,
        *,
        samples: int,
        iterations: int,
        elite_fraction: float,
        action_repeat: int,
        init_std: float,
        min_std: float,
        world: WorldSpec,
    ) -> None:
        require("cem", world, discrete=False)
        super().__init__(
            samples=samples,
            iterations=iterations,
            elite_fraction=elite_fraction,
            action_repeat=action_repeat,
        )
        self.spread, self.least = init_std, min_std

    def _begin(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        return knots[:, 0], torch.full_like(knots[:, 0], self.spread)

    def _draw(
        self, first: Tensor, second: Tensor, key: Tensor, name: str, count: int, bends: int
    ) -> Tensor:
        luck = chance.normal(key, name, count, bends, first.shape[-1])
        return (first.unsqueeze(1) + second.unsqueeze(1) * luck).clamp(-1, 1)

    def _refit(self, best: Tensor) -> tuple[Tensor, Tensor]:
        return refit_gaussian(best, self.least)


class CategoricalCEM(_Search):
    """For discrete actions: a distribution over the actions of each decision, sharpened.

    It begins leaning towards the rest of the last plan.
    """

    class Config(BaseModel):
        """The cross-entropy method for discrete actions.

        `samples` a round and `iterations`: fewer where the budget is smaller. `elite_fraction` of
        the samples is refitted to, mixed with `smoothing` of the uniform distribution.
        `action_repeat`: every decision lasts this many steps. `warm_start_prob`: probability the
        last plan begins with.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["cem-categorical"] = "cem-categorical"
        samples: int = Field(16, ge=2, le=4096)
        iterations: int = Field(3, ge=1, le=64)
        elite_fraction: float = Field(0.25, gt=0, le=1)
        action_repeat: int = Field(4, ge=1, le=32)
        smoothing: float = Field(0.2, ge=0, le=1)
        warm_start_prob: float = Field(0.3, ge=0, lt=1)

    def __init__(
        self,
        *,
        samples: int,
        iterations: int,
        elite_fraction: float,
        action_repeat: int,
        smoothing: float,
        warm_start_prob: float,
        world: WorldSpec,
    ) -> None:
        require("cem-categorical", world, discrete=True)
        super().__init__(
            samples=samples,
            iterations=iterations,
            elite_fraction=elite_fraction,
            action_repeat=action_repeat,
        )
        self.smoothing, self.warm_start_prob = smoothing, warm_start_prob

    def _begin(self, knots: Tensor) -> tuple[Tensor, Tensor]:
        odds = self.warm_start_prob * knots[:, 0] + (1 - self.warm_start_prob) / knots.shape[-1]
        return odds, odds

    def _draw(
        self, first: Tensor, second: Tensor, key: Tensor, name: str, count: int, bends: int
    ) -> Tensor:
        choices = first.shape[-1]
        luck = chance.gumbel(key, name, count, bends, choices)
        return one_hot((first.log().unsqueeze(1) + luck).argmax(-1), choices)

    def _refit(self, best: Tensor) -> tuple[Tensor, Tensor]:
        odds = refit_categorical(best, self.smoothing)
        return odds, odds
