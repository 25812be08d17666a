"""Promises of a cost module (`modules.ports.Cost`)."""

from __future__ import annotations

import torch
from torch import Tensor

from agent.contracts.promises import parameters_of, promises_in, require, require_finite
from agent.contracts.subject import Subject, require_independent_rows


def energy_holds_the_drives(subject: Subject) -> None:
    """`energy` and `intrinsic` agree, all finite, disagreement >= 0."""
    cost, state = subject.module, subject.last.state
    energy = cost.energy(state)
    require(torch.equal(energy.intrinsic, cost.intrinsic(state)), "energy and intrinsic differ")
    require_finite(energy)
    require((energy.disagreement >= 0).all(), "disagreement is below 0")


def critic_values_agree(subject: Subject) -> None:
    """v·TC is the same by `energy`, by `critic_value` and at the best of `action_values`."""
    cost, state, directive = subject.module, subject.last.state, subject.last.directive
    value = cost.critic_value(state, directive.v)

    def same(other: Tensor) -> bool:
        return torch.allclose(other, value, rtol=1e-4, atol=1e-5)

    weighted = cost.energy(state).critic_value(directive)
    require(same(weighted), "v·TC of energy and of critic_value differ")
    if (actions := cost.action_values(state, directive.v)) is not None:
        require(same(actions.amin(-1)), "critic_value is not that of the best action")


def untrained_critic_is_zero(subject: Subject) -> None:
    """A critic that is not initialised returns exactly 0."""
    cost, state, directive = subject.module, subject.last.state, subject.last.directive
    if not cost.is_initialised():
        critic = cost.energy(state).at_best_action(directive).critic
        require(not critic.any(), "energy has critic values that are not 0")
        require(not cost.critic_value(state, directive.v).any(), "its value is not 0")


def drives_do_not_depend_on_parameters(subject: Subject) -> None:
    """The intrinsic energy stays the same when all parameters change."""
    cost, state = subject.module, subject.last.state
    parameters = parameters_of(cost)
    if not parameters:
        return
    intrinsic = cost.intrinsic(state).clone()
    before = {name: value.clone() for name, value in cost.state_dict().items()}
    try:
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(1)
        same = torch.equal(cost.intrinsic(state), intrinsic)
        require(same, "a drive changed with the parameters")
    finally:
        cost.load_state_dict(before)


def rows_have_their_own_energies(subject: Subject) -> None:
    """A row alone has the energies that it has in the batch."""
    cost, state = subject.module, subject.last.state
    require_independent_rows(cost.energy(state), lambda row: cost.energy(state.select(row)))


def gradients_reach_the_signals(subject: Subject) -> None:
    """The intrinsic energy is differentiable in the signals."""
    state = subject.last.state
    signals = state.signals.clone().requires_grad_()
    with torch.enable_grad():
        total = subject.module.intrinsic(state.replace(signals=signals)).sum()
    require(total.requires_grad, "energies carry no gradient to the signals")


PROMISES = promises_in(globals())
