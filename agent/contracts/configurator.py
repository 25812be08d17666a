"""Promises of a configurator (`modules.ports.Configurator`)."""

from __future__ import annotations

import torch

from agent.contracts.promises import promises_in, require, require_equal, require_finite, shapes
from agent.contracts.subject import ROWS, Subject, require_independent_rows
from modules.messages import Directive, Situation


def _configure(subject: Subject, situation: Situation) -> Directive:
    with torch.no_grad():
        directive: Directive = subject.module.configure(situation)
    return directive.check({**subject.dims, "B": situation.batch})


def initial_has_the_shapes_of_directives(subject: Subject) -> None:
    """`initial` has the shapes of the directives that `configure` returns."""
    initial = subject.module.initial(ROWS)
    require(shapes(initial) == shapes(subject.last.directive), "other shapes than its directives")


def directives_are_within_bounds(subject: Subject) -> None:
    """Modes, horizons, budgets, commitments, weights and reasons are within their bounds."""
    room = subject.last.plan.actions.shape[1]
    for directive in (_configure(subject, subject.situation()), subject.module.initial(ROWS)):
        require_finite(directive, but=("subgoal",))
        require(((directive.mode == 1) | (directive.mode == 2)).all(), "mode is not 1 or 2")
        longest = int(directive.horizon_steps.max())
        require(longest <= room, f"horizon {longest} is longer than plans, {room}")
        require((directive.horizon_steps >= 1).all(), "a horizon is below 1")
        require((directive.model_calls >= 0).all(), "a budget is below 0")
        require((directive.commit_steps >= 1).all(), "commit_steps is below 1")
        require((directive.u >= 0).all(), "a drive has a weight below 0")
        require(len(directive.reason) == ROWS, "expected one reason a row")
        require(all(directive.reason), "a reason is empty")


def has_no_state_of_its_own(subject: Subject) -> None:
    """Equal situations get equal directives: it stores nothing between calls."""
    situation = subject.situation()
    one, other = _configure(subject, situation), _configure(subject, situation)
    require_equal(one, other)
    require(one.reason == other.reason, "reasons differ")


def configures_rows_independently(subject: Subject) -> None:
    """A row alone gets the directive that it gets in the batch."""
    situation = subject.situation()
    whole = _configure(subject, situation)
    require_independent_rows(whole, lambda row: _configure(subject, situation.select(row)))


PROMISES = promises_in(globals())
