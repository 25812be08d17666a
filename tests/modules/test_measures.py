"""Measures against known values: Gaussians of known entropy and information, spirals, branches."""

import math

import numpy as np
import pytest
import torch

from modules.measures.branches import branch_coverage, branch_separation, leakage
from modules.measures.dependence import (
    hsic,
    hsic_p_value,
    mutual_information,
    mutual_information_p_value,
    pearson,
    pearson_p_value,
)
from modules.measures.entropy import code_entropy, gaussian_entropy, quantised_entropy
from modules.measures.probes import linear_probe, mlp_probe, r_squared
from modules.measures.spread import effective_rank, largest_correlation, variances


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spiral(n, rng, turns=2):
    """Points along a spiral, turned to its principal axes."""
    radius = np.sqrt(rng.random(n))
    angle = 2 * np.pi * turns * radius
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    points -= points.mean(0)
    return points @ np.linalg.svd(points, full_matrices=False)[2].T


# -- spread ------------------------------------------------------------------------------------


def test_spread_of_known_matrices():
    latents = torch.tensor([[1.0, 2.0, 5.0], [-1.0, -2.0, 5.0], [1.0, 2.0, 5.0], [-1.0, -2.0, 5.0]])
    assert variances(latents).tolist() == [1, 4, 0]
    assert largest_correlation(latents) == pytest.approx(1)
    assert effective_rank(latents) == pytest.approx(1)
    plane = torch.randn(5000, 2, generator=generator())
    assert effective_rank(torch.cat([plane, plane], 1)) == pytest.approx(2, abs=0.01)
    assert effective_rank(torch.ones(5, 3)) == 0
    assert largest_correlation(plane) < 0.05


# -- entropy -----------------------------------------------------------------------------------


def test_entropy_of_codes():
    assert code_entropy(np.array([0, 1, 2, 3]), 4) == pytest.approx(math.log(4))
    assert code_entropy(np.array([2, 2, 2]), 4) == 0


def test_quantised_entropy_holds_in_few_dimensions_and_fails_in_many():
    rng = np.random.default_rng(0)
    errors = {}
    for size in (1, 2, 16):
        samples = rng.standard_normal((4000, size)) * 3
        truth = gaussian_entropy(9 * np.eye(size))
        assert truth == pytest.approx(size * (0.5 * math.log(2 * math.pi * math.e) + math.log(3)))
        errors[size] = quantised_entropy(samples, 64) - truth
    assert abs(errors[1]) < 0.1
    assert abs(errors[2]) < 0.25
    assert abs(errors[16]) > 1


# -- dependence --------------------------------------------------------------------------------


def naive_hsic(x, y):
    """tr(KHLH) with matrices written out, normalised."""

    def centred(values):
        differences = np.abs(values[:, None] - values[None])
        width = np.median(differences[np.triu_indices(len(values), 1)])
        kernel = np.exp(-(differences**2) / (2 * width**2))
        middle = np.eye(len(values)) - 1 / len(values)
        return middle @ kernel @ middle

    k, m = centred(x), centred(y)
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


def test_hsic_is_its_formula_written_out():
    rng = np.random.default_rng(1)
    x = rng.standard_normal(60)
    for y in (x**2, rng.standard_normal(60), np.sin(3 * x)):
        assert hsic(x, y) == pytest.approx(naive_hsic(x, y), rel=1e-4)
    assert hsic(x, x) == pytest.approx(1)


def test_a_correlation_is_blind_to_a_spiral_and_hsic_is_not():
    points = spiral(500, np.random.default_rng(2))
    x, y = points.T
    assert pearson(x, y) < 1e-9
    assert pearson_p_value(x, y, 0) > 0.05
    assert hsic_p_value(x, y, 0) < 0.01
    assert mutual_information(x, y) > 0.3
    assert mutual_information_p_value(x, y, 0, permutations=19) == 0.05


def test_nulls_reject_as_often_as_they_say():
    rng = np.random.default_rng(3)
    rejected = [0, 0]
    for seed in range(40):
        x, y = rng.standard_normal((2, 100))
        rejected[0] += hsic_p_value(x, y, seed, 99) <= 0.05
        rejected[1] += pearson_p_value(x, y, seed, 99) <= 0.05
    assert max(rejected) <= 6  # of 40; more than 6 happens once in 70 times


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_mutual_information_of_a_gaussian(correlation):
    rng = np.random.default_rng(4)
    x, other = rng.standard_normal((2, 3000))
    y = correlation * x + math.sqrt(1 - correlation**2) * other
    truth = -0.5 * math.log(1 - correlation**2)
    assert mutual_information(x, y) == pytest.approx(truth, abs=0.06)


def test_neighbours_of_one_dimension_are_those_of_a_tree():
    """In the maximum norm a doubled coordinate changes no distance, so no count either."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal(400) + 100
    y = np.sin(2 * x) + 0.1 * rng.standard_normal(400)
    doubled = np.stack([x, x], 1)
    assert mutual_information(x, y) == mutual_information(doubled, y)
    assert mutual_information(y, x) == mutual_information(y, doubled)


def test_the_null_of_a_correlation_is_that_of_correlations_written_out():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((2, 50))
    y += 0.2 * x
    orders = np.random.default_rng(9)
    reached = sum(pearson(x, y[orders.permutation(50)]) >= pearson(x, y) for _ in range(99))
    assert 0 < reached < 99
    assert pearson_p_value(x, y, 9, 99) == (1 + reached) / 100


# -- probes ------------------------------------------------------------------------------------


def test_probes_read_what_is_there():
    features = torch.randn(800, 5, generator=generator())
    noise = torch.randn(800, 1, generator=generator(1))
    linear, curved = features[:, :1] - 2 * features[:, 3:4] + 7, features[:, :1].square()
    targets = torch.cat([linear, curved, noise], 1)
    found = linear_probe(features, targets)
    assert found[0] > 0.999
    assert found[1] < 0.2
    assert found[2] < 0.1
    state = torch.get_rng_state()
    deep = mlp_probe(features, targets, updates=400)
    assert torch.equal(torch.get_rng_state(), state)
    assert deep[1] > 0.9
    assert deep[2] < 0.2
    assert torch.equal(
        mlp_probe(features, targets, updates=20), mlp_probe(features, targets, updates=20)
    )


def test_r_squared_of_mean_and_constant():
    target = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    found = r_squared(target.mean(0).expand(2, 2), target)
    assert found[0] == 0
    assert found[1].isnan()


# -- branches ----------------------------------------------------------------------------------


def test_the_mean_of_branches_is_on_none():
    branches = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
    futures = torch.cat([branches[:1].repeat(5, 1), branches[1:2].repeat(3, 1) + 0.1])
    covered = branch_coverage(futures, branches)
    assert covered.rates.tolist() == [5 / 8, 3 / 8, 0]
    assert covered.off == 0
    assert branch_coverage(branches.mean(0)[None], branches).off == 1


def test_an_encoder_that_erases_the_branch_has_no_separation():
    latents = torch.randn(500, 4, generator=generator())
    assert branch_separation(torch.zeros(3, 4), latents) == 0
    assert branch_separation(torch.eye(4), latents) == pytest.approx(math.sqrt(2) / 2, rel=0.1)


def test_a_latent_that_copies_the_next_state_leaks_it():
    after = torch.randn(800, 3, generator=generator()) * torch.tensor([3.0, 1.0, 0.0])
    assert leakage(after + 0.01, after) > 0.99
    assert leakage(after[:, 1:2], after) == pytest.approx(0.1, abs=0.05)
    assert leakage(torch.randn(800, 2, generator=generator(1)), after) < 0.05
