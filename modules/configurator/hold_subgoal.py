"""A configurator that holds the agent to a sub-goal (LeCun 2022, §6)."""

from __future__ import annotations

import torch
from pydantic import Field

from modules.configurator.base_directive import BaseDirective
from modules.messages import Directive, Frozen, Situation


class HoldSubgoal:
    """Mode-2 at every step; a sub-goal that planning chose is set for the steps that follow.

    Without it each plan of a hierarchical planner begins with a new sub-goal. Here the sub-goal of
    the last plan becomes the directive's until it is `hold_steps` old: the upper level then plans
    anew. So sub-goals pass through the directive, where interventions reach them, and less is spent
    on choosing them. `configurator_state` [B 1] is the age of the sub-goal, steps. Where a planner
    has no levels it is `fixed` in Mode-2.
    """

    class Config(Frozen):
        """`hold_steps`: steps for which a sub-goal holds, that of its choice included."""

        hold_steps: int = Field(default=10, ge=1, le=1000)

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.hold_steps, self.base = config.hold_steps, base

    def configure(self, situation: Situation) -> Directive:
        """The base directive with the sub-goal that is held."""
        base, last = self.initial(situation.batch), situation.previous
        if base.subgoal is None or last.plan.subgoals is None or last.directive.subgoal is None:
            return base
        chosen = last.plan.subgoals[:, 0]
        # What the directive did not set was chosen by the last search, if there was one.
        is_new = last.directive.subgoal.isinf().any(-1) & (last.plan.model_calls > 0)
        age = torch.where(is_new, 0.0, last.directive.configurator_state[:, 0]) + 1
        holds = chosen.isfinite().all(-1) & (age < self.hold_steps) & (situation.episode_step > 0)
        words = (f"thinks: the sub-goal is {int(a)} steps old" for a in age.tolist())
        return base.replace(
            subgoal=chosen.where(holds[:, None], torch.inf),
            configurator_state=age.unsqueeze(1),
            reason=tuple(
                held if holding else why
                for held, why, holding in zip(words, base.reason, holds.tolist(), strict=True)
            ),
        )

    def initial(self, rows: int) -> Directive:
        """No sub-goal is held."""
        return self.base.uniform(rows, 2, 1, "planning chooses the sub-goal")
