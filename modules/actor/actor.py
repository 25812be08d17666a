"""The actor: reacts (Mode-1) or plans (Mode-2), as the directive has it (LeCun 2022, §3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules.actor.planner import Planner
from modules.actor.policy import Policy
from modules.messages import Directive, Plan, Situation, WorldSpec
from modules.ports import Imagination


class Actor(nn.Module):
    """A policy that acts at once and a planner that thinks first; rows in both are served together.

    Mode-1 is the policy's action. Mode-2 begins from the rest of the last plan and the policy's
    proposal and lets the planner search, within the row's budget. Having committed to a plan it
    carries on without thinking, unless the last step surprised it. A row whose episode is over
    does nothing and spends nothing.
    """

    class Config(BaseModel):
        """Policy and planner joined.

        `replan_surprise`: a surprise above this ends the commitment to a plan.
        `shown`: how many candidates a plan carries along to be looked at.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["actor"] = "actor"
        replan_surprise: float = Field(0.5, ge=0)
        shown: int = Field(4, ge=1, le=16)

    def __init__(
        self,
        *,
        replan_surprise: float,
        shown: int,
        policy: Policy,
        planner: Planner,
        world: WorldSpec,
        horizon_max: int,
    ) -> None:
        super().__init__()
        self.policy, self.planner = policy, planner
        self.replan_surprise, self.shown = replan_surprise, shown
        self.size, self.horizon_max = world.actions.size, horizon_max

    def neutral(self, rows: int) -> Plan:
        """Nothing committed, all zeros, no candidates."""
        whole = torch.zeros(rows, dtype=torch.int64)
        return Plan(
            actions=torch.zeros(rows, self.horizon_max, self.size),
            steps=whole,
            committed=whole,
            energy=torch.zeros(rows),
            mode=whole + 1,
            model_calls=whole,
            candidates=torch.zeros(rows, self.shown, self.horizon_max, self.size),
            candidate_energies=torch.full((rows, self.shown), torch.inf),
        )

    def act(self, situation: Situation, imagination: Imagination, directive: Directive) -> Plan:
        """What to do now; never more than `directive.model_calls` in any row."""
        rows, before = situation.batch, situation.before.plan
        planning = (directive.mode == 2) & (situation.state.ended < 0.5)
        holding = (
            planning
            & (before.mode == 2)
            & (before.committed > 0)
            & (situation.surprise <= self.replan_surprise)
        )
        thinking = planning & ~holding & (directive.model_calls > 0) & (directive.horizon_steps > 0)

        plan = dict(self.neutral(rows).__dict__)
        actions, steps, energy = plan["actions"], plan["steps"].clone(), plan["energy"]
        mode, committed = plan["mode"].clone(), plan["committed"].clone()
        shifted = torch.cat([before.actions[:, 1:], torch.zeros_like(actions[:, :1])], 1)

        actions[holding] = shifted[holding]
        steps[holding], committed[holding] = (
            before.steps[holding] - 1,
            before.committed[holding] - 1,
        )
        energy[holding] = before.energy[holding]

        if not bool(holding.all()):
            reaction = self.policy.act(situation, directive)
            actions[~holding, 0] = reaction[~holding]
            steps[~holding] = 1
            self._think(
                thinking,
                situation,
                imagination,
                directive,
                reaction,
                shifted,
                actions,
                steps,
                energy,
                plan["candidates"],
                plan["candidate_energies"],
            )
            committed[thinking] = torch.minimum(directive.commit_steps, steps)[thinking] - 1
        mode[holding | thinking] = 2
        return Plan(
            actions=actions,
            steps=steps,
            committed=committed.clamp_min(0),
            energy=energy,
            mode=mode,
            model_calls=imagination.spent.clone(),
            candidates=plan["candidates"],
            candidate_energies=plan["candidate_energies"],
        )

    def _think(
        self,
        thinking: Tensor,
        situation: Situation,
        imagination: Imagination,
        directive: Directive,
        reaction: Tensor,
        shifted: Tensor,
        actions: Tensor,
        steps: Tensor,
        energy: Tensor,
        candidates: Tensor,
        candidate_energies: Tensor,
    ) -> None:
        """Plans for the rows `thinking`, those with the same horizon and budget together."""
        before = situation.before.plan
        horizons = directive.horizon_steps.clamp_max(self.horizon_max)
        groups: dict[tuple[int, int], list[int]] = {}
        for row in thinking.nonzero().flatten().tolist():
            size = int(horizons[row]), int(directive.model_calls[row])
            groups.setdefault(size, []).append(row)
        whole = len(thinking)
        for (horizon, budget), members in groups.items():
            index = torch.tensor(members)
            proposals = self._proposals(
                shifted[index],
                (before.steps[index] - 1) * (before.mode[index] == 2),
                reaction[index],
                horizon,
            )
            part = imagination if len(members) == whole else imagination.rows(index)
            found = self.planner.plan(part, proposals, situation.chance[index], budget)
            reach, several = found.candidates.shape[2], min(self.shown, found.energies.shape[1])
            actions[index] = 0.0
            actions[index, :reach] = found.candidates[:, 0]
            steps[index], energy[index] = reach, found.energies[:, 0]
            candidates[index[:, None], torch.arange(several), :reach] = found.candidates[
                :, :several
            ]
            candidate_energies[index[:, None], torch.arange(several)] = found.energies[:, :several]

    @staticmethod
    def _proposals(rest: Tensor, known: Tensor, reaction: Tensor, horizon: int) -> Tensor:
        """What to begin from, [B 2 horizon A]: the rest of the last plan, and the policy's action
        held; where the last plan is too short, or there was none, its last action goes on.
        """
        held = reaction.unsqueeze(1).expand(-1, horizon, -1)
        t = torch.arange(horizon).expand(len(rest), -1)
        last = t.minimum((known - 1).clamp_min(0).unsqueeze(1)).clamp_max(rest.shape[1] - 1)
        going_on = rest.gather(1, last.unsqueeze(-1).expand(-1, -1, rest.shape[-1]))
        warm = torch.where((known > 0)[:, None, None], going_on, held)
        return torch.stack([warm, held], 1)
