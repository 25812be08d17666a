"""Imagination: world model and cost under one directive (LeCun 2022, §3.1.2, §4.8)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from modules import chance
from modules.messages import Directive, Situation, State
from modules.ports import (
    IMAGINED_METHODS,
    CoarserWorldModel,
    Cost,
    Futures,
    LatentVariableModel,
    WorldModel,
    gate,
)


@dataclass(frozen=True)
class PlanCost:
    """How the cost of a plan is summed (`Imagination`): γ per step, whether the critic counts at
    every step, λ, and the first steps in which latent variables are drawn, 0: all. `duration`:
    steps of the world in one imagined step, each of which costs what the state after the last does.
    """

    discount: float
    sum_critic_every_step: bool = False
    td_lambda: float = 1.0
    branch_steps: int = 0
    duration: int = 1

    def pooled(self, steps: int) -> PlanCost:
        """The same for imagined steps that last `steps` of these."""
        return replace(
            self,
            discount=self.discount**steps,
            td_lambda=self.td_lambda**steps,
            duration=self.duration * steps,
        )


class Imagination:
    """Imagined futures of B situations, and what they cost.

    The cost of H actions in one future, lower is better:

        F_H = Σ_{t=1..H} γ^{t-1} p_t E(s_t) + γ^H p_{H+1} v·TC(s_H)
        E(s) = u·IC(s) + risk·uncertainty(s),   p_t = Π_{k<t} (1 - ended_k)

    so the state in which an episode ends still counts. The paper's F = Σ_t C(s[t]) adds the
    critic at every step; a critic that already is a discounted sum would then be counted many
    times, so that form is the option `sum_critic_every_step`.

    With `td_lambda` λ < 1 the cost is the λ-return over horizons (Sutton 1988),

        Σ_{h<H} (1-λ) λ^h F_h + λ^H F_H,   F_0 = v·TC(s_0, a_1), or 0 without action values

    because the error of a model grows with the horizon and that of a critic does not.

    Where the world model has a latent variable z, a plan has as many futures K as the directive
    says, and costs (§4.8, §5)

        mean F + risk · std F,   or max F where the directive is `adversarial`.

    z is drawn from the model's p(z | s, a) in each of the first `branch_steps` steps (0: in all),
    behind them it is the most likely one. All candidates of a row have the same luck: future k of
    each is drawn from the same uniform numbers, so that plans differ in what they do and not in
    their fortune; and the K numbers of a step are spread evenly, (π(k) + U) / K with a random
    permutation π for each step, so that few futures show each branch about as often as it happens.
    Futures are a function of the row's random key: the page imagines the same ones again.

    Where the world model has levels, `coarser` is imagination at the level above, with its own
    actions and longer steps, and `towards` the same imagination with another goal (§4.7).

    `model_calls` [B] int64 counts each row, candidate, future and step imagined, at any level.
    Tensors are
    unchecked, and differentiable in actions and z: planners that need no gradient use
    `torch.no_grad()`. Rows have the same number of futures, the largest of theirs; the actor plans
    for rows with different numbers apart.
    """

    def __init__(
        self,
        world_model: WorldModel,
        cost: Cost,
        situation: Situation,
        directive: Directive,
        plan_cost: PlanCost,
    ) -> None:
        self.world_model, self.cost_module = world_model, cost
        self.situation, self.directive, self.plan_cost = situation, directive, plan_cost
        self.model_calls = torch.zeros(situation.batch, dtype=torch.int64)
        self._whole: tuple[Imagination, Tensor | None] | None = None
        self._dims: Mapping[str, int] | None = None
        self._last_values: tuple[State, Tensor | None] | None = None
        self._lucks: dict[int, Tensor] = {}

    def select(self, index: Tensor) -> Imagination:
        """Imagination of the rows `index` [M] alone; its model calls are counted here too."""
        part = self._part(self.situation.select(index), index)
        part.directive = self.directive.select(index)
        return part

    def _part(self, situation: Situation, index: Tensor | None = None) -> Imagination:
        """A copy with another situation, of the rows `index`, None: of all."""
        part = copy.copy(self)
        part.situation = situation
        part.model_calls = torch.zeros(situation.batch, dtype=torch.int64)
        part._whole, part._last_values, part._lucks = (self, index), None, {}
        return part

    def checked(self, dims: Mapping[str, int]) -> Imagination:
        """The same from its beginning, with all that world model and cost return checked: the first
        message with a number out of range raises MessageError, which names the module. `dims`: the
        lengths of axes; candidates have more rows than its B.
        """
        dims = {axis: length for axis, length in dims.items() if axis != "B"}
        whole = Imagination(
            gate("world_model", self.world_model, dims, IMAGINED_METHODS),
            gate("cost", self.cost_module, dims, IMAGINED_METHODS),
            self.situation,
            self.directive,
            self.plan_cost,
        )
        whole._dims = dims
        return whole

    @property
    def num_futures(self) -> Tensor:
        """Futures of each candidate of a row, [B] int64: as the directive says, at most one a model
        call; 1 where the world model has no latent variable.
        """
        if self.world_model.latent is None:
            return torch.ones_like(self.model_calls)
        return self.directive.futures.minimum(self.directive.model_calls).clamp_min(1)

    # -- levels -----------------------------------------------------------------------------

    def coarser(self) -> Imagination:
        """Imagination at the level above: its actions are macro-actions, and a step lasts
        `pool_steps` of those here. Its model calls are counted here too.
        """
        model: CoarserWorldModel = cast(CoarserWorldModel, self.world_model).coarser  # type: ignore[assignment]
        part = self._part(self.situation)
        part.plan_cost = self.plan_cost.pooled(model.pool_steps)
        # The sub-goal that a directive sets is for the lowest level.
        part.directive = Directive.unchecked(**{**self.directive.__dict__, "subgoal": None})
        part.world_model = model
        if self._dims is not None:
            part.world_model = gate("world_model", model, self._dims, IMAGINED_METHODS)
        return part

    def towards(self, subgoal: Tensor) -> Imagination:
        """The same imagination with the sub-goal, latents [B D], in place of the goal: energies of
        the goal measure the way to it, others are as they are. Its model calls are counted here
        too.
        """
        situation = self.situation
        state = State.unchecked(**{**situation.state.__dict__, "goal": subgoal})
        return self._part(Situation.unchecked(**{**situation.__dict__, "state": state}))

    @property
    def pool_steps(self) -> int:
        """Steps of the level below in one step of this level; 1 at the lowest."""
        return int(getattr(self.world_model, "pool_steps", 1))

    @property
    def subgoal(self) -> Tensor | None:
        """The sub-goal that the directive sets, [B D], inf in rows without one; None: it sets none
        at this level.
        """
        return self.directive.subgoal

    def steps_to_goal(self) -> Tensor:
        """Steps of this level, one above the lowest, from the present state to the goal, [B]."""
        state = self.start()
        assert state.goal is not None  # agents without goals plan without levels
        return cast(CoarserWorldModel, self.world_model).steps_to(state, state.goal)

    # -- states -----------------------------------------------------------------------------

    def start(self) -> State:
        """The present states, B rows; costs no model call."""
        return self.world_model.start(self.situation, self.directive)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The states after `action` [M A] under latent variables `z` [M Z]; M = B·N·K."""
        self._count(torch.full_like(self.model_calls, len(action) // self.situation.batch))
        after = self.world_model.step(state, action, z)
        return self.world_model.complete(after) if self.cost_module.needs_latent() else after

    def _count(self, calls: Tensor) -> None:
        """Adds model calls [B] here and in the imagination that this is a part of."""
        self.model_calls += calls
        if self._whole is not None:
            whole, index = self._whole
            if index is not None:
                calls = torch.zeros_like(whole.model_calls).index_add_(0, index, calls)
            whole._count(calls)

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
        """Weights of each row [B ...] repeated for the futures of its candidates, [M ...]."""
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
        if (values := self._action_values(state)) is not None:
            return values.amin(-1)
        state = self.world_model.complete(state)
        v = self._per_candidate(self.directive.v, len(state.ended))
        return self.cost_module.critic_value(state, v)

    def action_values(self, futures: Futures) -> Tensor | None:
        """v·TC(s, a) of each discrete action, by which a greedy policy acts, the mean over the
        futures of each candidate, [B N A]; None where the critic has no action values or no update
        yet.
        """
        values = self._action_values(futures.state)
        return None if values is None else values.view(*futures.costs.shape, -1).mean(2)

    def _action_values(self, state: State) -> Tensor | None:
        """v·TC(s, a) in each of the states [M ...], [M A], or None."""
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
        """The futures of `candidates` N of each row, of 0 steps."""
        rows, futures = self.situation.batch, int(self.num_futures.amax())
        zero = torch.zeros(rows, candidates, futures, dtype=torch.float64)
        state = self.start().select(torch.arange(rows).repeat_interleave(candidates * futures))
        return Futures(state, costs=zero, survivals=zero + 1, steps=0)

    def extend(self, futures: Futures, action: Tensor) -> Futures:
        """The futures after one more `action` of each candidate, [B·N A]."""
        t, survivals, costs = futures.steps, futures.survivals, futures.costs
        if t == 0:
            costs = costs + self._first_action_cost(action).view(*costs.shape[:2], 1)
        action = action.repeat_interleave(costs.shape[2], 0) if costs.shape[2] > 1 else action
        state = self.step(futures.state, action, self._draw(futures, action))
        costs = costs + self.plan_cost.discount**t * survivals * self._step_cost(state, t).view(
            costs.shape
        )
        survivals = survivals * (1 - state.ended.view(costs.shape))
        return Futures(state, costs, survivals, t + 1)

    def rollout(self, actions: Tensor) -> Futures:
        """The futures of sequences `actions` [B N H A]."""
        futures = self.begin(actions.shape[1])
        for t in range(actions.shape[2]):
            futures = self.extend(futures, actions[:, :, t].flatten(0, 1))
        return futures

    def cost(self, futures: Futures) -> Tensor:
        """Cost of plans that end where the futures stand, [B N] float64: over the futures of each,
        the mean and `risk` standard deviations of F_H or its λ-return, or the worst.
        """
        final = self._final_cost(futures.state, futures.steps).view(futures.costs.shape)
        each = futures.costs + self.plan_cost.discount**futures.steps * futures.survivals * final
        if each.shape[2] == 1:
            return each[:, :, 0]
        mean = each.mean(2, keepdim=True)
        # The root has a finite slope where all futures cost the same.
        spread = ((each - mean).square().mean(2) + 1e-12).sqrt() - 1e-6
        averse = mean[:, :, 0] + self.directive.risk[:, None] * spread
        return each.amax(2).where(self.directive.adversarial[:, None], averse)

    # -- luck -------------------------------------------------------------------------------

    def _draw(self, futures: Futures, action: Tensor) -> Tensor | None:
        """The latent variables [B·N·K Z] of the next step under `action` [B·N·K A]; None where the
        model has none, or where the most likely ones are to be taken.
        """
        if self.world_model.latent is None or 0 < self.plan_cost.branch_steps <= futures.steps:
            return None
        model = cast(LatentVariableModel, self.world_model)
        # A planner extends many candidates by the same step.
        if futures.steps not in self._lucks:
            number = futures.costs.shape[2]
            self._lucks[futures.steps] = self._luck(number, model.latent.luck, futures.steps)
        luck = self._lucks[futures.steps]
        luck = luck.unsqueeze(1).expand(-1, futures.costs.shape[1], -1, -1).flatten(0, 2)
        temperature = self._per_candidate(self.directive.latent_temperature, len(action))
        return model.sample_latent(futures.state, action, luck, temperature)

    def _luck(self, futures: int, size: int, step: int) -> Tensor:
        """Uniform numbers of each of K `futures` at a step, [B K size], the same for every
        candidate of a row.
        """
        key = self.situation.rng_key
        offset = chance.uniform(key, f"luck {step}", size, 1)
        if futures == 1:
            return offset.transpose(1, 2)
        place = chance.uniform(key, f"luck order {step}", size, futures).argsort(-1)
        return ((place + offset) / futures).transpose(1, 2)

    def _first_action_cost(self, action: Tensor) -> Tensor:
        """(1-λ) F_0 of plans that begin with `action` [M A], [M]."""
        values = self.situation.energies.action_values(self.directive)
        if self.plan_cost.sum_critic_every_step or self.plan_cost.td_lambda == 1 or values is None:
            return action.new_zeros(len(action))
        return (1 - self.plan_cost.td_lambda) * (
            action * self._per_candidate(values, len(action))
        ).sum(-1)

    def _step_cost(self, state: State, t: int) -> Tensor:
        """What the state after step t, counted from 0, adds to a plan's cost before γ^t p_t."""
        energy, duration = self.energy(state), self.plan_cost.duration
        if self.plan_cost.sum_critic_every_step:
            energy = energy + self.critic_value(state)
        if duration > 1:
            energy = duration * energy
        if self.plan_cost.sum_critic_every_step:
            return energy
        if (λ := self.plan_cost.td_lambda) == 1:
            return energy
        later = self.plan_cost.discount * (1 - state.ended) * self.critic_value(state)
        return λ ** (t + 1) * (energy + (1 - λ) * later)

    def _final_cost(self, state: State, steps: int) -> Tensor:
        """What the critic adds after the last of `steps`, before γ^steps p_{steps+1}."""
        if self.plan_cost.sum_critic_every_step:
            return state.ended.new_zeros(len(state.ended))
        λ = self.plan_cost.td_lambda
        value = self.critic_value(state)
        return value if λ == 1 else λ ** (steps + 1) * value
