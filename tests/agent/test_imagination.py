import pytest
import torch
from analytic import LatentCost, LatentModel, imagine, linear_quadratic, maze, spec

from agent.imagination import Imagination
from modules.actor.actor import Actor
from modules.actor.beam import Beam
from modules.actor.policy import Categorical

WORLD = spec(True, 3)


def mind():
    shape = {"latent_size": 1, "token_shape": (1, 1)}
    return Actor(
        config=Actor.Config(num_logged_candidates=2),
        planner=Beam(config=Beam.Config(), world=WORLD),
        policy=Categorical(config=Categorical.Config(width=8), world=WORLD, **shape),
        world=WORLD,
        horizon_max=6,
    )


@pytest.mark.parametrize("every_step", [False, True])
def test_a_plan_costs_the_written_out_sum(every_step):
    """The state in which an episode ends still counts; what would come after it does not."""
    model, cost = maze(4)
    ends = model.ended
    model.ended = lambda latent: 0.7 * ends(latent)
    settings = {"sum_critic_every_step": every_step}
    _, imagination, _ = imagine(model, cost, torch.zeros(2, 1), WORLD, mind(), **settings)
    actions = torch.eye(3)[torch.randint(3, (2, 4, 6), generator=torch.manual_seed(1))]
    futures = imagination.rollout(actions)
    costs = imagination.cost(futures)
    for b in range(2):
        for n in range(4):
            place, total, survival = torch.zeros(1, 1), 0.0, 1.0
            for t in range(6):
                place = model.move(place, actions[b, n, t : t + 1])
                energy = float(cost.energy(place)) + every_step * cost.critic * float(place)
                total += 0.95**t * survival * energy
                survival *= 1 - float(model.ended(place))
            total += (not every_step) * 0.95**6 * survival * cost.critic * float(place)
            assert float(costs[b, n]) == pytest.approx(total, abs=1e-6)
            assert float(futures.survival[b, n]) == pytest.approx(survival, abs=1e-6)
    assert bool((futures.survival < 1).any())


def test_every_planner_adds_up_costs_in_double_precision():
    """Σ 0.95^t in single precision would lose the seventh digit."""
    model = LatentModel(lambda latent, action: latent)
    cost = LatentCost(lambda latent: torch.ones(len(latent)))
    _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), WORLD, mind())
    actions = torch.eye(3)[torch.zeros(1, 1, 64, dtype=torch.int64)]
    total = float(imagination.cost(imagination.rollout(actions)))
    assert total == pytest.approx((1 - 0.95**64) / 0.05, rel=1e-14)


def test_futures_are_extended_apart_as_they_are_together():
    model, cost = maze(4)
    _, imagination, _ = imagine(model, cost, torch.tensor([[0.0], [5.0]]), WORLD, mind())
    actions = torch.eye(3)[torch.randint(3, (2, 4, 6), generator=torch.manual_seed(1))]
    whole = imagination.rollout(actions)
    index = torch.tensor([[3, 1], [0, 2]])
    part = imagination.rollout(actions[:, :, :4]).select(index)
    for t in (4, 5):
        action = actions[torch.arange(2)[:, None], index, t].flatten(0, 1)
        part = imagination.extend(part, action)
    assert part.steps == 6
    assert imagination.cost(part).equal(imagination.cost(whole).gather(1, index))
    mask = torch.tensor([True, False])
    one, other = whole.select(index[:, :1]), whole.select(index[:, 1:])
    mixed = imagination.cost(one.where(mask, other))[:, 0]
    costs = imagination.cost(whole)
    assert mixed.tolist() == [float(costs[0, 3]), float(costs[1, 2])]


@pytest.mark.parametrize("knows", [False, True])
def test_td_lambda_below_1_mixes_plans_of_every_length(knows):
    """Σ_{h<H} (1-λ) λ^h F_h + λ^H F_H, each F_h a plan of h steps that the critic ends."""
    model, cost = maze(4)
    if knows:
        cost.action_values_of = lambda latent: (
            latent + torch.tensor([[0.3, -0.2, 0.9]])
        ).unsqueeze(-1)
    λ, horizon = 0.6, 6
    start = torch.tensor([[0.0], [5.0]])
    _, mixed, _ = imagine(model, cost, start, WORLD, mind(), td_lambda=λ)
    _, plain, _ = imagine(model, cost, start, WORLD, mind())
    actions = torch.eye(3)[torch.randint(3, (2, 4, horizon), generator=torch.manual_seed(1))]
    expected = λ**horizon * plain.cost(plain.rollout(actions))
    for h in range(1, horizon):
        expected += (1 - λ) * λ**h * plain.cost(plain.rollout(actions[:, :, :h]))
    if knows:
        values = cost.action_values_of(start).squeeze(-1).unsqueeze(1)
        expected += (1 - λ) * (actions[:, :, 0] * values).sum(-1)
    torch.testing.assert_close(mixed.cost(mixed.rollout(actions)), expected, atol=1e-6, rtol=1e-6)


def test_a_critic_summed_at_every_step_ignores_td_lambda():
    """Also in the value of the first action."""
    model, cost = maze(4)
    cost.action_values_of = lambda latent: (latent + torch.tensor([[0.3, -0.2, 0.9]])).unsqueeze(-1)
    actions = torch.eye(3)[torch.randint(3, (2, 4, 6), generator=torch.manual_seed(1))]
    costs = []
    for td_lambda in (1.0, 0.5):
        settings = {"sum_critic_every_step": True, "td_lambda": td_lambda}
        _, imagination, _ = imagine(model, cost, torch.zeros(2, 1), WORLD, mind(), **settings)
        costs.append(imagination.cost(imagination.rollout(actions)))
    assert costs[0].equal(costs[1])


def test_risk_weighs_uncertainty():
    model, cost = maze(4)
    step = model.step

    def unsure(state, action, z=None):
        after = step(state, action, z)
        after.__dict__["uncertainty"] = torch.full((len(action),), 2.0)
        return after

    model.step = unsure
    actions = torch.eye(3)[torch.zeros(1, 1, 3, dtype=torch.int64)]
    costs = []
    for risk in (0.0, 0.5):
        _, imagination, _ = imagine(model, cost, torch.zeros(1, 1), WORLD, mind(), risk=risk)
        costs.append(imagination.rollout(actions).costs)
    lasts = imagination.rollout(actions).survival
    assert lasts.tolist() == [[1.0]]
    torch.testing.assert_close(costs[1], costs[0] + 0.5 * 2.0 * (1 + 0.95 + 0.95**2))


def test_gradients_reach_the_actions_through_every_step():
    model, cost = linear_quadratic()
    world = spec(False, 1)
    latent = torch.tensor([[1.0, 0.0, 0.0]]).double()
    _, imagination, _ = imagine(model, cost, latent, world, mind())

    def total(actions):
        return imagination.cost(imagination.rollout(actions))

    actions = torch.full((1, 2, 4, 1), 0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(total, (actions,))
    total(actions).sum().backward()
    assert bool((actions.grad != 0).all())


def test_model_calls_are_counted_for_each_row_candidate_and_step_parts_included():
    model, cost = maze(0)
    _, whole, _ = imagine(model, cost, torch.zeros(4, 1), WORLD, mind())
    eye = torch.eye(3)
    whole.start()
    assert whole.model_calls.tolist() == [0] * 4
    whole.rollout(eye[torch.zeros(4, 2, 3, dtype=torch.int64)])
    assert whole.model_calls.tolist() == [6] * 4
    part = whole.select(torch.tensor([3, 1]))
    part.rollout(eye[torch.zeros(2, 5, 1, dtype=torch.int64)])
    assert part.model_calls.tolist() == [5, 5]
    assert whole.model_calls.tolist() == [6, 11, 6, 11]
    assert model.calls == 4 * 6 + 2 * 5
    part.select(torch.tensor([1])).rollout(eye[torch.zeros(1, 1, 1, dtype=torch.int64)])
    assert part.model_calls.tolist() == [5, 6]
    assert whole.model_calls.tolist() == [6, 12, 6, 11]


def test_a_critic_without_updates_is_not_evaluated():
    calls = []
    cost = LatentCost(lambda latent: latent[:, 0], critic=0.0)
    cost.critic_value = lambda state, v: calls.append(state)
    model = LatentModel(lambda latent, action: latent)
    _, imagination, _ = imagine(model, cost, torch.ones(1, 1), WORLD, mind())
    assert isinstance(imagination, Imagination)
    futures = imagination.rollout(torch.eye(3)[torch.zeros(1, 1, 2, dtype=torch.int64)])
    assert imagination.critic_value(futures.state).tolist() == [0.0]
    assert imagination.action_values(futures) is None
    assert imagination.cost(futures).equal(futures.costs[:, :, 0])
    assert not calls


def test_the_critic_is_evaluated_once_a_state():
    model, cost = maze(4)
    calls = []

    def action_values(latent):
        calls.append(len(latent))
        return torch.stack([latent, 9 - latent, 0 * latent], 1)

    cost.action_values_of = action_values
    _, imagination, _ = imagine(model, cost, torch.zeros(2, 1), WORLD, mind(), td_lambda=0.5)
    calls.clear()
    futures = imagination.extend(imagination.begin(1), torch.eye(3)[:2])
    least = imagination.action_values(futures)[:, 0].amin(-1)
    torch.testing.assert_close(imagination.critic_value(futures.state), least)
    final = (imagination.cost(futures) - futures.costs[:, :, 0])[:, 0]
    torch.testing.assert_close(final, 0.95 * futures.survival[:, 0] * 0.25 * least)
    assert calls == [2]
    other = imagination.step(futures.state, torch.eye(3)[:2])
    assert not imagination.critic_value(other).equal(least)
