"""Variance and covariance regularisation (Bardes et al. 2022; LeCun 2022, §4.5.1)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared


def variance_hinge(latents: Tensor, target_std: float) -> Tensor:
    """mean_d max(0, target_std - std_d), scalar, of `latents` [M D]: no dimension is constant."""
    deviation = (latents.var(0) + 1e-4).sqrt()
    return (target_std - deviation).clamp_min(0).mean()


def covariance_penalty(latents: Tensor) -> Tensor:
    """Σ_{i≠j} cov_ij² / D, scalar, of `latents` [M D]: no two dimensions are correlated."""
    centred = latents - latents.mean(0)
    matrix = centred.T @ centred / (len(latents) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / latents.shape[1]


class VICReg(Squared):
    """Variance hinge and covariance, on the latents themselves.

    The third term of VICReg, invariance, is the world model's `invariance` and `prediction`. The
    paper applies the criterion to the output of an expander; like most later latent world models
    this one applies it to the latents, which planning reads. It penalises linear dependence only.
    """

    class Config(Frozen):
        """Settings of `vicreg`.

        std_coeff, cov_coeff: weights of the two penalties. target_std: standard deviation below
        which a dimension is penalised; latents of pixels have a mean square of 1, so a value above
        1 cannot be reached.
        """

        std_coeff: float = Field(default=4.0, ge=0)
        cov_coeff: float = Field(default=1.0, ge=0)
        target_std: float = Field(default=1.0, gt=0)

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`variance` and `covariance`, weighted scalars, of the latents [M D]; 0 where M < 2."""
        latents = encodings.latents
        if len(latents) < 2:
            zero = torch.zeros((), device=latents.device)
            return {"variance": zero, "covariance": zero}
        return {
            "variance": self.config.std_coeff * variance_hinge(latents, self.config.target_std),
            "covariance": self.config.cov_coeff * covariance_penalty(latents),
        }
