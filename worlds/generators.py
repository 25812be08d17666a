"""Random number generators that an environment uses beside `np_random`.

Gymnasium seeds `np_random` alone. Environments also draw from Python's and numpy's global
generators, from generators of their own, and from generators of their module or class. Those that
rows share would let one row, or an imagined step, change what happens in another.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.random import mtrand

_PYTHON = random.getstate.__self__  # type: ignore[attr-defined]
"""Python's global generator."""
_MASK = 0xFFFFFFFFFFFFFFFF
_TWISTER = np.random.MT19937()
"""Numpy's global generator while an environment runs, seeded anew for each call."""


def mixed(key: int, count: int) -> int:
    """A hash of two numbers, 64 bits (SplitMix64; Steele, Lea & Flood 2014)."""
    z = (key * 0x9E3779B97F4A7C15 + count + 1) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class SharedGenerators:
    """Seeds all generators that several rows share, for the time of one call of an environment.

        with shared.seeded(mixed(key, step)):
            env.step(action)

    Afterwards Python's and numpy's global generators are as they were before, so what a call draws
    depends on its own seed alone, and no other code notices.
    """

    def __init__(self, env: Any = None) -> None:
        self._others = [] if env is None else list(_of_module_and_class(env))
        self._seed = 0

    def seeded(self, seed: int) -> SharedGenerators:
        """The context, with the seed of the next call."""
        self._seed = seed
        return self

    def __enter__(self) -> None:
        self._python, self._numpy = random.getstate(), mtrand.get_bit_generator()
        random.seed(self._seed)
        _TWISTER._legacy_seeding(self._seed & 0xFFFFFFFF)
        mtrand.set_bit_generator(_TWISTER)
        for number, generator in enumerate(self._others):
            _seed(generator, mixed(self._seed, number))

    def __exit__(self, *raised: object) -> None:
        mtrand.set_bit_generator(self._numpy)
        random.setstate(self._python)


def seed_own(copied: Iterable[Any], seed: int) -> None:
    """Seeds every generator among the objects of a copied environment."""
    number = 0
    for one in copied:
        if isinstance(one, np.random.BitGenerator | random.Random):
            _seed(one, mixed(seed, number))
            number += 1


def _seed(generator: Any, seed: int) -> None:
    if isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        generator.state = type(generator)(seed).state


def _of_module_and_class(env: Any) -> Iterator[Any]:
    """Generators that the modules and classes of an environment and its wrappers hold."""
    taken: set[int] = set()
    while env is not None:
        for kind in type(env).__mro__:
            if kind.__module__.partition(".")[0] in ("builtins", "typing", "gymnasium"):
                continue
            module = sys.modules.get(kind.__module__)
            for value in [*vars(kind).values(), *vars(module or object).values()]:
                if isinstance(value, np.random.Generator):
                    value = value.bit_generator
                elif isinstance(value, np.random.RandomState):
                    value = value._bit_generator
                shared = isinstance(value, np.random.BitGenerator) or type(value) is random.Random
                if shared and value is not _PYTHON and id(value) not in taken:
                    taken.add(id(value))
                    yield value
        env = getattr(env, "__dict__", {}).get("env")
