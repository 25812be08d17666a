"""What all configurators have in common: the settings that stand unless one has a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules.messages import ConfigError, Directive, Situation
from modules.weights import subgoal, weights


class Settings(BaseModel):
    """How the other modules work, the part every configurator has.

    `u`, `v`: weights of drives and critic heads by name; a drive not named counts as usual
    (score, pain, goal: 1, others 0), a head as its drive, the sub-goal head of a world of one
    task 1. Simulators and `persistence` foretell no novelty: `u.novelty` moves plans made in them
    by the critic alone. `horizon_steps`: how far plans look. `model_calls`: imagined steps a row
    may spend on a plan. `commit_steps`: actions of a plan to carry out before thinking again.
    `latent_temperature`: of the world model's z; none of ours has such a latent, so none reads it.
    `risk`: weight of uncertainty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    u: dict[str, float] = Field(default_factory=dict)
    v: dict[str, float] = Field(default_factory=dict)
    # Measured in docs/LOG.md: of the budgets tried, the best score of a beam in Breakout.
    horizon_steps: int = Field(48, ge=1, le=1000)
    model_calls: int = Field(800, ge=0, le=10_000_000)
    commit_steps: int = Field(8, ge=1, le=1000)
    latent_temperature: float = Field(1.0, ge=0, le=100)
    risk: float = Field(0.0, ge=-1000, le=1000)

    @property
    def horizon_max(self) -> int:
        """The longest horizon any directive may ask, steps."""
        return self.horizon_steps

    @classmethod
    def shared(cls) -> tuple[str, ...]:
        """The settings that stay as they were where a configurator comes to be of another kind."""
        return tuple(Settings.model_fields)


class BaseDirective:
    """Makes the directives that follow from settings, for any number of rows.

    What `agent.assembly.build` gives a configurator that asks for `standing`: its settings of
    this sort, and what it must know to make a directive of them.

    Raises ConfigError for a weight of no known drive or head and for a horizon that no plan has
    room for.
    """

    def __init__(
        self,
        *,
        u: Mapping[str, float],
        v: Mapping[str, float],
        horizon_steps: int,
        model_calls: int,
        commit_steps: int,
        latent_temperature: float,
        risk: float,
        drives: tuple[str, ...],
        heads: tuple[str, ...],
        token_shape: tuple[int, int],
        horizon_max: int,
    ) -> None:
        if horizon_steps > horizon_max:
            raise ConfigError(
                f"config configurator.horizon_steps: expected at most {horizon_max}, got "
                f"{horizon_steps}; plans have no room for more"
            )
        self.u = weights(u, drives, "configurator.u")
        felt = dict(zip(drives, self.u.tolist(), strict=True))
        if subgoal(0) in heads and subgoal(1) not in heads:
            felt[subgoal(0)] = 1.0  # the only task there is: nobody need say that it is on
        self.v = weights(v, heads, "configurator.v", over=felt)
        self.drives, self.heads, self.token_shape = drives, heads, token_shape
        self.horizon_steps, self.horizon_max = horizon_steps, horizon_max
        self.model_calls, self.commit_steps = model_calls, commit_steps
        self.settings: dict[str, Any] = {
            "u": dict(u),
            "v": dict(v),
            "horizon_steps": horizon_steps,
            "model_calls": model_calls,
            "commit_steps": commit_steps,
            "latent_temperature": latent_temperature,
            "risk": risk,
        }
        self._fields: dict[int, dict[str, Tensor]] = {}

    def changed(self, **changes: Any) -> BaseDirective:
        """The same with some settings changed; of `u` and `v` what is not named stays.

        Raises ConfigError as the constructor does.
        """
        settings = dict(self.settings)
        for name, value in changes.items():
            settings[name] = {**settings[name], **value} if isinstance(value, Mapping) else value
        return BaseDirective(
            **settings,
            drives=self.drives,
            heads=self.heads,
            token_shape=self.token_shape,
            horizon_max=self.horizon_max,
        )

    def fields(self, rows: int) -> dict[str, Tensor]:
        """The fields of a directive that no moment changes; made once for a number of rows."""
        if rows not in self._fields:
            alike = {
                name: torch.full((rows,), value)
                for name, value in self.settings.items()
                if name not in ("u", "v")
            }
            self._fields[rows] = {
                **alike,
                "u": self.u.repeat(rows, 1),
                "v": self.v.repeat(rows, 1),
                "tokens": torch.zeros(rows, *self.token_shape),
            }
        return self._fields[rows]

    def directive(
        self, mode: Tensor, configurator_state: Tensor, reason: tuple[str, ...]
    ) -> Directive:
        """The directive with these, `mode` [B], `carry` [B Q], `reason` a line a row."""
        return Directive(
            mode=mode,
            configurator_state=configurator_state,
            reason=reason,
            **self.fields(len(mode)),
        )


def rethink(said: Directive, situation: Situation, rows: Tensor) -> Directive:
    """The directive under which `rows` [B] bool make anew the plan that is under way.

    The actor drops a plan that promised more steps than `commit_steps` allows; the new one ends
    when the old would have.
    """
    left = situation.previous.plan.remaining_commit.clamp_min(1).minimum(said.commit_steps)
    return said.replace(commit_steps=torch.where(rows, left, said.commit_steps))
