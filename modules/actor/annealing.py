"""Simulated annealing of plans (Kirkpatrick, Gelatt & Vecchi 1983; LeCun 2022, §3.1.2 step 5)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, comparable, held, one_hot, ranked
from modules.messages import Frozen, WorldSpec
from modules.ports import Imagination

_LEAST_ROUNDS = 16
"""Plans of each chain where there is more than one."""


class Annealing:
    """Changes a plan at random, and keeps the change with probability min(1, exp(-ΔJ / T)).

    Some chains run side by side, one from each proposal, the others from random plans. A change
    replaces the decisions of a random stretch: discrete ones by one random action, continuous ones
    by themselves plus normal noise, which narrows over the rounds. T falls geometrically, from
    `first_temperature` to `last_temperature` times the deviation of all costs so far, so that it
    needs no unit. Early rounds accept what is worse and leave local minima, late ones do not.

    Works for discrete and for continuous actions.
    """

    class Config(Frozen):
        """Simulated annealing for actions of both kinds.

        `chains`: plans changed side by side, fewer where the budget is smaller; the budget says how
        often. `action_repeat`: every decision lasts this many steps. `first_temperature` and
        `last_temperature`: in standard deviations of the costs so far. `max_rounds`: changes of
        each chain at most. `init_std`: standard deviation of the first continuous changes, actions
        being in [-1, 1]; that of the last ones is a tenth.
        """

        chains: int = Field(8, ge=1, le=1024)
        max_rounds: int = Field(1000, ge=1, le=100_000)
        action_repeat: int = Field(4, ge=1, le=32)
        first_temperature: float = Field(0.3, gt=0, le=100)
        last_temperature: float = Field(0.01, gt=0, le=100)
        init_std: float = Field(0.5, gt=0, le=2)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        self.config = config
        self.choices = world.actions.size if world.actions.discrete else 0

    def size(self, horizon: int, budget: int) -> tuple[int, int, int]:
        """Horizon, chains and rounds, the first included. A small budget reduces the rounds, then
        the chains, then the horizon.
        """
        horizon = max(1, min(horizon, budget))
        plans = budget // horizon
        # Chains without changes are random search: each is to have some.
        chains = max(1, min(self.config.chains, plans // _LEAST_ROUNDS))
        return horizon, chains, max(1, min(self.config.max_rounds + 1, plans // chains))

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        settings = self.config
        horizon, chains, rounds = self.size(proposals.shape[2], budget)
        proposed = proposals[:, :chains, :horizon]
        decisions = proposed[:, :, :: settings.action_repeat]
        shape = (chains - decisions.shape[1], *decisions.shape[2:])
        decisions = torch.cat([decisions, self._random(key, "annealing", *shape)], 1)
        sequences = held(decisions, settings.action_repeat, horizon)
        # A proposal may change its actions more often than decisions do.
        sequences[:, : proposed.shape[1]] = proposed
        costs = imagination.cost(imagination.rollout(sequences))
        tried, paid = [sequences], [costs]
        costs = comparable(costs)
        cooling = settings.last_temperature / settings.first_temperature
        for turn in range(1, rounds):
            progress = (turn - 1) / max(1, rounds - 2)
            changed = self._changed(decisions, key, turn, 1 - 0.9 * progress)
            sequences = held(changed, settings.action_repeat, horizon)
            after = imagination.cost(imagination.rollout(sequences))
            tried.append(sequences)
            paid.append(after)
            scale = comparable(torch.cat(paid, 1)).std(1, correction=0, keepdim=True)
            luck = chance.uniform(key, f"annealing accept {turn}", chains).double()
            temperature = settings.first_temperature * cooling**progress * scale.clamp_min(1e-12)
            accepted = luck.log() < (costs - after) / temperature
            decisions = changed.where(accepted[:, :, None, None], decisions)
            costs = after.where(accepted, costs)
        return ranked(torch.cat(tried, 1), torch.cat(paid, 1))

    def _random(self, key: Tensor, name: str, *shape: int) -> Tensor:
        """Random decisions [B *shape]; the last axis is that of an encoded action."""
        if self.choices:
            return one_hot(chance.integers(key, name, self.choices, *shape[:-1]), self.choices)
        return 2 * chance.uniform(key, name, *shape) - 1

    def _changed(self, decisions: Tensor, key: Tensor, turn: int, width: float) -> Tensor:
        """The decisions [B N K A] with those of a random stretch of each chain replaced; noise has
        `width` times its first deviation.
        """
        _, chains, count, size = decisions.shape
        place = chance.uniform(key, f"annealing place {turn}", chains, 2)
        first = (place[..., :1] * count).long()
        # Log-uniform: a change of one decision is as likely as one of two or three.
        stretch = (count ** place[..., 1:]).round().long().clamp_min(1)
        step = torch.arange(count)
        within = ((step >= first) & (step < first + stretch)).unsqueeze(-1)
        if self.choices:
            drawn = self._random(key, f"annealing {turn}", chains, 1, size)
            return torch.where(within, drawn, decisions)
        noise = chance.normal(key, f"annealing {turn}", chains, 1, size)
        noise = width * self.config.init_std * noise
        return torch.where(within, (decisions + noise).clamp(-1, 1), decisions)
