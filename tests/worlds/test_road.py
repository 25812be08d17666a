"""The road: collisions along the whole step, what leaves may do, determinism under the seed."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from worlds.make import list_worlds, make_world
from worlds.road import (
    AHEAD,
    CAR_LENGTH,
    CAR_WIDTH,
    CARS,
    ID,
    LANE_WIDTH,
    LANES,
    LEFT,
    OWN_TOP,
    PERSON,
    SIDE,
    SPEEDS,
    STATE_ID,
    TREES,
    Road,
)

KEEP, FASTER, SLOWER = 4, 5, 3


def road(**settings):
    """A road with no other car near and none that changes its mind."""
    env = Road(**settings)
    env.reset(seed=0)
    env.car_top = np.full(CARS, AHEAD)
    env.car_speed = np.full(CARS, SPEEDS[0])
    return env


@pytest.mark.filterwarnings("ignore:.*Box observation space.*")
@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_it_is_registered_and_passes_gymnasiums_checks(id):
    assert id in list_worlds()
    check_env(gymnasium.make(id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("gap", [0.5, 1.5])
def test_a_car_in_the_path_of_the_step_is_hit(gap):
    env = road()
    env.car_lane[0], env.car_left[0] = env.lane, env._left_of(env.lane)
    env.car_speed[0], env.car_top[0] = 0.0, OWN_TOP - CAR_LENGTH - gap
    _, reward, _, _, info = env.step(KEEP)
    assert info["collision"] == (gap < SPEEDS[0])
    assert reward == pytest.approx(SPEEDS[0] / SPEEDS[-1] - 5 * info["collision"])
    assert (env.speed == 0) or not info["collision"]


def test_a_car_that_is_passed_within_one_step_is_hit():
    env = road()
    env.car_lane[0], env.car_left[0] = env.lane, env._left_of(env.lane)
    env.car_speed[0], env.car_top[0] = -60.0, OWN_TOP - CAR_LENGTH - 1
    assert env.step(KEEP)[4]["collision"] == 1


def test_a_person_is_hit_only_where_paths_cross():
    env = road()
    left = float(env._left_of(env.lane))
    env.person = (OWN_TOP - 3.5, left + 1, 0.0)
    assert env.step(KEEP)[4]["collision"] == 1
    assert env.person is None
    env = road()
    env.person = (OWN_TOP - 3.5, left - 20, 0.0)
    assert env.step(KEEP)[4]["collision"] == 0


def test_speed_and_lane_follow_the_action():
    env = road()
    env.step(FASTER)
    assert (env.lane, env.speed) == (1, 1)
    env.step(2 * 3 + 2)
    assert (env.lane, env.speed) == (2, 2)
    env.step(SLOWER)
    assert (env.lane, env.speed) == (2, 1)


def test_leaves_change_the_picture_and_nothing_else():
    lives = []
    for leaves in (0.0, 1.0):
        env = Road(leaves=leaves)
        env.reset(seed=5)
        states, frames = [], []
        for action in np.random.default_rng(1).integers(0, 9, 60):
            frame, *_ = env.step(action)
            states.append(env.state())
            frames.append(frame)
        lives.append((np.array(states), np.array(frames)))
    assert np.array_equal(lives[0][0], lives[1][0])
    changed = (lives[0][1] != lives[1][1]).any((0, 3))
    assert changed[:, :16].any()
    assert not changed[:, 17:47].any()


def test_a_weak_wind_can_be_predicted_and_a_strong_one_cannot():
    turns = {}
    for wind in (0.3, 1.5):
        env = Road(wind=wind)
        env.reset(seed=2)
        before = env.leaf_phases
        env.step(KEEP)
        turns[wind] = np.cos(env.leaf_phases - before).mean()
    assert turns[0.3] > 0.9
    assert turns[1.5] < 0.6


def test_a_seed_and_the_actions_make_the_episode_and_a_copy_continues_it():
    env, again = Road(), Road()
    assert np.array_equal(env.reset(seed=3)[0], again.reset(seed=3)[0])
    actions = np.random.default_rng(0).integers(0, 9, 50)
    for action in actions[:25]:
        assert np.array_equal(env.step(action)[0], again.step(action)[0])
    twin = copy.deepcopy(env)
    for action in actions[25:]:
        expected = env.step(action)
        found = twin.step(action)
        assert np.array_equal(expected[0], found[0])
        assert expected[1] == found[1]


LAST_STATES = {
    0: [1, 0, 0.1635, 0.6094, 0.4878, 0.463, 0.4531, 0.4871, -0.5586, 0.2969, 0.417, -0.1996,
        0.2969, 0.3748, -0.0156, -0.0156],
    1: [0.5, 0, 0.3316, 0.6094, 0.3136, -0.1795, 0.2969, 0.2587, 0.0013, 0.2969, 0.4413, -0.5975,
        0.4531, 0.4878, -0.0156, -0.0156],
    2: [0.5, 0.5, -0.0489, 0.6094, 0.499, -0.2933, 0.4531, 0.3983, -0.2426, 0.4531, 0.3895,
        -0.0584, 0.3945, 0.4032, -0.0156, -0.0156],
}  # fmt: skip
"""Seed → the state after 200 actions of `default_rng(seed)`."""

LIVES = {
    0: (97.0, 5, 890.2644, -2.7342, 1.0473, 0.5282),
    1: (76.6667, 8, 768.2734, 0.3086, 2.8707, 0.2497),
    2: (89.6667, 6, 744.815, -9.2222, -2.8323, 0.1541),
}
"""Seed → the sums of rewards, collisions and states, of the cosines of the phases of leaves and
ripples, and the next random number.
"""


@pytest.mark.parametrize("seed", LIVES)
def test_dynamics_and_the_order_of_random_draws_stay_as_they_are(seed):
    env = Road(observation="state")
    env.reset(seed=seed)
    steps = [env.step(action) for action in np.random.default_rng(seed).integers(0, 9, 200)]
    states = np.array([step[0] for step in steps])
    assert states[-1] == pytest.approx(LAST_STATES[seed], abs=1e-4)
    sums = (
        sum(step[1] for step in steps),
        sum(step[4]["collision"] for step in steps),
        states.sum(),
        np.cos(env.leaf_phases).sum(),
        np.cos(env.ripple_phases).sum(),
        env.np_random.random(),
    )
    assert sums == pytest.approx(LIVES[seed], abs=1e-3)


def slow_drawing(env):
    """The picture written out pixel by pixel, in floats over the whole frame."""
    frame = np.empty((SIDE, SIDE, 3), np.float32)
    frame[:] = (60, 110, 50)
    frame[:, LEFT : LEFT + LANES * LANE_WIDTH] = 70
    dashes = (np.arange(SIDE) - env.travelled).astype(int) % 8 < 4
    for lane in range(1, LANES):
        frame[dashes, LEFT + lane * LANE_WIDTH] = 170

    def wave(top, left, height, phases, colour):
        band = -(-height // len(phases))
        for row in range(height):
            for column in range(14):
                angle = phases[row // band] + column * 2 * np.pi / 7
                light = 1 + 0.8 * env.contrast * np.sin(angle)
                frame[top + row, left + column] = light * np.array(colour)

    def fill(top, left, size, colour):
        at = np.arange(SIDE)
        rows = np.clip(np.minimum(at + 1 - top, top + size[0] - at), 0, 1)
        columns = np.clip(np.minimum(at + 1 - left, left + size[1] - at), 0, 1)
        cover = (rows[:, None] * columns)[..., None]
        frame[:] = frame + cover * (np.array(colour) - frame)

    for tree, phases in enumerate(env.leaf_phases):
        wave(tree * SIDE // TREES + 1, 1, 14, phases, (70, 130, 40))
    wave(20, SIDE - 15, 24, env.ripple_phases, (60, 90, 150))
    if env.person is not None:
        fill(*env.person[:2], (PERSON, PERSON), (240, 210, 80))
    for top, left in zip(env.car_top, env.car_left, strict=True):
        fill(top, left, (CAR_LENGTH, CAR_WIDTH), (200, 60, 50))
    left = LEFT + env.lane * LANE_WIDTH + (LANE_WIDTH - CAR_WIDTH) / 2
    fill(OWN_TOP, left, (CAR_LENGTH, CAR_WIDTH), (235, 235, 240))
    return np.clip(frame, 0, 255)


@pytest.mark.parametrize("leaves", [1.0, 1.6])
def test_the_picture_is_that_of_the_slow_drawing(leaves):
    env = Road(leaves=leaves)
    frame, _ = env.reset(seed=1)
    rng, people = np.random.default_rng(4), 0
    for _ in range(120):
        difference = np.abs(frame - slow_drawing(env))
        assert difference.max() < 1 + 1e-3, np.argwhere(difference >= 1 + 1e-3)[0]
        frame = env.step(rng.integers(9))[0]
        if env.person is None:  # anywhere, also half out of the frame and over the pond
            env.person = (rng.uniform(-4, SIDE), rng.uniform(LEFT - 3, LEFT + 33), 1.5)
            people, frame = people + 1, env._draw()
    assert people > 3
    assert env.render()[::4, ::4].tolist() == frame.tolist()


@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_it_is_seeded_and_restored_by_replay(id):
    world = make_world(id, 2)
    assert world.rehearse() is None
    world.require_simulation()
    world.reset(4)
    actions = torch.eye(9)[np.random.default_rng(0).integers(9, size=(25, 2))]
    for action in actions[:20]:
        observed = world.step(action)
    restored = make_world(id, 2)
    assert same(restored.restore(world.snapshot()), observed)
    for action in actions[20:]:
        assert same(restored.step(action), world.step(action))


def same(one, other):
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return all(b is None if a is None else a.equal(b) for (_, a), (_, b) in pairs)
