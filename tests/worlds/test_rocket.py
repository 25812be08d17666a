"""The rocket: exact dynamics, the linear-quadratic optimum, limits, restoring."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from scipy.integrate import solve_ivp

from worlds.make import list_worlds, make_world
from worlds.rocket import (
    FAR,
    ID,
    NEAR,
    ORBIT,
    STATE_ID,
    STEPS,
    THRUST,
    Rocket,
    costs,
    dynamics,
    riccati,
)


@pytest.mark.filterwarnings("ignore:.*Box observation space.*")
@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_it_is_registered_and_passes_gymnasiums_checks(id):
    assert id in list_worlds()
    check_env(gymnasium.make(id, render_mode="rgb_array", limits=True).unwrapped)


@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_a_snapshot_goes_on_as_the_world_does(id):
    world, restored = make_world(id, 2), make_world(id, 2)
    assert world.rehearse() is None
    world.require_simulation()
    world.reset(4)
    actions = torch.rand(20, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for action in actions[:10]:
        observed = world.step(action)
    assert shown(restored.restore(world.snapshot())) == shown(observed)
    for action in actions[10:]:
        assert shown(world.step(action)) == shown(restored.step(action))


def shown(observation):
    return [None if values is None else values.tolist() for _, values in observation.tensors()]


def test_a_step_is_what_the_equations_of_motion_say():
    a, b = dynamics()
    luck = np.random.default_rng(0)
    for _ in range(5):
        state, thrust = luck.normal(size=4), luck.normal(size=2)

        def rates(_, s, thrust=thrust):
            x, _, dx, dy = s
            return [dx, dy, 3 * ORBIT**2 * x + 2 * ORBIT * dy + thrust[0],
                    -2 * ORBIT * dx + thrust[1]]  # fmt: skip

        exact = solve_ivp(rates, (0, 1), state, rtol=1e-10, atol=1e-12).y[:, -1]
        np.testing.assert_allclose(a @ state + b @ thrust, exact, atol=1e-8)


def stacked(start, steps, discount):
    """The best thrusts [H 2] and their cost by least squares over the whole plan at once."""
    (a, b), (q, r) = dynamics(), costs()
    reach = np.zeros((steps, 4, steps, 2))
    free = np.zeros((steps, 4))
    state = start
    for t in range(steps):
        state = a @ state
        free[t] = state
        for s in range(t + 1):
            reach[t, :, s] = np.linalg.matrix_power(a, t - s) @ b
    weights = discount ** np.arange(steps)
    root_q, root_r = np.sqrt(np.diag(q)), np.sqrt(np.diag(r))
    rows = reach * root_q[None, :, None, None] * np.sqrt(weights)[:, None, None, None]
    fuel = np.diag((np.sqrt(weights)[:, None] * root_r).ravel())
    matrix = np.concatenate([rows.reshape(4 * steps, 2 * steps), fuel])
    goal = np.concatenate(
        [-(free * root_q * np.sqrt(weights)[:, None]).ravel(), np.zeros(2 * steps)]
    )
    best, *_ = np.linalg.lstsq(matrix, goal, rcond=None)
    return best.reshape(steps, 2), float(((matrix @ best - goal) ** 2).sum())


@pytest.mark.parametrize(("steps", "discount"), [(1, 1.0), (8, 0.9), (30, 1.0)])
def test_riccati_is_the_least_squares_solution_of_the_whole_plan(steps, discount):
    feedback, to_go = riccati(steps, discount)
    a, b = dynamics()
    state = start = np.array([4.0, -3.0, 0.1, 0.2])
    best, cost = stacked(start, steps, discount)
    for t in range(steps):
        thrust = -feedback[t] @ state
        np.testing.assert_allclose(thrust, best[t], atol=1e-8)
        state = a @ state + b @ thrust
    assert start @ to_go[0] @ start == pytest.approx(cost)


def test_the_optimum_is_what_the_world_charges_and_needs_no_limit():
    feedback, to_go = riccati(STEPS)
    env = Rocket(observation="state")
    for seed in range(40):
        env.reset(seed=seed)
        start, paid = env.ship, 0.0
        assert NEAR <= np.hypot(*start[:2]) <= FAR
        for t in range(STEPS):
            thrust = -feedback[t] @ env.ship
            assert np.abs(thrust).max() < 0.6 * THRUST
            _, reward, _, _, info = env.step(thrust / THRUST)
            paid -= reward
            assert reward == pytest.approx(-info["error"] - info["fuel"])
        assert paid == pytest.approx(start @ to_go[0] @ start)
        assert np.hypot(*env.ship[:2]) < 1e-3


def test_limits_make_the_optimum_unreachable_and_doing_nothing_is_worse():
    feedback, to_go = riccati(STEPS)
    paid = {"limited": 0.0, "idle": 0.0, "optimum": 0.0}
    for seed in range(20):
        for name in ("limited", "idle"):
            env = Rocket(observation="state", limits=True)
            env.reset(seed=seed)
            start = env.ship
            for t in range(STEPS):
                thrust = -feedback[t] @ env.ship * (name == "limited")
                paid[name] -= env.step(thrust / env.greatest)[1]
        paid["optimum"] += start @ to_go[0] @ start
    assert paid["optimum"] < 0.5 * paid["limited"] < 0.5 * paid["idle"]


def test_the_goal_is_a_picture_or_numbers_and_there_both_are_what_is_seen():
    env = Rocket()
    first, _ = env.reset(seed=0)
    there, _ = env.reset(options={"start": (0, 0, 0, 0)})
    assert np.array_equal(there["observation"], first["goal_pixels"])
    assert not np.array_equal(first["observation"], first["goal_pixels"])
    there, _ = Rocket(observation="state").reset(options={"start": (0, 0, 0, 0)})
    assert np.array_equal(there["achieved_goal"], there["desired_goal"])


def test_the_picture_shows_the_rocket_where_it_is():
    env = Rocket()
    frame = env.picture(-6.0, 3.0).astype(float)[..., 0] - env.picture(99, 99)[..., 0]
    row, column = ((frame.sum(axis) * (np.arange(64) + 0.5)).sum() / frame.sum() for axis in (1, 0))
    assert (column, row) == pytest.approx((32 - 6 * 64 / 24, 32 - 3 * 64 / 24), abs=0.02)


def test_a_copy_leaves_the_original_alone():
    env = Rocket()
    env.reset(seed=0)
    twin, before = copy.deepcopy(env), env.ship
    twin.step(np.array([0.3, 0.1]))
    assert env.ship is before
    assert np.array_equal(env.reset()[0]["observation"], twin.reset()[0]["observation"])


@pytest.mark.parametrize(
    "settings",
    [{"observation": "words"}, {"limits": 3}, {"start": (1, 2)}, {"goal_form": "x"}, {"start": 1}],
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Rocket(**settings)
