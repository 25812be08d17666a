import itertools

import numpy as np
import pytest
import torch
from analytic import LatentCost, LatentModel, imagine, linear_quadratic, maze, spec

from agent import live, load
from modules import chance
from modules.actor.actor import Actor
from modules.actor.annealing import Annealing
from modules.actor.beam import Beam
from modules.actor.cem import (
    CEM,
    CategoricalCEM,
    elites,
    refit_categorical,
    refit_gaussian,
    rounds,
)
from modules.actor.gradient import Gradient
from modules.actor.icem import ICEM
from modules.actor.mppi import MPPI
from modules.actor.planner import one_hot
from modules.actor.policy import Categorical, Gaussian
from modules.actor.rollout import Rollout
from modules.actor.tree import Tree
from modules.messages import ConfigError

DISCRETE, FORCE = spec(True, 3), spec(False, 1)


def build(kind, world, **settings):
    return kind(config=kind.Config(**settings), world=world)


def actor(planner, world, latent_size, horizon_max=12):
    mind = Categorical if world.actions.discrete else Gaussian
    policy = mind(
        config=mind.Config(),
        world=world,
        latent_size=latent_size,
        token_shape=(1, 1),
    )
    return Actor(
        config=Actor.Config(),
        policy=policy,
        planner=planner,
        world=world,
        horizon_max=horizon_max,
    )


def exhaustive(imagination, horizon, choices):
    every = torch.tensor(list(itertools.product(range(choices), repeat=horizon)))
    sequences = one_hot(every, choices).unsqueeze(0)
    sequences = sequences.expand(imagination.situation.batch, -1, -1, -1)
    return imagination.cost(imagination.rollout(sequences)).amin(-1).float()


# -- beam -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plans", [{}, {"sum_critic_every_step": True}, {"td_lambda": 0.5}])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_what_exhaustive_search_finds(seed, plans):
    model, cost = maze(seed)
    cost.action_values_of = lambda latent: torch.stack([latent, 9 - latent, 0 * latent], 1)
    latent = torch.tensor([[0.0], [5.0]])
    mind = actor(build(Beam, DISCRETE, action_repeat=1, search_fraction=1.0), DISCRETE, 1)
    _, imagination, _ = imagine(model, cost, latent, DISCRETE, mind, **plans)
    best = exhaustive(imagination, 5, 3)
    proposals = torch.zeros(2, 2, 5, 3)
    found = mind.planner.plan(imagination, proposals, chance.keys(seed, 2, 0), 3 * 3**5 * 5)
    torch.testing.assert_close(found.energies[:, 0], best)
    again = imagination.cost(imagination.rollout(found.candidates[:, :1]))
    torch.testing.assert_close(again[:, 0].float(), best)


def test_a_beam_tries_the_actions_that_the_critic_prefers():
    model, cost = maze(0)
    model.ended = None
    latent = torch.tensor([[0.0], [5.0]])
    mind = actor(
        build(Beam, DISCRETE, action_repeat=1, search_fraction=1.0, branching_factor=1), DISCRETE, 1
    )
    for wanted in range(3):
        liked = -torch.eye(3)[wanted].unsqueeze(-1)
        cost.action_values_of = lambda latent, liked=liked: liked.expand(len(latent), -1, -1)
        _, imagination, _ = imagine(model, cost, latent, DISCRETE, mind)
        key = chance.keys(1, 2, 0)
        found = mind.planner.plan(imagination, torch.zeros(2, 0, 4, 3), key, 8)
        assert (found.candidates[:, 0].argmax(-1) == wanted).all()


def test_a_narrow_beam_is_no_better_and_a_wider_one_no_worse_on_average():
    worlds = [maze(seed) for seed in range(8)]
    mind = actor(build(Beam, DISCRETE, action_repeat=1, search_fraction=1.0), DISCRETE, 1)
    start = torch.zeros(1, 1)
    dreams = [imagine(model, cost, start, DISCRETE, mind)[1] for model, cost in worlds]
    best = [float(exhaustive(dream, 5, 3)) for dream in dreams]
    means = []
    for budget in (16, 60, 1300):
        gaps = []
        for dream, least in zip(dreams, best, strict=True):
            key = chance.keys(0, 1, 0)
            found = mind.planner.plan(dream, torch.zeros(1, 0, 5, 3), key, budget)
            gaps.append(float(found.energies[0, 0]) - least)
        assert min(gaps) >= -1e-5
        means.append(np.mean(gaps))
    assert means[0] > means[1] >= means[2] == pytest.approx(0, abs=1e-5)


def test_refining_repairs_what_a_narrow_beam_missed():
    gains = []
    for seed in range(10):
        model, cost = maze(seed)
        model.ended = None
        totals = []
        for share in (0.05, 1.0):
            mind = actor(build(Beam, DISCRETE, action_repeat=1, search_fraction=share), DISCRETE, 1)
            _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
            # As much beam in both: 5 % of 1500 calls.
            budget = 1500 if share < 1 else 75
            found = mind.planner.plan(
                imagination, torch.zeros(1, 2, 12, 3), chance.keys(seed, 1, 0), budget
            )
            totals.append(float(found.energies[0, 0]))
            again = imagination.cost(imagination.rollout(found.candidates[:, :1]))
            assert float(again) == pytest.approx(totals[-1], abs=1e-5)
        gains.append(totals[1] - totals[0])
    assert min(gains) >= -1e-6
    assert np.mean(gains) > 0.1


def test_what_refining_reports_is_what_the_plan_costs():
    """Also where a branch ended early and the plan before it did not."""
    for seed in range(10):
        model, cost = maze(seed)
        mind = actor(build(Beam, DISCRETE, action_repeat=1, refine_samples=1), DISCRETE, 1)
        _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
        plan = torch.zeros(1, 10, dtype=torch.int64)
        path, told = mind.planner._refine(imagination, plan, chance.keys(seed, 1, 0), 300)
        again = imagination.cost(imagination.rollout(one_hot(path, 3).unsqueeze(1)))[:, 0]
        torch.testing.assert_close(told.float(), again.float())


def test_equal_states_are_held_once():
    # Two actions do the same: a beam that kept both would see half as many places.
    model, cost = maze(3, choices=2)
    move = model.move
    model.move = lambda latent, action: move(latent, action[:, :2] + action[:, 2:] * 0.5)
    mind = actor(build(Beam, DISCRETE, action_repeat=1, search_fraction=1.0), DISCRETE, 1)
    _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
    beams = []
    select = mind.planner._select

    def watch(imagination, futures, *rest):
        chosen = select(imagination, futures, *rest)
        beams.append(futures.state.latent[chosen[0]].flatten().tolist())
        return chosen

    mind.planner._select = watch
    mind.planner.plan(imagination, torch.zeros(1, 0, 6, 3), chance.keys(0, 1, 0), 300)
    assert len(beams) > 3
    assert all(len(set(places)) == len(places) for places in beams)


def test_a_beam_compares_ids_of_states_where_the_model_has_them():
    model, cost = maze(3)
    model.ended = None
    mind = actor(build(Beam, DISCRETE, action_repeat=1), DISCRETE, 1)
    _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
    futures = imagination.extend(imagination.begin(3), torch.eye(3))
    total, noise = imagination.cost(futures), torch.rand(1, 3)
    assert len(futures.state.latent.unique()) == 3
    assert mind.planner._select(imagination, futures, total, noise, 3).shape == (1, 3)
    model.state_ids = lambda state: torch.tensor([4, 4, 7])
    assert mind.planner._select(imagination, futures, total, noise, 3).shape == (1, 2)


def test_a_row_plans_the_same_beside_other_rows():
    model, cost = maze(1)
    mind = actor(build(Beam, DISCRETE, action_repeat=2), DISCRETE, 1)
    latent, keys = torch.tensor([[0.0], [7.0], [9.0]]), chance.keys(4, 3, 0)
    proposals = torch.zeros(3, 2, 8, 3)
    _, together, _ = imagine(model, cost, latent, DISCRETE, mind)
    found = mind.planner.plan(together, proposals, keys, 300)
    for row in range(3):
        one = slice(row, row + 1)
        _, alone, _ = imagine(model, cost, latent[one], DISCRETE, mind)
        single = mind.planner.plan(alone, proposals[one], keys[one], 300)
        assert float(single.energies[0, 0]) <= float(found.energies[row, 0]) + 1e-5


def test_with_nothing_to_tell_actions_apart_any_may_be_first():
    model, cost = maze(0)
    cost.energy, cost.critic = lambda latent: torch.zeros(len(latent)), 0.0
    model.ended = None
    firsts = set()
    for seed in range(200):
        mind = actor(build(Beam, DISCRETE), DISCRETE, 1)
        _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
        found = mind.planner.plan(
            imagination,
            one_hot(torch.zeros(1, 2, 8, dtype=torch.int64), 3),
            chance.keys(seed, 1, 0),
            120,
        )
        firsts.add(int(found.candidates[0, 0, 0].argmax()))
    assert firsts == {0, 1, 2}


# -- the cross-entropy method ---------------------------------------------------------------


def test_refits_agree_with_numpy():
    luck = np.random.default_rng(0)
    sequences, costs = luck.normal(size=(2, 20, 6, 3)), luck.normal(size=(2, 20))
    best = elites(torch.tensor(sequences), torch.tensor(costs), 5)
    mean, spread = refit_gaussian(best, 0.3)
    hot = np.eye(3)[sequences.argmax(-1)]
    odds = refit_categorical(elites(torch.tensor(hot), torch.tensor(costs), 5), 0.1)
    for row in range(2):
        order = np.argsort(costs[row])[:5]
        np.testing.assert_allclose(mean[row], sequences[row, order].mean(0))
        np.testing.assert_allclose(spread[row], np.maximum(sequences[row, order].std(0), 0.3))
        np.testing.assert_allclose(odds[row], 0.9 * hot[row, order].mean(0) + 0.1 / 3)
    np.testing.assert_allclose(odds.sum(-1), 1)


@pytest.mark.parametrize("budget", [1, 2, 7, 60, 500, 10_000])
def test_rounds_stay_within_the_budget(budget):
    for horizon, samples, iterations in itertools.product((1, 5, 40), (2, 16, 64), (1, 4)):
        assert np.prod(rounds(budget, horizon, samples, iterations)) <= budget
    assert rounds(10_000, 10, 64, 4) == (10, 64, 4)


def test_categorical_cem_comes_near_exhaustive_search():
    gaps, spread = [], []
    for seed in range(8):
        model, cost = maze(seed)
        planner = build(CategoricalCEM, DISCRETE, action_repeat=1, samples=48, iterations=5)
        mind = actor(planner, DISCRETE, 1)
        _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
        proposals = one_hot(torch.zeros(1, 2, 5, dtype=torch.int64), 3)
        found = planner.plan(imagination, proposals, chance.keys(seed, 1, 0), 5 * 48 * 5)
        best = float(exhaustive(imagination, 5, 3))
        gaps.append(float(found.energies[0, 0]) - best)
        spread.append(float(imagination.cost(imagination.rollout(proposals))[0, 0]) - best)
    assert min(gaps) >= -1e-5
    assert np.mean(gaps) < 0.1 * np.mean(spread)


# -- continuous actions ---------------------------------------------------------------------


def optimum(horizon, discount):
    """Costs of the best plan from rest at 0.3 (Newton's step: it is quadratic) and of none."""
    model, cost = linear_quadratic()
    mind = actor(build(CEM, FORCE), FORCE, 3)
    _, imagination, _ = imagine(
        model, cost, torch.tensor([[0.3, 0.0, 0.0]]).double(), FORCE, mind, discount=discount
    )

    def total(forces):
        return imagination.cost(imagination.rollout(forces.view(1, 1, -1, 1)))[0, 0]

    at = torch.zeros(horizon, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(total, at)
    best = at - torch.linalg.solve(torch.autograd.functional.hessian(total, at), slope)
    assert float(best.abs().max()) < 1, "the bounds would matter"
    return float(total(best)), float(total(at))


@pytest.mark.parametrize(
    ("planner", "budget", "within"),
    [
        (build(Gradient, FORCE, iterations=60), 10_000, 0.005),
        (build(CEM, FORCE, samples=128, iterations=12), 20_000, 0.03),
        (build(MPPI, FORCE, samples=128, iterations=12), 20_000, 0.03),
        (build(ICEM, FORCE, samples=128, iterations=12), 20_000, 0.03),
        (build(Annealing, FORCE, action_repeat=1), 20_000, 0.03),
    ],
    ids=["gradient", "cem", "mppi", "icem", "annealing"],
)
def test_planners_reach_the_known_optimum(planner, budget, within):
    best, idle = optimum(6, 0.95)
    model, cost = linear_quadratic()
    mind = actor(planner, FORCE, 3)
    _, imagination, _ = imagine(model, cost, torch.tensor([[0.3, 0, 0]]), FORCE, mind)
    found = planner.plan(imagination, torch.zeros(1, 2, 6, 1), chance.keys(0, 1, 0), budget)
    assert best - 1e-5 <= float(found.energies[0, 0]) < best + within * (idle - best)
    assert float(found.candidates.abs().max()) <= 1
    again = imagination.cost(imagination.rollout(found.candidates))
    torch.testing.assert_close(again.float(), found.energies)
    assert bool((found.energies.diff() >= 0).all())


def test_gradient_without_a_gradient_keeps_what_was_proposed():
    model, cost = linear_quadratic()
    move = model.move
    model.move = lambda latent, action: move(latent, action.detach())
    planner = build(Gradient, FORCE)
    mind = actor(planner, FORCE, 3)
    _, imagination, _ = imagine(model, cost, torch.tensor([[1.0, 0, 0]]), FORCE, mind)
    proposals = torch.full((1, 2, 6, 1), 0.4)
    found = planner.plan(imagination, proposals, chance.keys(0, 1, 0), 12)
    torch.testing.assert_close(found.candidates[0, 0], proposals[0, 0])


@pytest.mark.parametrize("kind", ["fair", "persistence"])
def test_gradient_in_a_model_that_has_none_plans_all_the_same(kind):
    """Also where a critic with a gradient of its own values the predicted states."""
    player = load(
        "Pendulum-v1", f"world_model.kind={kind}", "actor.planner.kind=gradient",
        "configurator.kind=fixed", "configurator.mode=2", "directive.horizon_steps=3",
        "directive.model_calls=12", "directive.commit_steps=1", "perception.width=8",
        "cost.critic.width=8",
    )  # fmt: skip
    critic = player.agent.modules.cost.critic
    with torch.no_grad():
        for weight in critic.parameters():
            weight.normal_()
    assert critic.is_initialised()
    for moment in live(player.agent, player.world, 3, 0):
        assert int(moment.plan.model_calls) > 0
        assert moment.plan.energy.isfinite().all()
    player.world.close()


# -- rollout --------------------------------------------------------------------------------


def told(latent):
    """What a critic says of the actions in ten places, [M 3 1]."""
    wishes = torch.randn(10, 3, generator=torch.Generator().manual_seed(5))
    return wishes[latent[:, 0].long() % 10].unsqueeze(-1)


@pytest.mark.parametrize("td_lambda", [1.0, 0.5])
def test_a_rollout_is_one_decision_and_then_what_the_critic_prefers(td_lambda):
    model, cost = maze(3)
    model.ended, cost.action_values_of = None, told
    latent = torch.tensor([[0.0], [5.0]])
    mind = actor(build(Rollout, DISCRETE, min_gain_std=0.0), DISCRETE, 1)
    _, imagination, _ = imagine(model, cost, latent, DISCRETE, mind, td_lambda=td_lambda)
    found = mind.planner.plan(imagination, torch.zeros(2, 0, 4, 3), chance.keys(1, 2, 0), 100)
    assert imagination.model_calls.tolist() == [3 * 4, 3 * 4]
    for row in range(2):
        assert sorted(found.candidates[row, :, 0].argmax(-1).tolist()) == [0, 1, 2]
        for path in found.candidates[row]:
            here = model.move(latent[row : row + 1], path[:1])
            for action in path[1:]:
                assert int(action.argmax()) == int(told(here).argmin())
                here = model.move(here, action[None])
    again = imagination.cost(imagination.rollout(found.candidates))
    torch.testing.assert_close(again.float(), found.energies)
    assert bool((found.energies.diff() >= 0).all())


def test_a_cautious_rollout_leaves_the_critics_choice_only_for_more_than_it_is_unsure_of():
    left = {}
    for caution in (0.0, 0.7, 100.0):
        left[caution] = []
        for seed in range(30):
            model, cost = maze(seed)
            cost.action_values_of = told
            latent = torch.tensor([[float(seed % 10)]])
            mind = actor(build(Rollout, DISCRETE, min_gain_std=caution), DISCRETE, 1)
            _, imagination, _ = imagine(model, cost, latent, DISCRETE, mind)
            key, said = chance.keys(1, 1, 0), told(latent)[0, :, 0]
            found = mind.planner.plan(imagination, torch.zeros(1, 0, 4, 3), key, 100)
            costs = imagination.cost(imagination.rollout(found.candidates))[0]
            first, liked = found.candidates[0, :, 0].argmax(-1), int(said.argmin())
            apart = (costs - said[first]).std(correction=0)
            wanted = costs + caution * apart * (first != liked)
            torch.testing.assert_close(found.energies[0], wanted.float())
            left[caution].append(int(first[0]) != liked)
    assert sum(left[0.0]) > sum(left[0.7]) > sum(left[100.0]) == 0


def test_a_rollout_tries_the_actions_the_critic_prefers_where_it_may_not_try_all():
    model, cost = maze(3)
    cost.action_values_of = told
    mind = actor(build(Rollout, DISCRETE, branching_factor=2), DISCRETE, 1)
    _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
    found = mind.planner.plan(imagination, torch.zeros(1, 0, 4, 3), chance.keys(1, 1, 0), 100)
    best = told(torch.zeros(1, 1))[0, :, 0].argsort()[:2]
    assert set(found.candidates[0, :, 0].argmax(-1).tolist()) == set(best.tolist())


def test_a_rollout_without_a_critic_keeps_up_its_first_action_and_leaves_equals_to_chance():
    model, cost = maze(3)
    cost.energy, cost.critic = lambda latent: 0 * latent[:, 0], 0.0
    mind = actor(build(Rollout, DISCRETE), DISCRETE, 1)
    first = set()
    for seed in range(20):
        _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), DISCRETE, mind)
        key = chance.keys(seed, 1, 0)
        found = mind.planner.plan(imagination, torch.zeros(1, 0, 4, 3), key, 100)
        assert bool((found.candidates.argmax(-1).diff(dim=-1) == 0).all())
        first.add(int(found.candidates[0, 0, 0].argmax()))
    assert first == {0, 1, 2}


# -- any planner ----------------------------------------------------------------------------

EVERY = [
    (build(Beam, DISCRETE), DISCRETE),
    (build(Beam, DISCRETE, action_repeat=1, search_fraction=1.0), DISCRETE),
    (build(CategoricalCEM, DISCRETE), DISCRETE),
    (build(CEM, FORCE), FORCE),
    (build(Gradient, FORCE), FORCE),
    (build(Gradient, FORCE, action_repeat=3), FORCE),
    (build(MPPI, FORCE), FORCE),
    (build(MPPI, FORCE, action_repeat=3), FORCE),
    (build(ICEM, FORCE), FORCE),
    (build(ICEM, FORCE, action_repeat=3), FORCE),
    (build(Tree, DISCRETE), DISCRETE),
    (build(Tree, DISCRETE, action_repeat=1, gumbel_scale=0), DISCRETE),
    (build(Annealing, DISCRETE), DISCRETE),
    (build(Annealing, FORCE, action_repeat=1), FORCE),
    (build(Rollout, DISCRETE), DISCRETE),
    (build(Rollout, DISCRETE, action_repeat=2), DISCRETE),
]
IDS = [
    "beam", "beam-only", "cem-categorical", "cem", "gradient", "gradient-held", "mppi", "mppi-held",
    "icem", "icem-held", "tree", "tree-greedy", "annealing", "annealing-continuous", "rollout",
    "rollout-held",
]  # fmt: skip


@pytest.mark.parametrize(("planner", "world"), EVERY, ids=IDS)
@pytest.mark.parametrize("budget", [1, 2, 3, 7, 23, 50, 333])
def test_no_planner_spends_more_than_its_budget(planner, world, budget):
    model, cost = maze(0) if world is DISCRETE else linear_quadratic()
    latent = torch.zeros(2, 1 if world is DISCRETE else 3)
    mind = actor(planner, world, latent.shape[1])
    for horizon in (1, 4, 9):
        _, imagination, _ = imagine(model, cost, latent, world, mind)
        proposals = torch.zeros(2, 2, horizon, world.actions.size)
        found = planner.plan(imagination, proposals, chance.keys(0, 2, 0), budget)
        assert int(imagination.model_calls.max()) <= budget
        assert 1 <= found.candidates.shape[2] <= horizon
        assert bool(found.energies[:, 0].isfinite().all())


@pytest.mark.parametrize(("planner", "world"), EVERY[:-2], ids=IDS[:-2])  # a rollout looks at none
def test_a_good_proposal_is_never_lost(planner, world):
    # The last plan's rest is as good as can be: whatever is found must cost no more.
    model, cost = maze(2) if world is DISCRETE else linear_quadratic()
    latent = torch.zeros(1, 1) if world is DISCRETE else torch.tensor([[1.0, 0, 0]])
    mind = actor(planner, world, latent.shape[1])
    _, imagination, _ = imagine(model, cost, latent, world, mind)
    plain = torch.zeros(1, 2, 6, world.actions.size)
    best = planner.plan(imagination, plain, chance.keys(0, 1, 0), 5000)
    given = torch.cat([best.candidates[:, :1], plain[:, :1]], 1)
    found = planner.plan(imagination, given, chance.keys(1, 1, 0), 60)
    if planner.__class__ is Gradient:
        assert float(found.energies[0, 0]) <= float(best.energies[0, 0]) + 1e-3
    else:
        assert float(found.energies[0, 0]) <= float(best.energies[0, 0]) + 1e-6


MANY = spec(True, 18)


def lock(right):
    """One sequence of 18 actions opens it, at its end; a wrong action sends one back for good."""

    def move(latent, action):
        place = latent[:, 0].long()
        wanted = right[place.clamp(0, len(right) - 1)]
        goes_on = (action.argmax(-1) == wanted) & (place >= 0) & (place < len(right))
        return torch.where(goes_on, place + 1, torch.where(place == len(right), place, -1))[
            :, None
        ].float()

    return LatentModel(move), LatentCost(lambda latent: -(latent[:, 0] == len(right)).float())


@pytest.mark.parametrize("budget", [40, 100, 800])
def test_with_many_actions_the_last_plan_goes_on(budget):
    # A budget that cannot afford every action at every step must not be paid for by forgetting.
    right = torch.arange(16) * 5 % 18
    model, cost = lock(right)
    mind = actor(build(Beam, MANY), MANY, 1, horizon_max=16)
    _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), MANY, mind)
    proposals = torch.stack([one_hot(right, 18), one_hot(right * 0, 18)])[None]
    found = mind.planner.plan(imagination, proposals, chance.keys(0, 1, 0), budget)
    assert found.candidates[0, 0].argmax(-1).equal(right)
    assert int(imagination.model_calls.max()) <= budget


def test_with_many_actions_some_are_tried_by_chance_and_all_in_time():
    model, cost = lock(torch.arange(16))
    mind = actor(build(Beam, MANY, search_fraction=1.0), MANY, 1, horizon_max=16)
    _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), MANY, mind)
    tried = set()
    for seed in range(200):
        found = mind.planner.plan(
            imagination, torch.zeros(1, 2, 16, 18), chance.keys(seed, 1, 0), 80
        )
        tried |= set(found.candidates[0, :, 0].argmax(-1).tolist())
    assert tried == set(range(18))


@pytest.mark.parametrize(
    ("kind", "world"),
    [
        (Beam, FORCE),
        (Rollout, FORCE),
        (CategoricalCEM, FORCE),
        (Tree, FORCE),
        (CEM, DISCRETE),
        (MPPI, DISCRETE),
        (ICEM, DISCRETE),
        (Gradient, DISCRETE),
    ],
)
def test_a_planner_refuses_actions_that_are_not_its_own(kind, world):
    with pytest.raises(ConfigError, match=r"expected (discrete|continuous) actions"):
        build(kind, world)
