"""Perception: stacking, encoding of windows, augmentation, any frame, priming."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from agent.bench.memory import moment
from modules import chance
from modules.messages import (
    SIGNALS,
    ActionSpec,
    ConfigError,
    Experience,
    MessageError,
    Moment,
    Observation,
    State,
    WorldSpec,
)
from modules.perception.pixels import (
    Pixels,
    PixelsNature,
    PixelsSmall,
    _shifted_at_once,
    _shifted_by_row,
    as_bytes,
    shifted,
)
from modules.perception.vectors import Vectors
from modules.ports import Perception

TOKENS = (2, 3)
ACTIONS = ActionSpec(discrete=True, size=3)


def world(pixels: tuple[int, int, int] | None = None, vector: int | None = None) -> WorldSpec:
    return WorldSpec(
        id="test/World-v0", pixels=pixels, vector=vector, signals=SIGNALS, actions=ACTIONS
    )


def perception_of(kind: Any, spec: WorldSpec, **settings: Any) -> Any:
    """A perception of `kind` with its config's defaults but for `settings`."""
    return kind(config=kind.Config(**settings), world=spec, token_shape=TOKENS)


def small(channels: int = 1, **settings: Any) -> PixelsSmall:
    perception = perception_of(PixelsSmall, world((40, 36, channels)), latent_size=16, **settings)
    assert isinstance(perception, PixelsSmall)
    return perception


def observation(
    pixels: Tensor | None = None, vector: Tensor | None = None, first: Tensor | None = None
) -> Observation:
    values = pixels if pixels is not None else vector
    assert values is not None
    rows = len(values)
    none = torch.zeros(rows, dtype=torch.bool)
    return Observation(
        pixels=pixels,
        vector=vector,
        signals=torch.rand(rows, len(SIGNALS)),
        first=none if first is None else first,
        terminated=torch.arange(rows) % 2 == 1,
        truncated=none,
    )


def after(state: State, tokens: Tensor | None = None) -> Moment:
    """A moment with this state and these tokens, all that perception reads of one."""
    if tokens is None:
        tokens = torch.zeros(state.batch, *TOKENS)
    blank = moment(state.batch, 0)
    directive = blank.directive.model_copy(update={"tokens": tokens})
    return blank.model_copy(update={"state": state, "directive": directive})


def experience(frames: Tensor | None, vectors: Tensor | None, rows: int, steps: int) -> Experience:
    none = torch.zeros(rows, steps, dtype=torch.bool)
    return Experience(
        frames=frames,
        vectors=vectors,
        actions=torch.zeros(rows, steps, 3),
        signals=torch.zeros(rows, steps, len(SIGNALS)),
        terminated=none,
        truncated=none,
        mask=~none,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )


def perception_named(kind: str) -> Any:
    if kind == "vectors":
        return perception_of(Vectors, world(vector=5), features=16)
    network = {"small": PixelsSmall, "nature": PixelsNature}[kind]
    return perception_of(network, world((40, 36, 1)), latent_size=16)


def observed_by(kind: str, rows: int) -> dict[str, Tensor]:
    if kind == "vectors":
        return {"vector": torch.randn(rows, 5)}
    return {"pixels": torch.randint(0, 256, (rows, 40, 36, 1), dtype=torch.uint8)}


@pytest.mark.parametrize("kind", ["small", "nature", "vectors"])
def test_an_observation_becomes_a_state(kind: str) -> None:
    perception = perception_named(kind)
    assert isinstance(perception, Perception)
    initial = perception.initial(3).check({"B": 3, "D": perception.latent_size})
    percept = observation(**observed_by(kind, 3), first=torch.ones(3, dtype=torch.bool))
    state = perception.perceive(percept, after(initial))
    state.check({"B": 3, "D": perception.latent_size, "S": len(SIGNALS)})
    assert state.hidden.shape == initial.hidden.shape
    assert state.hidden.dtype == initial.hidden.dtype
    assert torch.equal(state.signals, percept.signals)
    assert state.ended.tolist() == [0, 1, 0]
    assert torch.equal(state.uncertainty, torch.zeros(3))


@pytest.mark.parametrize("kind", ["small", "nature", "vectors"])
def test_tokens_change_nothing_before_training_and_something_after(kind: str) -> None:
    torch.manual_seed(0)
    perception = perception_named(kind)
    percept, initial = observation(**observed_by(kind, 2)), perception.initial(2)
    tokens = torch.randn(2, *TOKENS)

    def latent(primed: Tensor) -> Tensor:
        primed_state: State = perception.perceive(percept, after(initial, primed))
        return primed_state.latent

    assert torch.equal(latent(tokens), latent(torch.zeros(2, *TOKENS)))
    descent = torch.optim.Adam(perception.parameters(), lr=1e-2)
    for _ in range(2):
        descent.zero_grad()
        (latent(tokens) * latent(-tokens).detach()).sum().backward()
        descent.step()
    assert (latent(tokens) - latent(-tokens)).abs().max() > 1e-3


def perceived_states(perception: Pixels, frames: Tensor, firsts: Tensor) -> list[State]:
    """The states of `frames` [steps B ...], where rows begin an episode at `firsts` [steps B]."""
    initial = perception.initial(frames.shape[1])
    before, states = initial, []
    for frame, first in zip(frames, firsts, strict=True):
        before = initial.where(first, before)
        before = perception.perceive(observation(frame, first=first), after(before))
        states.append(before)
    return states


def test_the_last_four_frames_are_stacked_and_an_episode_starts_anew() -> None:
    torch.manual_seed(0)
    perception = small()
    frames = torch.randint(0, 256, (7, 2, 40, 36, 1), dtype=torch.uint8)
    firsts = torch.zeros(7, 2, dtype=torch.bool)
    firsts[0] = True
    firsts[5, 1] = True
    states = perceived_states(perception, frames, firsts)

    def stacked(row: int, steps: list[int]) -> Tensor:
        return torch.stack([frames[t, row] for t in steps])

    for row, t, steps in [
        (0, 0, [0, 0, 0, 0]),
        (0, 1, [0, 0, 0, 1]),
        (0, 6, [3, 4, 5, 6]),
        (1, 4, [1, 2, 3, 4]),
        (1, 5, [5, 5, 5, 5]),
        (1, 6, [5, 5, 5, 6]),
    ]:
        held = states[t].hidden[row].view(3, 40, 36, 1)
        assert torch.equal(held, stacked(row, steps)[1:])
        expected = perception.encode(stacked(row, steps)[None])
        torch.testing.assert_close(states[t].latent[row], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_windows_are_encoded_as_they_were_perceived(stack: int, channels: int) -> None:
    torch.manual_seed(0)
    perception = small(channels=channels, frame_stack=stack)
    frames = torch.randint(0, 256, (6, 2, 40, 36, channels), dtype=torch.uint8)
    firsts = torch.zeros(6, 2, dtype=torch.bool)
    firsts[0] = True
    tokens = torch.zeros(2, *TOKENS)
    states = perceived_states(perception, frames, firsts)
    context = frames[:1].expand(stack - 1, -1, -1, -1, -1)
    windows = torch.cat([context, frames]).transpose(0, 1)
    each = tokens[:, None].repeat(1, 6, 1, 1)
    latents = perception.encode_windows(experience(windows, None, 2, 6), each)
    expected = torch.stack([s.latent for s in states], 1)
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    last = frames[6 - stack :].transpose(0, 1)
    torch.testing.assert_close(latents[:, 5], perception.encode(last), rtol=1e-4, atol=1e-5)


def test_windows_of_vectors_are_encoded_as_they_were_perceived() -> None:
    perception = perception_named("vectors")
    vectors = torch.randn(2, 6, 5) * 100
    latents = perception.encode_windows(experience(None, vectors, 2, 6), None, torch.tensor([1]))
    before = after(perception.initial(2))
    for t in range(6):
        state = perception.perceive(observation(vector=vectors[:, t]), before)
        torch.testing.assert_close(latents[:, t], state.latent)


def test_a_vector_can_be_read_off_the_state() -> None:
    perception = perception_named("vectors")
    vector = torch.tensor([[0.001, -2.0, 300.0, -4e4, 0.0]])
    latent = perception.encode(vector)
    assert perception.latent_size == latent.shape[1] == 21
    back = 10 * (latent[:, :5] / 10).sinh()
    torch.testing.assert_close(back, vector, rtol=1e-4, atol=1e-6)


def test_latents_of_frames_lie_on_a_sphere() -> None:
    torch.manual_seed(0)
    shades = torch.randint(50, 256, (8, 4, 1, 1, 1), dtype=torch.uint8)
    latents = small().encode(shades.expand(-1, -1, 40, 36, -1))
    torch.testing.assert_close(latents.norm(dim=1), torch.full((8,), 4.0), rtol=1e-3, atol=0)


def test_encode_frame_is_a_function_of_frame_and_hidden_alone() -> None:
    perception = small()
    frame = torch.randint(0, 256, (3, 40, 36, 1), dtype=torch.uint8)
    hidden = torch.randint(0, 256, (3, perception.hidden_size), dtype=torch.uint8)
    copy = hidden.clone()
    first = perception.encode_frame(frame, hidden, None)
    again = perception.encode_frame(frame, hidden, None)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(hidden, copy)
    state = perception.initial(3).replace(hidden=hidden)
    perceived = perception.perceive(observation(frame), after(state))
    torch.testing.assert_close(perceived.latent, first[0])
    assert torch.equal(perceived.hidden, first[1])


@pytest.mark.parametrize("network", [PixelsSmall, PixelsNature])
@pytest.mark.parametrize(
    ("height", "width", "channels"), [(36, 36, 1), (50, 121, 3), (210, 160, 3)]
)
def test_any_size_and_any_channels(network: Any, height: int, width: int, channels: int) -> None:
    perception = perception_of(network, world((height, width, channels)))
    pixels = torch.randint(0, 256, (2, height, width, channels), dtype=torch.uint8)
    first = torch.ones(2, dtype=torch.bool)
    state = perception.perceive(observation(pixels, first=first), after(perception.initial(2)))
    assert state.latent.shape == (2, perception.latent_size)
    assert torch.isfinite(state.latent).all()


def test_frames_of_any_dtype_have_the_same_latents() -> None:
    perception = small()
    pixels = torch.randint(0, 2, (2, 40, 36, 1), dtype=torch.uint8) * 255
    before = after(perception.initial(2))
    expected = perception.perceive(observation(pixels), before)
    for same in (
        pixels.float() / 255,
        pixels.double() / 255,
        pixels.half() / 255,
        pixels.bool(),
        pixels.long(),
        pixels.to(torch.int32),
    ):
        state = perception.perceive(observation(same), before)
        assert torch.equal(state.latent, expected.latent)
        assert torch.equal(state.hidden, expected.hidden)
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_bytes(every.float() / 255), every)


@pytest.mark.parametrize("shift", [_shifted_by_row, _shifted_at_once])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_are_shifted_and_edges_repeated(shift: Any, channels: int) -> None:
    frames = torch.randint(0, 256, (4, 2, 7, 9, channels), dtype=torch.uint8)
    offsets = torch.tensor([[0, 0], [2, -1], [-4, 4], [1, 3]])
    moved = shift(frames, offsets)
    for b, (down, right) in enumerate(offsets.tolist()):
        for y in range(7):
            for x in range(9):
                source = frames[b, :, min(max(y - down, 0), 6), min(max(x - right, 0), 8)]
                assert torch.equal(moved[b, :, y, x], source)


@torch.no_grad()
def test_augmentation_follows_its_key_and_can_be_off() -> None:
    torch.manual_seed(0)
    perception = small()
    frames = torch.randint(0, 256, (8, 8, 40, 36, 1), dtype=torch.uint8)
    batch = experience(frames, None, 8, 5)
    plain = perception.encode_windows(batch)
    one = perception.encode_windows(batch, None, torch.tensor([1]))
    assert torch.equal(one, perception.encode_windows(batch, None, torch.tensor([1])))
    assert not torch.equal(one, perception.encode_windows(batch, None, torch.tensor([2])))
    assert (one - plain).abs().max() > 1e-3
    plain_perception = small(random_shift_pixels=0, intensity_jitter_std=0)
    off = plain_perception.encode_windows(batch, None, torch.tensor([1]))
    assert torch.equal(off, plain_perception.encode_windows(batch, None, torch.tensor([2])))


@torch.no_grad()
@pytest.mark.parametrize("centred", [False, True])
def test_all_frames_of_a_window_are_shifted_alike(centred: bool) -> None:
    settings = {"subtract_mean_frame": centred, "intensity_jitter_std": 0}
    batch = experience(torch.randint(0, 256, (8, 8, 40, 36, 1), dtype=torch.uint8), None, 8, 5)
    inputs: list[Tensor] = []
    for pixels in (4, 0):
        perception = small(random_shift_pixels=pixels, **settings)
        perception.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        perception.encode_windows(batch, None, torch.tensor([1]))
    drawn = chance.integers(torch.tensor([1]), "shift", 9, 8, 2)[0] - 4
    moved, still = (one.unsqueeze(-1) for one in inputs)
    assert torch.equal(moved, shifted(still, drawn.repeat_interleave(5, 0)))
    assert not torch.equal(moved, still)


def test_what_all_frames_share_has_no_part_in_latents_and_gradients() -> None:
    """However large the common part of the features grows, latents vary about 0, and no gradient
    moves it.
    """
    torch.manual_seed(0)
    perception = small()
    batch = experience(torch.randint(0, 256, (8, 8, 40, 36, 1), dtype=torch.uint8), None, 8, 5)
    latents = perception.encode_windows(batch, None, torch.tensor([1]))
    latents.square().mul(torch.rand_like(latents)).sum().backward()
    assert perception.project.bias.grad is not None
    assert perception.project.bias.grad.abs().max() < 1e-3
    with torch.no_grad():
        perception.project.bias += 1000
        again = perception.encode_windows(batch, None, torch.tensor([1]))
    assert again.mean((0, 1)).abs().max() < 0.2
    torch.testing.assert_close(again, latents.detach(), rtol=0, atol=0.05)


@pytest.mark.parametrize("shift", [0, 3])
def test_a_constant_background_is_not_encoded_also_when_shifted(shift: int) -> None:
    """Two worlds whose frames differ by one background have the same latents."""
    spec = world((40, 36, 1))
    frames = torch.randint(0, 100, (16, 8, 40, 36, 1), dtype=torch.uint8)
    behind = torch.randint(0, 150, (40, 36, 1), dtype=torch.uint8)
    latents_of_both = []
    for pictures in (frames, frames + behind):
        torch.manual_seed(0)
        perception = perception_of(
            PixelsSmall, spec, latent_size=16, subtract_mean_frame=True, random_shift_pixels=shift
        )
        batch = experience(pictures, None, 16, 5)
        for _ in range(2):
            learned = perception.encode_windows(batch, None, torch.tensor([1]))
        acted = perception.encode_windows(batch, None, None)
        latents_of_both.append((learned.detach(), acted.detach()))
    for one, other in zip(*latents_of_both, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-2)


@torch.no_grad()
def test_running_statistics_in_acting_give_the_latents_of_learning() -> None:
    torch.manual_seed(0)
    perception = small(random_shift_pixels=0, intensity_jitter_std=0)
    batch = experience(torch.randint(0, 256, (8, 8, 40, 36, 1), dtype=torch.uint8), None, 8, 5)
    perception.project.bias += 1000
    with torch.enable_grad():
        learned = perception.encode_windows(batch, None, torch.tensor([1])).detach()
    acted = perception.encode_windows(batch, None, None)
    torch.testing.assert_close(acted, learned, rtol=0, atol=0.05)


def test_a_window_without_its_context_is_refused() -> None:
    frames = torch.zeros(2, 5, 40, 36, 1, dtype=torch.uint8)
    with pytest.raises(MessageError, match=r"Experience.frames: expected 8 frames a window, got 5"):
        small().encode_windows(experience(frames, None, 2, 5))


def test_a_world_without_the_kind_of_observation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shows a vector; try perception.kind=vectors"):
        perception_of(PixelsSmall, world(vector=4))
    with pytest.raises(ConfigError, match=r"shows pixels; try perception.kind=pixels-small"):
        perception_of(Vectors, world((84, 84, 1)))
    perception = small()
    square = observation(torch.zeros(2, 40, 40, 1, dtype=torch.uint8))
    before = after(perception.initial(2))
    with pytest.raises(MessageError, match=r"Observation.pixels"):
        perception.perceive(square, before)


def test_the_config_says_what_sensor_the_world_should_use() -> None:
    assert PixelsSmall.Config().sensor == {"height": 84, "width": 84, "gray": True}
    assert PixelsNature.Config(frame_size=64, grayscale=False).sensor == {
        "height": 64,
        "width": 64,
        "gray": False,
    }
    assert PixelsSmall.Config(frame_size=0).sensor is None
    assert Vectors.Config().sensor is None
