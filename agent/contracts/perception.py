"""Promises of a perception module (`modules.ports.Perception`)."""

from __future__ import annotations

import torch

from agent.contracts.promises import (
    parameters_of,
    promises_in,
    require,
    require_equal,
    require_finite,
    shapes,
)
from agent.contracts.subject import ROWS, Subject, require_independent_rows


def initial_has_the_shapes_of_states(subject: Subject) -> None:
    """`initial` has the shapes of the states that `perceive` returns."""
    state = subject.module.initial(ROWS).check(subject.dims)
    require(shapes(state) == shapes(subject.last.state), "its shapes are not those it perceives")


def passes_signals_on(subject: Subject) -> None:
    """Observed signals and ends stand unchanged in the state, and all of it is finite."""
    observation = subject.last.observation
    with torch.no_grad():
        state = subject.module.perceive(observation, subject.moments[-2])
    require(torch.equal(state.signals, observation.signals), "signals differ")
    require(torch.equal(state.ended, observation.ended.float()), "ended differs")
    require_finite(state)


def encodes_rows_independently(subject: Subject) -> None:
    """A row alone is encoded as in the batch."""
    perceive, observation = subject.module.perceive, subject.last.observation
    before = subject.moments[-2]
    with torch.no_grad():
        require_independent_rows(
            perceive(observation, before),
            lambda row: perceive(observation.select(row), before.select(row)),
        )


def forgets_the_previous_episode(subject: Subject) -> None:
    """Where an episode begins, `hidden` of the state before has no effect."""
    first = subject.last.observation.replace(first=torch.ones(ROWS, dtype=torch.bool))
    before = subject.moments[-2]
    hidden = torch.zeros_like(before.state.hidden)
    other = before.replace(state=before.state.replace(hidden=hidden))
    with torch.no_grad():
        require_equal(subject.module.perceive(first, before), subject.module.perceive(first, other))


def gradients_reach_its_parameters(subject: Subject) -> None:
    """Gradients of the latent reach its parameters, if it has any."""
    parameters = parameters_of(subject.module)
    if not parameters:
        return
    with torch.enable_grad():
        latent = subject.module.perceive(subject.last.observation, subject.moments[-2]).latent
        require(latent.requires_grad, "its latent carries no gradient")
        total = latent.square().sum() + latent.sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    require(any(g is not None for g in gradients), "no parameter got a gradient")


PROMISES = promises_in(globals())
