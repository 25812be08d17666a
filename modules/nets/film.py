"""Modulation of a network by the configurator's tokens (LeCun 2022, §6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FiLM(nn.Module):
    """Scales and shifts each channel by a linear function of the directive's tokens.

    x' = x·(1 + G·tokens) + S·tokens (Perez et al. 2018). G and S have no bias and begin at zero:
    a fresh FiLM is exactly the identity, and with zero tokens it remains so after training.
    """

    def __init__(self, token_shape: tuple[int, int], channels: int) -> None:
        super().__init__()
        token_size = token_shape[0] * token_shape[1]
        self.modulate: nn.Linear | None = None
        if token_size:
            self.modulate = nn.Linear(token_size, 2 * channels, bias=False)
            nn.init.zeros_(self.modulate.weight)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        """`x` [M C ...] modulated by `tokens` [B T E] or [B T·E]; M = B·N, the N of a row adjacent.

        `tokens` None is equivalent to zero tokens: the result is `x` itself.
        """
        if tokens is None or self.modulate is None:
            return x
        # Tokens are mostly zero, and on a CPU multiplying by 1 in every layer took an eighth of a
        # step. A GPU would have to be waited for at each layer to know.
        if tokens.device.type == "cpu" and not bool(tokens.any()):
            return x
        scale, shift = self.modulate(tokens.flatten(1)).chunk(2, -1)
        if len(scale) != len(x):
            repeats = len(x) // len(scale)
            scale, shift = scale.repeat_interleave(repeats, 0), shift.repeat_interleave(repeats, 0)
        broadcast = (*scale.shape, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(broadcast), x, 1 + scale.view(broadcast))
