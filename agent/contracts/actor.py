"""Promises of an actor (`modules.ports.Actor`), and so of its policy and planner."""

from __future__ import annotations

import torch

from agent.contracts.promises import promises_in, require, require_finite, shapes
from agent.contracts.subject import ROWS, Subject, single
from agent.imagination import Imagination
from modules.messages import Directive, Plan, Situation


def _act(
    subject: Subject,
    mode: int,
    model_calls: int,
    situation: Situation | None = None,
    directive: Directive | None = None,
) -> tuple[Plan, Imagination]:
    """The plan for one mode and budget, and the imagination that counted its model calls."""
    situation, directive = situation or subject.situation(), directive or subject.last.directive
    ones = torch.ones(situation.batch, dtype=torch.int64)
    directive = directive.replace(
        mode=ones * mode,
        model_calls=ones * model_calls,
        horizon_steps=ones * subject.last.plan.actions.shape[1],
        commit_steps=ones,
    )
    imagination = subject.imagination(situation, directive)
    with torch.no_grad():
        return subject.module.act(situation, imagination, directive), imagination


def initial_has_the_shapes_of_plans(subject: Subject) -> None:
    """`initial` has the shapes of plans, no model calls and nothing committed."""
    plan = subject.module.initial(ROWS)
    require(shapes(plan) == shapes(subject.last.plan), "its shapes are not those of its plans")
    unused = not plan.remaining_commit.any() and not plan.model_calls.any()
    require(unused, "its model_calls or remaining_commit are not 0")


def actions_are_valid(subject: Subject) -> None:
    """Actions are one-hot or within [-1, 1], in both modes."""
    horizon = subject.last.plan.actions.shape[1]
    for mode in (1, 2):
        plan, _ = _act(subject, mode, 60)
        plan.check(subject.dims)
        require_finite(plan, but=("candidate_energies", "subgoals"))
        require(((plan.steps >= 1) & (plan.steps <= horizon)).all(), "steps out of range")
        action = plan.action
        if subject.assembly.agent.world.actions.discrete:
            one_hot = ((action == 0) | (action == 1)).all() and (action.sum(-1) == 1).all()
            require(one_hot, f"mode {mode}: an action is not one-hot")
        else:
            require((action.abs() <= 1).all(), f"mode {mode}: an action is out of bounds")


def stays_within_the_budget(subject: Subject) -> None:
    """Mode-2 makes at most `model_calls` calls and reports their exact number."""
    for calls in (0, 1, 2, 7, 40, 150):
        plan, imagination = _act(subject, 2, calls)
        most = int(plan.model_calls.max())
        require(most <= calls, f"{most} model calls, with a budget of {calls}")
        require(
            torch.equal(plan.model_calls, imagination.model_calls),
            f"reports {plan.model_calls.tolist()}, made {imagination.model_calls.tolist()}",
        )


def mode_1_makes_no_model_calls(subject: Subject) -> None:
    """Mode-1 makes no model call and reports mode 1."""
    plan, imagination = _act(subject, 1, 100)
    require(not imagination.model_calls.any(), "Mode-1 made model calls")
    require((plan.mode == 1).all(), "expected mode 1, got a plan of mode 2")


def does_not_plan_after_the_end(subject: Subject) -> None:
    """No model call is made in a row whose episode is over."""
    situation = subject.situation()
    over = situation.replace(state=situation.state.replace(ended=torch.ones(ROWS)))
    _, imagination = _act(subject, 2, 100, over)
    require(not imagination.model_calls.any(), "model calls after the end of the episode")


def plans_rows_independently(subject: Subject) -> None:
    """A row alone gets the action that it gets in the batch."""
    situation, whole = subject.situation(), _act(subject, 2, 40)[0]
    for row in range(ROWS):
        index = single(row)
        one, _ = _act(subject, 2, 40, situation.select(index), subject.last.directive.select(index))
        require(torch.allclose(whole.action[row], one.action[0], atol=1e-3), f"row {row} differs")


PROMISES = promises_in(globals())
