"""What keeps a joint-embedding model from collapsing (LeCun 2022, §4.5)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Objective(Protocol):
    """How wrong a prediction is, and what keeps it from being right about nothing.

    Criterion 3 of §4.5 is `error`; criteria 1 and 2, that the state stays informative about the
    percept, are `penalties`. How fast the targets' encoder follows is the learner's `ema_rate`.
    """

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """How far `predicted` [M K D] is from `target` [M D], [M K]; `unit` [D] is how far off a
        prediction usually is in each dimension.
        """

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Named scalar losses, weighted, of `latents` [M D]; `key` [1] int64 for luck, if any."""


class Squared:
    """The error of most objectives: a mean square in units of the usual error."""

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """mean_d ((predicted - target) / unit)², [M K]: all dimensions count alike, whatever
        their size, so shrinking the latents gains nothing.
        """
        return ((predicted - target.unsqueeze(1)) / unit).square().mean(2)
