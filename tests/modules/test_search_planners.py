"""Tree search, annealing, MPPI and iCEM: formulas, exact optima of small problems, rows apart."""

import itertools

import numpy as np
import pytest
import torch
from analytic import LatentCost, LatentModel, imagine, linear_quadratic, maze, spec

from modules import chance
from modules.actor.actor import Actor
from modules.actor.annealing import Annealing
from modules.actor.cem import CEM, CategoricalCEM
from modules.actor.gradient import Gradient
from modules.actor.icem import ICEM, coloured_noise, decaying
from modules.actor.mppi import MPPI, path_integral
from modules.actor.planner import comparable, held, one_hot
from modules.actor.policy import Categorical, Gaussian
from modules.actor.rollout import Rollout
from modules.actor.tree import Tree

DISCRETE, FORCE = spec(True, 3), spec(False, 1)


def build(kind, world, **settings):
    return kind(config=kind.Config(**settings), world=world)


def actor(planner, world, latent_size=1):
    mind = Categorical if world.actions.discrete else Gaussian
    policy = mind(config=mind.Config(), world=world, latent_size=latent_size, token_shape=(1, 1))
    return Actor(config=Actor.Config(), policy=policy, planner=planner, world=world, horizon_max=16)


def least(imagination, horizon, choices=3, repeat=1):
    """The cost of the best of all plans whose decisions last `repeat` steps, [B]."""
    every = list(itertools.product(range(choices), repeat=-(-horizon // repeat)))
    sequences = held(one_hot(torch.tensor(every), choices).unsqueeze(0), repeat, horizon)
    sequences = sequences.expand(imagination.situation.batch, -1, -1, -1)
    return imagination.cost(imagination.rollout(sequences)).amin(-1).float()


def planned(planner, problem, latent, budget, horizon=5, seed=0, count=2, **orders):
    """What a planner makes of a problem, and its imagination."""
    model, cost = problem
    world = DISCRETE if latent.shape[1] == 1 else FORCE
    _, imagination, _ = imagine(
        model, cost, latent, world, actor(planner, world, latent.shape[1]), seed=seed, **orders
    )
    proposals = torch.zeros(len(latent), count, horizon, world.actions.size)
    key = chance.keys(seed, len(latent), 0)
    return planner.plan(imagination, proposals, key, budget), imagination


# -- exact optima ---------------------------------------------------------------------------


@pytest.mark.parametrize("plans", [{}, {"sum_critic_every_step": True}, {"td_lambda": 0.5}])
@pytest.mark.parametrize("seed", range(4))
def test_a_tree_finds_what_exhaustive_search_finds(seed, plans):
    """Where the budget allows about as many simulations as there are plans: none is tried twice."""
    problem = maze(seed)
    problem[1].action_values_of = lambda latent: torch.stack([latent, 9 - latent, 0 * latent], 1)
    tree = build(Tree, DISCRETE, action_repeat=1)
    found, imagination = planned(tree, problem, torch.tensor([[0.0], [5.0]]), 1600, **plans)
    torch.testing.assert_close(found.energies[:, 0], least(imagination, 5))
    again = imagination.cost(imagination.rollout(found.candidates[:, :1]))
    torch.testing.assert_close(again[:, 0].float(), found.energies[:, 0])


@pytest.mark.parametrize("repeat", [2, 3])
def test_a_tree_of_held_actions_finds_the_best_plan_of_held_actions(repeat):
    for seed in range(3):
        tree = build(Tree, DISCRETE, action_repeat=repeat)
        found, imagination = planned(tree, maze(seed), torch.zeros(1, 1), 6 * 40, 6)
        torch.testing.assert_close(found.energies[:, 0], least(imagination, 6, repeat=repeat))
        chunks = found.candidates[0, 0].argmax(-1).view(-1, repeat)
        assert bool((chunks == chunks[:, :1]).all())


def tune(seed):
    """Twelve steps, each of which has one right action."""
    right = torch.randint(3, (13,), generator=torch.Generator().manual_seed(seed))

    def move(latent, action):
        step, wrong = latent[:, 0].floor(), latent[:, 0] - latent[:, 0].floor()
        missed = action.argmax(-1) != right[step.long()]
        return (step + 1 + 0.01 * missed + 0 * wrong).unsqueeze(-1)

    return LatentModel(move), LatentCost(lambda latent: 100 * (latent[:, 0] % 1))


@pytest.mark.parametrize(
    ("kind", "make", "budget"), [(Tree, maze, 600), (Tree, tune, 600), (Annealing, tune, 2400)]
)
def test_with_a_small_budget_a_search_beats_as_many_random_plans(kind, make, budget):
    """3^12 plans, 50 or 200 are simulated; annealing needs that plans alike cost alike."""
    gains = []
    for seed in range(24):
        problem = make(seed)
        problem[0].ended = None
        planner = build(kind, DISCRETE, action_repeat=1)
        found, imagination = planned(planner, problem, torch.zeros(1, 1), budget, 12, seed)
        drawn = chance.integers(chance.keys(seed, 1, 9), "random", 3, budget // 12, 12)
        random = imagination.cost(imagination.rollout(one_hot(drawn, 3))).amin(-1)
        gains.append(float(random - found.energies[0, 0]))
    assert np.mean(gains) > 2 * np.std(gains) / len(gains) ** 0.5
    assert np.mean(gains) > 0.2


def test_transpositions_share_what_was_found():
    """A sum of steps: orders of the same steps meet. Nodes are fewer than prefixes of plans."""
    problem = (
        LatentModel(lambda latent, action: latent + action.argmax(-1, keepdim=True)),
        LatentCost(lambda latent: (latent[:, 0] - 6).abs()),
    )
    counts = {}
    tree = build(Tree, DISCRETE, action_repeat=1)
    import modules.actor.tree as module

    watched = module._Search.plan

    def watch(self, *arguments):
        result = watched(self, *arguments)
        tables = self.trees[0].nodes
        counts["nodes"] = len(tables)
        counts["ways"] = sum(len(node.after) for node in tables.values())
        return result

    module._Search.plan = watch
    try:
        found, imagination = planned(tree, problem, torch.zeros(1, 1), 1200, 6)
    finally:
        module._Search.plan = watched
    assert counts["ways"] > 1.4 * counts["nodes"]
    torch.testing.assert_close(found.energies[:, 0], least(imagination, 6))


def test_simulations_go_where_the_critic_and_the_costs_say():
    """All 18 first actions are tried, and most simulations begin with the one that is good."""
    world = spec(True, 18)
    problem = (
        LatentModel(lambda latent, action: torch.cat([action[:, 7:8], latent[:, :1]], 1)),
        LatentCost(lambda latent: -latent.sum(-1) - 3 * latent[:, 1]),
    )
    tree = build(Tree, world, action_repeat=4, gumbel_scale=0, root_actions=0)
    _, imagination, _ = imagine(*problem, torch.zeros(1, 2), world, actor(tree, world, 2))
    firsts = []
    rollout = imagination.extend

    def watch(futures, action):
        if futures.steps == 0:
            firsts.extend(action.argmax(-1).tolist())
        return rollout(futures, action)

    imagination.extend = watch
    tree.plan(imagination, torch.zeros(1, 0, 12, 18), chance.keys(0, 1, 0), 12 * 90)
    assert len(firsts) == 90
    assert set(firsts) == set(range(18))
    assert firsts.count(7) > 18


# -- any of them ----------------------------------------------------------------------------

EVERY = [
    (build(Tree, DISCRETE, action_repeat=1), DISCRETE),
    (build(Annealing, DISCRETE, action_repeat=2), DISCRETE),
    (build(Annealing, FORCE, action_repeat=1), FORCE),
    (build(MPPI, FORCE), FORCE),
    (build(ICEM, FORCE, samples=20), FORCE),
]
IDS = ["tree", "annealing", "annealing-continuous", "mppi", "icem"]


@pytest.mark.parametrize(("planner", "world"), EVERY, ids=IDS)
def test_a_row_plans_the_same_beside_other_rows_and_again(planner, world):
    problem = maze(1) if world is DISCRETE else linear_quadratic()
    latent = torch.tensor([[0.0], [7.0], [9.0]])
    if world is FORCE:
        latent = torch.cat([latent / 10, torch.zeros(3, 2)], 1)
    together, _ = planned(planner, problem, latent, 300, 8)
    again, _ = planned(planner, problem, latent, 300, 8)
    assert together.candidates.equal(again.candidates)
    model, cost = problem
    for row in range(3):
        _, alone, _ = imagine(model, cost, latent[row : row + 1], world, actor(planner, world, 3))
        proposals = torch.zeros(1, 2, 8, world.actions.size)
        single = planner.plan(alone, proposals, chance.keys(0, 3, 0)[row : row + 1], 300)
        torch.testing.assert_close(single.energies[0], together.energies[row])
        torch.testing.assert_close(single.candidates[0], together.candidates[row])


@pytest.mark.parametrize(("planner", "world"), EVERY, ids=IDS)
def test_nan_in_some_futures_is_never_the_plan(planner, world):
    problem = maze(1) if world is DISCRETE else linear_quadratic()
    energy = problem[1].energy
    calls = itertools.count()

    def spoiled(latent):
        energies = energy(latent).clone()
        energies[next(calls) % 3 :: 5] = torch.nan
        return energies

    problem[1].energy = spoiled
    latent = torch.zeros(1, 1) if world is DISCRETE else torch.tensor([[0.3, 0.0, 0.0]])
    found, _ = planned(planner, problem, latent, 400, 2)
    assert bool(found.energies[:, 0].isfinite().all())
    assert bool(found.candidates[:, 0].isfinite().all())


@pytest.mark.parametrize(
    "kind", [CEM, CategoricalCEM, MPPI, ICEM, Annealing, Gradient, Rollout, Tree]
)
def test_actions_are_held_by_each_planner(kind):
    world = DISCRETE if kind in (CategoricalCEM, Rollout, Tree) else FORCE
    problem = maze(1) if world is DISCRETE else linear_quadratic()
    if world is DISCRETE:
        wishes = torch.randn(64, 3, generator=torch.Generator().manual_seed(5))
        problem[1].action_values_of = lambda latent: wishes[latent[:, 0].long()].unsqueeze(-1)
    latent = torch.zeros(1, 1) if world is DISCRETE else torch.tensor([[0.3, 0.0, 0.0]])
    planner = build(kind, world, action_repeat=3)
    found, _ = planned(planner, problem, latent, 2000, 7)
    assert found.candidates.shape[2] == 7
    for plan in found.candidates[0]:
        for first in (0, 3, 6):
            assert bool((plan[first : first + 3] == plan[first]).all())


# -- formulas -------------------------------------------------------------------------------


def test_path_integral_agrees_with_numpy():
    luck = np.random.default_rng(0)
    sequences, costs = luck.normal(size=(2, 30, 4, 2)), luck.normal(size=(2, 30))
    mean, std = path_integral(torch.tensor(sequences), torch.tensor(costs), 0.2, 0.3)
    for row in range(2):
        weights = np.exp(-(costs[row] - costs[row].min()) / (0.2 * costs[row].std()))
        weights /= weights.sum()
        expected = (weights[:, None, None] * sequences[row]).sum(0)
        variance = (weights[:, None, None] * (sequences[row] - expected) ** 2).sum(0)
        np.testing.assert_allclose(mean[row], expected)
        np.testing.assert_allclose(std[row], np.maximum(np.sqrt(variance), 0.3))
    equal, _ = path_integral(torch.tensor(sequences), torch.zeros(2, 30), 0.2, 0.3)
    np.testing.assert_allclose(equal, sequences.mean(1))


@pytest.mark.parametrize("count", [1, 2, 5, 32])
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_coloured_noise_has_variance_1_and_power_that_falls_with_frequency(count, beta):
    noise = coloured_noise(chance.keys(1, 1, 0), "test", 20_000, count, 1, beta)[0, :, :, 0]
    assert noise.shape == (20_000, count)
    np.testing.assert_allclose(noise.std(0), 1, atol=0.03)
    if count == 32:
        power = np.abs(np.fft.rfft(noise.numpy())).__pow__(2).mean(0)[1:-1]
        slope = np.polyfit(np.log(np.fft.rfftfreq(count)[1:-1]), np.log(power), 1)[0]
        assert slope == pytest.approx(-beta, abs=0.05)


def test_samples_decay_and_the_budget_holds():
    assert decaying(100, 4, 2.0, 20) == [100, 50, 25, 20]
    for budget, horizon in itertools.product((1, 5, 50, 500, 5000), (1, 7, 30)):
        planner = build(ICEM, FORCE, samples=50)
        reach, _, *samples = planner.size(horizon, budget)
        assert reach * sum(samples) <= budget
    assert build(ICEM, FORCE, samples=50).size(10, 10_000)[2] == 50


def test_costs_without_a_number_count_as_the_worst():
    costs = torch.tensor([[1.0, torch.nan, 3.0], [torch.nan] * 3, [2.0, torch.inf, -1.0]])
    assert comparable(costs)[0].tolist() == [1, 3, 3]
    assert comparable(costs)[2].tolist() == [2, 2, -1]
    assert comparable(costs)[1].isnan().all()


def test_annealing_accepts_worse_plans_early_and_not_late():
    """Two valleys: from the shallow one, where it begins, only a worse step leads to the deep."""

    def valleys(latent):
        x = latent[:, 0]
        return torch.where(x < 0.5, (x - 0.2).abs() * 2, (x - 0.8).abs() * 2 - 0.5)

    problem = (LatentModel(lambda latent, action: (action + 1) / 2 + 0 * latent[:, :1]),
               LatentCost(valleys))  # fmt: skip
    ends = {}
    for temperature in (1e-6, 1.0):
        heat = {"first_temperature": temperature, "last_temperature": temperature / 10}
        planner = build(Annealing, FORCE, chains=1, action_repeat=1, init_std=0.5, **heat)
        ends[temperature] = []
        for seed in range(20):
            _, imagination, _ = imagine(
                *problem, torch.zeros(1, 2), FORCE, actor(planner, FORCE, 2), seed=seed
            )
            start = torch.full((1, 1, 1, 1), 2 * 0.2 - 1)
            found = planner.plan(imagination, start, chance.keys(seed, 1, 0), 60)
            ends[temperature].append(float(found.energies[0, 0]))
    assert np.mean(ends[1.0]) < np.mean(ends[1e-6])
