"""Rooms: only one is seen, things are carried before its eyes, the shortest way, restoring."""

import copy
from collections import deque

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from worlds.make import list_worlds, make_world
from worlds.rooms import CARRIED, ID, MOVES, ROOMS, STATE_ID, THINGS, Rooms, path_length, room_of

HALL = ROOMS.index("hall")
CELLS = [(r, c) for r in range(15) for c in range(15) if 5 <= r < 10 or 5 <= c < 10]


@pytest.mark.parametrize("id", [ID, STATE_ID])
@pytest.mark.parametrize("goal_form", ["pixels", "state", "none"])
def test_it_is_registered_and_passes_gymnasiums_checks(id, goal_form):
    assert id in list_worlds()
    check_env(gymnasium.make(id, render_mode="rgb_array", goal_form=goal_form).unwrapped)


@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_a_snapshot_goes_on_as_the_world_does(id):
    world, restored = make_world(id, 2), make_world(id, 2)
    assert world.rehearse() is None
    world.require_simulation()
    world.reset(4)
    luck = np.random.default_rng(0)
    actions = torch.eye(5)[torch.from_numpy(luck.integers(5, size=(60, 2)))]
    for action in actions[:25]:
        observed = world.step(action)
    assert shown(restored.restore(world.snapshot())) == shown(observed)
    for action in actions[25:]:
        assert shown(world.step(action)) == shown(restored.step(action))


def shown(observation):
    return [None if values is None else values.tolist() for _, values in observation.tensors()]


def asked(seed, **settings):
    """A world at the step in which a thing is asked for, and all observations until then."""
    env = Rooms(**settings)
    seen = [env.reset(seed=seed)[0]]
    while env.asked_at < 0:
        seen.append(env.step(1)[0])
    return env, seen


def test_every_event_is_seen_and_ends_out_of_sight():
    for seed in range(30):
        env, seen = asked(seed, observation="state", events=5)
        assert len(seen) == 1 + 5 * CARRIED
        assert {thing for thing, *_ in env.plan} == set(range(len(THINGS)))
        for event, (thing, source, target) in enumerate(env.plan):
            assert source != target
            steps = seen[1 + event * CARRIED : 1 + (event + 1) * CARRIED]
            flags = np.array([step["observation"][7::3] for step in steps])
            assert flags[:, thing].tolist() == [1, 1, 1, 0]
            assert flags.sum() == 3
        last = {thing: target for thing, _, target in env.plan}
        assert [room_of(cell) for cell in env.things] == [last[k] for k in range(len(THINGS))]
        assert len(set(env.things)) == len(THINGS)


def test_the_agent_stands_still_until_it_is_asked_and_then_knows_what_for():
    env, seen = asked(3)
    assert env.agent in ((5, 5), (5, 9), (9, 5), (9, 9))
    assert all(not step["desired_goal"].any() for step in seen[:-1])
    assert seen[-1]["desired_goal"].tolist() == np.eye(3)[env.request].tolist()


def test_the_shortest_way_is_that_of_a_search_over_all_steps():
    env, _ = asked(0, observation="state")
    env.things = ((99, 99),) * 3
    for start in CELLS[::7]:
        lengths, waiting = {start: 0}, deque([start])
        while waiting:
            here = waiting.popleft()
            for action in range(len(MOVES)):
                env.agent = here
                env._walk(action)
                if env.agent not in lengths:
                    lengths[env.agent] = lengths[here] + 1
                    waiting.append(env.agent)
        assert set(lengths) == set(CELLS)
        assert all(lengths[end] == path_length(start, end) for end in CELLS)


def test_who_knows_where_it_is_fetches_it_by_the_shortest_way():
    for seed in range(20):
        env, _ = asked(seed, observation="state")
        target, rewards = env.things[env.request], []
        while not rewards or not rewards[-1]:
            before, best = env.agent, (99, 0)
            for action in range(1, 5):
                twin = copy.deepcopy(env)
                twin._walk(action)
                best = min(best, (path_length(twin.agent, target), action))
            seen, reward, terminated, _, info = env.step(best[1])
            rewards.append(reward)
            assert path_length(env.agent, target) == path_length(before, target) - 1
        assert terminated
        assert info["steps_since_asked"] == info["shortest"] == len(rewards)
        assert seen["achieved_goal"].tolist() == seen["desired_goal"].tolist()


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_what_is_out_of_sight_changes_nothing_that_is_seen(observation):
    env, _ = asked(1, observation=observation)
    before = env._observation()["observation"]
    env.things = tuple(env._free_cell(room) for room in (0, 1, 2))
    assert room_of(env.agent) == HALL
    assert np.array_equal(env._observation()["observation"], before)
    env.things = ((7, 7), *env.things[1:])
    assert not np.array_equal(env._observation()["observation"], before)


def test_rooms_and_things_look_different():
    env, _ = asked(1)
    env.things = ((0, 5), (0, 6), (0, 7))
    frames = set()
    for agent in ((2, 7), (7, 12), (12, 7), (7, 2), (7, 7)):
        env.agent = agent
        frames.add(env.picture().tobytes())
    assert len(frames) == 5
    goals = set()
    for env.request in range(3):
        goals.add(env.goal_picture().tobytes())
    assert len(goals) == 3


@pytest.mark.parametrize("settings", [{"events": 2}, {"events": 9}, {"events": 3.5},
                                      {"observation": "x"}, {"goal_form": "x"}])  # fmt: skip
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Rooms(**settings)
