"""Objectives against the collapse of a joint-embedding model (LeCun 2022, §4.5)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Objective(Protocol):
    """The error of a prediction, and penalties against collapse.

    Criterion 3 of §4.5 is `error`; criteria 1 and 2, that the state stays informative about the
    percept, are `penalties`. The rate of the target encoder is the learner's `ema_rate`.
    """

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """The error [M K] of `predicted` [M K D] about `target` [M D]; `unit` [D] is the scale of
        an error in each dimension.
        """

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Named scalar losses, weighted, of `latents` [M D]; `key` [1] int64: a random key."""


class Squared:
    """Objectives whose error is a mean square in given units."""

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """mean_d ((predicted - target) / unit)², [M K]: dimensions of any scale count alike, so
        shrinking the latents does not lower it.
        """
        return ((predicted - target.unsqueeze(1)) / unit).square().mean(2)
