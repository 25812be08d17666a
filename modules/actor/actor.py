"""The actor: reacts (Mode-1) or plans (Mode-2), as the directive has it (LeCun 2022, §3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules.actor.planner import Planned, Planner
from modules.actor.policy import Follows, Policy
from modules.messages import Directive, Experience, Plan, Situation, WorldSpec, latents_of
from modules.ports import Batch, Imagination


class Actor(nn.Module):
    """A policy that acts at once and a planner that thinks first; rows in both are served together.

    Mode-1 is the policy's action. Mode-2 begins from the rest of the last plan and the policy's
    proposal and lets the planner search, within the row's budget. Having committed to a plan it
    carries on without thinking, unless the last step surprised it or the directive's
    `commit_steps` no longer allow what the plan still promises. A row whose episode is over does
    nothing and spends nothing.

    A policy that can learn follows what Mode-2 chose (§3.1.3): so it comes to act without it, or
    to give it better proposals.
    """

    class Config(BaseModel):
        """Policy and planner joined.

        `replan_threshold`: a surprise above this ends the commitment to a plan.
        `num_logged_candidates`: how many candidates a plan carries along to be looked at.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["actor"] = "actor"
        replan_threshold: float = Field(0.5, ge=0)
        num_logged_candidates: int = Field(4, ge=1, le=16)

    def __init__(
        self,
        *,
        replan_threshold: float,
        num_logged_candidates: int,
        policy: Policy,
        planner: Planner,
        world: WorldSpec,
        horizon_max: int,
    ) -> None:
        super().__init__()
        self.policy, self.planner = policy, planner
        self.replan_threshold, self.num_logged_candidates = replan_threshold, num_logged_candidates
        self.size, self.horizon_max = world.actions.size, horizon_max
        self._still: dict[int, Plan] = {}

    def initial(self, rows: int) -> Plan:
        """Nothing committed, all zeros, no candidates."""
        whole = torch.zeros(rows, dtype=torch.int64)
        return Plan(
            actions=torch.zeros(rows, self.horizon_max, self.size),
            steps=whole,
            remaining_commit=whole,
            energy=torch.zeros(rows),
            mode=whole + 1,
            model_calls=whole,
            candidates=torch.zeros(rows, self.num_logged_candidates, self.horizon_max, self.size),
            candidate_energies=torch.full((rows, self.num_logged_candidates), torch.inf),
        )

    def _react(self, situation: Situation, directive: Directive) -> Plan:
        """Every row in Mode-1: the policy's action, nothing imagined, nothing committed."""
        rows = situation.batch
        if rows not in self._still:
            still = self.initial(rows)
            self._still[rows] = still.replace(steps=still.steps + 1)
        fields = dict(self._still[rows].__dict__)
        fields["actions"] = torch.zeros_like(fields["actions"])
        fields["actions"][:, 0] = self.policy.act(situation, directive)
        return Plan(**fields)

    # -- learning ---------------------------------------------------------------------------

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """`distillation`: the mean divergence D(ǎ[t], A(s[t])) of the policy from what was planned
        (Fig. 5), over steps that Mode-2 chose; 0 where there are none. Latents get no gradient:
        the policy is to follow the state, not to shape it. No priorities.
        """
        experience, states, _ = batch
        if not isinstance(self.policy, Follows) or experience.mode2_mask is None:
            return {}, None
        steps = min(len(states), experience.mask.shape[1] - 1)
        latents = latents_of(states[:steps]).detach()
        # The directive of a step primed the percept of the next.
        chosen = (experience.mode2_mask & experience.mask)[:, :steps] & experience.mask[
            :, 1 : steps + 1
        ]
        if not bool(chosen.any()):
            return {"distillation": latents.new_zeros(())}, None
        tokens = None if experience.tokens is None else experience.tokens[:, 1 : steps + 1][chosen]
        planned = experience.actions[:, :steps][chosen]
        apart = self.policy.divergence(latents[chosen], planned, tokens)
        weights = experience.importance_weights.unsqueeze(1).expand_as(chosen)[chosen]
        return {"distillation": (weights * apart).mean()}, None

    def on_update(self) -> None:
        """Nothing follows."""

    def on_reset(self) -> None:
        """Nothing is scheduled."""

    def window_steps(self) -> int:
        """Steps of experience that losses ask for."""
        return 2

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """No target state is read."""
        return torch.zeros_like(experience.mask)

    # -- acting -----------------------------------------------------------------------------

    def act(self, situation: Situation, imagination: Imagination, directive: Directive) -> Plan:
        """What to do now; never more than `directive.model_calls` in any row."""
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
        thinking = planning & ~holding & (directive.model_calls > 0) & (directive.horizon_steps > 0)

        neutral = self.initial(rows)
        actions, energy = neutral.actions.clone(), neutral.energy.clone()
        steps, remaining_commit, mode = (
            neutral.steps + 1,
            neutral.remaining_commit.clone(),
            neutral.mode.clone(),
        )
        candidates, costs = neutral.candidates.clone(), neutral.candidate_energies.clone()
        rest = torch.cat([before.actions[:, 1:], torch.zeros_like(actions[:, :1])], 1)

        actions[holding], energy[holding] = rest[holding], before.energy[holding]
        steps[holding] = before.steps[holding] - 1
        remaining_commit[holding] = before.remaining_commit[holding] - 1
        if not bool(holding.all()):
            reaction = self.policy.act(situation, directive)
            actions[~holding, 0] = reaction[~holding]
            known = (before.steps - 1) * (before.mode == 2)
            proposals = self._proposals(rest, known, reaction)
            for index, found in self._think(thinking, proposals, situation, imagination, directive):
                several, reach = (
                    min(self.num_logged_candidates, found.energies.shape[1]),
                    found.candidates.shape[2],
                )
                num_logged_candidates = torch.arange(several)
                actions[index] = 0.0
                actions[index, :reach] = found.candidates[:, 0]
                steps[index], energy[index] = reach, found.energies[:, 0]
                candidates[index[:, None], num_logged_candidates, :reach] = found.candidates[
                    :, :several
                ]
                costs[index[:, None], num_logged_candidates] = found.energies[:, :several]
            ahead = torch.minimum(directive.commit_steps, steps) - 1
            remaining_commit[thinking] = ahead[thinking].clamp_min(0)
        mode[holding | thinking] = 2
        return Plan(
            actions=actions,
            steps=steps,
            remaining_commit=remaining_commit,
            energy=energy,
            mode=mode,
            model_calls=imagination.spent.clone(),
            candidates=candidates,
            candidate_energies=costs,
        )

    def _think(
        self,
        thinking: Tensor,
        proposals: Tensor,
        situation: Situation,
        imagination: Imagination,
        directive: Directive,
    ) -> Iterator[tuple[Tensor, Planned]]:
        """Plans for the rows `thinking` [B], those with the same horizon and budget together."""
        groups: dict[tuple[int, int], list[int]] = {}
        horizons = directive.horizon_steps.clamp_max(self.horizon_max)
        for row in thinking.nonzero().flatten().tolist():
            size = int(horizons[row]), int(directive.model_calls[row])
            groups.setdefault(size, []).append(row)
        for (horizon, budget), members in groups.items():
            index = torch.tensor(members)
            part = imagination if len(members) == len(thinking) else imagination.select(index)
            begin, key = proposals[index, :, :horizon], situation.rng_key[index]
            yield index, self.planner.plan(part, begin, key, budget)

    @staticmethod
    def _proposals(rest: Tensor, known: Tensor, reaction: Tensor) -> Tensor:
        """What to begin from, [B 2 P A]: the `rest` [B P A] of the last plan, of which `known` [B]
        steps count, and the policy's action held. Where the rest is too short its last action
        goes on; where there is none the policy's stands in.
        """
        horizon = rest.shape[1]
        held = reaction.unsqueeze(1).expand(-1, horizon, -1)
        last = torch.arange(horizon).minimum((known - 1).clamp_min(0).unsqueeze(1))
        going_on = rest.gather(1, last.unsqueeze(-1).expand(-1, -1, rest.shape[-1]))
        warm = torch.where((known > 0)[:, None, None], going_on, held)
        return torch.stack([warm, held], 1)
