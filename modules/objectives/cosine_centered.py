"""Direction alone, about the common centre: BYOL's error with DINO's centring."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.functional import cosine_similarity


class CosineCentered:
    """EMA with centred targets: 2 - 2·cos(predicted - c, target - c), c the mean of the targets.

    The error of Grill et al. 2020 and SPR, which hold off collapse by nothing but a target that
    follows slowly (`learner.ema_rate` well below 1) and a predictor. Where the background never
    changes that fails silently: all latents share one direction and any two are alike. Their
    common centre is therefore taken away first, as Caron et al. 2021 do with their teacher's
    output; predicting the centre itself then earns nothing.
    """

    class Config(BaseModel):
        """No settings."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["cosine-centered"] = "cosine-centered"

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """0 to 4, [M K], of `predicted` [M K D] and `target` [M D]; `unit` is not asked."""
        centre = target.mean(0)
        towards = (target - centre).unsqueeze(1)
        return 2 - 2 * cosine_similarity(predicted - centre, towards, dim=2, eps=1e-6)

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """None: the slow target is all there is."""
        return {}
