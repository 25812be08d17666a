"""Random numbers as hashes of where they are used.

Each is a hash of (run seed, row, step, label of its use, index), so rows do not affect each other,
a fork draws the numbers of its original, and paired runs differ only in what was changed. The hash
is SplitMix64 (Steele, Lea & Flood 2014) over numpy's uint64: a batch takes some microseconds, where
one generator per row would take thousands. The labels are part of the numbers: a changed label
changes a run.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Hashes = npt.NDArray[np.uint64]

_U64 = np.uint64
_GOLDEN = _U64(0x9E3779B97F4A7C15)
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
    """The random key of each of `rows` rows at a step, [B] int64."""
    seeds = np.full(rows, seed & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
    joined = _join(_join(_mix(seeds), np.arange(rows, dtype=np.uint64)), _U64(step))
    return torch.from_numpy(joined.view(np.int64))


def _hashes(key: Tensor, label: str, count: int) -> Hashes:
    """Hashes [B count] (uint64) of the keys [B] under a label."""
    labelled = _join(key.numpy().view(np.uint64), _U64(zlib.crc32(label.encode())))
    return _join(labelled[:, None], np.arange(count, dtype=np.uint64)[None])


def uniform(key: Tensor, label: str, *shape: int) -> Tensor:
    """Uniform numbers in (0, 1), [B *shape] float32, of the rows' keys [B]; the `label` names the
    use, and two uses with one label and key draw the same numbers.
    """
    count = int(np.prod(shape)) if shape else 1
    bits = _hashes(key, label, count) >> _U64(40)
    drawn = (bits.astype(np.float32) + np.float32(0.5)) * np.float32(2**-24)
    # The largest of the 2^24 values would round to 1, at which normal and Gumbel are infinite.
    np.minimum(drawn, _BELOW_1, out=drawn)
    return torch.from_numpy(drawn).view(len(key), *shape)


def normal(key: Tensor, label: str, *shape: int) -> Tensor:
    """Standard normal numbers, [B *shape] float32, by the inverse of their distribution."""
    drawn: Tensor = torch.special.ndtri(uniform(key, label, *shape).double())
    return drawn.float()


def gumbel(key: Tensor, label: str, *shape: int) -> Tensor:
    """Standard Gumbel numbers, [B *shape] float32: the argmax of logits plus these is a draw from
    their softmax.
    """
    return -torch.log(-torch.log(uniform(key, label, *shape)))


def integers(key: Tensor, label: str, high: int, *shape: int) -> Tensor:
    """Uniform integers in [0, high), [B *shape] int64."""
    return (uniform(key, label, *shape) * high).long().clamp_max(high - 1)
