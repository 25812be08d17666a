"""The road: collisions along the whole step, what leaves may do, determinism under the seed."""

import copy

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from worlds.make import list_worlds
from worlds.road import (
    AHEAD,
    CAR_LENGTH,
    CARS,
    ID,
    OWN_TOP,
    SPEEDS,
    STATE_ID,
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
