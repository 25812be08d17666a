"""Perception of frames by a network too small for all of a frame: tokens matter most (§6)."""

from __future__ import annotations

from pydantic import Field

from modules.nets.conv import TinyCNN
from modules.perception.pixels import Pixels


class PixelsTiny(Pixels):
    """Frames through the tiny network; directive tokens select what it can represent."""

    network_class = TinyCNN

    class Config(Pixels.Config):
        """Settings of `pixels-tiny`: those of `Pixels`; one frame in the world's own size."""

        latent_size: int = Field(default=16, ge=8, le=8192)
        frame_stack: int = Field(default=1, ge=1, le=16)
        frame_size: int = Field(default=0, ge=0, le=512)
        grayscale: bool = False
        random_shift_pixels: int = Field(default=0, ge=0, le=16)
