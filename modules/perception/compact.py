"""Perception of frames that show a place: latents are standardised and not on a sphere."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from modules.nets.conv import CompactCNN
from modules.perception.pixels import Pixels


class PixelsCompact(Pixels):
    """Frames through a compact network, without augmentation: where something is must be kept.

    latent = (z - mean(z)) / std(z), a batch norm (EB-JEPA 2026). On the sphere of `Pixels` the
    distance between two places would also depend on how far both are from the mean.
    """

    network_class = CompactCNN

    class Config(Pixels.Config):
        """Settings of `pixels-compact`: those of `Pixels`; one frame in the world's own size."""

        latent_size: int = Field(default=16, ge=8, le=8192)
        frame_stack: int = Field(default=1, ge=1, le=16)
        frame_size: int = Field(default=0, ge=0, le=512)
        grayscale: bool = False
        random_shift_pixels: int = Field(default=0, ge=0, le=16)
        intensity_jitter_std: float = Field(default=0, ge=0, le=0.5)

    def _bounded(self, standardised: Tensor) -> Tensor:
        return standardised
