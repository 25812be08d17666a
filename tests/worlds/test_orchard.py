"""The orchard: rewards, observations, and determinism under the seed."""

import copy
import warnings
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from modules.messages import SIGNALS
from worlds.make import list_worlds, make_world
from worlds.orchard import CELL, FRUITS_A_KIND, ID, KINDS, RIM, SIDE, STEPS, Orchard


def planted(task: int, right: int) -> Orchard:
    """An orchard with a fruit of kind `right` in the cell right of the walker."""
    env = Orchard()
    env.reset(seed=3, options={"task": task})
    row, column = divmod(env.walker, SIDE)
    beside = row * SIDE + (column + 1) % SIDE
    free = next(c for c in range(SIDE * SIDE) if c not in {*env.fruits.tolist(), env.walker})
    fruits = np.where(env.fruits == beside, free, env.fruits)
    fruits[right * FRUITS_A_KIND] = beside
    env.fruits = fruits
    return env


def test_it_is_registered_and_passes_gymnasiums_checks_without_a_warning():
    assert ID in list_worlds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("task", range(len(KINDS)))
@pytest.mark.parametrize("kind", [0, 1, 3])
def test_the_reward_is_positive_for_the_tasks_kind_and_negative_for_others(task: int, kind: int):
    env = planted(task, kind)
    observation, reward, terminated, truncated, _ = env.step(np.int64(4))
    assert reward == (1.0 if kind == task else -1.0)
    assert observation["achieved_goal"].argmax() == kind
    assert observation["achieved_goal"].sum() == 1
    assert observation["desired_goal"].argmax() == task
    assert not terminated
    assert not truncated
    observation, reward, *_ = env.step(np.int64(0))
    assert reward == 0
    assert not observation["achieved_goal"].any()


def test_the_number_of_fruits_is_constant_and_their_cells_are_distinct():
    env = Orchard()
    env.reset(seed=1)
    picked = Counter[int]()
    for action in np.random.default_rng(0).integers(1, 5, 400):
        _, reward, *_ = env.step(action)
        picked[reward] += 1
        assert len(set(env.fruits.tolist())) == FRUITS_A_KIND * len(KINDS)
        assert env.walker not in env.fruits
    assert picked[-1.0] > picked[1.0] > 0  # one kind of four is rewarded


def test_the_frame_is_centred_on_the_walker():
    env = planted(0, 1)
    env.leaves = np.full_like(env.leaves, (env.walker + 3 * SIDE) % SIDE**2)
    env._draw()
    at = RIM + SIDE // 2 * CELL
    middle = env.frame[at + 2, at + 2].astype(int)
    beside = env.frame[at + 1 : at + 4, at + CELL + 1 : at + CELL + 4].reshape(-1, 3).mean(0)
    assert middle.max() < 80
    assert beside.argmax() == 1  # a lime is green
    assert beside[1] - beside[[0, 2]].max() > 40


def test_the_task_is_in_the_info_and_not_in_the_frame():
    frames = []
    for task in (0, "plum"):
        env = Orchard()
        observation, info = env.reset(seed=9, options={"task": task})
        frames.append(observation["observation"])
    assert info["task"] == "plum"
    assert np.array_equal(*frames)


def test_every_task_is_drawn_and_episodes_are_truncated():
    world = make_world(ID, num_envs=4)
    assert world.spec.signals == (*SIGNALS, *(f"achieved_{k}" for k in range(len(KINDS))))
    assert world.spec.goal == len(KINDS)
    observation = world.reset(0)
    tasks, cut = Counter[int](), 0
    still = torch.eye(5)[[0] * 4]
    for _ in range(3 * (STEPS + 1)):
        tasks.update(observation.goal.argmax(-1)[observation.first].tolist())
        cut += int(observation.truncated.sum())
        observation = world.step(still)
    assert cut == 12
    assert len(tasks) >= 3


def test_the_achieved_goal_is_among_the_signals():
    world = make_world(ID, num_envs=3)
    observation = world.reset(5)
    for step in range(60):
        observation = world.step(torch.eye(5)[[1 + step % 4, 1, 3]])
        achieved = observation.signals[:, len(SIGNALS) :]
        right = (achieved * observation.goal).sum(-1)
        assert torch.equal(observation.signals[:, 0], 2 * right - achieved.sum(-1))


def test_a_snapshot_continues_bit_for_bit_and_simulation_leaves_the_world_unchanged():
    world = make_world(ID, num_envs=2)
    world.reset(7)
    actions = torch.eye(5)[torch.randint(5, (150, 2), generator=torch.Generator().manual_seed(0))]
    for action in actions[:90]:
        world.step(action)
    snapshot = world.snapshot()
    handle = world.save_state(0)
    for action in range(5):
        world.simulate(handle, action, None)
        world.simulate(handle, action, 3)
    first = [world.step(action) for action in actions[90:]]
    other = make_world(ID, num_envs=2)
    other.restore(snapshot)
    for action, expected in zip(actions[90:], first, strict=True):
        received = other.step(action)
        for (name, mine), (_, theirs) in zip(received.tensors(), expected.tensors(), strict=True):
            assert (mine is None and theirs is None) or torch.equal(mine, theirs), name


def test_simulation_is_clairvoyant_without_a_seed_and_fair_with_one():
    world = make_world(ID, num_envs=1)
    world.reset(7)
    handle = world.save_state(0)
    predicted = world.render_observation(world.simulate(handle, 1, None).handle)
    anew = world.render_observation(world.simulate(handle, 1, 5).handle)
    real = world.step(torch.eye(5)[[1]]).pixels[0].numpy()
    assert np.array_equal(predicted, real)
    assert not np.array_equal(anew, real)


def test_a_copy_is_independent():
    env = Orchard()
    env.reset(seed=0)
    other = copy.deepcopy(env)
    twin = copy.deepcopy(env)
    for action in (1, 2, 1, 4, 4, 3):
        env.step(np.int64(action))
    for action in (1, 2, 1, 4, 4, 3):
        other.step(np.int64(action))
    assert np.array_equal(env.frame, other.frame)
    assert not np.array_equal(env.frame, twin.frame)
    assert np.array_equal(twin.step(np.int64(0))[0]["desired_goal"], np.eye(4)[twin.task])
