"""Slowly changing latents: the time similarity of EB-JEPA (2026) and PLDM (Sobal et al. 2025)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared, masked_mean


class Smoothness(Squared):
    """Consecutive latents differ little: mean of (s_{t+1} - s_t)² over transitions and dimensions.

    The slowness principle (Wiskott & Sejnowski 2002). A constant latent has no such loss: use it
    beside a penalty against collapse, whose scale of the latents it is relative to.
    """

    class Config(Frozen):
        """Settings of `smoothness`.

        weight: of the loss. EB-JEPA has 12 beside a variance hinge of 16 in TwoRooms, PLDM .74
        beside 4.
        """

        weight: float = Field(default=1.0, ge=0)

    online_steps: ClassVar = 2

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`smoothness`, a weighted scalar, of the windows [B T D]; 0 without a transition."""
        change = encodings.windows.diff(dim=1).square().mean(2)
        return {"smoothness": self.config.weight * masked_mean(change, encodings.mask[:, 1:])}
