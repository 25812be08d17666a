"""Frames → state by a network too small to see everything: where priming matters most (§6)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from modules.nets.conv import TinyCNN
from modules.perception.pixels import Pixels


class PixelsTiny(Pixels):
    """Pixels through the tiny network. What a configurator primes changes what it can see."""

    network_class = TinyCNN

    class Config(BaseModel):
        """Settings of `pixels-tiny`: those of `pixels-small`, one frame as the world shows it."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["pixels-tiny"] = "pixels-tiny"
        latent_size: int = Field(default=16, ge=8)
        stack: int = Field(default=1, ge=1, le=16)
        frame_size: int = Field(default=0, ge=0, le=512)
        gray: bool = False
        shift_pixels: int = Field(default=0, ge=0, le=16)
        intensity: float = Field(default=0.05, ge=0, le=0.5)

        @property
        def sensor(self) -> dict[str, Any] | None:
            """Keywords height, width (pixels) and gray for the world, or None."""
            if not self.frame_size:
                return None
            return {"height": self.frame_size, "width": self.frame_size, "gray": self.gray}
