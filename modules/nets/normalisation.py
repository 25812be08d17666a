"""Squashing functions and running statistics that bring numbers to a common scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def symlog(x: Tensor) -> Tensor:
    """sign(x)·ln(1+|x|), elementwise: x near 0, logarithmic far from it (Hafner et al. 2023)."""
    return x.sign() * x.abs().log1p()


def soft_log(x: Tensor) -> Tensor:
    """10·asinh(x/10), elementwise: almost linear for |x| < 10, logarithmic (1e6 → 122) beyond.

    Its curvature is continuous, where that of `symlog` jumps at 0: dynamics almost linear in x
    stay so. With one learned feature, the error of a model over 5 steps of CartPole is .06 of that
    of `persistence`; with `symlog` .10.
    """
    return 10 * (x / 10).asinh()


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`, elementwise; |x| is clipped at 20, which keeps it finite."""
    return x.sign() * x.abs().clamp_max(20.0).expm1()


def unit_rms(x: Tensor) -> Tensor:
    """`x` [... D] rescaled to a root mean square of 1: onto the sphere of radius √D."""
    return nn.functional.rms_norm(x, (x.shape[-1],), eps=1e-6)


class RunningScale(nn.Module):
    """Running mean and variance of each of D numbers.

    The average over batches for the first 1/(1-decay) updates, an exponential moving average from
    then on. Before the first update the mean is 0 and the variance 1.
    """

    centre: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Updates the statistics with `values` [M D]; no effect if M is 0."""
        if not len(values):
            return
        rate = (1 / (self.count + 1)).clamp_min(1 - self.decay)
        mean = values.mean(0)  # in two passes: `var_mean` over rows takes 20 times as long
        variance = (values - mean).square_().mean(0)
        shift = mean - self.centre
        # The variance of a mixture: within each component, and between their means.
        self.variance.copy_(
            (1 - rate) * self.variance + rate * variance + rate * (1 - rate) * shift.square()
        )
        self.centre.add_(rate * shift)
        self.count.add_(1)

    def deviation(self) -> Tensor:
        """Standard deviation of each number, [D]."""
        return self.variance.sqrt()

    def magnitude(self) -> Tensor:
        """Root mean square of each number, [D]."""
        return (self.variance + self.centre.square()).sqrt()


class RunningMoment(nn.Module):
    """Running second moment E[x xᵀ] of vectors of D numbers, averaged as in `RunningScale`; the
    identity before the first update.
    """

    moment: Tensor
    count: Tensor

    def __init__(self, size: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("moment", torch.eye(size))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Updates the moment with `values` [M D]; no effect if M is 0."""
        if not len(values):
            return
        rate = (1 / (self.count + 1)).clamp_min(1 - self.decay)
        self.moment.lerp_(values.T @ values / len(values), float(rate))
        self.count.add_(1)

    @torch.no_grad()
    def inverse_power(self, power: float, least_share: float) -> Tensor:
        """The symmetric matrix W [D D] = E[x xᵀ]^-power, where eigenvalues below `least_share` of
        their mean are raised to it. With power ½ it whitens: W E[x xᵀ] W = 1.
        """
        values, vectors = torch.linalg.eigh(self.moment.double())
        floor = (least_share * values.mean()).clamp_min(1e-12)
        matrix: Tensor = vectors * values.clamp_min(floor).pow(-power) @ vectors.T
        return matrix.float()
