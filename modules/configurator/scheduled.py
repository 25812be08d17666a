"""A configurator that follows a timetable of the episode."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from modules.configurator.base_directive import BaseDirective, Settings
from modules.configurator.fixed import DOES
from modules.messages import ConfigError, Directive, Situation


class Change(BaseModel):
    """What is different from a step of the episode on; what is not named stays as it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    from_step: int = Field(ge=0)
    mode: int | None = Field(default=None, ge=1, le=2)
    u: dict[str, float] | None = None
    v: dict[str, float] | None = None
    horizon_steps: int | None = Field(default=None, ge=1, le=1000)
    model_calls: int | None = Field(default=None, ge=0, le=10_000_000)
    commit_steps: int | None = Field(default=None, ge=1, le=1000)
    latent_temperature: float | None = Field(default=None, ge=0, le=100)
    risk: float | None = Field(default=None, ge=-1000, le=1000)


EVERY_FOURTH = (Change(from_step=3, mode=2),)


class Scheduled:
    """Changes of settings at given steps of an episode, once or again and again."""

    class Config(Settings):
        """Settings that stand, and when they change.

        `mode`: before the first change. `schedule`: changes, each with `from_step`, the age of
        the episode from which it holds. `period_steps`: begin the timetable anew so often;
        0: once an episode. As it stands it thinks at every fourth step.
        """

        kind: Literal["scheduled"] = "scheduled"
        mode: int = Field(1, ge=1, le=2)
        schedule: tuple[Change, ...] = EVERY_FOURTH
        period_steps: int = Field(4, ge=0)

        @property
        def horizon_max(self) -> int:
            """The longest horizon any directive may ask, steps."""
            return max([self.horizon_steps, *(c.horizon_steps or 0 for c in self.schedule)])

    def __init__(
        self,
        *,
        standing: BaseDirective,
        mode: int = 1,
        schedule: Sequence[Change | Mapping[str, Any]] = EVERY_FOURTH,
        period_steps: int = 4,
    ) -> None:
        changes = [c if isinstance(c, Change) else Change.model_validate(c) for c in schedule]
        steps = [change.from_step for change in changes]
        if any(later <= sooner for sooner, later in itertools.pairwise(steps)):
            raise ConfigError(
                f"config configurator.schedule: expected from_step to rise, got {steps}; sort them"
            )
        if period_steps and steps and steps[-1] >= period_steps:
            raise ConfigError(
                f"config configurator.schedule: step {steps[-1]} never comes, the timetable begins "
                f"anew after {period_steps}; raise period_steps or set it to 0"
            )
        self.period_steps = period_steps
        each = [_stage(standing, mode, 0)]
        for change in changes:
            new = change.model_dump(exclude_none=True, exclude={"from_step"})
            mode = new.pop("mode", mode)
            standing = standing.changed(**new)
            each.append(_stage(standing, mode, change.from_step))
        self._begins = torch.tensor([0, *steps])
        fields = {
            name: torch.cat([getattr(stage, name) for stage in each])
            for name, _ in Directive._tensors
        }
        self._table = Directive(**fields, reason=tuple(stage.reason[0] for stage in each))

    def configure(self, situation: Situation) -> Directive:
        """The directive of each row's stage, by the age of its episode."""
        age = situation.episode_step.clamp_min(0)
        if self.period_steps:
            age = age % self.period_steps
        return self._table.select(torch.searchsorted(self._begins, age, right=True) - 1)

    def initial(self, rows: int) -> Directive:
        """The directive of an episode's first step."""
        stage = torch.searchsorted(self._begins, torch.zeros(rows).long(), right=True) - 1
        return self._table.select(stage)


def _stage(standing: BaseDirective, mode: int, begin: int) -> Directive:
    """The directive of one stage, one row."""
    return standing.directive(
        torch.tensor([mode]),
        torch.zeros(1, 0),
        (f"{DOES[mode]}: as scheduled from step {begin}",),
    )
