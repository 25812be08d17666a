"""Observation spaces read as vectors of numbers, nested ones part by part."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worlds.frames import LARGEST_CODE, bounds, brief, shows_pictures

WORDS, SIGNS = 32, 16
"""Words of a text that are read, and numbers that stand for each."""

_OPEN = 16
"""Codes that have a plane of their own where the space promises no more than bytes."""

Vector = NDArray[np.float32]


class UnreadableSpace(Exception):
    """A space without numbers of a fixed count; the argument is the space."""


def size_of(space: spaces.Space[Any]) -> int:
    """How many numbers an element of `space` is read as. Raises UnreadableSpace for a Graph, a
    Sequence, or an unknown space.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return sum(map(size_of, parts(space).values()))
    if _is_text(space):
        return WORDS * SIGNS
    if not isinstance(space, _FLAT):
        raise UnreadableSpace(space)
    if (codes := _codes(space)) is not None:
        return math.prod(space.shape or ()) * int(codes[1].shape[1])
    # `flatdim` of a Discrete allocates nothing, that of any other space neither.
    return spaces.flatdim(space)


_FLAT = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.OneOf)


def parts(space: spaces.Dict | spaces.Tuple[Any]) -> dict[Any, spaces.Space[Any]]:
    """The spaces within a Dict or Tuple, by key or place."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))


def flattened(space: spaces.Space[Any], value: Any) -> Vector:
    """An element of `space` as numbers, [N] with N = `size_of(space)`.

    Codes in a grid are one-hot, shades of pictures 0 to 1, words of a text a hash each; a Dict or
    Tuple is the sequence of its parts; other spaces are as `gymnasium.spaces.flatten` has them.
    """
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = [flattened(part, value[key]) for key, part in parts(space).items()]
        return np.concatenate(inner) if inner else np.zeros(0, np.float32)
    if _is_text(space):
        return _words(str(value))
    if (codes := _codes(space)) is not None:
        first, table = codes
        places = (np.asarray(value).astype(np.int64) - first).clip(0, len(table) - 1)
        return np.asarray(table[places].reshape(-1), np.float32)
    numbers = np.asarray(spaces.flatten(space, value), np.float32)
    if isinstance(space, spaces.Box) and shows_pictures(space):
        numbers = numbers / bounds(space)[1]
    return numbers.astype(np.float32, copy=False)


def reading_of(space: spaces.Space[Any]) -> str:
    """What `flattened` takes a space for, with the count of numbers of each part."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return ", ".join(f"{key}: {reading_of(part)}" for key, part in parts(space).items())
    size = size_of(space)
    if _is_text(space):
        return f"text → {size} (hashes of its first {WORDS} words)"
    if (codes := _codes(space)) is not None:
        kind = "0 and 1" if codes[1].shape[1] == 1 else "codes, one-hot"
        return f"{brief(space)} → {size} ({kind})"
    if shows_pictures(space):
        return f"{brief(space)} → {size} (shades, 0 to 1)"
    one_hot = isinstance(space, spaces.Discrete | spaces.MultiDiscrete)
    return f"{brief(space)} → {size}{' (one-hot)' if one_hot else ''}"


def _is_text(space: spaces.Space[Any]) -> bool:
    """Whether elements are strings; packages have spaces of their own for those."""
    if isinstance(space, spaces.Text):
        return True
    known = isinstance(space, (*_FLAT, spaces.Dict, spaces.Tuple, spaces.Graph, spaces.Sequence))
    return not known and isinstance(space.sample(), str)


def _codes(space: spaces.Space[Any]) -> tuple[int, Vector] | None:
    """For a grid of codes the first code, and the numbers of each code, [codes N]; else None.

    Codes are integers or booleans in a Box of two axes or more whose range is at most 32, or bytes
    in a grid too small for a picture: the first 16 bytes have a plane each there, and another one
    holds the byte / 255, so that none are alike.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) < 2 or space.dtype.kind not in "iub":
        return None
    low, high = bounds(space)
    if high - low <= LARGEST_CODE:
        return int(low), _one_hot(int(high - low) + 1)
    if (low, high) == (0, 255) and not shows_pictures(space):
        return 0, _bytes()
    return None


@cache
def _one_hot(codes: int) -> Vector:
    """[codes codes], but [2 1] for two codes: one number tells them apart."""
    return np.array([[0], [1]], np.float32) if codes == 2 else np.eye(codes, dtype=np.float32)


@cache
def _bytes() -> Vector:
    return np.hstack([np.eye(256, _OPEN), np.arange(256)[:, None] / 255]).astype(np.float32)


def _words(text: str) -> Vector:
    """Each of the first words as 16 numbers ±1, the bits of its CRC-32; 0 where there is none."""
    signs = np.zeros((WORDS, SIGNS), np.float32)
    for place, word in enumerate(text.lower().split()[:WORDS]):
        bits = zlib.crc32(word.encode()) >> np.arange(SIGNS) & 1
        signs[place] = 2.0 * bits - 1
    return signs.ravel()
