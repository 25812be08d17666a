"""Statistics of few paired runs: bootstrap intervals, a permutation test, corrections, trends.

Intervals are bootstraps: BCa (Efron 1987) for the mean of one sample or of paired differences,
percentiles with the units of each group resampled apart where groups are joined (stratified, as
Agarwal et al. 2021 do for Atari). The test flips the signs of paired differences. Many comparisons
are corrected after Holm (1979). The generator is seeded: the same numbers give the same interval.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# `scipy.stats` is imported where it is used: its import takes about a second.

Numbers = npt.NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
FLIPS = 40_000
"""Resamples of the sign-flip test: exact where there are no more flips, that is, up to 15 pairs."""

_SEED = 20221
_UNITS = 2**40
"""Units in the range of a sample."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval at level `LEVEL`; both ends are NaN where there is one value."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean(values: Sequence[float] | Numbers) -> Estimate:
    """The mean of independent values with its BCa interval; values not finite are left out."""
    from scipy.stats import bootstrap

    sample = np.asarray(values, dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    count = len(sample)
    centre = float(sample.mean()) if count else math.nan
    if count < 2:
        return Estimate(centre, math.nan, math.nan, count)
    if _alike(sample):
        return Estimate(centre, centre, centre, count)
    # In whole units, so that equal means are equal numbers: the bias counts ties by half.
    least, unit = float(sample.min()), float(np.ptp(sample)) / _UNITS
    low, high = bootstrap(
        (np.round((sample - least) / unit),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="BCa",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Estimate(centre, least + unit * float(low), least + unit * float(high), count)


def percentile_interval(
    statistic: Callable[..., Numbers], sizes: Iterable[int]
) -> tuple[Numbers, Numbers]:
    """Both ends of the percentile interval of a statistic of several groups, each [...].

    `sizes`: the units of each group, as the runs of a world. Units are resampled within their
    group. `statistic` maps the indices of resampled units, [R N_i] for each group, to [... R].
    Values that are not finite are left out; NaN where none is left.
    """
    from scipy.stats import bootstrap

    # Scipy resamples two units or more: a single unit stands twice.
    units = [np.arange(max(size, 2)) % size for size in sizes]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of resamples in which the statistic is undefined
        drawn = bootstrap(
            units,
            lambda *indices, axis: statistic(*indices),
            n_resamples=RESAMPLES,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(_SEED),
        ).bootstrap_distribution
        drawn = np.where(np.isfinite(drawn), drawn, np.nan)
        low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return low, high


def _alike(sample: Numbers) -> bool:
    """Whether values differ by nothing but rounding."""
    return bool(np.ptp(sample) <= 1e-12 * np.abs(sample).max())


def sign_flip(differences: Sequence[float] | Numbers) -> float:
    """Two-sided p that paired differences are centred on zero, each sign as likely as the other.

    1 where there are none. The smallest it can be is 2/2^n.
    """
    from scipy.stats import permutation_test

    sample = np.asarray(differences, dtype=np.float64)
    # Scipy tests two pairs or more: a difference of 0 changes no sum.
    sample = np.pad(sample, (0, max(0, 2 - len(sample))))
    result = permutation_test(
        (sample,),
        np.sum,
        permutation_type="samples",
        n_resamples=FLIPS,
        rng=np.random.default_rng(_SEED),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for being several, in the order given (Holm 1979)."""
    order = np.argsort(p_values)
    factors = np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(1, np.take(p_values, order) * factors))
    return [float(p) for p in corrected]


def effect_size(differences: Sequence[float] | Numbers) -> float:
    """Mean over standard deviation of paired differences (Cohen's d_z); NaN where undefined."""
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2 or _alike(sample):
        return math.nan
    return float(sample.mean() / sample.std(ddof=1))


def share_better(differences: Sequence[float] | Numbers) -> float:
    """Share of pairs in which the first is larger, ties counted by half; NaN where none is."""
    sample = np.asarray(differences, dtype=np.float64)
    return float((np.sign(sample) + 1).mean() / 2) if len(sample) else math.nan


def gap_kept(worlds: Sequence[tuple[Numbers, Numbers, Numbers]]) -> Estimate:
    """The share of the gap between low and high values that other values keep.

    `worlds`: low, high and other values of each world, [N] each in the same order of seeds. A
    world's share is (mean other − mean low) / (mean high − mean low).
    """
    return _over_worlds(lambda low, high, other: (other - low) / (high - low), worlds)


def ratio(worlds: Sequence[tuple[Numbers, Numbers]]) -> Estimate:
    """mean(first)/mean(second) over worlds; the values of each are paired by seed, [N]."""
    return _over_worlds(lambda first, second: first / second, worlds)


def _over_worlds(share: Callable[..., Numbers], worlds: Sequence[tuple[Numbers, ...]]) -> Estimate:
    """`share` of the means of each world's columns [N], averaged over worlds; `count`: of worlds.

    Seeds are resampled within each world, all columns of one seed together.
    """
    if not worlds:
        return Estimate(math.nan, math.nan, math.nan, 0)

    def average(*seeds: npt.NDArray[np.int64]) -> Numbers:
        shares = [
            share(*(column[drawn].mean(-1) for column in columns))
            for columns, drawn in zip(worlds, seeds, strict=True)
        ]
        return np.asarray(np.mean(shares, 0))

    sizes = [len(columns[0]) for columns in worlds]
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = average(*map(np.arange, sizes))
    low, high = percentile_interval(average, sizes)
    return Estimate(float(whole), float(low), float(high), len(worlds))


def interquartile_mean(values: Numbers) -> Numbers:
    """The mean without the lowest and the highest quarter, ⌊N/4⌋ values at each end; [... N]."""
    from scipy.stats import trim_mean

    return np.asarray(trim_mean(values, 0.25, axis=-1))


def rank_trend(values: Sequence[float] | Numbers) -> float:
    """Kendall's tau-b of two or more values with their order, −1 to 1; 0 where all are equal."""
    from scipy.stats import kendalltau

    return float(np.nan_to_num(kendalltau(np.arange(len(values)), values).statistic))


def total_variation(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> Numbers:
    """Half the summed difference of two histograms' shares, 0 (alike) to 1 (nothing in common).

    Of counts [... K] each: [...].
    """
    a, b = (counts / np.maximum(counts.sum(-1, keepdims=True), 1) for counts in (first, second))
    return np.asarray(np.abs(a - b).sum(-1) / 2)


@dataclass(frozen=True)
class CurvePoint:
    """One bin of a response curve: its mean feature, and the share of yes among its moments."""

    at: float
    share: Estimate


def response_curve(
    features: Sequence[Numbers], answers: Sequence[Numbers], bins: int = 8
) -> list[CurvePoint]:
    """How often the answer is yes for each level of a feature.

    `features` and `answers` (0 or 1) hold the moments of one run each, [T_i]. Bins hold equally
    many moments of all runs together; where many share the lowest value (as a surprise of 0) they
    are a bin of their own. The interval is of percentiles and resamples whole runs, as the moments
    of one run depend on each other.
    """
    pooled = np.concatenate([[], *features])
    pooled = pooled[np.isfinite(pooled)]
    if len(pooled) == 0:
        return []
    least = pooled.min()
    above = pooled[pooled > least]
    if 0 < len(above) < len(pooled) * (1 - 1 / bins):
        edges = np.unique([least, *np.quantile(above, np.linspace(0, 1, bins))])
    else:
        edges = np.unique(np.quantile(pooled, np.linspace(0, 1, bins + 1)))
    totals = []
    for feature, answer in zip(features, answers, strict=True):
        known = np.isfinite(feature)
        place = np.digitize(feature[known], edges[1:-1])
        totals.append(
            [
                np.bincount(place, weights=weights, minlength=max(1, len(edges) - 1))
                for weights in (np.ones(len(place)), answer[known], feature[known])
            ]
        )
    counts, yes, sums = np.stack(totals, 1)  # each [runs bins]
    lows, highs = percentile_interval(
        lambda runs: (yes[runs].sum(1) / counts[runs].sum(1)).T, [len(features)]
    )
    return [
        CurvePoint(
            float(sums[:, i].sum() / count),
            Estimate(float(yes[:, i].sum() / count), float(lows[i]), float(highs[i]), int(count)),
        )
        for i, count in enumerate(counts.sum(0))
        if count
    ]
