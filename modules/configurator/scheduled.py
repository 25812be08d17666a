"""A configurator that follows a schedule over the steps of an episode."""

from __future__ import annotations

import itertools

import torch
from pydantic import Field

from modules.configurator.base_directive import (
    BaseDirective,
    DirectiveChange,
    Mode,
)
from modules.messages import ConfigError, Directive, Frozen, Situation


class Stage(DirectiveChange):
    """A change of the directive that holds from `from_step` of an episode on."""

    from_step: int = Field(ge=0)


class Scheduled:
    """Changes of the base directive at given steps of an episode, once or periodically."""

    class Config(Frozen):
        """The schedule. By default every fourth step plans.

        `mode`: before the first stage. `schedule`: stages, `from_step` increasing; each changes
        the directive of the stage before it. `period_steps`: the schedule starts again after so
        many steps; 0: once an episode.
        """

        mode: Mode = 1
        schedule: tuple[Stage, ...] = (Stage(from_step=3, mode=2),)
        period_steps: int = Field(4, ge=0)

        @property
        def horizon_max(self) -> int:
            """The longest horizon of a stage, steps."""
            return max([0, *(stage.horizon_steps or 0 for stage in self.schedule)])

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.period_steps = config.period_steps
        steps = [stage.from_step for stage in config.schedule]
        if any(later <= sooner for sooner, later in itertools.pairwise(steps)):
            raise ConfigError(
                f"config configurator.schedule: expected from_step to rise, got {steps}; sort them"
            )
        if self.period_steps and steps and steps[-1] >= self.period_steps:
            raise ConfigError(
                f"config configurator.schedule: step {steps[-1]} is never reached, the schedule "
                f"starts again after {self.period_steps}; raise period_steps or set it to 0"
            )
        mode, directives = config.mode, []
        for stage in (Stage(from_step=0), *config.schedule):
            mode, base = stage.mode or mode, base.changed(stage)
            reason = f"as scheduled from step {stage.from_step}"
            directives.append(base.uniform(1, mode, 0, reason))
        self._stages = Directive.joined(directives)
        self._first_steps = torch.tensor([0, *steps])

    def configure(self, situation: Situation) -> Directive:
        """The directive of each row's stage, by the step of its episode."""
        step = situation.episode_step.clamp_min(0)
        if self.period_steps:
            step = step % self.period_steps
        return self._at(step)

    def initial(self, rows: int) -> Directive:
        """The directive of an episode's first step."""
        return self._at(torch.zeros(rows).long())

    def _at(self, step: torch.Tensor) -> Directive:
        return self._stages.select(torch.searchsorted(self._first_steps, step, right=True) - 1)
