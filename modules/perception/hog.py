"""Perception by hand: histograms of oriented gradients, which nothing trains."""

from __future__ import annotations

import hashlib
import importlib.util
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from modules.messages import ConfigError, Experience, Frozen, WorldSpec
from modules.nets.frames import as_bytes
from modules.perception.frames import StackedFrames

_REMEMBERED_FRAMES = 1 << 14
"""Frames whose features are remembered: a frame is encoded once in acting and then at each update
that samples it, and a histogram takes about a millisecond.
"""


def require_scikit_image() -> None:
    """Raises ConfigError, one line, where scikit-image is not installed."""
    if importlib.util.find_spec("skimage") is None:
        raise ConfigError(
            "config perception.kind: hog: expected the package scikit-image, got none; "
            "pip install 'sextet[hog]'"
        )


class HOG(StackedFrames):
    """Histograms of oriented gradients (Dalal & Triggs 2005), the features that learned ones
    replaced, of the last `frame_stack` frames, by scikit-image.

    In each cell of `cell_pixels`² pixels the gradients vote, by their length, for one of
    `orientations` directions without sign; of several channels that with the longest gradient
    counts. Histograms are normalised in blocks of `block_cells`² cells (L2-Hys). The latent is the
    features of the frames, oldest first, D = stack · blocks · block_cells² · orientations: numbers
    from 0 to 1. There are no weights, tokens change nothing, and frames are not augmented.

    Raises ConfigError where scikit-image is not installed or a block does not fit into a frame.
    """

    class Config(Frozen):
        """Settings of `hog`. frame_size: height and width requested of the world in pixels; 0: the
        world's own. grayscale: request one channel.
        """

        orientations: int = Field(default=9, ge=1, le=180)
        cell_pixels: int = Field(default=8, ge=2, le=512)
        block_cells: int = Field(default=1, ge=1, le=16)
        frame_stack: int = Field(default=2, ge=1, le=16)
        frame_size: int = Field(default=64, ge=0, le=512)
        grayscale: bool = True

        @property
        def sensor(self) -> dict[str, Any] | None:
            """Settings of `worlds.protocols.Sensor`; None: frames as the world shows them."""
            if not self.frame_size:
                return None
            return {"height": self.frame_size, "width": self.frame_size, "gray": self.grayscale}

    reads: ClassVar = "pixels"

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require_scikit_image()
        height, width, channels = self.frame_shape(world)
        self.config, self.world, self.frame_stack = config, world, config.frame_stack
        self.hidden_size = (config.frame_stack - 1) * height * width * channels
        blocks = [side // config.cell_pixels - config.block_cells + 1 for side in (height, width)]
        if min(blocks) < 1:
            side = config.cell_pixels * config.block_cells
            raise ConfigError(
                f"config perception.cell_pixels: expected a block of {side} pixels a side that "
                f"fits into a frame, got frames of {height} by {width}"
            )
        self._features = blocks[0] * blocks[1] * config.block_cells**2 * config.orientations
        self.latent_size = config.frame_stack * self._features
        self._remembered: dict[bytes, Tensor] = {}

    def _of_frames(self, frames: Tensor) -> Tensor:
        """Features [M F] of frames [M H Y C] (uint8)."""
        if not len(frames):
            return torch.zeros(0, self._features)
        return torch.stack([self._of_frame(frame) for frame in as_bytes(frames)])

    def _of_frame(self, frame: Tensor) -> Tensor:
        """Features [F] of a frame [H Y C] (uint8), computed or remembered."""
        from skimage.feature import hog

        pixels = frame.contiguous().cpu().numpy()
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        if (features := self._remembered.get(digest)) is None:
            config = self.config
            features = torch.from_numpy(
                hog(
                    pixels,
                    orientations=config.orientations,
                    pixels_per_cell=(config.cell_pixels, config.cell_pixels),
                    cells_per_block=(config.block_cells, config.block_cells),
                    channel_axis=-1,
                )
            ).float()
            if len(self._remembered) >= _REMEMBERED_FRAMES:
                self._remembered.clear()
            self._remembered[digest] = features
        return features

    def encode(self, stacks: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Latents [M D] of stacks of frames [M stack H Y C] (uint8), oldest first."""
        return self._of_frames(stacks.flatten(0, 1)).view(len(stacks), self.latent_size)

    def encode_windows(
        self,
        experience: Experience,
        tokens: Tensor | None = None,
        augment_key: Tensor | None = None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents [B W D] of all steps of all windows, without gradient; `tokens`, `augment_key`
        and `step_mask` change nothing. Raises MessageError where windows lack context frames.
        """
        rows, steps = experience.mask.shape
        frames = self.frames_of(experience)
        each = self._of_frames(frames.flatten(0, 1)).view(rows, -1, self._features)
        stacks = each.unfold(1, self.frame_stack, 1).movedim(-1, 2)
        return stacks.reshape(rows, steps, self.latent_size).to(experience.mask.device)
