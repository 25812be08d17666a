"""Frames as bytes, and a network that draws them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

_LARGEST_START = 8
"""Height and width from which deconvolutions begin are at most this."""


def as_bytes(frames: Tensor) -> Tensor:
    """Frames of any dtype as uint8, the dtype of memory and of `State.hidden`.

    Floats and bools are read as 0 to 1, other integers as 0 to 255; values outside are clipped.
    """
    if frames.dtype is torch.uint8:
        return frames
    if frames.dtype.is_floating_point:
        return (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    if frames.dtype is torch.bool:
        return frames.to(torch.uint8) * 255
    return frames.to(torch.int64).clamp(0, 255).to(torch.uint8)


class Deconvolutions(nn.Module):
    """Latents [M D] → frames [M H·Y·C] by transposed convolutions, the decoder of DCGAN (Radford et
    al. 2016) and of Dreamer (Hafner et al. 2020).

    A linear layer, then 4×4 kernels of stride 2 with SiLU before them, each of which doubles the
    height and width; what is beyond the frame is cut off. `filters` is the number of channels
    before the last layer; earlier layers have two and four times as many. The last layer begins at
    zero.
    """

    def __init__(self, inputs: int, height: int, width: int, channels: int, filters: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        stages = 1
        while max(height, width) > _LARGEST_START * 2**stages:
            stages += 1
        widths = [filters * 2 ** min(stage, 2) for stage in reversed(range(stages))]
        self._start = (widths[0], -(-height // 2**stages), -(-width // 2**stages))
        start_channels, start_height, start_width = self._start
        self.first = nn.Linear(inputs, start_channels * start_height * start_width)
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in zip(widths, [*widths[1:], channels], strict=True)
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents [M inputs] → frames [M H·Y·C]."""
        x: Tensor = self.first(latents).view(-1, *self._start)
        for layer in self.layers:
            x = layer(silu(x))
        return x[:, :, : self.height, : self.width].permute(0, 2, 3, 1).flatten(1)
