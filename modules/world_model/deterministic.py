"""What world models without a latent variable have in common."""

from __future__ import annotations

from torch import Tensor

from modules.messages import LatentSpec, State


class Deterministic:
    """A world model that predicts one next state: it has no latent variable z, its surprise is
    the distance from what was expected. Unless it says so it carries nothing from step to step.
    """

    latent: LatentSpec | None = None
    hidden_size: int = 0

    def surprise(self, expected: State, state: State) -> Tensor:
        """The distance of `state` [B ...] from the one `expected`, [B], 0 to 4."""
        return state.distance(expected)
