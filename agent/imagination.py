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

    Below 1, `lookahead` λ mixes what plans of 0 to H steps cost, as a λ-return does (Sutton 1988):
    Σ_{h<H} (1-λ) λ^h F_h + λ^H F_H, F_0 being what the critic says of the first action at once,
    where it knows actions. A model's errors grow with the horizon, a critic's do not: so each
    corrects the other.
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
        td_lambda: float = 1.0,
        spent: Tensor | None = None,
    ) -> None:
        self.world_model, self.costs = world_model, cost
        self.situation, self.directive = situation, directive
        self.actions, self.discount = actions, discount
        self.literal, self.td_lambda = literal, td_lambda
        self.spent = torch.zeros(situation.batch, dtype=torch.int64) if spent is None else spent
        self._index: Tensor | None = None
        self._parent: Imagination | None = None
        self._asked: tuple[State, Tensor | None] | None = None

    def select(self, index: Tensor) -> Imagination:
        """The same for the rows at `index` [M]; what it spends is counted here too."""
        part = Imagination(
            self.world_model,
            self.costs,
            self.situation.select(index),
            self.directive.select(index),
            self.actions,
            self.discount,
            self.literal,
            self.td_lambda,
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
        return self.world_model.complete(after) if self.costs.needs_latent() else after

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
        if not self.costs.is_initialised():
            return state.ended.new_zeros(len(state.ended))
        if (expected := self.expected(state)) is not None:
            return expected.amin(-1)
        state = self.world_model.complete(state)
        return self.costs.critic_value(state, self._weights(self.directive.v, len(state.ended)))

    def expected(self, state: State) -> Tensor | None:
        """v·TC(s, a) of each discrete action, [M A], which is what a policy would go by; None where
        the critic knows no actions or is fresh.
        """
        if not self.costs.is_initialised():
            return None
        # A plan asks several times about a state: for its toll, its rest and what is done next.
        if self._asked is None or self._asked[0] is not state:
            whole = self.world_model.complete(state)
            weights = self._weights(self.directive.v, len(state.ended))
            self._asked = state, self.costs.action_values(whole, weights)
        return self._asked[1]

    def first(self, action: Tensor) -> Tensor:
        """What the first actions [M A] of plans add by themselves: (1-λ)·F_0, [M]."""
        heads = self.situation.energies.critic_actions
        if self.literal or self.td_lambda == 1 or heads is None:
            return action.new_zeros(len(action))
        said = (heads * self.directive.v.unsqueeze(1)).sum(-1)
        said = said.repeat_interleave(len(action) // len(said), 0)
        return (1 - self.td_lambda) * (action * said).sum(-1)

    def toll(self, state: State, t: int) -> Tensor:
        """What being in `state` after step t (from 0) adds to a plan's cost, [M], before γ^t."""
        energy = self.energy(state)
        if self.literal:
            return energy + self.value(state)
        if self.td_lambda == 1:
            return energy
        later = self.discount * (1 - state.ended) * self.value(state)
        return self.td_lambda ** (t + 1) * (energy + (1 - self.td_lambda) * later)

    def rest(self, state: State, steps: int) -> Tensor:
        """What the critic has to add after the last of `steps`, [M], before γ^steps."""
        if self.literal:
            return state.ended.new_zeros(len(state.ended))
        value = self.value(state)
        return value if self.td_lambda == 1 else self.td_lambda ** (steps + 1) * value

    def rollout(self, actions: Tensor, z: Tensor | None = None) -> Trajectory:
        """Imagines the sequences `actions` [B N H A] under latents `z` [B N H Z]."""
        rows, several, horizon, _ = actions.shape
        state = self.start().select(torch.arange(rows).repeat_interleave(several))
        states, tolls = [], []
        for t in range(horizon):
            chosen = None if z is None else z[:, :, t].flatten(0, 1)
            action = actions[:, :, t].flatten(0, 1)
            state = self.step(state, action, chosen)
            toll = self.toll(state, t)
            states.append(state)
            tolls.append(toll + self.first(action) if t == 0 else toll)
        grid = (rows, several, horizon)
        return Trajectory(
            states=states,
            energies=torch.stack(tolls, -1).view(grid),
            ended=torch.stack([s.ended for s in states], -1).view(grid),
            value=self.rest(state, horizon).view(rows, several),
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
