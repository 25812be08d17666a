"""The luck of an Atari world: when actions stick, how many no-ops an episode begins with.

The emulator draws both from a Mersenne Twister that is seeded when a cartridge is loaded, which
costs as much as some hundred steps. So the luck of a row comes in *chapters*: a seed, and whole
episodes played from its numbers until the chapter has lasted `chapter_steps`; the next episode
then opens a new chapter. Seeds follow from (run seed, row, chapter).

Here the numbers are drawn outside the emulator, exactly as it would draw them (std::mt19937; two
numbers a frame, the second for a player who is not there). That makes them part of what a
snapshot knows; the emulator itself can neither tell nor be told which action would stick.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modules import chance

CHAPTER_STEPS = 8_000
"""How long a chapter lasts by default, steps: reloading then costs about 2 % of the time."""

_BLOCK_FRAMES = 4_096
_MASK = 0xFFFFFFFFFFFFFFFF


def chapter_seed(seed: int, row: int, chapter: int) -> int:
    """The emulator's seed of a row's chapter, 1 to 2^31 - 1."""
    drawn = int(chance.keys(seed, row + 1, chapter)[row])
    return drawn % (2**31 - 1) + 1


def _twister(seed: int) -> np.random.MT19937:
    twister = np.random.MT19937()
    twister._legacy_seeding(seed)
    return twister


class Tape:
    """Which frames of a chapter repeat the action before, as far as anyone has asked."""

    def __init__(self, seed: int, sticky: float) -> None:
        self._sticky = sticky
        self._twister = _twister(seed)
        self._sticks = bytearray()

    def sticks(self, frame: int, count: int) -> Sequence[int]:
        """1 where the action sticks, for `count` frames from `frame` of the chapter on."""
        if not self._sticky:
            return bytes(count)
        while len(self._sticks) < frame + count:
            drawn = self._twister.random_raw(2 * _BLOCK_FRAMES)[::2]
            self._sticks += (drawn * 2.0**-32 < self._sticky).astype(np.uint8).tobytes()
        return self._sticks[frame : frame + count]


class NoOps:
    """How many no-ops each episode of a chapter begins with, in the order of the episodes."""

    def __init__(self, seed: int, noop_max: int) -> None:
        self._twister, self._noop_max = _twister(seed), noop_max

    def draw(self) -> int:
        """The next number, 0 to noop_max - 1 (Lemire's method, as libstdc++ draws it)."""
        if self._noop_max < 2:
            return 0
        reject = (1 << 32) % self._noop_max
        while True:
            product = int(self._twister.random_raw()) * self._noop_max
            if product & 0xFFFFFFFF >= reject:
                return product >> 32


def sticks_from(seed: int, count: int, sticky: float) -> Sequence[int]:
    """Luck drawn anew for `count` frames of one imagined step (SplitMix64 of `seed`)."""
    if not sticky:
        return bytes(count)
    below, state, drawn = int(sticky * 2**53), seed & _MASK, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        drawn.append(int((z ^ (z >> 31)) >> 11 < below))
    return drawn
