"""How much of its dimensions a representation uses: variance, covariance, effective rank."""

from __future__ import annotations

import torch
from torch import Tensor


def variances(latents: Tensor) -> Tensor:
    """The variance of each dimension, [D], of `latents` [M D]; 0 where a dimension is constant."""
    return latents.double().var(0, correction=0)


def largest_correlation(latents: Tensor) -> float:
    """The largest absolute correlation of two different dimensions of `latents` [M D], 0 to 1.

    Dimensions that are constant correlate with none.
    """
    centred = latents.double() - latents.double().mean(0)
    scaled = centred / centred.norm(dim=0).clamp_min(1e-12)
    matrix = (scaled.T @ scaled).abs()
    return float(matrix.fill_diagonal_(0).max())


def effective_rank(latents: Tensor) -> float:
    """The number of directions that `latents` [M D] use, 1 to D; 0 where all are the same.

    The exponential of the entropy of the normalised singular values of the centred latents (Roy &
    Vetterli 2007).
    """
    values = torch.linalg.svdvals((latents - latents.mean(0)).double())
    total = values.sum()
    if float(total) <= 1e-9 * latents.numel():
        return 0.0
    share = values / total
    return float(torch.special.entr(share).sum().exp())
