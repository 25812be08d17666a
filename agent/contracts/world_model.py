"""Promises of a world model (`modules.ports.WorldModel`)."""

from __future__ import annotations

import torch

from agent.contracts.promises import (
    parameters_of,
    promises_in,
    require,
    require_equal,
    require_finite,
)
from agent.contracts.subject import ROWS, SEED, Subject, single
from modules import chance
from modules.messages import State


def _start(subject: Subject) -> State:
    state: State = subject.module.start(subject.situation(), subject.last.directive)
    return state


def starts_from_the_present_state(subject: Subject) -> None:
    """`start` has one row an environment and the present signals."""
    state, present = _start(subject), subject.last.state
    require(state.batch == ROWS, f"expected {ROWS} rows, got {state.batch}")
    require(torch.equal(state.signals, present.signals), "signals differ")


def steps_any_number_of_candidates(subject: Subject) -> None:
    """`step` takes several candidates a row; all is finite, `ended` in [0, 1]."""
    index = torch.arange(ROWS).repeat_interleave(2)
    actions = subject.random_actions(2 * ROWS, "check")
    after = subject.module.complete(subject.module.step(_start(subject).select(index), actions))
    dims = {name: size for name, size in subject.dims.items() if name in ("D", "S")}
    State(**after.__dict__).check({**dims, "B": 2 * ROWS})
    require_finite(after)
    require(((after.ended >= 0) & (after.ended <= 1)).all(), "ended is not within 0 and 1")
    require((after.uncertainty >= 0).all(), "uncertainty is below 0")


def steps_candidates_independently(subject: Subject) -> None:
    """A candidate alone is predicted as in the batch."""
    model, actions = subject.module, subject.random_actions(ROWS, "apart")
    whole = model.complete(model.step(_start(subject), actions))
    for row in range(ROWS):
        start = _start(subject).select(single(row))
        one = model.complete(model.step(start, actions[row : row + 1]))
        for name in ("latent", "signals", "ended", "uncertainty"):
            first, second = getattr(whole, name)[row], getattr(one, name)[0]
            require(torch.allclose(first, second, rtol=1e-3, atol=1e-4), f"{name} differs")


def completing_twice_changes_nothing(subject: Subject) -> None:
    """`complete` leaves a completed state as it is."""
    model = subject.module
    once = model.complete(model.step(_start(subject), subject.random_actions(ROWS, "complete")))
    require_equal(once, model.complete(once))


def leaves_the_world_unchanged(subject: Subject) -> None:
    """Imagining does not change the environment."""
    model, world = subject.module, subject.assembly.world
    before, state = world.snapshot(), _start(subject)
    for t in range(4):
        state = model.step(state, subject.random_actions(ROWS, f"wander {t}"))
    subject.modules.cost.intrinsic(model.complete(state))
    require(world.snapshot() == before, "the world is not as it was")


def predict_agrees_with_step(subject: Subject) -> None:
    """`predict` returns the latent that `start` and `step` lead to, with an empty `hidden`."""
    model, actions = subject.module, subject.random_actions(ROWS, "predict")
    with torch.no_grad():
        predicted = model.predict(subject.situation(), actions, subject.last.directive)
        predicted.check(subject.dims)
        require(predicted.hidden.shape == (ROWS, 0), "its hidden is not empty")
        imagined = model.complete(model.step(_start(subject), actions))
    same = torch.allclose(predicted.latent, imagined.latent, rtol=1e-3, atol=1e-4)
    require(same, "predict and step disagree")


def gradients_reach_the_action(subject: Subject) -> None:
    """The prediction is differentiable in the action, if the model has parameters."""
    module = subject.module
    parameters = parameters_of(module)
    if not parameters:
        return
    actions = subject.random_actions(ROWS, "gradient").requires_grad_()
    # A model before training may predict no change for every action: perturb its parameters.
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            key = chance.keys(SEED, 1, number)
            parameter.add_(0.05 * chance.normal(key, "shake", *parameter.shape)[0])
    try:
        with torch.enable_grad():
            after = subject.module.complete(subject.module.step(_start(subject), actions))
            (gradient,) = torch.autograd.grad(after.latent.sum() + after.signals.sum(), actions)
        require(gradient.abs().sum() > 0, "the gradient is zero")
    finally:
        module.load_state_dict(before)


PROMISES = promises_in(globals())
