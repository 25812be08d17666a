"""A local predictor: the latent is a grid, and a cell changes by its neighbourhood."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from modules.messages import ConfigError, Frozen
from modules.nets.film import FiLM
from modules.world_model.predictors.predictor import (
    PredictorNetwork,
    PredictorSize,
    per_candidate,
)


class ConvPredictor:
    """The latent [D] is read as a grid [C h w] and changed by residual 3×3 convolutions.

    After n blocks a cell depends on the cells at most n away; the action and the tokens modulate
    every cell (FiLM, Perez et al. 2018). So what is static stays, and what is learned in one place
    holds in all. The dynamics network of MuZero (Schrittwieser et al. 2020) is of this form. The
    world model's `width` is the channels of each cell: at equal width a block costs 5·h·w times as
    much as that of an `mlp`.
    """

    class Config(Frozen):
        """Settings of `conv`. grid_height, grid_width: h and w, cells; C = D / (h·w)."""

        grid_height: int = Field(default=4, ge=1, le=128)
        grid_width: int = Field(default=4, ge=1, le=128)

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def network(self, size: PredictorSize) -> PredictorNetwork:
        """A new network with `size.width` features a cell. Raises ConfigError where D is no
        multiple of h·w.
        """
        height, width = self.config.grid_height, self.config.grid_width
        if size.latent % (height * width):
            raise ConfigError(
                "config world_model.predictor: expected a latent of C·h·w numbers, "
                f"{height}x{width} cells of C, got {size.latent}; try another "
                "perception.latent_size, grid_height or grid_width"
            )
        return _ConvNetwork(size, height, width)


class _ConvNetwork(nn.Module):
    """A grid [M C h w] → features of each cell, [M h·w·width]."""

    hidden_size = 0

    def __init__(self, size: PredictorSize, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width, self.channels = height, width, size.width
        self._latent_channels = size.latent // (height * width)
        self.first = nn.Conv2d(self._latent_channels, self.channels, 1)
        self.first_modulation = nn.Linear(size.action, 2 * self.channels)
        self.blocks = nn.ModuleList(
            _LocalBlock(self.channels, size.action, size.token_shape) for _ in range(size.blocks)
        )

    def forward(
        self, latent: Tensor, action: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        grid = latent.view(len(latent), self._latent_channels, self.height, self.width)
        x = _modulated(self.first(grid), self.first_modulation(action))
        for block in self.blocks:
            x = block(x, action, tokens)
        return x.permute(0, 2, 3, 1).flatten(1), per_candidate(hidden, len(latent))

    def readout(self, heads: int) -> nn.Linear:
        return _CellReadout(self.channels, heads, self._latent_channels)


class _LocalBlock(nn.Module):
    """x + W₂·SiLU(FiLM(W₁ * norm(x))): a 3×3 convolution, modulated by action and tokens, then a
    1×1 one that begins at zero. The norm is over the channels of each cell alone.
    """

    def __init__(self, channels: int, action_size: int, token_shape: tuple[int, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(action_size, 2 * channels)
        self.film = FiLM(token_shape, channels)
        self.outer = nn.Conv2d(channels, channels, 1)
        for parameter in self.outer.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, action: Tensor, tokens: Tensor | None) -> Tensor:
        norm = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        inner = self.film(_modulated(self.inner(norm), self.modulation(action)), tokens)
        out: Tensor = x + self.outer(silu(inner))
        return out


def _modulated(x: Tensor, modulation: Tensor) -> Tensor:
    """x·(1 + scale) + shift, x [M C h w], `modulation` [M 2C] being scale and shift.

    Not `FiLM`, which skips a modulator that is 0: an action of 0 must pass its gradient.
    """
    scale, shift = modulation[:, :, None, None].chunk(2, 1)
    return x * (1 + scale) + shift


class _CellReadout(nn.Linear):
    """Features of cells [M h·w·width] → changes [M K·C·h·w], each cell's from its own features."""

    def __init__(self, channels: int, heads: int, latent_channels: int) -> None:
        super().__init__(channels, heads * latent_channels)

    def forward(self, features: Tensor) -> Tensor:
        cells = super().forward(features.view(len(features), -1, self.in_features))
        return cells.transpose(1, 2).flatten(1)
