"""Sketched isotropic Gaussian regularisation (Balestriero & LeCun 2025)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared


def epps_pulley(samples: Tensor, num_points: int, t_max: float = 4.0) -> Tensor:
    """Distance of each of P samples of M numbers from a standard normal, [P], of `samples` [M P].

    ∫ |φ(t) - e^{-t²/2}|² e^{-t²/2} dt over |t| <= `t_max`, with φ the characteristic function of
    the samples (Epps & Pulley 1983), by the trapezoid rule on `num_points` points of the half t >=
    0: the integrand is even. Not multiplied by M, so that a weight means the same for any batch.
    """
    t = torch.linspace(0, t_max, num_points, device=samples.device)
    angles = samples.unsqueeze(-1) * t
    gauss = (-t.square() / 2).exp()
    distance = (angles.cos().mean(0) - gauss).square() + angles.sin().mean(0).square()
    return 2 * torch.trapezoid(distance * gauss, t, dim=-1)


class SIGReg(Squared):
    """Each one-dimensional projection of the latents is driven towards a standard normal.

    Unlike a covariance it penalises dependence of any form. Directions are drawn at each update.
    """

    class Config(Frozen):
        """Settings of `sigreg`.

        weight: of the mean statistic (published as λ = .09 with a statistic multiplied by a
        batch of 128). num_slices: directions per update, 1024 in the paper; fewer are cheaper and,
        as they differ between updates, cover the sphere over several of them. num_points: points
        of the quadrature.
        """

        weight: float = Field(default=10.0, ge=0)
        num_slices: int = Field(default=256, ge=1, le=65_536)
        num_points: int = Field(default=17, ge=3, le=4096)

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`gaussian`, a weighted scalar, of the latents [M D] along directions drawn from `key`
        [1]; 0 where M < 2.
        """
        latents = encodings.latents
        if len(latents) < 2:
            return {"gaussian": torch.zeros((), device=latents.device)}
        lines = chance.normal(key, "sigreg", latents.shape[1], self.config.num_slices)[0]
        lines = torch.nn.functional.normalize(lines, dim=0).to(latents.device)
        statistic = epps_pulley(latents @ lines, self.config.num_points).mean()
        return {"gaussian": self.config.weight * statistic}
