"""Entropy of a representation after quantisation, and how far that can be trusted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def code_entropy(codes: NDArray[np.int64], size: int) -> float:
    """The entropy of codes [M] out of `size`, nats, by their frequencies; ln `size` at most."""
    shares = np.bincount(codes, minlength=size) / len(codes)
    used = shares[shares > 0]
    return float(-(used * np.log(used)).sum())


def quantised_entropy(samples: Numbers, clusters: int, seed: int = 0) -> float:
    """Differential entropy of `samples` [M D], nats, after k-means with `clusters` codes.

    H(code) + D ln(√12 σ): codes are cells, and a cell of side a has a deviation of a / √12 in each
    dimension, σ being the root mean square deviation of a sample from its centre. Exact where cells
    are small cubes, that is with many codes a dimension. Their number would have to grow
    exponentially with D: with a fixed number the estimate fails, in which direction depends on the
    density.
    """
    from scipy.cluster.vq import kmeans2

    centres, codes = kmeans2(samples, clusters, minit="++", rng=np.random.default_rng(seed))
    within = float(np.sqrt(np.square(samples - centres[codes]).mean()))
    dimensions: int = samples.shape[1]
    return code_entropy(codes, clusters) + dimensions * math.log(math.sqrt(12) * within)


def gaussian_entropy(covariance: Numbers) -> float:
    """The differential entropy of a Gaussian with `covariance` [D D], nats: ½ ln det(2πe Σ)."""
    _, logarithm = np.linalg.slogdet(2 * np.pi * np.e * covariance)
    return 0.5 * float(logarithm)
