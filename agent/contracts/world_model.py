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


def imagined_states_keep_what_memory_returned(subject: Subject) -> None:
    """`step` and `complete` leave `readout` as it was where a rollout begins."""
    readout = torch.arange(2.0 * ROWS).view(ROWS, 2)
    state = _start(subject).replace(readout=readout)
    for t in range(2):
        state = subject.module.step(state, subject.random_actions(ROWS, f"recalled {t}"))
    state = subject.module.complete(state)
    same = state.readout is not None and torch.equal(state.readout, readout)
    require(same, "an imagined state has another readout than the state that it began at")


def completing_twice_changes_nothing(subject: Subject) -> None:
    """`complete` leaves a completed state as it is."""
    model = subject.module
    once = model.complete(model.step(_start(subject), subject.random_actions(ROWS, "complete")))
    require_equal(once, model.complete(once))


def decodes_what_the_world_shows(subject: Subject) -> None:
    """What `decode` returns, where it is offered, has the form of the world's observations."""
    decode = getattr(subject.module, "decode", None)
    if decode is None:
        return
    actions = subject.random_actions(ROWS, "decode")
    decoded = decode(subject.module.step(_start(subject), actions))
    spec = subject.assembly.agent.world
    if spec.pixels is not None:
        require(decoded.dtype == torch.uint8, f"expected uint8, got {decoded.dtype}")
    expected, got = (ROWS, *(spec.pixels or (spec.vector,))), tuple(decoded.shape)
    require(got == expected, f"expected {expected}, got {got}")
    require(decoded.double().isfinite().all(), "it is not finite")


def leaves_the_world_unchanged(subject: Subject) -> None:
    """Imagining does not change the environment."""
    model, world = subject.module, subject.assembly.world
    before, state = world.snapshot(), _start(subject)
    for t in range(4):
        state = model.step(state, subject.random_actions(ROWS, f"wander {t}"))
    subject.modules.cost.intrinsic(model.complete(state))
    require(world.snapshot() == before, "the world is not as it was")


def predict_agrees_with_step(subject: Subject) -> None:
    """`predict` returns the latent that `start` and `step` lead to, `hidden` of `hidden_size`."""
    model, actions = subject.module, subject.random_actions(ROWS, "predict")
    with torch.no_grad():
        predicted = model.predict(subject.situation(), actions, subject.last.directive)
        predicted.check(subject.dims)
        expected = (ROWS, model.hidden_size)
        got = tuple(predicted.hidden.shape)
        require(got == expected, f"hidden: expected {expected}, got {got}")
        imagined = model.complete(model.step(_start(subject), actions))
    same = torch.allclose(predicted.latent, imagined.latent, rtol=1e-3, atol=1e-4)
    require(same, "predict and step disagree")


def surprise_is_a_distance(subject: Subject) -> None:
    """`surprise` is 0 where what was expected happened, finite and not below 0 elsewhere."""
    model, actions = subject.module, subject.random_actions(ROWS, "surprise")
    with torch.no_grad():
        predicted = model.predict(subject.situation(), actions, subject.last.directive)
        same = model.surprise(predicted, predicted)
        other = model.surprise(predicted, subject.last.state)
    require(same.shape == (ROWS,), f"expected [{ROWS}], got {list(same.shape)}")
    require((same.abs() <= 1e-4).all(), "what was expected surprises")
    require(bool(other.isfinite().all() and (other >= 0).all()), "a surprise is not a distance")


def latent_variables_are_functions_of_luck(subject: Subject) -> None:
    """With a latent variable: a draw has its size, is finite, and follows from luck alone; what
    explains an outcome is at least as near to it as any draw.
    """
    model = subject.module
    if model.latent is None:
        return
    start, actions = _start(subject), subject.random_actions(ROWS, "luck")
    luck = chance.uniform(chance.keys(SEED, ROWS, 0), "luck", model.latent.luck)
    with torch.no_grad():
        z = model.sample_latent(start, actions, luck, torch.ones(ROWS))
        again = model.sample_latent(start, actions, luck, torch.ones(ROWS))
        require(z.shape == (ROWS, model.latent.size), f"z has the shape {list(z.shape)}")
        require(bool(z.isfinite().all()), "z is not finite")
        require(torch.equal(z, again), "equal luck draws another z")
        outcome = model.complete(model.step(start, actions, z))
        best, energy = model.infer_latent(start, actions, outcome)
        require(best.shape == z.shape, f"the inferred z has the shape {list(best.shape)}")
        require(bool((energy >= 0).all()), "an energy is below 0")
        reached = model.complete(model.step(start, actions, best))
        usual = model.complete(model.step(start, actions))
        near = (reached.latent - outcome.latent).norm(dim=-1)
        far = (usual.latent - outcome.latent).norm(dim=-1)
    require(bool((near <= far + 1e-3).all()), "the inferred z explains an outcome worse than none")


def levels_above_are_world_models(subject: Subject) -> None:
    """Levels above, where there are some, step by macro-actions to states of the agent's form; a
    goal where the state is is 0 steps away.
    """
    model = getattr(subject.module, "coarser", None)
    while model is not None:
        start = model.start(subject.situation(), subject.last.directive)
        key, size = chance.keys(SEED, ROWS, 1), model.macro_actions.size
        with torch.no_grad():
            after = model.complete(model.step(start, chance.uniform(key, "macro", size) * 2 - 1))
            State(**after.__dict__).check({name: subject.dims[name] for name in ("B", "D", "S")})
            require_finite(after)
            require(after.levels is not None, "levels: expected the coarser latent, got none")
            near = model.steps_to(start, start.latent)
            far = model.steps_to(after, start.latent)
        require(bool((near.abs() <= 1e-3).all()), "a goal where the state is is far away")
        require(bool(far.isfinite().all() and (far >= 0).all()), "steps_to is no distance")
        model = model.coarser


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
