"""No penalty against collapse."""

from __future__ import annotations

from torch import Tensor

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared


class Unregularised(Squared):
    """No penalty; only the stopped gradient of the targets acts against collapse.

    Sound where the encoder cannot collapse (`vectors`), and the control of any comparison. With a
    slow target encoder (`learner.ema_rate` well below 1) it is the recipe of BYOL (Grill et al.
    2020) and SPR, whose stability LeCun 2022 does not explain: watch the latents' variance.
    """

    class Config(Frozen):
        """`none` has no settings."""

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}
