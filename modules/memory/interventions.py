"""Interventions on memory: modules that wrap one and change what it returns, not what it holds.

They are written as those of a directive (`modules.configurator.interventions`); their field is
`recollection.readout`, which policy, critic and world model read.

========  ==============================  =========================================================
clamp     clamp:recollection.readout=0    the read-out always has this value
shuffle   shuffle:recollection.readout    in each step that of another row, drawn by chance
exchange  exchange:recollection.readout   in all steps that of the next row
========  ==============================  =========================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from torch import Tensor

from modules import chance
from modules.field_path import FieldPath, Part
from modules.messages import ConfigError, Experience, Recollection, State
from modules.ports import Memory


class MemoryIntervention(ABC):
    """A memory that returns another read-out than the one it wraps, and is that one otherwise.

    `part`: the numbers of the read-out that change. An intervention has no state of its own, so
    forks and resumed runs need nothing else.
    """

    def __init__(self, wrapped: Memory, part: Part) -> None:
        self.wrapped, self.part = wrapped, part

    def __getattr__(self, name: str) -> Any:
        # A copy that has no fields yet must not look for them in a memory it does not have.
        if name.startswith("_") or name in ("wrapped", "part", "seed"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    @abstractmethod
    def change(self, intended: Tensor) -> Tensor:
        """What the part has in place of `intended` [B W]."""

    def recall(self, state: State) -> Recollection:
        """As of the wrapped memory, the read-out changed."""
        recalled = self.wrapped.recall(state)
        return self.part.put(recalled, self.change(self.part.of(recalled)))

    def reread(self, experience: Experience, latents: Tensor) -> Tensor | None:
        """None: learning reads what was returned then, and trains no reading."""
        return None


class ClampedReadout(MemoryIntervention):
    """The part always has the value `value`, which is checked against its shape.

    Identity: clamped to what an empty memory returns, 0, an agent acts as if it remembered nothing.
    """

    def __init__(self, wrapped: Memory, part: Part, value: Tensor) -> None:
        super().__init__(wrapped, part)
        self.value = part.filled(value, 1).float()

    def change(self, intended: Tensor) -> Tensor:
        """The value."""
        return self.value.expand_as(intended)


class ExchangedReadout(MemoryIntervention):
    """The part is that of the next row, the last row's that of the first: what another episode
    remembers, from its first step to its last.
    """

    def change(self, intended: Tensor) -> Tensor:
        """The rows, moved up by one."""
        return intended.roll(-1, 0)


class ShuffledReadout(MemoryIntervention):
    """The part is that of another row, in each step of one that chance chooses, by the run's
    `seed`.
    """

    def __init__(self, wrapped: Memory, part: Part, seed: int) -> None:
        super().__init__(wrapped, part)
        self.seed = seed

    def change(self, intended: Tensor) -> Tensor:
        """The rows, moved by a number of places that the step's random key says, never by 0."""
        key = chance.keys(self.seed, 1, self.wrapped.last_written().step + 1)
        places = int(chance.integers(key, "readout shuffle", len(intended) - 1, 1)) + 1
        return intended.roll(places, 0)


def intervene(
    kind: str, path: FieldPath, value: Tensor | None, wrapped: Memory, rows: int, seed: int
) -> Memory:
    """An intervention of this `kind` around a memory of `rows` rows; `value`: of a clamp, `seed`:
    the run's.

    Raises ConfigError, one line, for a place that the read-out does not have, and where a read-out
    is exchanged among fewer than two rows.
    """
    part = path.part(wrapped.initial(1), {})
    if kind == "clamp" and value is not None:
        changed: MemoryIntervention = ClampedReadout(wrapped, part, value)
    elif rows < 2:
        raise ConfigError(
            f"{path.where}: expected at least 2 rows to {kind} the read-out among, got {rows}; try "
            "world.num_envs=2"
        )
    elif kind == "shuffle":
        changed = ShuffledReadout(wrapped, part, seed)
    else:
        changed = ExchangedReadout(wrapped, part)
    return cast(Memory, changed)
