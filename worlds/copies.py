"""Copies of environments whose arrays are replaced and never written into."""

from __future__ import annotations

from typing import Any, Self, TypeVar

import gymnasium
import numpy as np

Seen = TypeVar("Seen")
Act = TypeVar("Act")


class SharingEnv(gymnasium.Env[Seen, Act]):
    """An environment whose copies share all but its random numbers.

    A subclass replaces its attributes and never writes into one; then a copy, of which simulators
    make one for each imagined step, takes microseconds.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """An independent copy."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        if self._np_random is not None:
            copy._np_random = np.random.Generator(np.random.PCG64())
            copy._np_random.bit_generator.state = self._np_random.bit_generator.state
        memo[id(self)] = copy
        return copy


def one_of(name: str, value: object, options: tuple[str, ...]) -> str:
    """The value of a setting that is one of `options`. Raises ValueError."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name}: expected {' or '.join(options)}, got {value!r}")
    return value
