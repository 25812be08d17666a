"""What all configurators share: the `directive:` block of settings, and the directives it makes."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from modules.field_path import RANGES
from modules.messages import ConfigError, Directive, Frozen, Situation
from modules.weights import subgoal, weights

MODE_VERBS = {1: "acts", 2: "thinks"}
"""How a reason begins: Mode-1 reacts, Mode-2 plans (LeCun 2022, §3.1)."""


def _within(name: str) -> Any:
    least, most = RANGES[f"directive.{name}"]
    return Field(ge=least, le=most)


Mode = Annotated[int, _within("mode")]
Weights = dict[str, Annotated[float, _within("u")]]
HorizonSteps = Annotated[int, _within("horizon_steps")]
ModelCalls = Annotated[int, _within("model_calls")]
CommitSteps = Annotated[int, _within("commit_steps")]
Futures = Annotated[int, _within("futures")]
LatentTemperature = Annotated[float, _within("latent_temperature")]
Risk = Annotated[float, _within("risk")]


OF_LATENT = ("futures", "latent_temperature", "adversarial")
"""The fields of a directive that only a world model with a latent variable reads."""


class DirectiveSettings(Frozen):
    """The block `directive:`, from which every configurator departs only where it has a reason.

    `u`, `v`: weights of drives and critic heads by name. A drive that is not named has its
    standard weight (effort, novelty: 0, others 1), a head the weight of its drive; the sub-goal
    head of a world with a single task has 1. Simulators and `persistence` predict no novelty: in
    their plans `u.novelty` counts through the critic alone. `horizon_steps`: length of imagined
    plans. `model_calls`: imagined steps a row may spend on one plan. `commit_steps`: actions of a
    plan that are carried out before the next plan. `futures`: imagined futures of each plan, each
    with latent variables z of its own. `latent_temperature`: of the distribution of z, 0: its most
    likely value. `risk`: weight of the deviation over futures and of predicted uncertainty, > 0
    averse. `adversarial`: a plan costs what the worst of its futures costs. Only a world model with
    a latent variable, such as `latent-jepa`, has several futures.
    """

    u: Weights = Field(default_factory=dict)
    v: Weights = Field(default_factory=dict)
    # Measured in docs/LOG.md: of the budgets tried, the best score of a beam in Breakout.
    horizon_steps: HorizonSteps = 48
    model_calls: ModelCalls = 800
    commit_steps: CommitSteps = 8
    futures: Futures = 1
    latent_temperature: LatentTemperature = 1.0
    risk: Risk = 0.0
    adversarial: bool = False


class DirectiveChange(Frozen):
    """A change of some fields of a directive; None, and a drive or head not named: unchanged."""

    mode: Mode | None = None
    u: Weights | None = None
    v: Weights | None = None
    horizon_steps: HorizonSteps | None = None
    model_calls: ModelCalls | None = None
    commit_steps: CommitSteps | None = None
    futures: Futures | None = None
    latent_temperature: LatentTemperature | None = None
    risk: Risk | None = None
    adversarial: bool | None = None


class BaseDirective:
    """The directive that the block `directive:` describes, for any number of rows.

    `drives` [K] and `heads` [L]: names on the axes of u and v. `token_shape`: (T, E); tokens are 0.
    `horizon_max`: the longest plan that a `Plan` has room for, steps. `has_latent`: whether the
    world model has a latent variable. `subgoal_size`: D where the planner has levels above, which
    choose the sub-goal themselves unless a configurator sets one; 0 where it has none. Raises
    ConfigError for a weight of an unknown drive or head, for a horizon beyond `horizon_max`, and
    for settings of a latent variable that is not there.
    """

    def __init__(
        self,
        settings: DirectiveSettings,
        *,
        drives: tuple[str, ...],
        heads: tuple[str, ...],
        token_shape: tuple[int, int],
        horizon_max: int,
        has_latent: bool,
        subgoal_size: int = 0,
    ) -> None:
        if settings.horizon_steps > horizon_max:
            raise ConfigError(
                f"config directive.horizon_steps: expected at most {horizon_max}, got "
                f"{settings.horizon_steps}; plans have no room for more"
            )
        for name in OF_LATENT:
            value, usual = getattr(settings, name), DirectiveSettings.model_fields[name].default
            if value != usual and not has_latent:
                raise ConfigError(
                    f"config directive.{name}: expected {usual} where the world model has no "
                    f"latent variable, got {value}; try world_model.kind=latent-jepa"
                )
        self.settings, self.has_latent = settings, has_latent
        self.u = weights(settings.u, drives, "directive.u")
        head_weights = dict(zip(drives, self.u.tolist(), strict=True))
        if subgoal(0) in heads and subgoal(1) not in heads:
            head_weights[subgoal(0)] = 1.0  # the only task of this world is always on
        self.v = weights(settings.v, heads, "directive.v", over=head_weights)
        self.drives, self.heads, self.token_shape = drives, heads, token_shape
        self.horizon_max, self.subgoal_size = horizon_max, subgoal_size
        self._fields: dict[int, dict[str, Any]] = {}

    def changed(self, change: DirectiveChange) -> BaseDirective:
        """The base directive after a change. Raises ConfigError as the constructor does."""
        values = self.settings.model_dump()
        for name, value in change.model_dump(include=set(values), exclude_none=True).items():
            values[name] = {**values[name], **value} if isinstance(value, dict) else value
        return BaseDirective(
            DirectiveSettings(**values),
            drives=self.drives,
            heads=self.heads,
            token_shape=self.token_shape,
            horizon_max=self.horizon_max,
            has_latent=self.has_latent,
            subgoal_size=self.subgoal_size,
        )

    def fields(self, rows: int) -> dict[str, Any]:
        """The fields of a directive that no configurator computes, for a number of rows."""
        if rows not in self._fields:
            scalars, size = self.settings.model_dump(exclude={"u", "v"}), self.subgoal_size
            self._fields[rows] = {
                **{name: torch.full((rows,), value) for name, value in scalars.items()},
                "u": self.u.repeat(rows, 1),
                "v": self.v.repeat(rows, 1),
                "tokens": torch.zeros(rows, *self.token_shape),
                "subgoal": torch.full((rows, size), torch.inf) if size else None,
            }
        return self._fields[rows]

    def directive(
        self, mode: Tensor, configurator_state: Tensor, reason: tuple[str, ...]
    ) -> Directive:
        """A directive with `mode` [B], `configurator_state` [B Q] and a `reason` a row."""
        return Directive(
            mode=mode,
            configurator_state=configurator_state,
            reason=reason,
            **self.fields(len(mode)),
        )

    def uniform(self, rows: int, mode: int, state_size: int, reason: str) -> Directive:
        """One directive for all `rows`, its `configurator_state` [B state_size] 0; the verb of the
        mode precedes the `reason`.
        """
        return self.directive(
            torch.full((rows,), mode),
            torch.zeros(rows, state_size),
            (f"{MODE_VERBS[mode]}: {reason}",) * rows,
        )


def replanned(directive: Directive, situation: Situation, rows: Tensor) -> Directive:
    """The directive under which `rows` [B] (bool) replace the plan they are carrying out.

    The actor drops a plan with more steps to go than `commit_steps` allows; `commit_steps` is set
    so that the new plan ends when the old one would have.
    """
    left = situation.previous.plan.remaining_commit.clamp_min(1).minimum(directive.commit_steps)
    return directive.replace(commit_steps=torch.where(rows, left, directive.commit_steps))
