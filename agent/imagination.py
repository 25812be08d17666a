"""Imagination: world model and cost under one directive (LeCun 2022, §3.1.2 steps 3 and 4)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from modules.messages import Directive, Situation, State
from modules.ports import IMAGINED_METHODS, Cost, Futures, WorldModel, gate


class Imagination:
    """Imagined futures of B situations, and what they cost.

    The cost of a plan of H actions, lower is better:

        F_H = Σ_{t=1..H} γ^{t-1} p_t E(s_t) + γ^H p_{H+1} v·TC(s_H)
        E(s) = u·IC(s) + risk·uncertainty(s),   p_t = Π_{k<t} (1 - ended_k)

    so the state in which an episode ends still counts. The paper's F = Σ_t C(s[t]) adds the
    critic at every step; a critic that already is a discounted sum would then be counted many
    times, so that form is the option `sum_critic_every_step`.

    With `td_lambda` λ < 1 the cost is the λ-return over horizons (Sutton 1988),

        Σ_{h<H} (1-λ) λ^h F_h + λ^H F_H,   F_0 = v·TC(s_0, a_1), or 0 without action values

    because the error of a model grows with the horizon and that of a critic does not.

    `model_calls` [B] int64 counts each row, candidate and step imagined. Tensors are unchecked,
    and differentiable in actions and z: planners that need no gradient use `torch.no_grad()`.
    """

    def __init__(
        self,
        world_model: WorldModel,
        cost: Cost,
        situation: Situation,
        directive: Directive,
        *,
        discount: float,
        sum_critic_every_step: bool,
        td_lambda: float,
    ) -> None:
        self.world_model, self.cost_module = world_model, cost
        self.situation, self.directive = situation, directive
        self.discount = discount
        self.sum_critic_every_step, self.td_lambda = sum_critic_every_step, td_lambda
        self.model_calls = torch.zeros(situation.batch, dtype=torch.int64)
        self._whole: tuple[Imagination, Tensor] | None = None
        self._last_values: tuple[State, Tensor | None] | None = None

    def select(self, index: Tensor) -> Imagination:
        """Imagination of the rows `index` [M] alone; its model calls are counted here too."""
        part = copy.copy(self)
        part.situation, part.directive = self.situation.select(index), self.directive.select(index)
        part.model_calls = torch.zeros(len(index), dtype=torch.int64)
        part._whole, part._last_values = (self, index), None
        return part

    def checked(self, dims: Mapping[str, int]) -> Imagination:
        """The same from its beginning, with all that world model and cost return checked: the first
        message with a number out of range raises MessageError, which names the module. `dims`: the
        lengths of axes; candidates have more rows than its B.
        """
        dims = {axis: length for axis, length in dims.items() if axis != "B"}
        return Imagination(
            gate("world_model", self.world_model, dims, IMAGINED_METHODS),
            gate("cost", self.cost_module, dims, IMAGINED_METHODS),
            self.situation,
            self.directive,
            discount=self.discount,
            sum_critic_every_step=self.sum_critic_every_step,
            td_lambda=self.td_lambda,
        )

    # -- states -----------------------------------------------------------------------------

    def start(self) -> State:
        """The present states, B rows; costs no model call."""
        return self.world_model.start(self.situation, self.directive)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The states after `action` [M A]; M = B·N, the N candidates of a row side by side."""
        self._count(torch.full_like(self.model_calls, len(action) // self.situation.batch))
        after = self.world_model.step(state, action, z)
        return self.world_model.complete(after) if self.cost_module.needs_latent() else after

    def _count(self, calls: Tensor) -> None:
        """Adds model calls [B] here and in the imagination that this is a part of."""
        self.model_calls += calls
        if self._whole is not None:
            whole, index = self._whole
            whole._count(torch.zeros_like(whole.model_calls).index_add_(0, index, calls))

    def state_ids(self, state: State) -> Tensor | None:
        """Numbers [M] that are equal where states look alike, from a world model that has them
        (`modules.ports.WorldModel`); None where latents are to be compared.
        """
        state_ids: Any = getattr(self.world_model, "state_ids", None)
        if state_ids is None or self.cost_module.needs_latent():
            return None
        numbers: Tensor = state_ids(state)
        return numbers

    # -- energies of states -----------------------------------------------------------------

    def _per_candidate(self, weights: Tensor, candidates: int) -> Tensor:
        """Weights of each row [B ...] repeated for its candidates, [M ...]."""
        return weights.repeat_interleave(candidates // len(weights), 0)

    def energy(self, state: State) -> Tensor:
        """E(s) = u·IC(s) + risk·uncertainty(s), [M]."""
        intrinsic = self.cost_module.intrinsic(state)
        energy = (intrinsic * self._per_candidate(self.directive.u, len(intrinsic))).sum(-1)
        risk = self._per_candidate(self.directive.risk, len(intrinsic))
        return energy + risk * state.uncertainty

    def critic_value(self, state: State) -> Tensor:
        """v·TC(s), [M], at the action of least cost where the critic has action values; 0 while the
        critic is untrained (its last layer is exactly zero).
        """
        if not self.cost_module.is_initialised():
            return state.ended.new_zeros(len(state.ended))
        if (values := self.action_values(state)) is not None:
            return values.amin(-1)
        state = self.world_model.complete(state)
        v = self._per_candidate(self.directive.v, len(state.ended))
        return self.cost_module.critic_value(state, v)

    def action_values(self, state: State) -> Tensor | None:
        """v·TC(s, a) of each discrete action, [M A], by which a greedy policy acts; None where
        the critic has no action values or no update yet.
        """
        if not self.cost_module.is_initialised():
            return None
        # Planners read the values of one state up to three times: as step cost, as final value
        # and to choose the next action.
        if self._last_values is None or self._last_values[0] is not state:
            v = self._per_candidate(self.directive.v, len(state.ended))
            values = self.cost_module.action_values(self.world_model.complete(state), v)
            self._last_values = state, values
        return self._last_values[1]

    # -- costs of plans ---------------------------------------------------------------------

    def begin(self, candidates: int) -> Futures:
        """`candidates` N futures of each row, of 0 steps."""
        rows = self.situation.batch
        zero = torch.zeros(rows, candidates, dtype=torch.float64)
        state = self.start().select(torch.arange(rows).repeat_interleave(candidates))
        return Futures(state, cost=zero, survival=zero + 1, steps=0)

    def extend(self, futures: Futures, action: Tensor, z: Tensor | None = None) -> Futures:
        """The futures after one more `action` [M A] under the latent z [M Z], M = B·N."""
        t, survival, cost = futures.steps, futures.survival, futures.cost
        if t == 0:
            cost = cost + self._first_action_cost(action).view(cost.shape)
        state = self.step(futures.state, action, z)
        cost = cost + self.discount**t * survival * self._step_cost(state, t).view(cost.shape)
        survival = survival * (1 - state.ended.view(cost.shape))
        return Futures(state, cost, survival, t + 1)

    def rollout(self, actions: Tensor, z: Tensor | None = None) -> Futures:
        """The futures of sequences `actions` [B N H A] under latents `z` [B N H Z]."""
        futures = self.begin(actions.shape[1])
        for t in range(actions.shape[2]):
            latent = None if z is None else z[:, :, t].flatten(0, 1)
            futures = self.extend(futures, actions[:, :, t].flatten(0, 1), latent)
        return futures

    def cost(self, futures: Futures) -> Tensor:
        """Cost of plans that end where the futures stand, F_H or its λ-return, [B N] float64."""
        final = self._final_cost(futures.state, futures.steps).view(futures.cost.shape)
        return futures.cost + self.discount**futures.steps * futures.survival * final

    def _first_action_cost(self, action: Tensor) -> Tensor:
        """(1-λ) F_0 of plans that begin with `action` [M A], [M]."""
        values = self.situation.energies.action_values(self.directive)
        if self.sum_critic_every_step or self.td_lambda == 1 or values is None:
            return action.new_zeros(len(action))
        return (1 - self.td_lambda) * (action * self._per_candidate(values, len(action))).sum(-1)

    def _step_cost(self, state: State, t: int) -> Tensor:
        """What the state after step t, counted from 0, adds to a plan's cost before γ^t p_t."""
        energy = self.energy(state)
        if self.sum_critic_every_step:
            return energy + self.critic_value(state)
        if self.td_lambda == 1:
            return energy
        later = self.discount * (1 - state.ended) * self.critic_value(state)
        return self.td_lambda ** (t + 1) * (energy + (1 - self.td_lambda) * later)

    def _final_cost(self, state: State, steps: int) -> Tensor:
        """What the critic adds after the last of `steps`, before γ^steps p_{steps+1}."""
        if self.sum_critic_every_step:
            return state.ended.new_zeros(len(state.ended))
        value = self.critic_value(state)
        return value if self.td_lambda == 1 else self.td_lambda ** (steps + 1) * value
