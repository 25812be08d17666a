"""Random numbers of an Atari environment: sticky actions, and no-ops at the start of an episode.

The emulator draws both from a Mersenne Twister, which it seeds when a ROM is loaded; loading costs
as much as some hundred steps. The random numbers of a row are therefore divided into *chapters*. A
chapter is a seed and the whole episodes played from it; the first episode to start after
`chapter_steps` steps opens the next chapter. Seeds are a function of (run seed, row, chapter).

This module draws the numbers outside the emulator, exactly as the emulator draws them: std::mt19937
with two numbers a frame, of which the second belongs to the absent second player. Snapshots can
therefore contain them; the emulator can neither report nor accept which actions stick.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modules import chance

CHAPTER_STEPS = 8_000
"""Default least length of a chapter, steps: loading ROMs then takes about 2 % of the time."""

_BLOCK_FRAMES = 4_096
_MASK = 0xFFFFFFFFFFFFFFFF


def chapter_seed(seed: int, row: int, chapter: int) -> int:
    """The emulator seed of chapter `chapter` of row `row`, 1 to 2^31 - 1."""
    drawn = int(chance.keys(seed, row + 1, chapter)[row])
    return drawn % (2**31 - 1) + 1


def _twister(seed: int) -> np.random.MT19937:
    twister = np.random.MT19937()
    twister._legacy_seeding(seed)
    return twister


class Tape:
    """Sticky actions of one chapter (Machado et al. 2018, §5), drawn lazily in order of frames.

    sticky: the probability that a frame repeats the previous action.
    """

    def __init__(self, seed: int, sticky: float) -> None:
        self._sticky = sticky
        self._twister = _twister(seed)
        self._sticks = bytearray()

    def sticks(self, frame: int, count: int) -> Sequence[int]:
        """Flags of frames `frame` to `frame + count - 1` of the chapter; 1: repeat the action."""
        if not self._sticky:
            return bytes(count)
        while len(self._sticks) < frame + count:
            drawn = self._twister.random_raw(2 * _BLOCK_FRAMES)[::2]
            self._sticks += (drawn * 2.0**-32 < self._sticky).astype(np.uint8).tobytes()
        return self._sticks[frame : frame + count]


class NoOps:
    """The number of no-op frames that starts each episode of a chapter, in order of episodes."""

    def __init__(self, seed: int, noop_max: int) -> None:
        self._twister, self._noop_max = _twister(seed), noop_max

    def draw(self) -> int:
        """The next episode's no-ops, 0 to noop_max - 1 (Lemire's method, as in libstdc++)."""
        if self._noop_max < 2:
            return 0
        reject = (1 << 32) % self._noop_max
        while True:
            product = int(self._twister.random_raw()) * self._noop_max
            if product & 0xFFFFFFFF >= reject:
                return product >> 32


def sticks_from(seed: int, count: int, sticky: float) -> Sequence[int]:
    """Flags of `count` frames of one simulated step, drawn by SplitMix64 from `seed`.

    1: the frame repeats the previous action, with probability `sticky`.
    """
    if not sticky:
        return bytes(count)
    below, state, drawn = int(sticky * 2**53), seed & _MASK, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        drawn.append(int((z ^ (z >> 31)) >> 11 < below))
    return drawn
