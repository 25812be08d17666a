"""Gradient descent through imagination (LeCun 2022, §3.1.2 step 5; Kelley 1960, Bryson 1962)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, ranked, require
from modules.messages import WorldSpec
from modules.ports import Imagination

_INSIDE = 0.99
"""Starting actions are brought this far inside the bounds, where tanh has a slope."""


class Gradient:
    """Carries the energy's gradient back through cost and world model to the actions.

    Actions are the tanh of free numbers, so that they keep within bounds; Adam moves the numbers.
    Several starts are improved side by side: the proposals, and noise around the first of them.
    """

    class Config(BaseModel):
        """Gradient descent for continuous actions and a differentiable world model.

        `num_restarts` and `iterations`: fewer where the budget is smaller. `learning_rate`: step
        size of Adam, before the tanh. `init_std`: standard deviation of the starts, before the
        tanh.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["gradient"] = "gradient"
        num_restarts: int = Field(4, ge=1, le=256)
        iterations: int = Field(16, ge=1, le=1024)
        learning_rate: float = Field(0.2, gt=0, le=10)
        init_std: float = Field(0.5, ge=0, le=10)

    def __init__(
        self,
        *,
        num_restarts: int,
        iterations: int,
        learning_rate: float,
        init_std: float,
        world: WorldSpec,
    ) -> None:
        require("gradient", world, discrete=False)
        self.num_restarts, self.iterations = num_restarts, iterations
        self.learning_rate, self.init_std = learning_rate, init_std

    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`. A budget too small costs starts, then iterations, then horizon."""
        horizon = max(1, min(proposals.shape[2], budget))
        iterations = max(1, min(self.iterations, budget // horizon))
        num_restarts = max(1, min(self.num_restarts, budget // (horizon * iterations)))
        given = proposals[:, :num_restarts, :horizon].clamp(-_INSIDE, _INSIDE).atanh()
        more = num_restarts - given.shape[1]
        luck = chance.normal(key, "gradient", more, horizon, given.shape[-1])
        free = torch.cat([given, given[:, :1] + self.init_std * luck], 1).detach()
        rise, square = torch.zeros_like(free), torch.zeros_like(free)
        found, costs = [], []
        for turn in range(1, iterations + 1):
            with torch.enable_grad():
                free.requires_grad_(True)
                actions = free.tanh()
                cost = imagination.cost(imagination.rollout(actions))
                # A model that is not differentiable leaves the starts as they are, though what it
                # foretells may be felt by a critic with weights of its own.
                slope = None
                if cost.requires_grad:
                    (slope,) = torch.autograd.grad(cost.sum(), free, allow_unused=True)
                if slope is None:
                    slope = torch.zeros_like(free)
            found.append(actions.detach())
            costs.append(cost.detach())
            # Adam (Kingma & Ba 2015) written out: every row and start is its own problem.
            rise = 0.9 * rise + 0.1 * slope
            square = 0.99 * square + 0.01 * slope.square()
            step = (rise / (1 - 0.9**turn)) / ((square / (1 - 0.99**turn)).sqrt() + 1e-8)
            free = free.detach() - self.learning_rate * step
        return ranked(torch.cat(found, 1), torch.cat(costs, 1), 16)
