"""The orchard: what counts, what is shown, and that a seed decides all of it."""

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
    """An orchard whose walker has a fruit of kind `right` on its right-hand side."""
    env = Orchard()
    env.reset(seed=3, options={"task": task})
    row, column = divmod(env.walker, SIDE)
    beside = row * SIDE + (column + 1) % SIDE
    free = next(c for c in range(SIDE * SIDE) if c not in {*env.fruits.tolist(), env.walker})
    fruits = np.where(env.fruits == beside, free, env.fruits)
    fruits[right * FRUITS_A_KIND] = beside
    env.fruits = fruits
    return env


def test_it_is_a_world_of_ours_that_gymnasium_checks_without_a_word():
    assert ID in list_worlds()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ID, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("task", range(len(KINDS)))
@pytest.mark.parametrize("kind", [0, 1, 3])
def test_the_fruit_of_the_task_scores_and_every_other_costs(task: int, kind: int):
    env = planted(task, kind)
    shown, score, terminated, truncated, _ = env.step(np.int64(4))
    assert score == (1.0 if kind == task else -1.0)
    assert shown["achieved_goal"].argmax() == kind
    assert shown["achieved_goal"].sum() == 1
    assert shown["desired_goal"].argmax() == task
    assert not terminated
    assert not truncated
    shown, score, *_ = env.step(np.int64(0))
    assert score == 0
    assert not shown["achieved_goal"].any()


def test_of_every_kind_there_are_always_as_many_each_in_a_place_of_its_own():
    env = Orchard()
    env.reset(seed=1)
    picked = Counter[int]()
    for action in np.random.default_rng(0).integers(1, 5, 400):
        _, score, *_ = env.step(action)
        picked[score] += 1
        assert len(set(env.fruits.tolist())) == FRUITS_A_KIND * len(KINDS)
        assert env.walker not in env.fruits
    assert picked[-1.0] > picked[1.0] > 0  # one kind of four counts


def test_the_walker_stays_in_the_middle_and_what_is_on_its_right_comes_to_it():
    env = planted(0, 1)
    env.leaves = np.full_like(env.leaves, (env.walker + 3 * SIDE) % SIDE**2)
    env._draw()
    at = RIM + SIDE // 2 * CELL
    middle = env.frame[at + 2, at + 2].astype(int)
    beside = env.frame[at + 1 : at + 4, at + CELL + 1 : at + CELL + 4].reshape(-1, 3).mean(0)
    assert middle.max() < 80
    assert beside.argmax() == 1  # a lime is green
    assert beside[1] - beside[[0, 2]].max() > 40


def test_the_task_is_told_and_not_shown():
    frames = []
    for task in (0, "plum"):
        env = Orchard()
        shown, told = env.reset(seed=9, options={"task": task})
        frames.append(shown["observation"])
    assert told["task"] == "plum"
    assert np.array_equal(*frames)


def test_every_task_comes_up_and_episodes_are_cut_off():
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


def test_what_is_achieved_is_felt():
    world = make_world(ID, num_envs=3)
    observation = world.reset(5)
    for step in range(60):
        observation = world.step(torch.eye(5)[[1 + step % 4, 1, 3]])
        felt = observation.signals[:, len(SIGNALS) :]
        right = (felt * observation.goal).sum(-1)
        assert torch.equal(observation.signals[:, 0], 2 * right - felt.sum(-1))


def test_a_snapshot_goes_on_bit_for_bit_and_a_copy_disturbs_nothing():
    world = make_world(ID, num_envs=2)
    world.reset(7)
    actions = torch.eye(5)[torch.randint(5, (150, 2), generator=torch.Generator().manual_seed(0))]
    for action in actions[:90]:
        world.step(action)
    kept = world.snapshot()
    handle = world.save_state(0)
    for action in range(5):
        world.simulate(handle, action, None)
        world.simulate(handle, action, 3)
    first = [world.step(action) for action in actions[90:]]
    other = make_world(ID, num_envs=2)
    other.restore(kept)
    for action, wanted in zip(actions[90:], first, strict=True):
        got = other.step(action)
        for (name, mine), (_, theirs) in zip(got.tensors(), wanted.tensors(), strict=True):
            assert (mine is None and theirs is None) or torch.equal(mine, theirs), name


def test_imagining_foresees_luck_or_draws_it_anew():
    world = make_world(ID, num_envs=1)
    world.reset(7)
    handle = world.save_state(0)
    seen = world.render_observation(world.simulate(handle, 1, None).handle)
    anew = world.render_observation(world.simulate(handle, 1, 5).handle)
    real = world.step(torch.eye(5)[[1]]).pixels[0].numpy()
    assert np.array_equal(seen, real)
    assert not np.array_equal(anew, real)


def test_a_copy_of_an_environment_goes_its_own_way():
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
