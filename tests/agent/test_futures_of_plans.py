"""Plans under uncertainty (LeCun 2022, §4.8): futures, their common luck, and what they cost."""

import math

import pytest
import torch
from analytic import LatentCost, LatentModel, imagine, spec

from modules import chance
from modules.actor.actor import Actor
from modules.actor.annealing import Annealing
from modules.actor.beam import Beam
from modules.actor.cem import CEM, CategoricalCEM
from modules.actor.gradient import Gradient
from modules.actor.icem import ICEM
from modules.actor.mppi import MPPI
from modules.actor.planner import one_hot
from modules.actor.policy import Categorical, Gaussian
from modules.actor.rollout import Rollout
from modules.actor.tree import Tree
from modules.messages import LatentSpec
from worlds import fork

BETS, FORCE = spec(True, 3), spec(False, 1)

PAYS = torch.tensor([[10.0, 4.0, -5.0], [5.0, 3.0, 1.0], [2.0, 2.0, 2.0]])
"""What the branches of three bets pay: means 3.7, 3.2, 2, deviations 6.2, 1.6, 0."""

RATES = torch.tensor([0.4, 0.3, 0.3])


class Gamble(LatentModel):
    """The latent is what has been paid; z is one of three branches, of known rates."""

    latent = LatentSpec(kind="categorical", size=3, luck=1)

    def __init__(self, pays=PAYS) -> None:
        super().__init__(None)
        self.pays = pays

    def step(self, state, action, z=None):
        z = torch.eye(3)[:1].expand(len(action), -1) if z is None else z
        self.move = lambda latent, action: latent + ((action @ self.pays) * z).sum(-1, keepdim=True)
        return super().step(state, action)

    def sample_latent(self, state, action, luck, temperature):
        rates = torch.softmax(RATES.log() / temperature.clamp_min(1e-6).unsqueeze(1), -1)
        return torch.eye(3)[(luck > rates.cumsum(-1)).sum(-1).clamp_max(2)]


def mind(planner, world, horizon_max=4):
    policy = Categorical if world.actions.discrete else Gaussian
    return Actor(
        config=Actor.Config(),
        policy=policy(config=policy.Config(), world=world, latent_size=1, token_shape=(1, 1)),
        planner=planner,
        world=world,
        horizon_max=horizon_max,
    )


def gamble(rows=1, model=None, **orders):
    """Imagination in which the energy of a state is minus what has been paid."""
    actor = mind(Beam(config=Beam.Config(), world=BETS), BETS)
    cost = LatentCost(lambda latent: -latent[:, 0])
    situation, imagination, orders = imagine(
        model or Gamble(), cost, torch.zeros(rows, 1), BETS, actor, discount=1.0, **orders
    )
    return situation, imagination, orders


def bets(*numbers):
    return one_hot(torch.tensor([[[number] for number in numbers]]), 3)


def test_all_candidates_of_a_row_have_the_same_luck():
    _, imagination, _ = gamble(futures=5)
    actions = bets(0, 1, 0).repeat(1, 1, 3, 1)
    paid = imagination.rollout(actions).state.latent.view(3, 5)
    assert paid[0].equal(paid[2])
    assert len(paid[0].unique()) > 1
    branch = (-imagination.rollout(bets(0, 1)).costs[0].unsqueeze(-1) - PAYS[:2, None]).abs()
    assert branch.argmin(-1)[0].equal(branch.argmin(-1)[1])


def test_rows_and_steps_have_luck_of_their_own():
    _, imagination, _ = gamble(rows=2, futures=16)
    futures = imagination.begin(1)
    steps = []
    for _ in range(2):
        steps.append(imagination._luck(16, 1, futures.steps)[..., 0])
        futures = imagination.extend(futures, bets(0)[0, 0].expand(2, -1))
    assert not steps[0][0].equal(steps[0][1])
    # Each step shuffles: a future that was lucky once is not lucky again and again.
    correlation = torch.corrcoef(torch.stack([steps[0][0], steps[1][0]]))[0, 1]
    assert abs(float(correlation)) < 0.9


@pytest.mark.parametrize("futures", [10, 20])
def test_few_futures_show_each_branch_as_often_as_it_happens(futures):
    for seed in range(20):
        _, imagination, _ = gamble(futures=futures, seed=seed)
        paid = imagination.rollout(bets(0)).state.latent[:, 0]
        counts = torch.tensor([int((paid == pay).sum()) for pay in PAYS[0]])
        assert counts.equal((futures * RATES).round().long())


@pytest.mark.parametrize("futures", [*range(8, 17)])
def test_eight_futures_at_the_true_rates_tell_the_ways_of_the_world(futures):
    """`sextet/Fork-v0`: what a plan with few futures misses is then not due to their number."""
    rows, routes = 200, bets(0, 1, 2)
    for route, orders in enumerate(({}, {"risk": 0.8}, {"adversarial": True})):
        model = Gamble(torch.tensor(fork.PAYS))
        _, imagination, _ = gamble(rows=rows, model=model, futures=futures, **orders)
        costs = imagination.cost(imagination.rollout(routes.repeat(rows, 1, 1, 1)))
        assert costs.argmin(1).eq(route).all()


@pytest.mark.parametrize("td_lambda", [1.0, 0.5])
@pytest.mark.parametrize("risk", [0.0, 0.8, -2.0])
def test_a_plan_costs_the_mean_and_risk_deviations_over_its_futures(risk, td_lambda):
    _, imagination, _ = gamble(rows=2, futures=7, risk=risk, td_lambda=td_lambda)
    actions = one_hot(torch.tensor([[[0, 1], [2, 2]], [[1, 1], [0, 2]]]), 3)
    futures = imagination.rollout(actions)
    costs = imagination.cost(futures)
    for row in range(2):
        for candidate in range(2):
            each = futures.costs[row, candidate].tolist()
            mean = sum(each) / 7
            deviation = math.sqrt(sum((one - mean) ** 2 for one in each) / 7)
            assert float(costs[row, candidate]) == pytest.approx(mean + risk * deviation, abs=1e-5)


def test_an_adversarial_plan_costs_the_worst_of_its_futures():
    _, imagination, _ = gamble(futures=10, adversarial=True, risk=5.0)
    futures = imagination.rollout(bets(0, 1, 2))
    assert imagination.cost(futures).equal(futures.costs.amax(-1))
    assert imagination.cost(futures)[0].tolist() == [5.0, -1.0, -2.0]


def test_one_future_is_one_draw_and_has_no_risk():
    _, imagination, _ = gamble(futures=1, risk=100.0)
    futures = imagination.rollout(bets(0))
    assert imagination.cost(futures).equal(futures.costs[:, :, 0])
    assert float(-futures.costs) in PAYS[0].tolist()


def test_every_future_is_a_model_call():
    _, imagination, _ = gamble(rows=2, futures=6)
    imagination.rollout(torch.eye(3)[torch.zeros(2, 4, 3, dtype=torch.int64)])
    assert imagination.model_calls.tolist() == [6 * 4 * 3] * 2


def test_a_model_without_latent_variable_has_one_future():
    model = LatentModel(lambda latent, action: latent)
    _, imagination, _ = gamble(model=model, futures=6)
    assert imagination.num_futures.tolist() == [1]
    assert imagination.begin(2).costs.shape == (1, 2, 1)


def test_behind_the_branch_steps_the_most_likely_happens():
    _, imagination, _ = gamble(futures=10, branch_steps=1)
    futures = imagination.rollout(bets(0).repeat(1, 1, 3, 1))
    first = imagination.rollout(bets(0)).state.latent
    assert futures.state.latent.equal(first + 2 * PAYS[0, 0])


def test_temperature_0_draws_the_most_likely():
    _, imagination, _ = gamble(futures=10, latent_temperature=0.0)
    assert imagination.rollout(bets(0)).state.latent.eq(PAYS[0, 0]).all()


def test_the_slope_is_finite_where_all_futures_cost_the_same():
    _, imagination, _ = gamble(futures=4, risk=1.0)
    actions = bets(2).requires_grad_()
    (slope,) = torch.autograd.grad(imagination.cost(imagination.rollout(actions)).sum(), actions)
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0


def test_selected_candidates_keep_their_futures():
    _, imagination, _ = gamble(rows=2, futures=3)
    futures = imagination.rollout(bets(0, 1, 2).repeat(2, 1, 1, 1))
    index = torch.tensor([[2, 0], [1, 1]])
    chosen = futures.select(index)
    whole = futures.state.latent.view(2, 3, 3)
    for row in range(2):
        for place in range(2):
            assert chosen.costs[row, place].equal(futures.costs[row, index[row, place]])
            latent = chosen.state.latent.view(2, 2, 3)[row, place]
            assert latent.equal(whole[row, index[row, place]])
    other = chosen.ended()
    mixed = chosen.where(torch.tensor([True, False]), other)
    assert mixed.survivals[0].equal(chosen.survivals[0])
    assert not mixed.survivals[1].any()


def test_rows_with_different_numbers_of_futures_are_planned_for_apart():
    actor = mind(Beam(config=Beam.Config(action_repeat=1), world=BETS), BETS)
    cost = LatentCost(lambda latent: -latent[:, 0])
    situation, imagination, orders = imagine(
        Gamble(), cost, torch.zeros(3, 1), BETS, actor, calls=200, horizon=2
    )
    orders = orders.replace(futures=torch.tensor([1, 8, 400]))
    imagination.directive = orders
    plan = actor.act(situation, imagination, orders)
    assert (plan.model_calls <= 200).all()
    assert (plan.model_calls > 0).all()
    # A row cannot have more futures than model calls.
    assert imagination.num_futures.tolist() == [1, 8, 200]
    assert int(plan.model_calls[1]) % 8 == 0
    assert int(plan.model_calls[2]) == 200


DISCRETE_PLANNERS = {
    "beam": Beam(config=Beam.Config(action_repeat=1), world=BETS),
    "rollout": Rollout(config=Rollout.Config(min_gain_std=0), world=BETS),
    "cem-categorical": CategoricalCEM(config=CategoricalCEM.Config(action_repeat=1), world=BETS),
    "tree": Tree(config=Tree.Config(action_repeat=1), world=BETS),
    "annealing": Annealing(config=Annealing.Config(action_repeat=1), world=BETS),
}


@pytest.mark.parametrize("planner", DISCRETE_PLANNERS.values(), ids=DISCRETE_PLANNERS.keys())
def test_every_planner_takes_the_bet_that_the_directive_asks_for(planner):
    """Best mean, best mean minus a deviation, best worst case; with one future it is luck."""
    cost = LatentCost(lambda latent: -latent[:, 0])
    actor = mind(planner, BETS)
    wishes = {0: {}, 1: {"risk": 0.5}, 2: {"adversarial": True}}
    for bet, orders in wishes.items():
        chosen = []
        for seed in range(12):
            _, imagination, _ = imagine(
                Gamble(), cost, torch.zeros(1, 1), BETS, actor, seed=seed, futures=10, **orders
            )
            proposals = one_hot(torch.zeros(1, 2, 1, dtype=torch.int64), 3)
            planned = planner.plan(imagination, proposals, chance.keys(seed, 1, 0), 300)
            chosen.append(int(planned.candidates[0, 0, 0].argmax()))
        assert chosen == [bet] * 12
    chosen = set()
    for seed in range(12):
        _, imagination, _ = imagine(
            Gamble(), cost, torch.zeros(1, 1), BETS, actor, seed=seed, futures=1, risk=0.5
        )
        proposals = one_hot(torch.zeros(1, 2, 1, dtype=torch.int64), 3)
        planned = planner.plan(imagination, proposals, chance.keys(seed, 1, 0), 300)
        chosen.add(int(planned.candidates[0, 0, 0].argmax()))
    assert chosen != {1}


class Wind(LatentModel):
    """A force is multiplied by luck: the more of it, the more uncertain where it ends."""

    latent = LatentSpec(kind="gaussian", size=1, luck=1)

    def __init__(self) -> None:
        super().__init__(None)

    def step(self, state, action, z=None):
        z = action.new_zeros(len(action), 1) if z is None else z
        self.move = lambda latent, action: latent + action * (1 + z)
        return super().step(state, action)

    def sample_latent(self, state, action, luck, temperature):
        return torch.special.ndtri(luck) * temperature.unsqueeze(1)


@pytest.mark.parametrize(
    "planner",
    [kind(config=kind.Config(), world=FORCE) for kind in (CEM, Gradient, MPPI, ICEM, Annealing)],
    ids=["cem", "gradient", "mppi", "icem", "annealing"],
)
def test_a_risk_averse_plan_pushes_less(planner):
    """From 0, energy -s: without risk the full force is best, under risk 2 none is."""
    pushed = {}
    for risk in (0.0, 2.0):
        cost = LatentCost(lambda latent: -latent[:, 0])
        _, imagination, _ = imagine(
            Wind(), cost, torch.zeros(1, 1), FORCE, mind(planner, FORCE), futures=16, risk=risk
        )
        planned = planner.plan(imagination, torch.zeros(1, 2, 1, 1), chance.keys(0, 1, 0), 20_000)
        pushed[risk] = float(planned.candidates[0, 0, 0, 0])
    assert pushed[0.0] > 0.9
    assert abs(pushed[2.0]) < 0.1
