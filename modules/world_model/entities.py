"""What the world model writes to memory: what a step changed, by entities (LeCun 2022, §4.9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.messages import Pairs
from modules.nets.normalisation import RunningMoment

_LEAST_CHANGE, _MOST_CHANGE = 0.5, 3.0
"""A change of fewer usual changes is none; of more it counts as so many."""

_LEAST_TOGETHER = 0.4
"""Below it dimensions change together by chance. In Rooms the numbers of a thing have .65 to .8,
its row and its column .39 to .6; a thing and the room that it is seen in, by entering, .36.
"""


class EntityWrites(nn.Module):
    """Pairs of query and value for each dimension of the latent that a step changed.

    Dimensions that change in the same steps belong to one entity: a thing that is carried away
    changes whether, in which row and in which column it is seen. With x the change of a dimension
    in units of the usual one, the running moment E[x xᵀ], scaled to a diagonal of 1, tells how
    often two dimensions change together; entries below `_LEAST_TOGETHER` count as 0. The query of
    dimension d is row d of the cube of this matrix, scaled to length 1. So dimensions of one
    entity have nearly the same query, and those of two entities queries that are nearly orthogonal:
    an event addresses what it touched, and nothing else.

    The value of every pair is the event: the state before and after the step, [2D]. Statistics are
    learned from experience, without a gradient.
    """

    def __init__(self, latent_size: int, pairs: int) -> None:
        """`pairs`: the most of one step, those of the dimensions that changed most."""
        super().__init__()
        self.count = min(pairs, latent_size)
        self.together = RunningMoment(latent_size)
        self._patterns: tuple[int, Tensor] | None = None

    def update(self, changes: Tensor, unit: Tensor) -> None:
        """Learns from the `changes` of latents in one step, [M D]; `unit` [D]: the usual change."""
        self.together.update(_counted(changes, unit))

    @torch.no_grad()
    def patterns(self) -> Tensor:
        """The query of each dimension, [D D], each row of length 1."""
        moment = self.together.moment
        # Asked for in each step; an update and other weights change the version.
        if self._patterns is None or self._patterns[0] != moment._version:
            scale = moment.diagonal().clamp_min(1e-6).rsqrt()
            together = moment * scale * scale.unsqueeze(1)
            together = together * (together >= _LEAST_TOGETHER)
            rows = together @ together @ together
            self._patterns = moment._version, nn.functional.normalize(rows, dim=-1)
        return self._patterns[1]

    @torch.no_grad()
    def pairs(self, before: Tensor, after: Tensor, unit: Tensor, begins: Tensor) -> Pairs:
        """What changed from latents `before` to `after` [B D]; nothing in the rows `begins` [B],
        whose episode begins. `unit` [D]: the usual change.
        """
        changes = _counted(after - before, unit) * ~begins.unsqueeze(1)
        strength, dimension = changes.topk(self.count, dim=1)
        queries = self.patterns()[dimension] * (strength > 0).unsqueeze(-1)
        event = torch.cat([before, after], 1)
        return Pairs(queries=queries, values=event.unsqueeze(1).expand(-1, self.count, -1))


def _counted(changes: Tensor, unit: Tensor) -> Tensor:
    """How much each dimension changed, [M D], in units of its usual change [D]."""
    size = (changes.abs() / unit).clamp_max(_MOST_CHANGE)
    return size * (size >= _LEAST_CHANGE)
