"""No penalty at all."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from modules.objectives.objective import Squared


class Unregularised(Squared):
    """Nothing against collapse but the targets, whose gradient is stopped.

    Sound where the encoder cannot collapse (`vectors`), and the control of any comparison. With a
    learner whose target perception follows slowly (`learner.ema_rate`) it is the recipe of
    Grill et al. 2020 and SPR, which works for reasons not in the paper: watch the variance.
    """

    class Config(BaseModel):
        """`none` has no settings."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["none"] = "none"

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}
