"""The objective that redraws observations: its formula, and what it counts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modules import chance
from modules.messages import SIGNALS, ActionSpec, Experience, WorldSpec
from modules.objectives.objective import Encodings, encodings_of
from modules.objectives.reconstruction import Reconstruction
from modules.ports import Batch, encoded_states

KEY = chance.keys(7, 1, 0)
ROWS, STEPS, SIZE = 4, 3, 8
ACTIONS = ActionSpec(discrete=True, size=2)


def reconstruction(pixels: bool, **settings: float) -> Reconstruction:
    torch.manual_seed(3)
    world = WorldSpec(
        id="t/T-v0", signals=SIGNALS, actions=ACTIONS,
        pixels=(8, 8, 1) if pixels else None, vector=None if pixels else 5,
    )  # fmt: skip
    config = Reconstruction.Config(filters=4, width=8, **settings)
    one = Reconstruction(config=config, world=world, latent_size=SIZE)
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return one


def encodings(windows: Tensor, observations: Tensor, lengths: list[int]) -> Encodings:
    mask = torch.arange(STEPS)[None] < torch.tensor(lengths)[:, None]
    windows = torch.where(mask[..., None], windows, 0.0)
    return Encodings(
        latents=windows[mask], windows=windows, mask=mask,
        actions=torch.zeros(ROWS, STEPS - 1, 2), action_mask=mask[:, 1:],
        other_view=windows[:, 0], observations=observations,
    )  # fmt: skip


def observed(pixels: bool, key: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(key)
    if pixels:
        shape = (ROWS, STEPS, 8, 8, 1)
        return torch.randint(256, shape, generator=draw, dtype=torch.uint8)
    return torch.randn(ROWS, STEPS, 5, generator=draw)


@pytest.mark.parametrize("pixels", [True, False])
def test_the_loss_is_the_error_of_what_is_drawn_in_units_of_the_deviation(pixels: bool) -> None:
    one, shown = reconstruction(pixels, weight=2.0), observed(pixels)
    windows, lengths = torch.randn(ROWS, STEPS, SIZE), [3, 1, 0, 2]
    given = encodings(windows, shown, lengths)
    ((name, loss),) = one.penalties(given, KEY).items()
    valid = [(row, step) for row in range(ROWS) for step in range(lengths[row])]
    numbers = shown.flatten(2).float() / (255 if pixels else 1)
    seen = torch.stack([numbers[row, step] for row, step in valid])
    variance = seen.var(0, correction=0)
    scale = variance.mean().sqrt() if pixels else variance.sqrt()
    errors = [
        (one.decoder(windows[row, step][None])[0] - (numbers[row, step] - seen.mean(0)) / scale)
        .square()
        .mean()
        for row, step in valid
    ]
    assert name == "reconstruction"
    assert loss.item() == pytest.approx(2 * torch.stack(errors).mean().item(), rel=1e-4)


@pytest.mark.parametrize("pixels", [True, False])
def test_what_lies_outside_the_mask_is_not_drawn(pixels: bool) -> None:
    results = []
    for key in (0, 1):
        shown, lengths = observed(pixels), [3, 1, 0, 2]
        beyond = torch.arange(STEPS)[None] >= torch.tensor(lengths)[:, None]
        shown[beyond] = observed(pixels, key)[beyond]
        torch.manual_seed(1)
        windows = torch.randn(ROWS, STEPS, SIZE, requires_grad=True)
        given = encodings(windows, shown, lengths)
        loss = reconstruction(pixels).penalties(given, KEY)["reconstruction"]
        (gradient,) = torch.autograd.grad(loss, windows)
        assert not gradient[beyond].any()
        assert (gradient[~beyond].abs().amax(-1) > 0).all()
        results.append(loss.item())
    assert results[0] == results[1]


def test_no_valid_step_is_no_loss() -> None:
    one = reconstruction(pixels=True)
    windows = torch.randn(ROWS, STEPS, SIZE)
    loss = one.penalties(encodings(windows, observed(True), [0] * ROWS), KEY)["reconstruction"]
    assert loss.item() == 0


def test_a_decoder_learns_to_draw_what_latents_hold() -> None:
    one, draw = reconstruction(pixels=False), torch.Generator().manual_seed(0)
    windows = torch.randn(ROWS, STEPS, SIZE, generator=draw)
    given = encodings(windows, windows[..., :5] * 3 + 1, [STEPS] * ROWS)
    descent = torch.optim.Adam(one.parameters(), lr=1e-2)
    losses = []
    for _ in range(200):
        loss = one.penalties(given, KEY)["reconstruction"]
        descent.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        descent.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]


@pytest.mark.parametrize("context", [0, 2])
def test_the_newest_frame_of_each_step_is_drawn(context: int) -> None:
    steps = STEPS + 1  # of which the last is not encoded with gradient
    frames = torch.randint(256, (ROWS, steps + context, 8, 8, 1), dtype=torch.uint8)
    none = torch.zeros(ROWS, steps, dtype=torch.bool)
    experience = Experience(
        frames=frames, vectors=None, actions=torch.zeros(ROWS, steps, 2),
        signals=torch.zeros(ROWS, steps, len(SIGNALS)), terminated=none, truncated=none.clone(),
        mask=~none, importance_weights=torch.ones(ROWS), indices=torch.arange(ROWS),
    )  # fmt: skip
    windows = torch.randn(ROWS, STEPS, SIZE)
    states = encoded_states(experience, windows)
    batch = Batch(experience, states, states)
    given = encodings_of(batch, windows.flatten(0, 1), windows, ~none, none)
    assert given.observations is not None
    assert given.observations.equal(frames[:, context : context + STEPS])
