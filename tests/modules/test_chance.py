"""Random numbers have their distributions, and the rarest of them are finite."""

import torch

from modules import chance

RAREST = chance.keys(0, 1, 10042), "test", 4096
"""Of the 4096 numbers drawn here one is the greatest of all 2^24 that there are."""


def test_the_largest_uniform_number_is_below_1_and_normal_and_gumbel_of_it_are_finite():
    drawn = chance.uniform(*RAREST)
    assert 0 < float(drawn.min()) < float(drawn.max()) == 1 - 2**-24
    assert chance.normal(*RAREST).isfinite().all()
    assert chance.gumbel(*RAREST).isfinite().all()
    assert int(chance.integers(RAREST[0], "test", 7, 4096).max()) == 6


def test_numbers_have_the_mean_and_variance_of_their_distributions():
    key = chance.keys(1, 4, 2)
    drawn, normal = (make(key, "test", 50_000) for make in (chance.uniform, chance.normal))
    gumbel, whole = chance.gumbel(key, "test", 50_000), chance.integers(key, "test", 5, 50_000)
    # Five deviations of what a mean over 200,000 may be off.
    assert abs(float(drawn.mean()) - 0.5) < 5 * 0.289 / 447
    assert abs(float(normal.mean())) < 5 / 447
    assert abs(float(normal.var()) - 1) < 5 * 2**0.5 / 447
    assert abs(float(gumbel.mean()) - 0.5772) < 5 * 1.283 / 447
    counts = torch.bincount(whole.flatten())
    assert len(counts) == 5
    assert (counts - 40_000).abs().max() < 5 * 179


def test_rows_labels_steps_and_seeds_have_numbers_of_their_own():
    here = chance.uniform(chance.keys(3, 2, 5), "one", 100)
    assert here.equal(chance.uniform(chance.keys(3, 2, 5), "one", 100))
    assert here[:1].equal(chance.uniform(chance.keys(3, 1, 5), "one", 100))
    for other in (
        here.flip(0),
        chance.uniform(chance.keys(3, 2, 5), "two", 100),
        chance.uniform(chance.keys(3, 2, 6), "one", 100),
        chance.uniform(chance.keys(4, 2, 5), "one", 100),
    ):
        assert not (here == other).any()
