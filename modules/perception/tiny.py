"""Frames → state by a network too small to see everything: where priming matters most (§6)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modules.nets.conv import TinyCNN
from modules.perception.pixels import Pixels, PixelsSmall


class PixelsTiny(Pixels):
    """Pixels through the tiny network. What a configurator primes changes what it can see."""

    network_class = TinyCNN

    class Config(PixelsSmall.Config):
        """Settings of `pixels-tiny`: those of `pixels-small`, one frame as the world shows it."""

        kind: Literal["pixels-tiny"] = "pixels-tiny"  # type: ignore[assignment]
        latent_size: int = Field(default=16, ge=8)
        frame_stack: int = Field(default=1, ge=1, le=16)
        frame_size: int = Field(default=0, ge=0, le=512)
        grayscale: bool = False
        random_shift_pixels: int = Field(default=0, ge=0, le=16)
