"""One objective of several: the sum of their penalties."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from torch import Tensor, nn

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Objective


class ObjectiveSum(nn.Module):
    """The penalties of all `parts`, each with the weights of its own settings.

    The error is that of the first part: one prediction is measured in one way. Recipes of several
    terms are sums, as PLDM's and EB-JEPA's variance, covariance, smoothness and inverse dynamics.
    """

    class Config(Frozen):
        """`sum` has no settings besides its `parts`, a list of objectives."""

    def __init__(self, *, config: Config, parts: Sequence[Objective]) -> None:
        super().__init__()
        self.parts = tuple(parts)
        # By place in the list, so a weight keeps its name when parts are added behind.
        self.networks = nn.ModuleDict(
            {str(i): part for i, part in enumerate(self.parts) if isinstance(part, nn.Module)}
        )

    @property
    def online_steps(self) -> int:
        """The most that a part needs."""
        return max(part.online_steps for part in self.parts)

    @property
    def compares_views(self) -> bool:
        """Whether a part does."""
        return any(part.compares_views for part in self.parts)

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """The error [M K] of the first part."""
        return self.parts[0].error(predicted, target, unit)

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """The losses of all parts by their names; where two have one, the second is `NAME 2`."""
        losses: dict[str, Tensor] = {}
        for part in self.parts:
            for name, loss in part.penalties(encodings, key).items():
                names = (name if number == 1 else f"{name} {number}" for number in count(1))
                losses[next(free for free in names if free not in losses)] = loss
        return losses
