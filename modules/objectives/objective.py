"""What keeps a joint-embedding model from collapsing (LeCun 2022, §4.5)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Objective(Protocol):
    """Criteria 1 and 2 of §4.5: the state must stay informative about the percept.

    The prediction error itself (criterion 3) belongs to the world model.
    How fast the targets' encoder follows is the learner's `target_rate`.
    """

    def penalties(self, latents: Tensor, key: Tensor) -> dict[str, Tensor]:
        """Named scalar losses, weighted, of `latents` [M D]; `key` [1] int64 for luck, if any."""
