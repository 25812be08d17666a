"""Perception by hand: histograms of oriented gradients of stacked frames."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from agent.bench.memory import moment
from modules.messages import SIGNALS, ActionSpec, ConfigError, Experience, WorldSpec
from modules.perception.hog import HOG

needs_scikit_image = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="needs sextet[hog]"
)


def hog(height: int = 32, width: int = 24, channels: int = 3, **settings: Any) -> HOG:
    world = WorldSpec(
        id="test/World-v0", pixels=(height, width, channels), vector=None, signals=SIGNALS,
        actions=ActionSpec(discrete=True, size=3),
    )  # fmt: skip
    return HOG(config=HOG.Config(**settings), world=world)


@needs_scikit_image
def test_an_edge_votes_for_its_direction():
    """A step of brightness has a gradient across it: at 0° upright, at 90° lying."""
    upright = torch.zeros(1, 1, 16, 16, 1, dtype=torch.uint8)
    upright[..., 4:, :] = 200
    lying = upright.transpose(2, 3).contiguous()
    perception = hog(16, 16, 1, frame_stack=1, cell_pixels=16, orientations=4)
    first, second = perception.encode(upright)[0], perception.encode(lying)[0]
    torch.testing.assert_close(first, torch.tensor([1.0, 0, 0, 0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(second, torch.tensor([0, 0, 1.0, 0]), atol=1e-4, rtol=0)


@needs_scikit_image
@pytest.mark.parametrize("block", [1, 2])
def test_the_latent_is_that_of_the_library_for_each_frame(block: int):
    from skimage.feature import hog as of_library

    frames = torch.randint(0, 256, (5, 3, 32, 24, 3), dtype=torch.uint8)
    perception = hog(frame_stack=3, block_cells=block, orientations=6)
    latents = perception.encode(frames)
    assert latents.shape == (5, perception.latent_size)
    each = latents.view(5, 3, -1)
    for row, step in ((0, 0), (4, 2)):
        expected = of_library(
            frames[row, step].numpy(), orientations=6, pixels_per_cell=(8, 8),
            cells_per_block=(block, block), channel_axis=-1,
        )  # fmt: skip
        np.testing.assert_allclose(each[row, step], expected, rtol=1e-5, atol=1e-6)


@needs_scikit_image
def test_windows_are_encoded_as_they_were_perceived():
    perception = hog(frame_stack=2)
    frames = torch.randint(0, 256, (2, 5, 32, 24, 3), dtype=torch.uint8)
    blank, state, seen = moment(2, 0), perception.initial(2), []
    for t in range(5):
        observation = blank.observation.replace(
            pixels=frames[:, t], first=torch.tensor([t == 0] * 2)
        )
        state = perception.perceive(observation, blank.replace(state=state))
        seen.append(state.latent)
    none, rows = torch.zeros(2, 4, dtype=torch.bool), torch.arange(2)
    windows = Experience(
        frames=frames, vectors=None, actions=torch.zeros(2, 4, 3), mask=~none, terminated=none,
        signals=torch.zeros(2, 4, len(SIGNALS)), truncated=none, indices=rows,
        importance_weights=torch.ones(2),
    )  # fmt: skip
    torch.testing.assert_close(perception.encode_windows(windows), torch.stack(seen[1:], 1))


@needs_scikit_image
def test_remembered_features_are_those_of_their_frame(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("modules.perception.hog._REMEMBERED_FRAMES", 3)
    frames = torch.randint(0, 256, (8, 1, 32, 24, 3), dtype=torch.uint8)
    perception, fresh = hog(frame_stack=1), hog(frame_stack=1)
    perception.encode(frames)
    again = perception.encode(frames.flip(0)).flip(0)
    for one, frame in zip(again, frames, strict=True):
        torch.testing.assert_close(one, fresh.encode(frame[None])[0], rtol=0, atol=0)


@needs_scikit_image
def test_a_block_that_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"cell_pixels: expected a block of 32 pixels .* 32 by 24"
    ):
        hog(cell_pixels=16, block_cells=2)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        hog()
    assert str(error.value) == (
        "config perception.kind: hog: expected the package scikit-image, got none; "
        "pip install 'sextet[hog]'"
    )
