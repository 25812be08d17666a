"""Signal heads: what each computes, and that with a linear predictor a plan's cost is quadratic."""

from __future__ import annotations

import pytest
import torch
from test_jepa import ACTION, LATENT, LEARNING_KEY, TOKENS, WORLD, state, states_of, windows
from torch import Tensor, nn

from modules.messages import SIGNALS
from modules.objectives.none import Unregularised
from modules.ports import Batch
from modules.world_model.jepa import JEPA
from modules.world_model.predictors.linear import LinearPredictor
from modules.world_model.signal_heads.mlp import MLPSignals
from modules.world_model.signal_heads.quadratic import QuadraticSignals
from modules.world_model.signal_heads.signal_head import SignalHead, SignalHeadSize

HEADS: dict[str, type[SignalHead]] = {"mlp": MLPSignals, "quadratic": QuadraticSignals}
SIZE = SignalHeadSize(inputs=5, width=7, outputs=3, token_shape=TOKENS)

every_head = pytest.mark.parametrize("kind", HEADS)


def shaken(module: nn.Module) -> nn.Module:
    """The module with random weights."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def network(kind: str) -> nn.Module:
    net = HEADS[kind]().network(SIZE)
    assert isinstance(net, nn.Module)
    return shaken(net)


def model_of(kind: str, unroll_steps: int = 5) -> JEPA:
    """A model with the predictor `linear`, random weights and random statistics."""
    model = JEPA(
        config=JEPA.Config(width=16, ensemble_size=1, unroll_steps=unroll_steps),
        world=WORLD,
        latent_size=LATENT,
        token_shape=TOKENS,
        objective=Unregularised(),
        predictor=LinearPredictor(),
        signal_head=HEADS[kind](),
    )
    shaken(model)
    model.latent_stats.update(torch.randn(50, LATENT) * 2 + 1)
    model.delta_stats.update(torch.randn(50, LATENT) * 0.3)
    model.signal_stats.update(torch.randn(50, len(SIGNALS)))
    return model


@every_head
def test_a_fresh_head_predicts_zero_of_its_unit_which_has_an_inverse(kind: str) -> None:
    net = HEADS[kind]().network(SIZE)
    assert not bool(net(torch.randn(4, SIZE.inputs), torch.randn(4, *TOKENS)).any())
    signals = torch.tensor([-300.0, -1.0, 0.0, 0.01, 7.0])
    torch.testing.assert_close(net.decode(net.encode(signals)), signals, rtol=1e-4, atol=1e-6)


@every_head
def test_tokens_are_read_and_none_are_tokens_of_zero(kind: str) -> None:
    net, inputs = network(kind), torch.randn(4, SIZE.inputs)
    without, zero = net(inputs, None), net(inputs, torch.zeros(4, *TOKENS))
    torch.testing.assert_close(without, zero)
    assert ((net(inputs, torch.randn(4, *TOKENS)) - zero).abs().amax(1) > 1e-3).all()


def test_quadratic_signals_are_linear_terms_and_weighted_squares_of_directions() -> None:
    net, x = network("quadratic"), torch.randn(6, SIZE.inputs)
    directions, last = net.directions, net.last
    assert isinstance(directions, nn.Linear)
    assert isinstance(last, nn.Linear)
    linear, squared = last.weight.split([SIZE.inputs, SIZE.width], 1)
    squares = (x @ directions.weight.T + directions.bias) ** 2
    expected = x @ linear.T + squares @ squared.T + last.bias
    torch.testing.assert_close(net(x, None), expected)


def curvature(model: JEPA, start: Tensor, actions: Tensor) -> Tensor:
    """The Hessian [H·A H·A] of the sum of a signal over the steps of a plan [H A]."""

    def cost(plan: Tensor) -> Tensor:
        now = state(1, torch.zeros(1, 0)).replace(latent=start)
        total = torch.zeros(())
        for action in plan:
            now = model.step(now, action[None])
            total = total + now.signals[0, 0]
        return total

    hessian: Tensor = torch.autograd.functional.hessian(cost, actions)  # type: ignore[no-untyped-call]
    return hessian.reshape(actions.numel(), -1)


@pytest.mark.parametrize(("kind", "constant"), [("quadratic", True), ("mlp", False)])
def test_with_a_linear_predictor_a_plan_costs_a_quadratic_function_of_its_actions(
    kind: str, constant: bool
) -> None:
    """The curvature of the cost is the same at any start and any plan."""
    model = model_of(kind)
    here = curvature(model, torch.zeros(1, LATENT), torch.zeros(3, ACTION))
    far = curvature(model, torch.randn(1, LATENT) * 20, torch.randn(3, ACTION) * 5)
    assert here.abs().max() > 1e-3
    assert torch.allclose(here, far, rtol=1e-2, atol=1e-2 * float(here.abs().max())) == constant


@pytest.mark.parametrize(("kind", "own_units"), [("quadratic", True), ("mlp", False)])
def test_the_loss_of_quadratic_signals_is_in_their_own_units(kind: str, own_units: bool) -> None:
    model, experience, latents = (
        model_of(kind, unroll_steps=1),
        windows(4, 2),
        torch.randn(4, 2, LATENT),
    )
    states = states_of(latents)
    losses, _ = model.losses(Batch(experience, states, states), LEARNING_KEY)
    off = model.step(states[0], experience.actions[:, 0]).signals - experience.signals[:, 1]
    mean = (off / model.signal_stats.deviation()).square().mean()
    assert torch.allclose(losses["signals"], mean, rtol=1e-4) == own_units
