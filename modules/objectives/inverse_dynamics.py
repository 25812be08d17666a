"""The action between two states, predicted from their latents (Pathak et al. 2017)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from modules.messages import Frozen, WorldSpec
from modules.nets.mlp import MLP
from modules.objectives.objective import Encodings, Squared, masked_mean


class InverseDynamics(Squared, nn.Module):
    """A network predicts the action a_t from the latents of steps t and t+1.

    Latents then hold what actions change; in PLDM (Sobal et al. 2025) and EB-JEPA (2026) it keeps
    slow features and noise from taking their place. They may lose what no action changes, such as
    an opponent: use it beside a penalty against collapse, not alone.
    """

    class Config(Frozen):
        """Settings of `inverse-dynamics`.

        weight: of the loss. width: of the network's two hidden layers.
        """

        weight: float = Field(default=1.0, ge=0)
        width: int = Field(default=256, ge=8, le=8192)

    online_steps: ClassVar = 2

    def __init__(self, *, config: Config, world: WorldSpec, latent_size: int) -> None:
        super().__init__()
        self.config, self.discrete = config, world.actions.discrete
        self.network = MLP(2 * latent_size, config.width, world.actions.size)

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`inverse dynamics`, a weighted scalar, the mean over transitions: the cross entropy of a
        discrete action, the squared error, averaged over A, of a continuous one in [-1, 1]^A. 0
        where there is no transition whose action is known.
        """
        windows, actions = encodings.windows, encodings.actions
        pairs = torch.cat([windows[:, :-1], windows[:, 1:]], 2).flatten(0, 1)
        predicted, taken = self.network(pairs), actions.flatten(0, 1)
        if self.discrete:
            errors = cross_entropy(predicted, taken, reduction="none")
        else:
            errors = (predicted - taken).square().mean(1)
        loss = masked_mean(errors, encodings.action_mask.flatten())
        return {"inverse dynamics": self.config.weight * loss}
