"""Convolutional networks for frames of any size from 36×36 and any number of channels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from modules.messages import ConfigError
from modules.nets.film import FiLM

SMALLEST = 36
"""Frames must be at least this high and wide, pixels: less leaves the Nature CNN nothing."""


def _large_enough(height: int, width: int) -> None:
    if min(height, width) < SMALLEST:
        raise ConfigError(
            f"perception: expected frames of at least {SMALLEST}x{SMALLEST} pixels, got "
            f"{height}x{width}; try frame_size=84"
        )


class CNN(nn.Module):
    """Convolutions with ReLU, each modulated by tokens before it.

    To scale a convolution's output channel is to scale its weights: this is the priming of
    perception by modulating low-level convolutions of LeCun 2022, §6. Each of `layers` is
    (channels, kernel, stride, padding), in pixels; `wider` multiplies all channels but the frames'.
    `features` is how many numbers come out.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        layers: Sequence[tuple[int, int, int, int]],
        token_shape: tuple[int, int],
        wider: int = 1,
    ) -> None:
        super().__init__()
        _large_enough(height, width)
        self.convolutions, self.films = nn.ModuleList(), nn.ModuleList()
        for wide, kernel, stride, padding in layers:
            wide *= wider
            self.convolutions.append(nn.Conv2d(channels, wide, kernel, stride, padding))
            self.films.append(FiLM(token_shape, wide))
            channels = wide
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
    et al. 2019). One update of a batch of 32 costs about a quarter of the Nature CNN's.

    Padded, which the original is not: unpadded, the last 9 lines and columns of an 84×84 frame
    reach no feature, Breakout's paddle among them.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        wider: int = 1,
    ) -> None:
        layers = ((32, 5, 5, 3), (64, 5, 5, 2))
        super().__init__(channels, height, width, layers, token_shape, wider)


class TinyCNN(CNN):
    """5×5 stride 5 twice, 8 and 32 channels: too small to see everything at once, so that what it
    is primed for matters (§6). Its convolutions cost an eighth of the small one's.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        wider: int = 1,
    ) -> None:
        layers = ((8, 5, 5, 3), (32, 5, 5, 2))
        super().__init__(channels, height, width, layers, token_shape, wider)


class NatureCNN(CNN):
    """8×8 stride 4, 4×4 stride 2, 3×3, with 32, 64, 64 channels: the encoder of DQN (Mnih et
    al. 2015).
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        wider: int = 1,
    ) -> None:
        layers = ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))
        super().__init__(channels, height, width, layers, token_shape, wider)


class ImpalaCNN(nn.Module):
    """Three stages of convolution, halving and two residual blocks: the encoder of IMPALA
    (Espeholt et al. 2018), which BBF widens (Schwarzer et al. 2023).

    `wider` multiplies the channels 16, 32 and 32. Tokens modulate the convolution a stage begins
    with and the first of each block.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        token_shape: tuple[int, int],
        wider: int = 1,
    ) -> None:
        super().__init__()
        _large_enough(height, width)
        self.stages = nn.ModuleList()
        for wide in (16 * wider, 32 * wider, 32 * wider):
            self.stages.append(_Stage(channels, wide, token_shape))
            channels, height, width = wide, -(-height // 2), -(-width // 2)
        self.features = channels * height * width

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Frames `x` [M C H W], 0 to 1, under `tokens` [B T E] → features [M features]."""
        for stage in self.stages:
            x = stage(x, tokens)
        return nn.functional.relu(x).flatten(1)


class _Stage(nn.Module):
    """A convolution, a halving and two residual blocks, [M C H W] → [M wide H/2 W/2]."""

    def __init__(self, channels: int, wide: int, token_shape: tuple[int, int]) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, wide, 3, padding=1)
        self.film = FiLM(token_shape, wide)
        self.blocks = nn.ModuleList(_Block(wide, token_shape) for _ in range(2))

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        entered = self.film(self.enter(x), tokens)
        x = nn.functional.max_pool2d(entered, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, tokens)
        return x


class _Block(nn.Module):
    """x + f(x), f two convolutions, each after a ReLU."""

    def __init__(self, wide: int, token_shape: tuple[int, int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(wide, wide, 3, padding=1)
        self.second = nn.Conv2d(wide, wide, 3, padding=1)
        self.film = FiLM(token_shape, wide)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        inner = self.film(self.first(nn.functional.relu(x)), tokens)
        deeper: Tensor = x + self.second(nn.functional.relu(inner))
        return deeper
