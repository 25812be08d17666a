"""The cross-entropy method: sample plans, refit to the best, repeat (Rubinstein 1999)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, held, one_hot, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Imagination


def rounds(budget: int, horizon: int, samples: int, iterations: int) -> tuple[int, int, int]:
    """(horizon, samples, iterations), each at least 1, whose product is at most `budget` >= 1.

    A budget below horizon·samples·iterations reduces first the samples, down to an eighth of
    those configured, then the iterations, then the horizon.
    """
    fewest = max(2, samples // 8)
    iterations = max(1, min(iterations, budget // (fewest * horizon)))
    horizon = max(1, min(horizon, budget // fewest))
    return horizon, max(1, min(samples, budget // (horizon * iterations))), iterations


def elites(sequences: Tensor, costs: Tensor, count: int) -> Tensor:
    """The `count` cheapest of `sequences` [B N ...] by `costs` [B N], as [B count ...]."""
    best = costs.topk(count, largest=False).indices
    return sequences[torch.arange(len(sequences))[:, None], best]


def refit_gaussian(best: Tensor, min_std: float) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation, at least `min_std`, of the elites [B E ...]; each
    [B ...].
    """
    return best.mean(1), best.std(1, correction=0).clamp_min(min_std)


def refit_categorical(best: Tensor, smoothing: float) -> Tensor:
    """Probability of each action [B K A]: (1 - smoothing) · its share of the elites [B E K A]
    (one-hot) + smoothing / A.
    """
    return (1 - smoothing) * best.mean(1) + smoothing / best.shape[-1]


class _Search(ABC):
    """The rounds of both methods; a distribution is a pair of tensors [B K A], K decisions."""

    def __init__(self, config: CEM.Config | CategoricalCEM.Config) -> None:
        self.samples, self.iterations = config.samples, config.iterations
        self.elite_fraction, self.action_repeat = config.elite_fraction, config.action_repeat

    def size(self, horizon: int, budget: int) -> tuple[int, int, int]:
        """Horizon, samples and iterations, see `rounds`."""
        return rounds(budget, horizon, self.samples, self.iterations)

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        horizon, samples, iterations = self.size(proposals.shape[2], budget)
        decisions = proposals[:, :, : horizon : self.action_repeat]
        count = decisions.shape[2]
        # The first round tries the proposals; each later round keeps the best plan of the last.
        carried = decisions[:, :samples]
        tried, costs = [], []
        distribution = self._initial(carried)
        for turn in range(iterations):
            fresh = samples - carried.shape[1]
            drawn = self._sample(*distribution, key, f"cem {turn}", fresh, count)
            decisions = torch.cat([carried, drawn], 1)
            sequences = held(decisions, self.action_repeat, horizon)
            if turn == 0:
                sequences[:, : carried.shape[1]] = proposals[:, : carried.shape[1], :horizon]
            cost = imagination.cost(imagination.rollout(sequences))
            tried.append(sequences)
            costs.append(cost)
            best = elites(decisions, cost, max(1, round(self.elite_fraction * samples)))
            distribution = self._refit(best)
            carried = best[:, :1]
        return ranked(torch.cat(tried, 1), torch.cat(costs, 1))

    @abstractmethod
    def _initial(self, decisions: Tensor) -> tuple[Tensor, Tensor]:
        """The first distribution, from the proposals [B P K A]."""

    @abstractmethod
    def _sample(
        self, first: Tensor, second: Tensor, key: Tensor, name: str, samples: int, count: int
    ) -> Tensor:
        """Draws [B samples count A] from the distribution (first, second)."""

    @abstractmethod
    def _refit(self, best: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution fitted to the elites [B E K A]."""


class CEM(_Search):
    """For continuous actions: independent normal distributions, narrowed round by round.

    The first mean is the rest of the last plan, the first standard deviation `init_std`.
    """

    class Config(Frozen):
        """The cross-entropy method for continuous actions.

        `samples` a round and `iterations`: fewer where the budget is smaller. `elite_fraction` of
        the samples is refitted to. `action_repeat`: every decision lasts this many steps.
        `init_std` and `min_std`: first and least standard deviation, actions being in [-1, 1].
        """

        samples: int = Field(64, ge=2, le=4096)
        iterations: int = Field(4, ge=1, le=64)
        elite_fraction: float = Field(0.125, gt=0, le=1)
        action_repeat: int = Field(1, ge=1, le=32)
        init_std: float = Field(0.6, gt=0, le=2)
        min_std: float = Field(0.05, ge=0, le=1)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("cem", world, discrete=False)
        super().__init__(config)
        self.init_std, self.min_std = config.init_std, config.min_std

    def _initial(self, decisions: Tensor) -> tuple[Tensor, Tensor]:
        return decisions[:, 0], torch.full_like(decisions[:, 0], self.init_std)

    def _sample(
        self, first: Tensor, second: Tensor, key: Tensor, name: str, samples: int, count: int
    ) -> Tensor:
        noise = chance.normal(key, name, samples, count, first.shape[-1])
        return (first.unsqueeze(1) + second.unsqueeze(1) * noise).clamp(-1, 1)

    def _refit(self, best: Tensor) -> tuple[Tensor, Tensor]:
        return refit_gaussian(best, self.min_std)


class CategoricalCEM(_Search):
    """For discrete actions: a distribution over the actions of each decision, sharpened.

    The rest of the last plan begins with probability `warm_start_prob` at each decision, any
    action with the remainder.
    """

    class Config(Frozen):
        """The cross-entropy method for discrete actions.

        `samples` a round and `iterations`: fewer where the budget is smaller. `elite_fraction` of
        the samples is refitted to, mixed with `smoothing` of the uniform distribution.
        `action_repeat`: every decision lasts this many steps. `warm_start_prob`: weight of the
        last plan in the first distribution.
        """

        samples: int = Field(16, ge=2, le=4096)
        iterations: int = Field(3, ge=1, le=64)
        elite_fraction: float = Field(0.25, gt=0, le=1)
        action_repeat: int = Field(4, ge=1, le=32)
        smoothing: float = Field(0.2, ge=0, le=1)
        warm_start_prob: float = Field(0.3, ge=0, lt=1)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("cem-categorical", world, discrete=True)
        super().__init__(config)
        self.smoothing, self.warm_start_prob = config.smoothing, config.warm_start_prob

    def _initial(self, decisions: Tensor) -> tuple[Tensor, Tensor]:
        choices = decisions.shape[-1]
        probabilities = (
            self.warm_start_prob * decisions[:, 0] + (1 - self.warm_start_prob) / choices
        )
        return probabilities, probabilities

    def _sample(
        self, first: Tensor, second: Tensor, key: Tensor, name: str, samples: int, count: int
    ) -> Tensor:
        choices = first.shape[-1]
        noise = chance.gumbel(key, name, samples, count, choices)
        return one_hot((first.log().unsqueeze(1) + noise).argmax(-1), choices)

    def _refit(self, best: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = refit_categorical(best, self.smoothing)
        return probabilities, probabilities
