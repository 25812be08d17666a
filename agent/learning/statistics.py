"""What few paired runs allow one to say: intervals, tests and corrections, no more than needed.

Intervals are bootstraps: BCa (Efron 1987) for the mean of one sample or of paired differences,
percentiles stratified by world where worlds are joined (as Agarwal et al. 2021 do for Atari).
Tests flip the signs of paired differences: exact where all flips can be counted. Many comparisons
are corrected after Holm (1979). Resampling draws from a generator of its own, so that the same
numbers give the same interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

RESAMPLES = 4000
LEVEL = 0.95
EXACT_FLIPS = 14
"""Up to so many pairs every one of the 2^n flips is counted; beyond, `RESAMPLES`·10 by chance."""

_SEED = 20221


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
    """The mean of independent values with its BCa interval; NaN values are left out."""
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    count = len(sample)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    centre = float(sample.mean())
    if count == 1:
        return Estimate(centre, math.nan, math.nan, 1)
    if _alike(sample):
        return Estimate(centre, centre, centre, count)
    drawn = np.random.default_rng(_SEED).integers(count, size=(RESAMPLES, count))
    means = np.sort(sample[drawn].mean(1))
    # Bias: where the sample's mean lies among the resampled ones, ties counted by half.
    below = (np.searchsorted(means, centre, "left") + np.searchsorted(means, centre, "right")) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below / RESAMPLES, 1e-6), 1 - 1e-6))
    left_out = (sample.sum() - sample) / (count - 1)
    apart = left_out.mean() - left_out
    spread = float((apart**2).sum() ** 1.5)
    acceleration = float((apart**3).sum()) / (6 * spread) if spread else 0.0
    ends = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        z = bias + normal.inv_cdf(tail)
        share = normal.cdf(bias + z / (1 - acceleration * z))
        ends.append(float(np.quantile(means, share)))
    return Estimate(centre, ends[0], ends[1], count)


def _alike(sample: Numbers) -> bool:
    """Whether values differ by nothing but rounding."""
    return bool(np.ptp(sample) <= 1e-12 * np.abs(sample).max())


def sign_flip(differences: Sequence[float] | Numbers) -> float:
    """Two-sided p that paired differences are centred on zero, each sign as likely as the other.

    1 where there are none. The smallest it can be is 2/2^n.
    """
    sample = np.asarray(differences, dtype=np.float64)
    count = len(sample)
    if count == 0:
        return 1.0
    observed = abs(sample.sum()) * (1 - 1e-12)
    if count <= EXACT_FLIPS:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((np.abs((bits * 2 - 1) @ sample) >= observed).mean())
    draws = RESAMPLES * 10
    signs = np.random.default_rng(_SEED).integers(2, size=(draws, count)) * 2 - 1
    return float((1 + (np.abs(signs @ sample) >= observed).sum()) / (1 + draws))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for being several, in the order given (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = largest
    return corrected


def effect_size(differences: Sequence[float] | Numbers) -> float:
    """Mean over standard deviation of paired differences (Cohen's d_z); NaN where undefined."""
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) < 2 or _alike(sample):
        return math.nan
    return float(sample.mean() / sample.std(ddof=1))


def share_better(differences: Sequence[float] | Numbers) -> float:
    """Share of pairs in which the first is larger, ties counted by half; NaN where none is."""
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) == 0:
        return math.nan
    return float((sample > 0).mean() + (sample == 0).mean() / 2)


@dataclass(frozen=True)
class Stratum:
    """One world's paired values, all [N] in the same order of seeds."""

    low: Numbers
    high: Numbers
    value: Numbers


def gap_kept(strata: Sequence[Stratum]) -> Estimate:
    """The share of the gap between `low` and `high` that `value` keeps, averaged over worlds.

    Each world's share is (mean value - mean low) / (mean high - mean low). Seeds are resampled
    within each world, all three of a seed together; the interval is of percentiles. `count` is
    the number of worlds.
    """
    if not strata:
        return Estimate(math.nan, math.nan, math.nan, 0)
    generator = np.random.default_rng(_SEED)
    whole, resampled = [], []
    for stratum in strata:
        rows = np.stack([stratum.low, stratum.high, stratum.value])
        whole.append(_share(rows.mean(1)))
        drawn = generator.integers(rows.shape[1], size=(RESAMPLES, rows.shape[1]))
        resampled.append(_share(rows[:, drawn].mean(2)))
    low, high = _percentiles(np.mean(resampled, 0))
    return Estimate(float(np.mean(whole)), low, high, len(strata))


def _share(means: Numbers) -> Numbers:
    """(value - low) / (high - low) of [3 …] means in the order low, high, value."""
    gap = means[1] - means[0]
    share: Numbers = (means[2] - means[0]) / np.where(gap == 0, np.nan, gap)
    return share


def ratio(strata: Sequence[tuple[Numbers, Numbers]]) -> Estimate:
    """mean(first)/mean(second) averaged over worlds, seeds resampled in pairs; percentiles."""
    if not strata:
        return Estimate(math.nan, math.nan, math.nan, 0)
    generator = np.random.default_rng(_SEED)
    whole, resampled = [], []
    for first, second in strata:
        drawn = generator.integers(len(first), size=(RESAMPLES, len(first)))
        with np.errstate(divide="ignore", invalid="ignore"):
            whole.append(first.mean() / second.mean())
            resampled.append(first[drawn].mean(1) / second[drawn].mean(1))
    low, high = _percentiles(np.mean(resampled, 0))
    return Estimate(float(np.mean(whole)), low, high, len(strata))


def _percentiles(values: Numbers) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def rank_trend(values: Sequence[float] | Numbers) -> float:
    """How far values in an order rise, -1 to 1: pairs that rise less pairs that fall, over all
    pairs (Kendall's tau-a); 0 where there are fewer than two.
    """
    pairs = list(itertools.combinations(np.asarray(values, dtype=np.float64).tolist(), 2))
    if not pairs:
        return 0.0
    rises: int = sum(int(b > a) - int(b < a) for a, b in pairs)
    return rises / len(pairs)


def total_variation(first: Numbers, second: Numbers) -> float:
    """Half the summed difference of two histograms' shares, 0 (alike) to 1 (nothing in common)."""
    a, b = first / max(first.sum(), 1), second / max(second.sum(), 1)
    return float(np.abs(a - b).sum() / 2)


@dataclass(frozen=True)
class CurvePoint:
    """One bin of a response curve: where it lies, how often, with its interval over seeds."""

    at: float
    share: float
    low: float
    high: float
    moments: int


def response_curve(
    features: Sequence[Numbers], answers: Sequence[Numbers], bins: int = 8
) -> list[CurvePoint]:
    """How often the answer is yes for each level of a feature.

    `features` and `answers` (0 or 1) hold the moments of one run each, [T_i]. Bins hold equally
    many moments of all runs together; where many share the lowest value (nothing surprised) they
    are a bin of their own. The interval resamples whole runs, since the moments of one run depend
    on each other; percentiles.
    """
    pooled = np.concatenate(list(features)) if len(features) else np.zeros(0)
    pooled = pooled[np.isfinite(pooled)]
    if len(pooled) == 0:
        return []
    least = pooled.min()
    above = pooled[pooled > least]
    if len(above) and len(above) < len(pooled) * (1 - 1 / bins):
        edges = np.unique([least, *np.quantile(above, np.linspace(0, 1, bins))])
    else:
        edges = np.unique(np.quantile(pooled, np.linspace(0, 1, bins + 1)))
    several = max(1, len(edges) - 1)
    counts = np.zeros((len(features), several))
    yes, sums = np.zeros_like(counts), np.zeros_like(counts)
    for run, (feature, answer) in enumerate(zip(features, answers, strict=True)):
        known = np.isfinite(feature)
        place = np.clip(np.searchsorted(edges, feature[known], "right") - 1, 0, several - 1)
        counts[run] = np.bincount(place, minlength=several)
        yes[run] = np.bincount(place, weights=answer[known], minlength=several)
        sums[run] = np.bincount(place, weights=feature[known], minlength=several)
    drawn = np.random.default_rng(_SEED).integers(len(counts), size=(RESAMPLES, len(counts)))
    with np.errstate(invalid="ignore"):
        shares = yes[drawn].sum(1) / counts[drawn].sum(1)
    points = []
    for i in range(several):
        if total := counts[:, i].sum():
            low, high = _percentiles(shares[:, i])
            points.append(
                CurvePoint(
                    at=float(sums[:, i].sum() / total),
                    share=float(yes[:, i].sum() / total),
                    low=low,
                    high=high,
                    moments=int(total),
                )
            )
    return points
