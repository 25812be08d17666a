"""The gradient that a loss sends into what it reads."""

from __future__ import annotations

from torch import Tensor


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself; its gradient is multiplied by `factor`."""
    return x if factor == 1 else x * factor + x.detach() * (1 - factor)
