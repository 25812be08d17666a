"""Value heads: a critic estimates one energy as a number, or as a distribution over energies."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from modules.nets.normalisation import symlog


class ValueHead(Protocol):
    """How the network outputs of one critic head encode an energy, and the loss on them.

    `size` outputs encode one energy, of at most `limit` in magnitude. A target c + γ·V(s') is
    encoded in the same form.
    """

    size: int
    limit: float

    def value(self, logits: Tensor) -> Tensor:
        """The energies [...] that outputs [... size] encode; 0 where all outputs are 0."""

    def target(self, logits: Tensor, energy_sum: Tensor, discount: Tensor) -> Tensor:
        """The target `energy_sum` + `discount` · V, [... size], V encoded by `logits` [... size].

        `energy_sum` and `discount` broadcast to [...].
        """

    def error(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss [...] of outputs [... size] for targets [... size]."""

    def target_value(self, target: Tensor) -> Tensor:
        """The energies [...] that targets [... size] encode."""


class ScalarHead(nn.Module):
    """One number, trained by squared error (LeCun 2022, §3.3)."""

    size = 1
    limit = math.inf

    def value(self, logits: Tensor) -> Tensor:
        """The number itself."""
        return logits.squeeze(-1)

    def target(self, logits: Tensor, energy_sum: Tensor, discount: Tensor) -> Tensor:
        """A number."""
        return energy_sum.unsqueeze(-1) + discount.unsqueeze(-1) * logits

    def error(self, logits: Tensor, target: Tensor) -> Tensor:
        """Squared error."""
        return (logits - target).squeeze(-1).square()

    def target_value(self, target: Tensor) -> Tensor:
        """The number itself."""
        return target.squeeze(-1)


PRIOR_DECAY = 5.0
"""The log-probability of an untrained distribution falls by this per unit of |symlog(energy)|."""


class CategoricalHead(nn.Module):
    """A categorical distribution over `num_bins` energies (Bellemare et al. 2017).

    The bins run from -`v_max` to `v_max`, evenly spaced in symlog: narrow around 0, where most
    energies are, wide where energies are large. The probabilities are softmax(logits + prior),
    where the prior concentrates an untrained head (logits 0) around 0 for any number of bins. A
    shifted probability between two bins is split so that the mean is preserved. This departs from
    LeCun (2022), whose critic is not probabilistic: predicting which of several futures occurs is
    easier to learn than regressing a number between them.
    """

    bins: Tensor
    prior: Tensor

    def __init__(self, num_bins: int, v_max: float) -> None:
        super().__init__()
        self.size, self.limit = num_bins, v_max
        half = num_bins // 2
        self.bin_width = math.log1p(v_max) / half
        steps = torch.arange(1, half + 1, dtype=torch.float64)
        upper = torch.expm1(steps * math.log1p(v_max) / half)
        bins = torch.cat([-upper.flip(0), upper.new_zeros(1), upper]).float()
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("prior", -PRIOR_DECAY * symlog(bins).abs(), persistent=False)

    def value(self, logits: Tensor) -> Tensor:
        """The mean."""
        return self.target_value((logits + self.prior).softmax(-1))

    def target(self, logits: Tensor, energy_sum: Tensor, discount: Tensor) -> Tensor:
        """Probabilities of the bins after the bins' energies are shifted and shrunk."""
        probabilities = (logits + self.prior).softmax(-1)
        top = self.bins[-1]
        moved = (energy_sum.unsqueeze(-1) + discount.unsqueeze(-1) * self.bins).clamp(-top, top)
        place = symlog(moved) / self.bin_width + self.size // 2
        low = place.floor().long().clamp(0, self.size - 2)
        below, above = self.bins[low], self.bins[low + 1]
        share = ((moved - below) / (above - below)).clamp(0, 1)
        low, spread = low.expand_as(probabilities), torch.zeros_like(probabilities)
        spread.scatter_add_(-1, low, probabilities * (1 - share))
        return spread.scatter_add_(-1, low + 1, probabilities * share)

    def error(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return -(target * (logits + self.prior).log_softmax(-1)).sum(-1)

    def target_value(self, target: Tensor) -> Tensor:
        """The mean."""
        return target @ self.bins
