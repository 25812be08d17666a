"""The gradient that a loss sends into what it reads."""

from __future__ import annotations

from torch import Tensor


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself; its gradient is multiplied by `factor`. At 0 there is none, and what made `x` is
    not gone through backwards.
    """
    if factor in (0, 1):
        return x if factor else x.detach()
    return x * factor + x.detach() * (1 - factor)
