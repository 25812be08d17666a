"""Planning on two levels: the upper one chooses a sub-goal, the lower one goes there (LeCun 2022,
§4.7, Fig. 16, eq. 14).
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from modules.actor.planner import Planned, Planner
from modules.messages import ActionSpec, ConfigError, Frozen, WorldSpec
from modules.ports import Imagination


class HierarchicalPlanner:
    """A planner at the level above chooses a state to reach first, a planner below goes there.

    The upper one plans macro-actions in `Imagination.coarser`, over the whole horizon. The state
    that its best plan predicts after one macro-action is the sub-goal, and the lower one plans the
    steps of that macro-action in `Imagination.towards` it. Where the goal is nearer than
    `near_steps` macro-actions the lower one goes to the goal itself, and where the directive sets a
    sub-goal to that one. Any planner of continuous actions may be the upper one, another
    hierarchical one too, where the world model has further levels.

    How often both plan anew is the directive's `commit_steps`.
    """

    class Config(Frozen):
        """Two planners, `upper` and `lower`.

        `upper_share`: share of the model calls that the upper one may spend. `near_steps`: a goal
        nearer than this, in steps of the level above, is gone to without a sub-goal.
        """

        upper_share: float = Field(0.75, gt=0, lt=1)
        # Measured in docs/LOG.md: within .7 is within about 8 pixels of FourRooms.
        near_steps: float = Field(0.7, ge=0, le=1000)

    def __init__(
        self,
        *,
        config: Config,
        upper: Planner,
        lower: Planner,
        levels_above: tuple[ActionSpec, ...],
        latent_size: int,
        world: WorldSpec,
    ) -> None:
        """`levels_above`: the macro-actions of the world model's levels, the lowest first. Raises
        ConfigError where the world sets no goals that are compared with latents.
        """
        if not world.goal_pixels:
            raise ConfigError(
                "config actor.planner.kind: expected a world whose goals are pictures for "
                "'hierarchical', since a sub-goal is a latent and is measured as a goal is; "
                f"{world.id} has none; try kind=cem or beam"
            )
        self.config, self.upper, self.lower = config, upper, lower
        self.macro_size = levels_above[0].size
        above = getattr(upper, "subgoal_shape", (0, 0))
        self.subgoal_shape = above[0] + 1, latent_size

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`; with the sub-goal of each level."""
        rows, horizon = proposals.shape[0], proposals.shape[2]
        above, goal = imagination.coarser(), imagination.start().goal
        assert goal is not None  # as the constructor requires
        subgoals = goal.new_full((rows, *self.subgoal_shape), torch.inf)
        if (directed := imagination.subgoal) is not None:
            subgoals[:, 0] = directed
        choosing = subgoals[:, 0].isinf().any(-1) & (
            above.steps_to_goal() >= self.config.near_steps
        )
        # Of what the upper one may spend, one call predicts the sub-goal of its best plan.
        upper_budget = max(int(self.config.upper_share * budget) - 1, 0)
        index = choosing.nonzero().flatten()
        if upper_budget and len(index):
            part = above if len(index) == rows else above.select(index)
            macros = math.ceil(horizon / above.pool_steps)
            subgoals[index] = self._chosen(part, macros, key[index], upper_budget)
        first = subgoals[:, 0]
        target = first.where(first.isfinite().all(-1, keepdim=True), goal)
        planned = self.lower.plan(
            imagination.towards(target),
            proposals[:, :, : min(horizon, above.pool_steps)],
            key,
            budget - upper_budget - 1 if upper_budget else budget,
        )
        return planned._replace(subgoals=subgoals)

    def _chosen(self, above: Imagination, macros: int, key: Tensor, budget: int) -> Tensor:
        """The sub-goals [B J D] of plans of `macros` macro-actions."""
        still = torch.zeros(len(key), 1, macros, self.macro_size)
        # Other random numbers than those of the level below.
        planned = self.upper.plan(above, still, key + 1, budget)
        first = above.rollout(planned.candidates[:, :1, :1]).state.latent.unsqueeze(1)
        return first if planned.subgoals is None else torch.cat([first, planned.subgoals], 1)
