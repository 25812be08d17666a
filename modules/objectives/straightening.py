"""Straight paths of latents (Hénaff et al. 2019; Wang et al. 2026)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared, masked_mean

_STILL = 1e-3
"""Root mean square of a velocity below which it has no direction: the gradient of a cosine is
inverse to the length, and would be without bound in an unchanging scene.
"""


class Straightening(Squared):
    """Consecutive velocities of the latents are driven to be parallel.

    1 - cos(s_{t+1} - s_t, s_{t+2} - s_{t+1}), as in Wang et al. 2026, of the angle by which Hénaff
    et al. 2019 measure curvature: along a straight path the distance in latent space is that along
    the path, and a plan's cost is easier to descend. It does not depend on the latents' scale,
    unless they hardly move, and does not act against collapse.
    """

    class Config(Frozen):
        """Settings of `straightening`. weight: of the loss."""

        weight: float = Field(default=1.0, ge=0)

    online_steps: ClassVar = 3

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`straightening`, a weighted scalar 0 to 2, of the windows [B T D]: the mean over three
        steps in a row whose velocities are not 0; 0 without any.
        """
        velocity = encodings.windows.diff(dim=1)
        moves = velocity.detach().square().mean(2) > _STILL**2
        bend = 1 - cosine_similarity(velocity[:, :-1], velocity[:, 1:], dim=2)
        counted = encodings.mask[:, 2:] & moves[:, :-1] & moves[:, 1:]
        return {"straightening": self.config.weight * masked_mean(bend, counted)}
