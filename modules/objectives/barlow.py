"""Redundancy reduction between two views (Zbontar et al. 2021)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared

_EPSILON = 1e-5
"""Added to a variance, as batch norm does: a constant dimension correlates with none."""


def _standardised(latents: Tensor, mask: Tensor, count: Tensor) -> Tensor:
    """Each dimension of `latents` [B D] with mean 0 and variance 1 over the `count` rows of `mask`
    [B 1]; 0 in other rows.
    """
    centred = torch.where(mask, latents - latents.sum(0) / count, 0.0)
    return centred * (centred.square().sum(0) / count + _EPSILON).rsqrt()


def cross_correlation(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """C_ij, [D D]: the correlation, over the rows of `mask` [B], of dimension i of `first` [B D]
    with dimension j of `second` [B D]; both are 0 in other rows.
    """
    rows, count = mask.unsqueeze(1), mask.sum().clamp_min(1)
    return _standardised(first, rows, count).T @ _standardised(second, rows, count) / count


class BarlowTwins(Squared):
    """The cross-correlation of two views is driven towards the identity.

    Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij²: a dimension is the same in both views and differs from every
    other dimension. The views are the online and the target encoding of step 0. Unlike in the paper
    the second has no gradient, and both are latents rather than outputs of a projector. A
    perception that does not augment gives two equal views; then only the second sum acts.
    """

    class Config(Frozen):
        """Settings of `barlow`.

        weight: of the sum, for latents of some hundred dimensions. redundancy_weight: λ. Both
        defaults are those of R2-Dreamer, a world model; the paper has λ .005 with 8,192 dimensions.
        """

        weight: float = Field(default=0.05, ge=0)
        redundancy_weight: float = Field(default=5e-4, ge=0)

    compares_views: ClassVar = True

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`barlow`, a weighted scalar, of the two views of step 0 [B D]; 0 with fewer than 2."""
        mask = encodings.mask[:, 0]
        matrix = cross_correlation(encodings.windows[:, 0], encodings.other_view, mask)
        same, squares = matrix.diagonal(), matrix.square()
        redundancy = squares.sum() - squares.diagonal().sum()
        loss = (1 - same).square().sum() + self.config.redundancy_weight * redundancy
        return {"barlow": self.config.weight * torch.where(mask.sum() > 1, loss, 0.0)}
