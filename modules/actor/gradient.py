"""Gradient descent through imagination (LeCun 2022, §3.1.2 step 5; Kelley 1960, Bryson 1962)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, held, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Imagination

_MAX_START = 0.99
"""Largest magnitude of an initial action, below the bound 1, where tanh has a slope."""


class Gradient:
    """Descends the gradient of a plan's cost, taken through cost and world model, to the actions.

    Actions are the tanh of free parameters, so that they stay within bounds; Adam changes the
    parameters. Several restarts descend side by side: the proposals, and noise around the first
    of them.
    """

    class Config(Frozen):
        """Gradient descent for continuous actions and a differentiable world model.

        `num_restarts` and `iterations`: fewer where the budget is smaller. `learning_rate`: step
        size of Adam, before the tanh. `init_std`: standard deviation of the restarts around the
        first proposal, before the tanh. `action_repeat`: every decision lasts this many steps.
        `final_rate`: share of the learning rate that is left in the last iteration, reached by half
        a cosine; 1: constant.
        """

        num_restarts: int = Field(4, ge=1, le=256)
        iterations: int = Field(16, ge=1, le=1024)
        learning_rate: float = Field(0.2, gt=0, le=10)
        init_std: float = Field(0.5, ge=0, le=10)
        final_rate: float = Field(1.0, gt=0, le=1)
        action_repeat: int = Field(1, ge=1, le=32)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("gradient", world, discrete=False)
        self.num_restarts, self.iterations = config.num_restarts, config.iterations
        self.learning_rate, self.init_std = config.learning_rate, config.init_std
        self.action_repeat, self.final_rate = config.action_repeat, config.final_rate

    def size(self, horizon: int, budget: int) -> tuple[int, int, int]:
        """Horizon, iterations and restarts. A small budget reduces restarts, then iterations, then
        the horizon.
        """
        horizon = max(1, min(horizon, budget))
        iterations = max(1, min(self.iterations, budget // horizon))
        return horizon, iterations, max(1, min(self.num_restarts, budget // (horizon * iterations)))

    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        horizon, iterations, num_restarts = self.size(proposals.shape[2], budget)
        start = proposals[:, :num_restarts, : horizon : self.action_repeat]
        start = start.clamp(-_MAX_START, _MAX_START).atanh()
        more = num_restarts - start.shape[1]
        noise = chance.normal(key, "gradient", more, *start.shape[2:])
        free = torch.cat([start, start[:, :1] + self.init_std * noise], 1).detach()
        mean, square = torch.zeros_like(free), torch.zeros_like(free)
        tried, costs = [], []
        for turn in range(1, iterations + 1):
            with torch.enable_grad():
                free.requires_grad_(True)
                actions = held(free.tanh(), self.action_repeat, horizon)
                cost = imagination.cost(imagination.rollout(actions))
                # A model without a gradient leaves the restarts as they are, even where the cost
                # has a graph because the critic has parameters.
                slope = None
                if cost.requires_grad:
                    (slope,) = torch.autograd.grad(cost.sum(), free, allow_unused=True)
                if slope is None:
                    slope = torch.zeros_like(free)
            tried.append(actions.detach())
            costs.append(cost.detach())
            # Adam (Kingma & Ba 2015) written out: every row and restart is its own problem.
            mean = 0.9 * mean + 0.1 * slope
            square = 0.99 * square + 0.01 * slope.square()
            step = (mean / (1 - 0.9**turn)) / ((square / (1 - 0.99**turn)).sqrt() + 1e-8)
            progress = (turn - 1) / max(1, iterations - 1)
            decayed = 1 - (1 - self.final_rate) * (1 - math.cos(math.pi * progress)) / 2
            free = free.detach() - self.learning_rate * decayed * step
        return ranked(torch.cat(tried, 1), torch.cat(costs, 1))
