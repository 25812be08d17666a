"""No penalty: a slow target encoder, or nothing at all."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class SlowTarget:
    """Targets from a slowly following copy of the encoder (Grill et al. 2020; SPR).

    Works in practice, for reasons not in the paper, which advocates regularisers; watch the
    variance of the latents.
    """

    class Config(BaseModel):
        """Settings of `ema`.

        target_decay: share of the target encoder that an update keeps.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["ema"] = "ema"
        target_decay: float = Field(default=0.995, gt=0, lt=1)

    def __init__(self, *, target_decay: float = 0.995):
        self.target_decay = target_decay

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}


class Unregularised:
    """Targets from the learning encoder itself, without gradient, and nothing against collapse.

    Sound where the encoder cannot collapse (`vectors`), and the control of any comparison.
    """

    class Config(BaseModel):
        """`none` has no settings."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["none"] = "none"

    target_decay = 0.0

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}
