"""Networks: sizes, modulation, running scales."""

from __future__ import annotations

import pytest
import torch

from modules.messages import ConfigError
from modules.nets.conv import CNN, ImpalaCNN, NatureCNN, SmallCNN
from modules.nets.film import FiLM
from modules.nets.gradient import scale_gradient
from modules.nets.hat_functions import HatFunctions
from modules.nets.mlp import MLP, ResidualMLP
from modules.nets.normalisation import RunningScale, soft_log, symexp, symlog, unit_rms


@pytest.mark.parametrize("network", [SmallCNN, NatureCNN, ImpalaCNN])
@pytest.mark.parametrize(("channels", "height", "width"), [(4, 84, 84), (12, 36, 40), (1, 97, 51)])
def test_cnn_takes_any_size_and_says_its_features(
    network: type[SmallCNN] | type[NatureCNN] | type[ImpalaCNN],
    channels: int,
    height: int,
    width: int,
) -> None:
    made = network(channels, height, width, (2, 3))
    frames = torch.rand(2, channels, height, width)
    assert made(frames).shape == (2, made.features)
    wide = network(channels, height, width, (2, 3), 2)
    assert wide(frames).shape == (2, 2 * made.features)


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_a_gradient_is_scaled_and_at_0_there_is_none(factor: float) -> None:
    source = torch.tensor([1.0, 2.0], requires_grad=True)
    scaled = scale_gradient(source * 3, factor)
    assert scaled.tolist() == [3, 6]
    assert scaled.requires_grad == (factor > 0)
    if factor:
        scaled.sum().backward()  # type: ignore[no-untyped-call]
        assert source.grad is not None
        assert source.grad.tolist() == [3 * factor] * 2


def test_features_of_an_84_by_84_frame() -> None:
    assert SmallCNN(4, 84, 84, (0, 0)).features == 1024
    assert NatureCNN(4, 84, 84, (0, 0)).features == 3136
    assert ImpalaCNN(4, 84, 84, (0, 0)).features == 32 * 11 * 11


def test_too_small_a_frame_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"at least 36x36 pixels, got 35x84; try frame_size=84"):
        SmallCNN(4, 35, 84, (0, 0))


def _networks() -> list[tuple[torch.nn.Module, torch.Tensor]]:
    return [
        (SmallCNN(1, 36, 36, (2, 3)), torch.rand(6, 1, 36, 36)),
        (NatureCNN(1, 36, 36, (2, 3)), torch.rand(6, 1, 36, 36)),
        (ImpalaCNN(1, 36, 36, (2, 3)), torch.rand(6, 1, 36, 36)),
        (MLP(5, 16, 4, token_shape=(2, 3)), torch.rand(6, 5)),
        (MLP(5, 16, 4, token_shape=(2, 3), layer_norm=True), torch.rand(6, 5)),
        (ResidualMLP(5, 16, 2, (2, 3)), torch.rand(6, 5)),
    ]


@pytest.mark.parametrize("which", range(6))
def test_tokens_change_nothing_when_fresh_and_something_when_trained(which: int) -> None:
    torch.manual_seed(which)
    network, x = _networks()[which]
    tokens = torch.randn(6, 2, 3)
    fresh = network(x)
    assert torch.equal(network(x, tokens), fresh)

    descent = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(3):
        descent.zero_grad()
        (network(x, tokens) - fresh.detach() - 1).square().mean().backward()
        descent.step()
    trained = network(x, tokens)
    assert (trained - network(x, -tokens)).abs().max() > 1e-3
    assert torch.equal(network(x, torch.zeros(6, 2, 3)), network(x))


def test_film_is_its_formula_and_serves_candidates_side_by_side() -> None:
    film = FiLM((2, 3), 4)
    assert film.modulate is not None
    torch.nn.init.normal_(film.modulate.weight)
    x, tokens = torch.randn(6, 4, 2, 2), torch.randn(3, 2, 3)
    got = film(x, tokens)
    for m in range(6):
        numbers = film.modulate.weight @ tokens[m // 2].reshape(-1)
        for c in range(4):
            wanted = x[m, c] * (1 + numbers[c]) + numbers[4 + c]
            torch.testing.assert_close(got[m, c], wanted)


def test_no_tokens_at_all_is_a_width_like_any_other() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(FiLM((0, 0), 4)(x, torch.zeros(3, 0, 0)), x)


def test_a_silent_network_says_zero_and_can_learn() -> None:
    network = MLP(3, 16, 2, zero_output=True)
    out = network(torch.randn(5, 3))
    assert torch.equal(out, torch.zeros(5, 2))
    (out - 1).square().sum().backward()
    assert network.last.weight.grad is not None
    assert network.last.weight.grad.abs().max() > 0


def test_symlog_has_its_inverse_and_unit_rms_its_sphere() -> None:
    x = torch.tensor([-1e6, -3.0, 0.0, 1e-3, 2.0, 1e6])
    torch.testing.assert_close(symexp(symlog(x)), x, rtol=1e-4, atol=1e-6)
    small = torch.linspace(-1, 1, 9)
    torch.testing.assert_close(soft_log(small), small, rtol=2e-3, atol=0)
    assert soft_log(torch.tensor(1e6)) == pytest.approx(122.06, rel=1e-4)
    assert torch.isfinite(symexp(torch.tensor([1e30, -1e30]))).all()
    torch.testing.assert_close(unit_rms(torch.randn(5, 9)).norm(dim=1), torch.full((5,), 3.0))


def test_running_scale_is_the_plain_average_while_young() -> None:
    torch.manual_seed(0)
    scale = RunningScale(3, decay=0.9)
    assert torch.equal(scale.centre, torch.zeros(3))
    assert torch.equal(scale.deviation(), torch.ones(3))
    batches = [torch.randn(20, 3) * 2 + 1000 + i for i in range(5)]
    for batch in batches:
        scale.update(batch)
        scale.update(batch[:0])
    everything = torch.cat(batches).double()
    torch.testing.assert_close(scale.centre.double(), everything.mean(0), rtol=1e-5, atol=0)
    wanted = everything.std(0, correction=0)
    torch.testing.assert_close(scale.deviation().double(), wanted, rtol=1e-3, atol=0)
    rms = everything.square().mean(0).sqrt()
    torch.testing.assert_close(scale.magnitude().double(), rms, rtol=1e-5, atol=0)


def test_running_scale_forgets() -> None:
    scale = RunningScale(1, decay=0.9)
    for value in [100.0] * 20 + [0.0] * 100:
        scale.update(torch.full((4, 1), value))
    assert scale.centre.item() < 0.01


def test_convolutions_are_modulated_before_their_nonlinearity() -> None:
    class OneLayer(CNN):
        layers = ((2, 5, 5, 0),)

    network = OneLayer(1, 36, 36, (1, 1))
    film = network.films[0]
    assert isinstance(film, FiLM)
    assert film.modulate is not None
    with torch.no_grad():
        film.modulate.weight.copy_(torch.tensor([[1.0], [-1.0], [0.0], [0.0]]))
        x = torch.rand(1, 1, 36, 36)
        raw = network.convolutions[0](x)
        doubled = torch.relu(torch.stack([2 * raw[:, 0], 0 * raw[:, 1]], 1)).flatten(1)
        torch.testing.assert_close(network(x, torch.ones(1, 1, 1)), doubled)


@pytest.mark.parametrize("network", [SmallCNN, NatureCNN, ImpalaCNN])
@pytest.mark.parametrize("size", [36, 84])
def test_every_pixel_is_seen(network, size):
    """No line or column of a frame is beyond the reach of the features."""
    frames = torch.rand(2, 1, size, size, requires_grad=True)
    network(1, size, size, (0, 0))(frames).square().sum().backward()
    reached = frames.grad.abs().sum((0, 1))
    assert (reached.sum(0) > 0).all()
    assert (reached.sum(1) > 0).all()


def test_a_normalised_mlp_is_that_of_torch() -> None:
    network, x = MLP(5, 16, 4, layers=2, layer_norm=True), 7 * torch.rand(6, 5)
    first, second = network.hidden
    hidden = x
    for linear in (first, second):
        hidden = torch.nn.functional.layer_norm(linear(hidden), (16,))
        hidden = torch.nn.functional.silu(hidden)
    torch.testing.assert_close(network(x), network.last(hidden))


# -- hat functions ------------------------------------------------------------------------------


def hats(count: int, low: float, high: float) -> HatFunctions:
    return HatFunctions(HatFunctions.Config(count=count, low=low, high=high))


def test_hat_functions_stand_behind_the_numbers_and_say_how_near_each_place_is() -> None:
    network = hats(5, -1, 1)
    x = torch.tensor([[-1.0, 0.25, 3.0]])
    expected = [1, 0, 0, 0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0, 0, 0]
    assert network.output_size(3) == 18
    torch.testing.assert_close(network(x), torch.cat([x, torch.tensor([expected])], 1))


def test_between_the_outer_places_hat_functions_add_up_to_one() -> None:
    network = hats(9, 0, 2.4)
    x = torch.linspace(0, 2.4, 97).unsqueeze(1)
    torch.testing.assert_close(network(x)[:, 1:].sum(1), torch.ones(97))
    assert not network(torch.tensor([[-0.31], [2.71]]))[:, 1:].any()


@pytest.mark.parametrize("places", [0, 20])
def test_what_differs_from_place_to_place_is_learned_by_hat_functions(places: int) -> None:
    """Twenty places on a line, every second of them bad: the mean error is 1 at first."""
    torch.manual_seed(0)
    x, value = torch.linspace(0, 1, 20).unsqueeze(1), torch.tensor([1.0, -1.0] * 10).unsqueeze(1)
    inputs = hats(places, 0, 1)(x) if places else x
    network = MLP(inputs.shape[1], 32, 1, layer_norm=True, zero_output=True)
    descent = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(200):
        descent.zero_grad()
        error = (network(inputs) - value).abs()
        error.square().mean().backward()
        descent.step()
    learned = float(error.detach().mean())
    assert learned < 0.1 if places else learned > 0.5
