"""Imagination: the world model and the cost, joined under a directive (LeCun 2022, §3.1.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.messages import ActionSpec, Directive, Situation, State
from modules.ports import Cost, Trajectory, WorldModel


class Imagination:
    """What may follow from a situation, and what it would cost.

    Counts one model call for each row, candidate and step imagined, into `spent` [B] int64.
    Everything is raw tensors and differentiable in actions and z; whoever only searches wraps
    its search in `torch.no_grad()`.

    A plan costs Σ_{t=1..H} γ^{t-1} a_t u·IC(s_t) + γ^H a_{H+1} v·TC(s_H) with
    a_t = Π_{k<t} (1 - ended_k): the energies of the states it leads to while it lasts, then what
    the critic expects after the last. The paper's F = Σ C(s[t]) (§3.1.2 step 4) adds the critic
    at every step; a critic that already holds the discounted future would be counted many times,
    so that sum is there as `literal`, not as the default.
    """

    def __init__(
        self,
        world_model: WorldModel,
        cost: Cost,
        situation: Situation,
        directive: Directive,
        actions: ActionSpec,
        discount: float,
        literal: bool = False,
        spent: Tensor | None = None,
    ) -> None:
        self.world_model, self.costs = world_model, cost
        self.situation, self.directive = situation, directive
        self.actions, self.discount, self.literal = actions, discount, literal
        self.spent = torch.zeros(situation.batch, dtype=torch.int64) if spent is None else spent
        self._index: Tensor | None = None
        self._parent: Imagination | None = None

    def rows(self, index: Tensor) -> Imagination:
        """The same for the rows at `index` [M]; what it spends is counted here too."""
        part = Imagination(
            self.world_model,
            self.costs,
            self.situation.rows(index),
            self.directive.rows(index),
            self.actions,
            self.discount,
            self.literal,
        )
        part._index, part._parent = index, self
        return part

    def start(self) -> State:
        """The present state of each row, [B ...]; costs no model call."""
        return self.world_model.start(self.situation, self.directive)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The states after `action` [M A]; M = B*N, the N candidates of a row side by side."""
        self._spend(torch.full_like(self.spent, len(action) // self.situation.batch))
        after = self.world_model.step(state, action, z)
        return self.world_model.complete(after) if self.costs.reads_latent() else after

    def _spend(self, calls: Tensor) -> None:
        """Counts `calls` [B] here and in whatever this is a part of."""
        self.spent += calls
        if self._parent is not None and self._index is not None:
            whole = torch.zeros_like(self._parent.spent)
            self._parent._spend(whole.index_add_(0, self._index, calls))

    def _weights(self, weights: Tensor, states: int) -> Tensor:
        """Each row's weights [B K] for its candidates, [M K]."""
        return weights.repeat_interleave(states // len(weights), 0)

    def energy(self, state: State) -> Tensor:
        """u·IC(s) plus risk times uncertainty, [M]."""
        felt = self.costs.intrinsic(state)
        total = (felt * self._weights(self.directive.u, len(felt))).sum(-1)
        return total + self._weights(self.directive.risk, len(felt)) * state.uncertainty

    def value(self, state: State) -> Tensor:
        """v·TC(s), [M]: what the critic expects to come; 0 while the critic is fresh."""
        if not self.costs.speaks():
            return state.ended.new_zeros(len(state.ended))
        state = self.world_model.complete(state)
        return self.costs.future(state, self._weights(self.directive.v, len(state.ended)))

    def rollout(self, actions: Tensor, z: Tensor | None = None) -> Trajectory:
        """Imagines the sequences `actions` [B N H A] under latents `z` [B N H Z]."""
        rows, several, horizon, _ = actions.shape
        state = self.start().rows(torch.arange(rows).repeat_interleave(several))
        states, energies = [], []
        for t in range(horizon):
            chosen = None if z is None else z[:, :, t].flatten(0, 1)
            state = self.step(state, actions[:, :, t].flatten(0, 1), chosen)
            felt = self.energy(state)
            if self.literal:
                felt = felt + self.value(state)
            states.append(state)
            energies.append(felt)
        grid = (rows, several, horizon)
        return Trajectory(
            states=states,
            energies=torch.stack(energies, -1).view(grid),
            ended=torch.stack([s.ended for s in states], -1).view(grid),
            value=(
                energies[0].new_zeros(rows, several)
                if self.literal
                else self.value(state).view(rows, several)
            ),
            uncertainty=torch.stack([s.uncertainty for s in states], -1).view(grid),
        )

    def cost(self, trajectory: Trajectory) -> Tensor:
        """What each future costs, [B N]; lower is better."""
        return plan_cost(trajectory.energies, trajectory.ended, trajectory.value, self.discount)


def plan_cost(energies: Tensor, ended: Tensor, value: Tensor, discount: float) -> Tensor:
    """Σ γ^{t-1} a_t e_t + γ^H a_{H+1} value, with a_t = Π_{k<t} (1 - ended_k).

    `energies`, `ended` are [... H], `value` [...]; the result is [...].
    """
    horizon = energies.shape[-1]
    lasting = torch.cumprod(1 - ended, -1)
    alive = torch.cat([torch.ones_like(lasting[..., :1]), lasting[..., :-1]], -1)
    powers = discount ** torch.arange(horizon, dtype=energies.dtype)
    return (powers * alive * energies).sum(-1) + discount**horizon * lasting[..., -1] * value
