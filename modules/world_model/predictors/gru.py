"""A recurrent predictor: what it needs to know of earlier steps is in a hidden state."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.messages import Frozen
from modules.nets.mlp import ResidualMLP
from modules.world_model.predictors.predictor import (
    PredictorNetwork,
    PredictorSize,
    per_candidate,
)


class GRUPredictor:
    """A gated recurrent unit (Cho et al. 2014) reads latent and action; a `ResidualMLP` reads both
    and the new recurrent state.

    The deterministic path of a recurrent state-space model (Hafner et al. 2019, PlaNet), for worlds
    where one latent does not determine the next, such as those that hide velocities.
    """

    class Config(Frozen):
        """Settings of `gru`. state_size: R, numbers of the recurrent state."""

        state_size: int = Field(default=128, ge=1, le=8192)

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def network(self, size: PredictorSize) -> PredictorNetwork:
        """A new network with `size.width` features."""
        return _GRUNetwork(size, self.config.state_size)


class _GRUNetwork(nn.Module):
    """h' = GRU([latent, action], h) and features of [latent, action, h'] [M width]."""

    def __init__(self, size: PredictorSize, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size, self._size = hidden_size, size
        inputs = size.latent + size.action
        self.cell = nn.GRUCell(inputs, hidden_size)
        self.body = ResidualMLP(inputs + hidden_size, size.width, size.blocks, size.token_shape)

    def forward(
        self, latent: Tensor, action: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        inputs = torch.cat([latent, action], -1)
        after: Tensor = self.cell(inputs, per_candidate(hidden, len(inputs)))
        return self.body(torch.cat([inputs, after], -1), tokens), after

    def readout(self, heads: int) -> nn.Linear:
        return nn.Linear(self._size.width, heads * self._size.latent)
