"""The actor: reacts (Mode-1) or plans (Mode-2), as the directive says (LeCun 2022, §3.1)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.actor.planner import Planner
from modules.actor.policy import Distillable, Policy
from modules.messages import (
    Directive,
    Experience,
    Frozen,
    Plan,
    Situation,
    WorldSpec,
    inputs_of,
    latents_of,
)
from modules.nets.gradient import scale_gradient
from modules.ports import Batch, Imagination


class Actor(nn.Module):
    """A policy that acts at once and a planner that searches first; rows in both are served
    together.

    Mode-1 is the policy's action. Mode-2 starts from the rest of the last plan and from the
    policy's action and lets the planner search within the row's budget. A committed plan is
    carried out without a new search until a surprise exceeds `replan_threshold` or more steps are
    committed than `commit_steps` of the directive allows. A row whose episode is over acts in
    Mode-1 and spends nothing.

    A policy that can learn is distilled from the actions that Mode-2 chose (§3.1.3, Fig. 5), to
    act without planning or to make better proposals, and clones the actions in recordings of an
    expert, in whichever mode they were chosen (§3.2: behaviour by imitation).
    """

    class Config(Frozen):
        """Policy and planner joined.

        `replan_threshold`: a surprise above this ends the commitment to a plan.
        `num_logged_candidates`: candidates that a plan holds for the trace and the page.
        `encoder_grad_scale`: factor of the gradient that the policy's losses send into the
        perception.
        """

        replan_threshold: float = Field(0.5, ge=0)
        num_logged_candidates: int = Field(4, ge=1, le=16)
        encoder_grad_scale: float = Field(0.0, ge=0, le=1)

    def __init__(
        self,
        *,
        config: Config,
        policy: Policy,
        planner: Planner,
        world: WorldSpec,
        horizon_max: int,
    ) -> None:
        super().__init__()
        self.policy, self.planner = policy, planner
        self.reads_memory: bool = getattr(policy, "reads_memory", False)
        self.hindsight_steps: int = getattr(policy, "hindsight_steps", 0)
        self.replan_threshold = config.replan_threshold
        self.num_logged_candidates = config.num_logged_candidates
        self.encoder_grad_scale = config.encoder_grad_scale
        self.size, self.horizon_max = world.actions.size, horizon_max
        self.subgoal_shape: tuple[int, int] | None = getattr(planner, "subgoal_shape", None)
        self._reactions: dict[int, Plan] = {}

    def initial(self, rows: int) -> Plan:
        """The plan before an episode: zeros, no candidates (energies inf), no sub-goals, nothing
        committed.
        """
        whole, shape = torch.zeros(rows, dtype=torch.int64), self.subgoal_shape
        return Plan(
            actions=torch.zeros(rows, self.horizon_max, self.size),
            steps=whole,
            remaining_commit=whole,
            energy=torch.zeros(rows),
            mode=whole + 1,
            model_calls=whole,
            candidates=torch.zeros(rows, self.num_logged_candidates, self.horizon_max, self.size),
            candidate_energies=torch.full((rows, self.num_logged_candidates), torch.inf),
            subgoals=None if shape is None else torch.full((rows, *shape), torch.inf),
        )

    def _react(self, situation: Situation, directive: Directive) -> Plan:
        """Every row in Mode-1: the policy's action, nothing imagined, nothing committed."""
        rows = situation.batch
        if rows not in self._reactions:
            initial = self.initial(rows)
            self._reactions[rows] = initial.replace(steps=initial.steps + 1)
        actions = torch.zeros(rows, self.horizon_max, self.size)
        actions[:, 0] = self.policy.act(situation, directive)
        return self._reactions[rows].replace(actions=actions)

    # -- learning ---------------------------------------------------------------------------

    @property
    def clones(self) -> bool:
        """Whether the policy learns from an expert's actions."""
        return isinstance(self.policy, Distillable)

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Mean divergences D(ǎ[t], A(s[t])) of the policy, in its own kind, from actions; 0 without
        any. No priorities.

        `distillation`: from those that Mode-2 chose (§3.1.3, Fig. 5). `cloning`: from the known
        ones of an expert (§3.2), where there are an expert's steps. `hindsight`, of a policy that
        reads the goal and in their place: from all, whose goal is a later state. At the default
        `encoder_grad_scale` of 0 the latents get no gradient.
        """
        experience, states, _ = batch
        planned, expert = experience.mode2_mask, experience.expert_mask
        if not isinstance(self.policy, Distillable) or (
            planned is None and not self.hindsight_steps
        ):
            return {}, None
        steps = min(len(states), experience.mask.shape[1] - 1)
        inputs, scale = inputs_of(states[:steps], self.reads_memory), self.encoder_grad_scale
        # Without gradient, and not with one of 0, which would be computed through the encoder.
        inputs = scale_gradient(inputs, scale) if scale else inputs.detach()
        if self.hindsight_steps:
            goals, known = self._hindsight(batch, steps)
            inputs = torch.cat([inputs, goals], -1)
            return {"hindsight": self._divergence(inputs, experience, known)}, None
        assert planned is not None
        if expert is None:
            return {"distillation": self._divergence(inputs, experience, planned)}, None
        known = expert if experience.action_mask is None else expert & experience.action_mask
        return {
            "distillation": self._divergence(inputs, experience, planned & ~expert),
            "cloning": self._divergence(inputs, experience, known),
        }, None

    def _hindsight(self, batch: Batch, steps: int) -> tuple[Tensor, Tensor]:
        """Goals of the first `steps` T, latents [B T D] of later states of the same window, and the
        steps [B W] bool that have one and whose action is known.
        """
        experience, latents = batch.experience, latents_of(batch.targets).detach()
        mask, ahead = experience.mask, self.hindsight_steps
        row = torch.arange(len(mask), device=mask.device).unsqueeze(1)
        step = torch.arange(steps, device=mask.device)
        # Windows begin at random steps, so that rows in turn draw as well as chance would.
        later = step + 1 + (row + step) % ahead
        within = later < latents.shape[1]
        later = later.clamp_max(latents.shape[1] - 1)
        known = torch.zeros_like(mask)
        known[:, :steps] = within & mask.gather(1, later)
        if experience.action_mask is not None:
            known &= experience.action_mask
        return latents[row, later], known

    def _divergence(self, inputs: Tensor, experience: Experience, teaching: Tensor) -> Tensor:
        """The mean divergence from the actions of the steps `teaching` [B W] bool, a scalar, at
        the `inputs` [B T D], or [B T D+U] with what memory returned, of the first T; 0 without any.
        """
        assert isinstance(self.policy, Distillable)
        mask, steps = experience.mask, inputs.shape[1]
        # The directive of a step primed the percept of the next.
        chosen = (teaching & mask)[:, :steps] & mask[:, 1 : steps + 1]
        if not bool(chosen.any()):
            return inputs.new_zeros(())
        tokens = None if experience.tokens is None else experience.tokens[:, 1 : steps + 1][chosen]
        actions = experience.actions[:, :steps][chosen]
        divergence = self.policy.divergence(inputs[chosen], actions, tokens)
        weights = experience.importance_weights.unsqueeze(1).expand_as(chosen)[chosen]
        return (weights * divergence).mean()

    def on_update(self) -> None:
        """No target network."""

    def on_reset(self) -> None:
        """No schedule."""

    def window_steps(self) -> int:
        """Two steps, since the tokens of a step primed the perception of the next; as many more as
        the policy looks ahead for goals.
        """
        return 2 + self.hindsight_steps

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """Where the policy reads the goal all steps: later states are goals."""
        return torch.full_like(experience.mask, self.hindsight_steps > 0)

    # -- acting -----------------------------------------------------------------------------

    def act(self, situation: Situation, imagination: Imagination, directive: Directive) -> Plan:
        """The plan of every row; no row spends more than `directive.model_calls`."""
        rows, before = situation.batch, situation.previous.plan
        planning = (directive.mode == 2) & (situation.state.ended < 0.5)
        if not bool(planning.any()):
            return self._react(situation, directive)
        holding = (
            planning
            & (before.mode == 2)
            & (before.remaining_commit > 0)
            & (before.remaining_commit < directive.commit_steps)
            & (situation.surprise <= self.replan_threshold)
        )
        searching = (
            planning & ~holding & (directive.model_calls > 0) & (directive.horizon_steps > 0)
        )
        initial = self.initial(rows)
        candidates, costs = initial.candidates.clone(), initial.candidate_energies.clone()
        subgoals = initial.subgoals
        if subgoals is not None and before.subgoals is not None:
            subgoals = before.subgoals.where(holding[:, None, None], subgoals)
        rest = torch.cat([before.actions[:, 1:], torch.zeros_like(before.actions[:, :1])], 1)
        actions = rest.where(holding[:, None, None], initial.actions)
        energy = before.energy.where(holding, initial.energy)
        steps = (before.steps - 1).where(holding, initial.steps + 1)
        commit = (before.remaining_commit - 1).where(holding, initial.remaining_commit)
        # The only wait for a device once some row plans.
        futures = imagination.num_futures
        groups, all_hold = self._groups(searching, holding, directive, futures)
        if not all_hold:
            reaction = self.policy.act(situation, directive)
            actions[:, 0] = actions[:, 0].where(holding[:, None], reaction)
            left = (before.steps - 1) * (before.mode == 2)
            proposals = self._proposals(rest, left, reaction)
        for horizon, budget, members in groups:
            index = torch.tensor(members)
            part = imagination if len(members) == rows else imagination.select(index)
            starts, key = proposals[index, :, :horizon], situation.rng_key[index]
            planned = self.planner.plan(part, starts, key, budget)
            reach = planned.candidates.shape[2]
            actions[index] = 0.0
            actions[index, :reach] = planned.candidates[:, 0]
            steps[index], energy[index] = reach, planned.energies[:, 0]
            logged = torch.arange(min(self.num_logged_candidates, planned.energies.shape[1]))
            candidates[index[:, None], logged, :reach] = planned.candidates[:, logged]
            costs[index[:, None], logged] = planned.energies[:, logged]
            if subgoals is not None and planned.subgoals is not None:
                subgoals[index] = planned.subgoals
        promised = (torch.minimum(directive.commit_steps, steps) - 1).clamp_min(0)
        commit = promised.where(searching, commit)
        return Plan(
            actions=actions,
            steps=steps,
            remaining_commit=commit,
            energy=energy,
            mode=initial.mode + (holding | searching),
            model_calls=imagination.model_calls.clone(),
            candidates=candidates,
            candidate_energies=costs,
            subgoals=subgoals,
        )

    def _groups(
        self, searching: Tensor, holding: Tensor, directive: Directive, futures: Tensor
    ) -> tuple[list[tuple[int, int, list[int]]], bool]:
        """Horizon, budget and rows of each search of equal size among the rows `searching` [B], and
        whether all rows are `holding` [B].

        The budget is in candidate steps: what the directive allows divided by the `futures` [B] of
        each candidate.
        """
        horizons = directive.horizon_steps.clamp_max(self.horizon_max)
        budgets = directive.model_calls // futures
        table = torch.stack([searching.long(), holding.long(), horizons, budgets, futures])
        size_of = getattr(self.planner, "size", None)
        groups: dict[tuple[int, ...], tuple[int, int, list[int]]] = {}
        columns = table.T.tolist()
        for row, (search, _, horizon, budget, count) in enumerate(columns):
            if search:
                size = size_of(horizon, budget) if size_of else (horizon, budget)
                groups.setdefault((count, *size), (horizon, budget, []))[2].append(row)
        return list(groups.values()), all(hold for _, hold, *_ in columns)

    @staticmethod
    def _proposals(rest: Tensor, left: Tensor, reaction: Tensor) -> Tensor:
        """Sequences to start from, [B 2 H A]: the first `left` [B] steps of the `rest` [B H A] of
        the last plan, its last action repeated to the horizon; and the policy's action [B A]
        repeated, which also replaces a rest of 0 steps.
        """
        horizon = rest.shape[1]
        repeated = reaction.unsqueeze(1).expand(-1, horizon, -1)
        step = torch.arange(horizon).minimum((left - 1).clamp_min(0).unsqueeze(1))
        continued = rest.gather(1, step.unsqueeze(-1).expand(-1, -1, rest.shape[-1]))
        warm = torch.where((left > 0)[:, None, None], continued, repeated)
        return torch.stack([warm, repeated], 1)
