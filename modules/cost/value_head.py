"""What a critic's head puts out: a number, or how likely each of many energies is (§3.3)."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from modules.nets.normalisation import symlog


class Output(Protocol):
    """What a critic puts out for one head, and how that errs."""

    size: int

    def read(self, raw: Tensor) -> Tensor:
        """What was put out, [... size], as energies [...]; 0 where all of it is 0."""

    def wanted(self, raw: Tensor, felt: Tensor, rest: Tensor) -> Tensor:
        """What `felt` + rest·(what `raw` [... size] says) is, [... size], for `error`."""

    def error(self, raw: Tensor, wanted: Tensor) -> Tensor:
        """How wrong `raw` [... size] is about `wanted` [... size], [...]."""

    def mean(self, wanted: Tensor) -> Tensor:
        """`wanted` [... size] as energies [...]."""


class Number(nn.Module):
    """A head that says one number, and errs by its squared distance (§3.3)."""

    size = 1

    def read(self, raw: Tensor) -> Tensor:
        """The number itself."""
        return raw.squeeze(-1)

    def wanted(self, raw: Tensor, felt: Tensor, rest: Tensor) -> Tensor:
        """Another number."""
        return felt.unsqueeze(-1) + rest.unsqueeze(-1) * raw

    def error(self, raw: Tensor, wanted: Tensor) -> Tensor:
        """Squared distance."""
        return (raw - wanted).squeeze(-1).square()

    def mean(self, wanted: Tensor) -> Tensor:
        """The number itself."""
        return wanted.squeeze(-1)


_TILT = 5.0
"""How fast a fresh distribution falls off from 0, in its logarithm, a unit of symlog."""


class Distribution(nn.Module):
    """A head that says how likely each of `bins` energies is (Bellemare et al. 2017).

    The bins run from -`limit` to `limit`, evenly on the scale of symlog: fine about 0, where most
    energies are, coarse where they are large. Probabilities are a softmax that puts nearly all
    near 0 where nothing has been learned, however many bins there are. A probability that falls
    between two bins is shared so that the mean stays. This departs from the paper, whose critic
    is not probabilistic: learning to tell which of several futures comes is easier than hitting a
    number between them.
    """

    bins: Tensor
    prior: Tensor

    def __init__(self, bins: int, limit: float) -> None:
        super().__init__()
        self.size = bins
        half = bins // 2
        reach = math.log1p(limit)
        upper = torch.expm1(torch.arange(1, half + 1, dtype=torch.float64) * reach / half)
        self.unit = reach / half
        both = torch.cat([-upper.flip(0), upper.new_zeros(1), upper]).float()
        self.register_buffer("bins", both, persistent=False)
        self.register_buffer("prior", -_TILT * symlog(both).abs(), persistent=False)

    def read(self, raw: Tensor) -> Tensor:
        """The mean."""
        return self.mean((raw + self.prior).softmax(-1))

    def wanted(self, raw: Tensor, felt: Tensor, rest: Tensor) -> Tensor:
        """Probabilities of the bins after what the bins stand for was moved."""
        chance = (raw + self.prior).softmax(-1)
        top = self.bins[-1]
        moved = (felt.unsqueeze(-1) + rest.unsqueeze(-1) * self.bins).clamp(-top, top)
        place = symlog(moved) / self.unit + self.size // 2
        low = place.floor().long().clamp(0, self.size - 2)
        below, above = self.bins[low], self.bins[low + 1]
        share = ((moved - below) / (above - below)).clamp(0, 1)
        low, spread = low.expand_as(chance), torch.zeros_like(chance)
        spread.scatter_add_(-1, low, chance * (1 - share))
        return spread.scatter_add_(-1, low + 1, chance * share)

    def error(self, raw: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy."""
        return -(wanted * (raw + self.prior).log_softmax(-1)).sum(-1)

    def mean(self, wanted: Tensor) -> Tensor:
        """The mean."""
        return wanted @ self.bins
