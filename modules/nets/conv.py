"""Convolutional networks for frames of any size from 36×36 and any number of channels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from modules.messages import ConfigError
from modules.nets.film import FiLM

SMALLEST = 36
"""Least height and width of a frame, pixels: the Nature CNN has no output for smaller ones."""


def _require_size(height: int, width: int) -> None:
    if min(height, width) < SMALLEST:
        raise ConfigError(
            f"perception: expected frames of at least {SMALLEST}x{SMALLEST} pixels, got "
            f"{height}x{width}; try frame_size=84"
        )


class CNN(nn.Module):
    """Convolutions with ReLU, each modulated by tokens before it.

    Scaling an output channel scales the weights of its convolution: the priming of perception by
    modulating low-level convolutions of LeCun 2022, §6. Each of `layers` is (channels, kernel,
    stride, padding), in pixels; `width_multiplier` multiplies its channels. `features` is the size
    of the output.
    """

    layers: ClassVar[tuple[tuple[int, int, int, int], ...]]

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        width_multiplier: int = 1,
    ) -> None:
        super().__init__()
        _require_size(height, width)
        self.convolutions, self.films = nn.ModuleList(), nn.ModuleList()
        for base, kernel, stride, padding in self.layers:
            out_channels = base * width_multiplier
            self.convolutions.append(nn.Conv2d(channels, out_channels, kernel, stride, padding))
            self.films.append(FiLM(token_shape, out_channels))
            channels = out_channels
            height = (height + 2 * padding - kernel) // stride + 1
            width = (width + 2 * padding - kernel) // stride + 1
        self.features = channels * height * width

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Frames `x` [M C H W], 0 to 1, under `tokens` [B T E] → features [M features]."""
        for convolve, film in zip(self.convolutions, self.films, strict=True):
            x = nn.functional.relu(film(convolve(x), tokens), inplace=True)
        return x.flatten(1)


class SmallCNN(CNN):
    """5×5 stride 5 twice, 32 and 64 channels: the encoder of data-efficient Rainbow (van Hasselt
    et al. 2019). An update costs about a quarter of the Nature CNN's.

    Padded, which the original is not: without padding, the last 9 rows and columns of an 84×84
    frame reach no feature, Breakout's paddle among them.
    """

    layers = ((32, 5, 5, 3), (64, 5, 5, 2))


class TinyCNN(CNN):
    """5×5 stride 5 twice, 8 and 32 channels: too small to represent every task at once, so that
    priming by tokens matters (§6). Its convolutions cost an eighth of those of `SmallCNN`.
    """

    layers = ((8, 5, 5, 3), (32, 5, 5, 2))


class CompactCNN(CNN):
    """5×5 stride 4 and 3×3 stride 2, 16 and 32 channels, and a linear layer of 128 units: for
    frames of a few large things, as a point among walls.
    """

    layers = ((16, 5, 4, 0), (32, 3, 2, 0))

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        width_multiplier: int = 1,
    ) -> None:
        super().__init__(channels, height, width, token_shape, width_multiplier)
        self.linear = nn.Linear(self.features, 128 * width_multiplier)
        self.features = 128 * width_multiplier

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Frames `x` [M C H W], 0 to 1, under `tokens` [B T E] → features [M features]."""
        return nn.functional.relu(self.linear(super().forward(x, tokens)))


class NatureCNN(CNN):
    """8×8 stride 4, 4×4 stride 2, 3×3, with 32, 64, 64 channels: the encoder of DQN (Mnih et
    al. 2015).
    """

    layers = ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))


class ImpalaCNN(nn.Module):
    """Three stages of convolution, max pooling and two residual blocks: the encoder of IMPALA
    (Espeholt et al. 2018), which BBF widens (Schwarzer et al. 2023).

    `width_multiplier` multiplies the channels 16, 32 and 32. Tokens modulate the first convolution
    of each stage and of each block.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        width_multiplier: int = 1,
    ) -> None:
        super().__init__()
        _require_size(height, width)
        self.stages = nn.ModuleList()
        for base in (16, 32, 32):
            out_channels = base * width_multiplier
            self.stages.append(_Stage(channels, out_channels, token_shape))
            channels, height, width = out_channels, -(-height // 2), -(-width // 2)
        self.features = channels * height * width

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Frames `x` [M C H W], 0 to 1, under `tokens` [B T E] → features [M features]."""
        for stage in self.stages:
            x = stage(x, tokens)
        return nn.functional.relu(x).flatten(1)


class _Stage(nn.Module):
    """Convolution, max pooling and two residual blocks, [M C H W] → [M out_channels H/2 W/2]."""

    def __init__(self, channels: int, out_channels: int, token_shape: tuple[int, int]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.film = FiLM(token_shape, out_channels)
        self.blocks = nn.ModuleList(_Block(out_channels, token_shape) for _ in range(2))

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        features = self.film(self.enter(x), tokens)
        x = nn.functional.max_pool2d(features, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, tokens)
        return x


class _Block(nn.Module):
    """x + f(x), f two convolutions, each after a ReLU."""

    def __init__(self, channels: int, token_shape: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = FiLM(token_shape, channels)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        inner = self.film(self.first(nn.functional.relu(x)), tokens)
        out: Tensor = x + self.second(nn.functional.relu(inner))
        return out
