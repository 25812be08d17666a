"""The weights of a training averaged over its last updates: what is evaluated and stored."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

EVERY = 10
"""Updates between two moves: a move at each would cost a tenth of an update."""


class AveragedWeights:
    """An average of `weights` whose horizon grows with the training (Shamir & Zhang 2013; Polyak &
    Juditsky 1992).

    At update n it moves by EVERY / (`share` n) of the way, so that the mean age of what it averages
    is n `share` / (1 + `share`) updates, at any length of a training. `weights` are read in place;
    those that are no floating-point numbers are copied.
    """

    def __init__(self, weights: Mapping[str, Tensor], share: float) -> None:
        self.weights, self.share = dict(weights), share
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        pairs = [(self.average[name], weight) for name, weight in self.weights.items()]
        self._floating = [pair for pair in pairs if pair[1].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[1].is_floating_point()]

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Moves the average after `updates` updates, 1 or more, of the weights."""
        if updates > EVERY and updates % EVERY:
            return
        averages, weights = map(list, zip(*self._floating, strict=True))
        torch._foreach_lerp_(averages, weights, min(1.0, EVERY / (self.share * updates)))
        for average, weight in self._others:
            average.copy_(weight)

    @torch.no_grad()
    def load(self, average: Mapping[str, Tensor]) -> None:
        """Continues from an average with the same names."""
        for name, tensor in self.average.items():
            tensor.copy_(average[name])
