"""A linear predictor: the dynamics of the latent are those of a linear system."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.messages import Frozen
from modules.nets.film import FiLM
from modules.world_model.predictors.predictor import (
    PredictorNetwork,
    PredictorSize,
    per_candidate,
)


class LinearPredictor:
    """The change of the latent is linear in latent and action: s' = A s + B a + c; tokens scale and
    shift what A and B read (FiLM).

    The model of optimal control (Kalman 1960), and in learned latents of Embed to Control (Watter
    et al. 2015) and of Koopman operators (Lusch et al. 2018). A plan may leave the states and
    actions of experience: what was learned there holds everywhere in a linear world, and elsewhere
    an error grows no faster than the distance.
    """

    class Config(Frozen):
        """`linear` has no settings, and does not read width and blocks of the world model."""

    def network(self, size: PredictorSize) -> PredictorNetwork:
        """A new network, whose features are latent and action themselves."""
        return _LinearNetwork(size)


class _LinearNetwork(nn.Module):
    """[latent, action], modulated by tokens, [M D+A]; no recurrent state."""

    hidden_size = 0

    def __init__(self, size: PredictorSize) -> None:
        super().__init__()
        self._size = size
        self.film = FiLM(size.token_shape, size.latent + size.action)

    def forward(
        self, latent: Tensor, action: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        features: Tensor = self.film(torch.cat([latent, action], -1), tokens)
        return features, per_candidate(hidden, len(latent))

    def readout(self, heads: int) -> nn.Linear:
        return nn.Linear(self._size.latent + self._size.action, heads * self._size.latent)
