"""Dependence of two variables of any form: HSIC and mutual information, with permutation nulls.

A correlation sees a linear dependence alone: of two variables on a spiral, turned to its principal
axes, it finds none (LeCun's example against decorrelation as a measure of information).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

PERMUTATIONS = 200


def pearson(x: Numbers, y: Numbers) -> float:
    """The absolute linear correlation of x [M] and y [M], 0 to 1."""
    return abs(float(np.corrcoef(x, y)[0, 1]))


def hsic(x: Numbers, y: Numbers) -> float:
    """Normalised Hilbert–Schmidt independence criterion of x [M D] and y [M E], 0 to 1.

    HSIC(x, y) / √(HSIC(x, x) HSIC(y, y)), the biased estimate tr(KHLH) (Gretton et al. 2005), with
    Gaussian kernels as wide as the median distance. 0 for independent variables as M grows.
    """
    a, b = _features(x), _features(y)
    return float(np.square(a.T @ b).sum() / (_norm(a) * _norm(b)))


def hsic_p_value(x: Numbers, y: Numbers, seed: int, permutations: int = PERMUTATIONS) -> float:
    """P value of `hsic` against independence, by permutations of the samples of y."""
    a, b = _features(x), _features(y)
    return _p_value(
        lambda order: float(np.square(a.T @ b[order]).sum()), len(a), seed, permutations
    )


def pearson_p_value(x: Numbers, y: Numbers, seed: int, permutations: int = PERMUTATIONS) -> float:
    """P value of `pearson` against independence, by permutations of the samples of y."""
    # Norms do not change with the order.
    a, b = x - x.mean(), y - y.mean()
    return _p_value(lambda order: abs(float(a @ b[order])), len(x), seed, permutations)


def mutual_information(x: Numbers, y: Numbers, neighbours: int = 3) -> float:
    """Mutual information of x [M D] and y [M E], nats, from distances of nearest neighbours.

    The first estimator of Kraskov, Stögbauer & Grassberger 2004 (eq. 8); near 0, and possibly
    below, for independent variables.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    joint = cKDTree(np.concatenate([x, y], 1))
    distance = joint.query(joint.data, neighbours + 1, p=np.inf)[0][:, -1]
    # A point is counted among its own neighbours, which is the +1 of the formula.
    counts = digamma(_nearer(x, distance)) + digamma(_nearer(y, distance))
    return float(digamma(neighbours) + digamma(len(x)) - counts.mean())


def mutual_information_p_value(
    x: Numbers, y: Numbers, seed: int, permutations: int = PERMUTATIONS
) -> float:
    """P value of `mutual_information` against independence, by permutations of y."""
    return _p_value(lambda order: mutual_information(x, y[order]), len(x), seed, permutations)


def _p_value(
    statistic: Callable[[NDArray[np.int64]], float], size: int, seed: int, permutations: int
) -> float:
    """Share of permutations, the identity among them, whose statistic is not below the observed."""
    rng = np.random.default_rng(seed)
    observed = statistic(np.arange(size))
    # A relative tolerance: sums in another order round otherwise.
    reached = sum(
        statistic(rng.permutation(size)) >= observed * (1 - 1e-12) for _ in range(permutations)
    )
    return (1 + reached) / (1 + permutations)


def _nearer(points: Numbers, distance: Numbers) -> NDArray[np.int64]:
    """How many of `points` [M D] are strictly nearer to each than `distance` [M], itself too."""
    from scipy.spatial import cKDTree

    if points.shape[1] > 1:
        near = cKDTree(points).query_ball_point(
            points, np.nextafter(distance, 0), p=np.inf, return_length=True
        )
        return np.asarray(near, dtype=np.int64)
    # Thirty times as fast as the tree. `distance` is that of some point, which rounding must not
    # bring in.
    values, radius = points[:, 0] - points[:, 0].mean(), distance * (1 - 1e-9)
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values - radius, "left")
    return np.asarray(np.searchsorted(ordered, values + radius, "right") - low, dtype=np.int64)


def _norm(features: Numbers) -> float:
    return float(np.linalg.norm(features.T @ features))


def _features(x: Numbers, tolerance: float = 1e-6) -> Numbers:
    """Centred features [M R] whose products are the centred kernel of x [M D].

    A pivoted Cholesky factor: a Gaussian kernel of M samples has a rank R far below M, so that a
    permutation costs M·R² and not M².
    """
    x = x.reshape(len(x), -1)
    width = _median_distance(x)
    left, chosen = np.ones(len(x)), list[Numbers]()
    while left.max() > tolerance and len(chosen) < len(x):
        pivot = int(left.argmax())
        column = np.exp(-np.square(x - x[pivot]).sum(1) / (2 * width**2))
        for factor in chosen:
            column -= factor[pivot] * factor
        factor = column / np.sqrt(left[pivot])
        chosen.append(factor)
        left = np.maximum(left - factor**2, 0)
        left[pivot] = 0
    factors: Numbers = np.stack(chosen, 1)
    factors -= factors.mean(0)
    return factors


def _median_distance(x: Numbers) -> float:
    """The median distance of two samples, of at most 1,000; 1 where most are equal."""
    from scipy.spatial.distance import pdist

    median = float(np.median(pdist(x[:: -(-len(x) // 1000)])))
    return median if median > 0 else 1.0
