"""A predictor of fully connected residual blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.messages import Frozen
from modules.nets.mlp import ResidualMLP
from modules.world_model.predictors.predictor import (
    PredictorNetwork,
    PredictorSize,
    per_candidate,
)


class MLPPredictor:
    """Latent and action through a `ResidualMLP`, each block modulated by tokens (FiLM).

    Its linear path from input to output suits worlds whose dynamics are nearly linear.
    """

    class Config(Frozen):
        """`mlp` has no settings; width and blocks are the world model's."""

    def network(self, size: PredictorSize) -> PredictorNetwork:
        """A new network with `size.width` features."""
        return _MLPNetwork(size)


class _MLPNetwork(ResidualMLP):
    """[latent, action] → features [M width]; no recurrent state."""

    hidden_size = 0

    def __init__(self, size: PredictorSize) -> None:
        super().__init__(size.latent + size.action, size.width, size.blocks, size.token_shape)
        self._size = size

    def forward(  # type: ignore[override]
        self, latent: Tensor, action: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        features = super().forward(torch.cat([latent, action], -1), tokens)
        return features, per_candidate(hidden, len(latent))

    def readout(self, heads: int) -> nn.Linear:
        return nn.Linear(self._size.width, heads * self._size.latent)
