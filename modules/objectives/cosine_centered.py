"""Cosine distance about the mean of the targets: BYOL's error with DINO's centring."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity

from modules.messages import Frozen
from modules.objectives.objective import Encodings


class CosineCentered:
    """Error 2 - 2·cos(predicted - c, target - c), c the mean of the targets; no penalty.

    The error of BYOL (Grill et al. 2020) and SPR, which avoid collapse by a slow target encoder
    (`learner.ema_rate` well below 1) and a predictor. With a constant background that fails
    silently: all latents share one direction, so any two have a cosine near 1. Subtracting their
    mean, as Caron et al. 2021 do with their teacher's output, removes that shared direction.
    """

    class Config(Frozen):
        """`cosine-centered` has no settings."""

    online_steps: ClassVar[int] = 1
    compares_views: ClassVar[bool] = False

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """0 to 4, [M K], of `predicted` [M K D] and `target` [M D]; `unit` is not used."""
        centre = target.mean(0)
        towards = (target - centre).unsqueeze(1)
        return 2 - 2 * cosine_similarity(predicted - centre, towards, dim=2, eps=1e-6)

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}
