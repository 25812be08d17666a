"""Randomness that is derived, not shared.

Every random number is a hash of (run seed, row, step, port, place): rows do not disturb each
other, a fork meets the same luck as the original, and paired runs differ only in what was changed.
The hash is SplitMix64 (Steele, Lea & Flood 2014), one pass over numpy's uint64, so a whole batch
costs some microseconds where a generator per row would cost thousands.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_U64 = np.uint64
_BELOW_1 = np.nextafter(np.float32(1), np.float32(0))


def _mix(z: Hashes) -> Hashes:
    with np.errstate(over="ignore"):
        z = (z ^ (z >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> _U64(27))) * _U64(0x94D049BB133111EB)
        mixed: Hashes = z ^ (z >> _U64(31))
        return mixed


def _join(key: Hashes, value: Hashes | np.uint64) -> Hashes:
    with np.errstate(over="ignore"):
        return _mix(key * _GOLDEN + value + _U64(1))


def keys(seed: int, rows: int, step: int) -> Tensor:
    """The random key of each row at one step, [B] int64."""
    start = np.full(rows, seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    joined = _join(_join(_mix(start), np.arange(rows, dtype=np.uint64)), _U64(step))
    return torch.from_numpy(joined.view(np.int64))


def _hashes(key: Tensor, port: str, count: int) -> Hashes:
    """[B count] uint64."""
    own = _join(key.numpy().view(np.uint64), _U64(zlib.crc32(port.encode())))
    return _join(own[:, None], np.arange(count, dtype=np.uint64)[None])


def uniform(key: Tensor, port: str, *shape: int) -> Tensor:
    """Numbers in (0, 1), [B *shape] float32, of the rows' `key` [B]; `port` names the user."""
    count = int(np.prod(shape)) if shape else 1
    bits = _hashes(key, port, count) >> _U64(40)
    drawn = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)
    # The greatest of the 2^24 would be rounded to 1, and a normal number there is infinite.
    np.minimum(drawn, _BELOW_1, out=drawn)
    return torch.from_numpy(drawn).view(len(key), *shape)


def normal(key: Tensor, port: str, *shape: int) -> Tensor:
    """Standard normal numbers, [B *shape] float32 (inverse of the error function)."""
    drawn: Tensor = torch.special.ndtri(uniform(key, port, *shape).double())
    return drawn.float()


def gumbel(key: Tensor, port: str, *shape: int) -> Tensor:
    """Standard Gumbel numbers, [B *shape] float32: adding them to logits and taking the largest
    draws from the softmax.
    """
    return -torch.log(-torch.log(uniform(key, port, *shape)))


def integers(key: Tensor, port: str, high: int, *shape: int) -> Tensor:
    """Whole numbers in [0, high), [B *shape] int64."""
    return (uniform(key, port, *shape) * high).long().clamp_max(high - 1)
