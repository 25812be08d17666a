"""Modulation by the configurator's tokens: one way to prime and gate modules (LeCun 2022, §6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FiLM(nn.Module):
    """Scales and shifts each channel by a linear function of the directive's tokens.

    x' = x·(1 + G·tokens) + S·tokens (Perez et al. 2018). G and S have no bias and begin at zero:
    a fresh FiLM is exactly the identity, and zero tokens always are, so that zero tokens mean
    "work as usual" before and after training.
    """

    def __init__(self, token_shape: tuple[int, int], channels: int) -> None:
        super().__init__()
        numbers = token_shape[0] * token_shape[1]
        self.modulate: nn.Linear | None = None
        if numbers:
            self.modulate = nn.Linear(numbers, 2 * channels, bias=False)
            nn.init.zeros_(self.modulate.weight)

    def forward(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        """`x` [M C ...] under `tokens` [B T E] (or [B T*E]); M = B*N, the N of a row side by side.

        Without tokens (None) it is x itself, as under zero tokens.
        """
        # Most of the time nothing is primed; to multiply by 1 everywhere took an eighth of a step.
        if tokens is None or self.modulate is None or not bool(tokens.any()):
            return x
        scale, shift = self.modulate(tokens.flatten(1)).chunk(2, -1)
        if len(scale) != len(x):
            each = len(x) // len(scale)
            scale, shift = scale.repeat_interleave(each, 0), shift.repeat_interleave(each, 0)
        wide = (*scale.shape, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.view(wide), x, 1 + scale.view(wide))
