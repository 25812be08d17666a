"""Variance and covariance regularisation (Bardes et al. 2022; LeCun 2022, §4.5.1)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules.objectives.objective import Squared


def variance_hinge(latents: Tensor, target_std: float = 1.0) -> Tensor:
    """mean_d max(0, floor - std_d), scalar, of `latents` [M D]: every dimension must vary."""
    deviation = (latents.var(0) + 1e-4).sqrt()
    return (target_std - deviation).clamp_min(0).mean()


def cov_coeff(latents: Tensor) -> Tensor:
    """Σ_{i≠j} cov_ij² / D, scalar, of `latents` [M D]: no two dimensions may say the same."""
    centred = latents - latents.mean(0)
    matrix = centred.T @ centred / (len(latents) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / latents.shape[1]


class VICReg(Squared):
    """Variance hinge and covariance, on the latents themselves.

    The third term of VICReg, invariance, is here the world model's prediction error. The paper
    puts an expander before the criterion; like most later latent world models we leave it out:
    what planning reads is then what is kept from collapsing. It sees linear dependence only.
    """

    class Config(BaseModel):
        """Settings of `vicreg`.

        variance, covariance: weights. floor: standard deviation that each dimension must have;
        latents of pixels have a mean square of 1, so more than 1 cannot be had.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["vicreg"] = "vicreg"
        std_coeff: float = Field(default=4.0, ge=0)
        cov_coeff: float = Field(default=1.0, ge=0)
        target_std: float = Field(default=1.0, gt=0)

    def __init__(self, *, std_coeff: float = 4.0, cov_coeff: float = 1.0, target_std: float = 1.0):
        self.std_coeff, self.cov_coeff, self.target_std = std_coeff, cov_coeff, target_std

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """`std_coeff` and `cov_coeff` of `latents` [M D]; 0 where M < 2, which shows no spread."""
        if len(latents) < 2:
            silent = torch.zeros((), device=latents.device)
            return {"variance": silent, "covariance": silent}
        return {
            "variance": self.std_coeff * variance_hinge(latents, self.target_std),
            "covariance": self.cov_coeff * cov_coeff(latents),
        }
