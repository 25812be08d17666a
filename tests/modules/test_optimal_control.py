"""Gradients through imagination are those of optimal control (Kelley 1960, Bryson 1962): in Rocket
the costates are the Riccati solution's, and the gradient planner finds its optimum.
"""

import pytest
import torch
from analytic import LatentCost, LatentModel, imagine, spec

from modules import chance
from modules.actor.actor import Actor
from modules.actor.gradient import Gradient
from modules.actor.policy import Gaussian
from worlds.rocket import FUEL_COST, PLACE_COST, SPEED_COST, THRUST, dynamics, riccati

WORLD = spec(False, 2)
A, B = map(torch.from_numpy, dynamics())
START = torch.tensor([[7.0, -3.0, 0.1, 0.2, 0.0, 0.0], [-6.0, 5.0, 0.0, 0.1, 0.0, 0.0]]).double()
HORIZON, DISCOUNT = 20, 0.97


def move(latent, action):
    thrust = action.double() * THRUST
    return torch.cat([latent[:, :4] @ A.T + thrust @ B.T, thrust], 1)


def energy(latent):
    place, speed, thrust = latent.square().view(-1, 3, 2).sum(-1).unbind(1)
    return PLACE_COST * place + SPEED_COST * speed + FUEL_COST * thrust


def flight(planner, model=None):
    policy = Gaussian(config=Gaussian.Config(), world=WORLD, latent_size=6, token_shape=(1, 1))
    actor = Actor(
        config=Actor.Config(), policy=policy, planner=planner, world=WORLD, horizon_max=HORIZON
    )
    model = model or LatentModel(move)
    return imagine(model, LatentCost(energy), START, WORLD, actor, discount=DISCOUNT)[1]


def gradient(**settings):
    return Gradient(config=Gradient.Config(num_restarts=1, init_std=0, **settings), world=WORLD)


def test_costates_of_imagination_are_those_of_the_riccati_solution():
    """λ_t = ∂J/∂s_t at the optimal thrusts is 2 γ^t P_t s_t; the gradient in the thrusts is 0."""
    feedback, to_go = map(torch.from_numpy, riccati(HORIZON, DISCOUNT))
    states = []

    def watched(latent, action):
        after = move(latent, action)
        after.retain_grad()
        states.append(after)
        return after

    ships, thrusts = [START[:, :4]], []
    for t in range(HORIZON):
        thrusts.append(-ships[-1] @ feedback[t].T)
        ships.append(ships[-1] @ A.T + thrusts[-1] @ B.T)
    actions = (torch.stack(thrusts, 1) / THRUST).unsqueeze(1).requires_grad_()
    imagination = flight(gradient(), LatentModel(watched))
    cost = imagination.cost(imagination.rollout(actions)).sum()
    cost.backward()
    expected = torch.einsum("bi,ij,bj->b", START[:, :4], to_go[0], START[:, :4]).sum()
    assert float(cost.detach()) == pytest.approx(float(expected), rel=1e-6)
    assert float(actions.grad.abs().max()) < 1e-6
    q = torch.tensor([PLACE_COST, PLACE_COST, SPEED_COST, SPEED_COST]).double()
    for t in range(HORIZON):
        # The state after step t pays once, at the end of it, and then has the cost to go.
        owed = 2 * DISCOUNT**t * (q * ships[t + 1] + DISCOUNT * ships[t + 1] @ to_go[t + 1])
        torch.testing.assert_close(states[t].grad[:, :4], owed, atol=1e-6, rtol=1e-4)


def test_the_gradient_planner_comes_within_a_percent_of_the_optimum():
    planner = gradient(iterations=500, learning_rate=0.03, final_rate=0.003)
    imagination = flight(planner)
    proposals = torch.zeros(2, 1, HORIZON, 2)
    found = planner.plan(imagination, proposals, chance.keys(0, 2, 0), 500 * HORIZON)
    to_go = torch.from_numpy(riccati(HORIZON, DISCOUNT)[1][0])
    best = torch.einsum("bi,ij,bj->b", START[:, :4], to_go, START[:, :4])
    ratio = found.energies[:, 0].double() / best
    assert bool((ratio > 1 - 1e-5).all())
    assert bool((ratio < 1.01).all())
