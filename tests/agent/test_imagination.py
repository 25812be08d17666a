import pytest
import torch
from analytic import LatentCost, LatentModel, imagine, linear_quadratic, maze, spec

from agent.imagination import Imagination, plan_cost
from modules.actor.actor import Actor
from modules.actor.beam import Beam
from modules.actor.policy import Categorical

WORLD = spec(True, 3)


def mind():
    policy = Categorical(width=8, layers=1, world=WORLD, latent_size=1, token_shape=(1, 1))
    return Actor(
        replan_threshold=0.5,
        num_logged_candidates=2,
        planner=Beam(action_repeat=1, search_fraction=0.5, refine_samples=1, world=WORLD),
        policy=policy,
        world=WORLD,
        horizon_max=6,
    )


def test_plan_cost_is_the_written_out_sum():
    torch.manual_seed(0)
    energies, ended = torch.randn(2, 3, 5).double(), torch.rand(2, 3, 5).double()
    ended[0, 0] = torch.tensor([0, 0, 1, 0, 0])
    value, discount = torch.randn(2, 3).double(), 0.9
    found = plan_cost(energies, ended, value, discount)
    for b in range(2):
        for n in range(3):
            wanted, lasting = 0.0, 1.0
            for t in range(5):
                wanted += discount**t * lasting * float(energies[b, n, t])
                lasting *= 1 - float(ended[b, n, t])
            wanted += discount**5 * lasting * float(value[b, n])
            assert float(found[b, n]) == pytest.approx(wanted, abs=1e-12)
    # The state in which it ends still counts; what would come after it does not.
    first = energies[0, 0, :3] @ torch.tensor([1, 0.9, 0.81]).double()
    assert float(found[0, 0]) == pytest.approx(float(first))


@pytest.mark.parametrize("literal", [False, True])
def test_rollouts_cost_what_stepping_by_hand_adds_up_to(literal):
    model, cost = maze(4)
    _, imagination, _ = imagine(model, cost, torch.zeros(2, 1), WORLD, mind(), literal=literal)
    actions = torch.eye(3)[torch.randint(3, (2, 4, 6), generator=torch.manual_seed(1))]
    found = imagination.cost(imagination.rollout(actions))
    for b in range(2):
        for n in range(4):
            place, wanted, lasting = torch.zeros(1, 1), 0.0, 1.0
            for t in range(6):
                place = model.move(place, actions[b, n, t : t + 1])
                felt = float(cost.energy(place)) + literal * cost.critic * float(place)
                wanted += 0.95**t * lasting * felt
                lasting *= 1 - float(model.ended(place))
            wanted += (not literal) * 0.95**6 * lasting * cost.critic * float(place)
            assert float(found[b, n]) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("knows", [False, True])
def test_below_1_lookahead_mixes_plans_of_every_length(knows):
    """Σ_{h<H} (1-λ) λ^h F_h + λ^H F_H, each F_h a plan of h steps that the critic ends."""
    model, cost = maze(4)
    if knows:
        cost.reactions = lambda latent: (latent + torch.tensor([[0.3, -0.2, 0.9]])).unsqueeze(-1)
    λ, horizon = 0.6, 6
    start = torch.tensor([[0.0], [5.0]])
    _, mixed, _ = imagine(model, cost, start, WORLD, mind(), td_lambda=λ)
    _, plain, _ = imagine(model, cost, start, WORLD, mind())
    actions = torch.eye(3)[torch.randint(3, (2, 4, horizon), generator=torch.manual_seed(1))]
    wanted = λ**horizon * plain.cost(plain.rollout(actions))
    for h in range(1, horizon):
        wanted += (1 - λ) * λ**h * plain.cost(plain.rollout(actions[:, :, :h]))
    if knows:
        said = (actions[:, :, 0] * cost.reactions(start).squeeze(-1).unsqueeze(1)).sum(-1)
        wanted += (1 - λ) * said
    torch.testing.assert_close(mixed.cost(mixed.rollout(actions)), wanted, atol=1e-4, rtol=1e-4)


def test_the_literal_sum_knows_no_lookahead():
    """Nothing is mixed in, also not what the critic says of the first action."""
    model, cost = maze(4)
    cost.reactions = lambda latent: (latent + torch.tensor([[0.3, -0.2, 0.9]])).unsqueeze(-1)
    actions = torch.eye(3)[torch.randint(3, (2, 4, 6), generator=torch.manual_seed(1))]
    costs = []
    for td_lambda in (1.0, 0.5):
        _, imagination, _ = imagine(
            model, cost, torch.zeros(2, 1), WORLD, mind(), literal=True, td_lambda=td_lambda
        )
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
        costs.append(imagination.rollout(actions).energies)
    torch.testing.assert_close(costs[1], costs[0] + 0.5 * 2.0)


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
    assert whole.spent.tolist() == [0] * 4
    whole.rollout(eye[torch.zeros(4, 2, 3, dtype=torch.int64)])
    assert whole.spent.tolist() == [6] * 4
    part = whole.select(torch.tensor([3, 1]))
    part.rollout(eye[torch.zeros(2, 5, 1, dtype=torch.int64)])
    assert part.spent.tolist() == [5, 5]
    assert whole.spent.tolist() == [6, 11, 6, 11]
    assert model.calls == 4 * 6 + 2 * 5
    part.select(torch.tensor([1])).rollout(eye[torch.zeros(1, 1, 1, dtype=torch.int64)])
    assert part.spent.tolist() == [5, 6]
    assert whole.spent.tolist() == [6, 12, 6, 11]


def test_a_silent_critic_is_not_asked():
    asked = []
    cost = LatentCost(lambda latent: latent[:, 0], critic=0.0)
    cost.future = lambda state, v: asked.append(state)
    model = LatentModel(lambda latent, action: latent)
    _, imagination, _ = imagine(model, cost, torch.ones(1, 1), WORLD, mind())
    assert isinstance(imagination, Imagination)
    trajectory = imagination.rollout(torch.eye(3)[torch.zeros(1, 1, 2, dtype=torch.int64)])
    assert trajectory.value.tolist() == [[0.0]]
    assert not asked


def test_the_critic_is_asked_once_of_a_state():
    model, cost = maze(4)
    asked = []

    def reactions(latent):
        asked.append(len(latent))
        return torch.stack([latent, 9 - latent, 0 * latent], 1)

    cost.reactions = reactions
    _, imagination, _ = imagine(model, cost, torch.zeros(2, 1), WORLD, mind(), td_lambda=0.5)
    asked.clear()
    state = imagination.step(imagination.start(), torch.eye(3)[:2])
    least = imagination.expected(state).amin(-1)
    torch.testing.assert_close(imagination.value(state), least)
    imagination.toll(state, 0)
    torch.testing.assert_close(imagination.rest(state, 1), 0.25 * least)
    assert asked == [2]
    other = imagination.step(state, torch.eye(3)[:2])
    assert not imagination.value(other).equal(least)
