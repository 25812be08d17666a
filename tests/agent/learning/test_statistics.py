"""Intervals, tests and corrections against enumeration and worked examples."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.learning import statistics as stats

# Sums of eighths are exact: equal sums are equal numbers.
NUMBERS = st.lists(st.integers(-8000, 8000).map(lambda n: n / 8), min_size=2, max_size=9)


@settings(max_examples=40, deadline=None)
@given(NUMBERS)
def test_sign_flip_counts_every_flip(differences):
    observed = abs(sum(differences))
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    expected = np.mean([total >= observed - 1e-9 for total in flips])
    assert stats.sign_flip(differences) == pytest.approx(expected)
    assert stats.sign_flip([-d for d in differences]) == stats.sign_flip(differences)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_sign_flip_of_differences_all_one_way_is_the_least_there_is(count):
    assert stats.sign_flip([1.0] * count) == 2 / 2**count


def test_sign_flip_by_chance_agrees_with_counting():
    values = np.random.default_rng(3).normal(0.3, 1, 14)
    exact = stats.sign_flip(values)
    # Two zeros change no sum, but make the sample too large to be counted.
    assert stats.sign_flip([*values, 0, 0]) == pytest.approx(exact, abs=0.01)


def test_sign_flip_is_uniform_without_a_difference():
    generator = np.random.default_rng(0)
    p_values = np.array([stats.sign_flip(generator.normal(0, 1, 8)) for _ in range(400)])
    assert 0.02 < np.mean(p_values <= 0.05) < 0.09


def test_holm_against_a_worked_example():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    corrected = stats.holm(p_values)
    assert all(c >= p for c, p in zip(corrected, p_values, strict=True))
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(corrected[a] <= corrected[b] for a, b in itertools.pairwise(order))


def test_intervals_cover_the_mean_at_about_their_level():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(150):
        estimate = stats.mean(generator.exponential(1.0, 25))
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.86 < covered / 150 < 0.99


@settings(max_examples=25, deadline=None)
@given(NUMBERS, st.floats(-100, 100))
def test_an_interval_holds_the_mean_and_moves_with_it(values, shift):
    estimate = stats.mean(values)
    assert estimate.low <= estimate.mean + 1e-9
    assert estimate.mean <= estimate.high + 1e-9
    moved = stats.mean([value + shift for value in values])
    assert moved.mean == pytest.approx(estimate.mean + shift, abs=1e-6)


def test_an_interval_of_one_value_or_none_is_unknown():
    assert math.isnan(stats.mean([3.0]).low)
    assert stats.mean([]).count == 0
    assert stats.mean([2.0, math.nan, 2.0]) == stats.Estimate(2.0, 2.0, 2.0, 2)


@pytest.mark.parametrize("values", [[0.24999999999999997, 0.25], [-0.3, -0.1 - 0.2] * 3])
def test_values_that_differ_by_rounding_are_equal(values):
    estimate = stats.mean(values)
    assert estimate.low == estimate.mean == estimate.high == pytest.approx(values[0])


def test_values_too_small_to_be_squared_have_an_interval():
    estimate = stats.mean([1e-200, 2e-200, 4e-200])
    assert 1e-200 <= estimate.low < estimate.high <= 4e-200


def test_the_gap_is_kept_whole_half_or_not_at_all():
    generator = np.random.default_rng(2)
    low, high = generator.normal(0, 1, 12), generator.normal(10, 1, 12)
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        # A second world on a scale of its own changes nothing.
        strata = [(low, high, value)]
        strata.append((low * 300 + 7, high * 300 + 7, value * 300 + 7))
        estimate = stats.gap_kept(strata)
        assert estimate.mean == pytest.approx(share)
        assert estimate.low == pytest.approx(share)
        assert estimate.high == pytest.approx(share)


def test_the_gap_of_worlds_that_differ_is_their_average():
    low, high = np.zeros(6), np.full(6, 2.0)
    estimate = stats.gap_kept([(low, high, np.full(6, 2.0)), (low, high, np.full(6, 1.0))])
    assert estimate.mean == pytest.approx(0.75)


def test_a_ratio_is_of_means():
    estimate = stats.ratio([(np.array([1.0, 3.0]), np.array([8.0, 8.0]))])
    assert estimate.mean == pytest.approx(0.25)
    assert 0.125 <= estimate.low <= estimate.high <= 0.375


def test_rank_trend():
    assert stats.rank_trend([1, 2, 3]) == 1
    assert stats.rank_trend([3, 2, 1]) == -1
    assert stats.rank_trend([1, 1, 1]) == 0
    assert stats.rank_trend([1, 3, 2]) == pytest.approx(1 / 3)
    # tau-b: ties shorten what the pairs are divided by, √(3 · 2).
    assert stats.rank_trend([1, 1, 2]) == pytest.approx(2 / math.sqrt(6))


def test_iqm_leaves_a_quarter_out_at_each_end():
    assert stats.interquartile_mean(np.array([100.0, 3.0, 1.0, 2.0])) == 2.5
    assert stats.interquartile_mean(np.array([5.0, 1.0, 3.0])) == 3.0
    values = np.random.default_rng(0).normal(size=(2, 12))
    expected = np.sort(values)[:, 3:9].mean(1)
    assert stats.interquartile_mean(values) == pytest.approx(expected)


def test_the_interval_of_a_stratified_iqm_against_all_resamples():
    """Two games of three runs have 27 · 27 resamples: their IQMs, sorted by hand, are counted."""
    games = [np.array([0.1, 0.7, 1.3]), np.array([2.0, 0.4, 5.0])]
    resamples = itertools.product(*(itertools.product(game.tolist(), repeat=3) for game in games))
    every = [sum(sorted([*first, *second])[1:5]) / 4 for first, second in resamples]
    assert len(every) == 27 * 27

    def iqm(first, second):
        return stats.interquartile_mean(np.concatenate([games[0][first], games[1][second]], -1))

    low, high = stats.percentile_interval(iqm, [3, 3])
    # The shares of resamples beyond the ends are those of the level, but for chance.
    assert np.mean(np.array(every) < low - 1e-9) <= 0.032
    assert np.mean(np.array(every) <= low + 1e-9) >= 0.018
    assert np.mean(np.array(every) > high + 1e-9) <= 0.032
    assert np.mean(np.array(every) >= high - 1e-9) >= 0.018


def test_groups_are_resampled_apart_and_several_statistics_at_once():
    alone, values = np.array([4.0]), np.array([0.0, 1.0])

    def statistics(first, second):
        return np.stack([alone[first].mean(-1), values[second].mean(-1)])

    lows, highs = stats.percentile_interval(statistics, [1, 2])
    assert (lows.tolist(), highs.tolist()) == ([4, 0], [4, 1])


def test_total_variation():
    same = np.array([1.0, 3.0])
    assert stats.total_variation(same, same * 7) == 0
    assert stats.total_variation(np.array([1.0, 0.0]), np.array([0.0, 5.0])) == 1
    assert stats.total_variation(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == 0.5


def test_effect_and_share():
    assert stats.effect_size([1.0, 3.0]) == pytest.approx(2 / math.sqrt(2))
    assert math.isnan(stats.effect_size([1.0, 1.0]))
    assert math.isnan(stats.effect_size([0.1 + 0.2, 0.3]))
    assert stats.share_better([1.0, -1.0, 0.0, 2.0]) == pytest.approx(0.625)


def test_a_response_curve_of_a_step():
    generator = np.random.default_rng(4)
    features = [generator.uniform(0, 1, 200) for _ in range(6)]
    curve = stats.response_curve(features, [(f > 0.5).astype(float) for f in features], bins=10)
    assert len(curve) == 10
    assert sum(point.share.count for point in curve) == 1200
    for point in curve:
        if abs(point.at - 0.5) > 0.1:
            assert point.share.mean == (point.at > 0.5)
        assert point.share.low <= point.share.mean <= point.share.high
    assert len(stats.response_curve([np.zeros(5)], [np.ones(5)])) == 1
    # Most moments share the lowest value, which is a bin of its own.
    rare = np.where(np.arange(200) % 10 == 0, np.arange(200.0), 0.0)
    curve = stats.response_curve([rare], [(rare > 0).astype(float)], bins=4)
    assert [point.share.mean for point in curve] == [0, 1, 1, 1]
    assert curve[0].share.count == 181
    assert stats.response_curve([], []) == []


def test_scipy_is_imported_on_first_use():
    """Its import takes about a second, which only a command with an interval should pay."""
    program = (
        "import sys, agent.studies.conduct, agent.commands.report; print('scipy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
