"""Rollouts: one decision, then the critic's policy (Tesauro & Galperin 1996; §3.1.2)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, one_hot, ranked, require
from modules.messages import WorldSpec
from modules.ports import Imagination

_LISTED = 16
"""So many candidates are reported."""


class Rollout:
    """Tries every first action once; from there on each future does what the critic prefers.

    One step of policy improvement: what is compared is what the agent would go on to do, not the
    best that could happen. A search that takes the least of many futures finds those the model
    is wrong about. Where the critic says nothing of actions the first one is kept up.

    It leaves the critic's choice only for a plan that is better by `min_gain_std` times the
    deviation, over the actions tried, of what imagination makes of them from what the critic says
    of them. One of the two is wrong by about as much, and a gain smaller than that is as likely a
    loss (of policy improvement that must not harm: Petrik et al. 2016). To the energy of every plan
    that begins otherwise that much is added.

    The proposals are not looked at: its plans are those of the critic's policy.
    """

    class Config(BaseModel):
        """Rollouts for discrete actions.

        `branching_factor`: how many first actions are tried, those the critic prefers; 0: all.
        `min_gain_std`: how much better, in deviations, a plan has to be for the critic's choice to
        be left.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["rollout"] = "rollout"
        branching_factor: int = Field(0, ge=0)
        min_gain_std: float = Field(1.5, ge=0)

    def __init__(self, *, branching_factor: int, min_gain_std: float, world: WorldSpec) -> None:
        require("rollout", world, discrete=True)
        self.branching_factor, self.min_gain_std, self.choices = (
            branching_factor,
            min_gain_std,
            world.actions.size,
        )

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`. A budget too small costs first actions, down to two, then the
        horizon. Of equals the one the critic prefers comes first, then chance decides.
        """
        rows, discount = len(proposals), imagination.discount
        horizon = max(1, min(proposals.shape[2], budget // 2))
        branching_factor = max(
            1, min(self.branching_factor or self.choices, self.choices, budget // horizon)
        )
        state = imagination.start()
        tried = chance.uniform(key, "rollout", self.choices).argsort(-1)
        if (said := imagination.expected(state)) is not None:
            said, liked = said.gather(-1, tried).sort(stable=True, dim=-1)
            tried = tried.gather(-1, liked)
        tried = tried[:, :branching_factor].flatten()
        state = state.select(torch.arange(rows).repeat_interleave(branching_factor))
        cost = torch.zeros(rows * branching_factor, dtype=torch.float64)
        alive, path = torch.ones_like(cost), []
        for t in range(horizon):
            path.append(tried)
            action = one_hot(tried, self.choices)
            if t == 0:
                cost = cost + imagination.first(action)
            state = imagination.step(state, action)
            cost = cost + discount**t * alive * imagination.toll(state, t)
            alive = alive * (1 - state.ended)
            if (expected := imagination.expected(state)) is not None:
                tried = expected.argmin(-1)
        cost = cost + discount**horizon * alive * imagination.rest(state, horizon)
        total = cost.view(rows, branching_factor)
        if said is not None:
            apart = (total - said[:, :branching_factor]).std(-1, correction=0, keepdim=True)
            total[:, 1:] += self.min_gain_std * apart
        paths = torch.stack(path, -1).view(rows, branching_factor, horizon, 1)
        found = ranked(paths, total, _LISTED)
        return Planned(one_hot(found.candidates.squeeze(-1), self.choices), found.energies.float())
