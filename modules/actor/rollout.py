"""Rollouts: one decision, then the critic's policy (Tesauro & Galperin 1996; §3.1.2)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, one_hot, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Imagination


class Rollout:
    """Tries each first action once and continues every future by the critic's greedy policy.

    One step of policy improvement: plans are compared under the policy that the agent would
    follow. Minimising over many futures exploits errors of the model.
    Without action values the first action is repeated.

    The plan deviates from the critic's greedy action only if the gain exceeds `min_gain_std` ·
    std_a(Q_rollout - Q_critic), the deviation being over the actions tried: one of the two is
    wrong by about as much, and a smaller gain is as likely a loss (policy improvement that does no
    harm: Petrik et al. 2016). That amount is added to the energies of all plans but the greedy one.

    The proposals are not used.
    """

    class Config(Frozen):
        """Rollouts for discrete actions.

        `branching_factor`: how many first actions are tried, those of least critic value; 0: all.
        `min_gain_std`: gain, in standard deviations, above which a plan replaces the critic's
        greedy action. `action_repeat`: every decision lasts this many steps.
        """

        branching_factor: int = Field(0, ge=0)
        min_gain_std: float = Field(1.5, ge=0)
        action_repeat: int = Field(1, ge=1, le=32)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("rollout", world, discrete=True)
        self.branching_factor, self.min_gain_std = config.branching_factor, config.min_gain_std
        self.choices, self.action_repeat = world.actions.size, config.action_repeat

    def size(self, horizon: int, budget: int) -> tuple[int, int]:
        """Horizon and first actions tried. A small budget reduces the first actions, down to two,
        then the horizon.
        """
        horizon = max(1, min(horizon, budget // 2))
        actions = min(self.branching_factor or self.choices, self.choices, budget // horizon)
        return horizon, max(1, actions)

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`. Of plans of equal cost that of least critic value comes first, then
        chance decides.
        """
        horizon, branching_factor = self.size(proposals.shape[2], budget)
        futures = imagination.begin(1)
        action = chance.uniform(key, "rollout", self.choices).argsort(-1)
        values = imagination.action_values(futures)
        critic = None if values is None else values[:, 0]
        if critic is not None:
            critic, order = critic.gather(-1, action).sort(stable=True, dim=-1)
            action = action.gather(-1, order)
        action = action[:, :branching_factor]
        futures = futures.select(torch.zeros_like(action))
        path = []
        for step in range(1, horizon + 1):
            path.append(action)
            futures = imagination.extend(futures, one_hot(action.flatten(), self.choices))
            if step % self.action_repeat:
                continue
            if (values := imagination.action_values(futures)) is not None:
                action = values.argmin(-1)
        total = imagination.cost(futures)
        if critic is not None:
            gap = total - critic[:, :branching_factor]
            total[:, 1:] += self.min_gain_std * gap.std(-1, correction=0, keepdim=True)
        return ranked(one_hot(torch.stack(path, -1), self.choices), total)
