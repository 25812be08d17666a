"""Two and four rooms: swept walls, starts and goals, goals as pictures and numbers, restoring."""

import copy
import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from worlds.make import list_worlds, make_world
from worlds.point_rooms import (
    BORDER,
    FOUR_ID,
    FOUR_STATE_ID,
    RADIUS,
    SIDE,
    SPEED,
    TWO_ID,
    TWO_STATE_ID,
    FourRooms,
    TwoRooms,
)
from worlds.walls import Wall, is_clear, length, moved, shortest_path

IDS = [TWO_ID, TWO_STATE_ID, FOUR_ID, FOUR_STATE_ID]
KINDS = [TwoRooms, FourRooms, lambda **settings: FourRooms(doors=4, **settings)]


@pytest.mark.parametrize("id", IDS)
@pytest.mark.parametrize("layout", ["fixed", "random"])
def test_it_is_registered_and_passes_gymnasiums_checks(id, layout):
    assert id in list_worlds()
    check_env(gymnasium.make(id, render_mode="rgb_array", layout=layout).unwrapped)


@pytest.mark.parametrize("id", IDS)
def test_a_snapshot_goes_on_as_the_world_does(id):
    settings = {"layout": "random"}
    world, restored = make_world(id, 2, settings=settings), make_world(id, 2, settings=settings)
    assert world.rehearse() is None
    world.require_simulation()
    world.reset(4)
    luck = torch.Generator().manual_seed(0)
    actions = torch.rand(30, 2, 2, generator=luck) * 2 - 1
    for action in actions[:15]:
        observed = world.step(action)
    assert shown(restored.restore(world.snapshot())) == shown(observed)
    for action in actions[15:]:
        assert shown(world.step(action)) == shown(restored.step(action))


def shown(observation):
    return [None if values is None else values.tolist() for _, values in observation.tensors()]


@pytest.mark.parametrize("seed", range(3))
def test_no_step_goes_through_a_wall_at_any_speed(seed):
    """The same end as of a walk in steps of a hundredth of a pixel, and never inside."""
    luck = np.random.default_rng(seed)
    for _ in range(60):
        corners = luck.uniform(0, 60, (3, 2))
        sizes = luck.uniform(0.5, 20, (3, 2))
        walls = [Wall(*c, *(c + s)) for c, s in zip(corners.tolist(), sizes, strict=True)]
        walls = [Wall(*(float(n) for n in wall)) for wall in walls]
        place = tuple(luck.uniform(0, 60, 2).tolist())
        if any(wall.holds(place) for wall in walls):
            continue
        by = (luck.normal(0, 1, 2) * luck.choice([1, 10, 100])).tolist()
        swept = moved(place, by, walls)
        assert not any(wall.holds(swept) for wall in walls)
        count = math.ceil(100 * math.hypot(*by))
        walked = place
        for _ in range(count):
            walked = moved(walked, (by[0] / count, by[1] / count), walls)
        assert math.dist(swept, walked) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_walk_stays_out_of_walls_and_within_the_speed(kind):
    for seed in range(5):
        env = kind(observation="state", layout="random")
        env.reset(seed=seed)
        luck = np.random.default_rng(seed)
        for action in luck.uniform(-40, 40, (300, 2)):
            before = env.place
            env.step(action)
            assert not any(wall.holds(env.place) for wall in env.walls)
            assert math.dist(before, env.place) <= SPEED + 1e-9
            assert BORDER <= min(env.place) <= max(env.place) <= SIDE - 1 - BORDER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["fixed", "random"])
def test_starts_are_not_solved_and_every_goal_can_be_reached_in_time(kind, layout):
    env = kind(observation="state", layout=layout)
    ways = []
    for seed in range(150):
        env.reset(seed=seed)
        assert math.dist(env.place, env.goal) > RADIUS
        for place in (env.place, env.goal):
            assert not any(wall.holds(place) for wall in env.walls)
        path = env.shortest_path(env.place, env.goal)
        assert len(path) > 2 or is_clear(env.place, env.goal, env.walls)
        ways.append(length(path))
        assert ways[-1] < 200 * SPEED
    assert np.mean(ways) > 25


@pytest.mark.parametrize("kind", KINDS)
def test_no_goal_is_reached_through_a_wall(kind):
    """Where a place is within reach of the goal, no wall is between; drawn goals only."""
    env = kind(observation="state", layout="random")
    for seed in range(60):
        env.reset(seed=seed)
        for angle in np.linspace(0, 2 * np.pi, 24):
            x, y = env.goal[0] + RADIUS * np.cos(angle), env.goal[1] + RADIUS * np.sin(angle)
            if not any(wall.holds((x, y)) for wall in env.walls):
                assert length(env.shortest_path((x, y), env.goal)) < 2 * RADIUS


def test_the_way_round_is_long_where_there_are_three_doors():
    env, again = FourRooms(), FourRooms(doors=4)
    for one in (env, again):
        one.reset(seed=0, options={"start": (48, 16), "goal": (48, 48)})
    assert length(env.shortest_path(env.place, env.goal)) == pytest.approx(68.601, abs=0.01)
    assert length(again.shortest_path(again.place, again.goal)) == pytest.approx(32)


def test_the_shortest_way_is_known_by_hand():
    wall = [Wall(10, -5, 12, 5)]
    path = shortest_path((0, 0), (22, 0), wall)
    assert length(path) == pytest.approx(2 * math.hypot(10, 5) + 2)
    assert shortest_path((0, 0), (11, 0), wall) == []
    assert length([]) == math.inf


@pytest.mark.parametrize("kind", KINDS)
def test_an_oracle_that_walks_the_shortest_way_touches_and_holds(kind):
    for seed in range(10):
        env = kind(observation="state", layout="random")
        env.reset(seed=seed)
        rewards = []
        for _ in range(200):
            x, y = env.shortest_path(env.place, env.goal)[1]
            rewards.append(env.step((np.array([x, y]) - env.place) / SPEED)[1])
        assert rewards[-1] == 1


def test_the_goal_is_a_picture_or_numbers_and_at_the_goal_both_are_what_is_seen():
    env = TwoRooms(start=(10, 50), goal=(50, 12))
    first, _ = env.reset(seed=0)
    assert set(first) == {"observation", "goal_pixels"}
    there, _ = env.reset(seed=0, options={"start": (50, 12)})
    assert np.array_equal(there["observation"], first["goal_pixels"])
    assert not np.array_equal(first["observation"], first["goal_pixels"])
    env = TwoRooms(observation="state", goal=(50, 12))
    first, _ = env.reset(seed=0)
    there, _ = env.reset(seed=0, options={"start": (50, 12)})
    assert np.array_equal(there["achieved_goal"], first["desired_goal"])
    assert "goal_pixels" not in first
    assert set(TwoRooms(goal_form="none").reset(seed=0)[0]) == {"observation"}


def test_reward_and_info_say_when_the_goal_is_reached():
    env = TwoRooms(observation="state", start=(50, 20), goal=(50, 26))
    _, info = env.reset(seed=0)
    assert info == {"at_goal": 0.0, "distance": 6.0}
    _, reward, *_, info = env.step(np.array([0.0, 1.4]) / SPEED)
    assert (reward, info["at_goal"]) == (0, 0)
    _, reward, terminated, truncated, info = env.step(np.array([0.0, 0.2]) / SPEED)
    assert (reward, info["at_goal"], terminated, truncated) == (1, 1, False, False)


def test_the_picture_shows_point_and_walls_where_they_are():
    env = TwoRooms(start=(12.4, 40), goal=(50, 20))
    frame = env.reset(seed=0)[0]["observation"]
    red, blue = frame[..., 0].astype(float), frame[..., 2]
    centre = [(red.sum(axis) * np.arange(SIDE)).sum() / red.sum() for axis in (0, 1)]
    assert centre == pytest.approx([12.4, 40], abs=0.05)
    assert blue[:5].min() == 160
    assert blue[5:60, 32].astype(bool).sum() == 55 - 9
    assert not blue[16:25, 32].any()


def test_a_copy_continues_like_the_original_and_leaves_it_alone():
    env = TwoRooms(layout="random")
    env.reset(seed=3)
    twin = copy.deepcopy(env)
    twin.step(np.array([1.0, 1.0]))
    assert twin.place != env.place
    assert np.array_equal(env.reset()[0]["observation"], twin.reset()[0]["observation"])


@pytest.mark.parametrize(
    "settings",
    [{"observation": "words"}, {"goal_form": "words"}, {"layout": "maze"}, {"goal": (1, 2, 3)},
     {"start": (1, math.nan)}, {"goal": (70, 3)}, {"goal": "here"}, {"start": 4}],
)  # fmt: skip
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        TwoRooms(**settings)
    with pytest.raises(ValueError, match="doors: expected 3 or 4"):
        FourRooms(doors=5)


def test_a_goal_inside_a_wall_is_refused():
    with pytest.raises(ValueError, match="goal: expected a place outside of walls"):
        TwoRooms(goal=(32, 50)).reset(seed=0)


def test_starts_anywhere_are_in_all_rooms_and_in_no_wall():
    env = FourRooms(start="anywhere")
    places = []
    for seed in range(60):
        env.reset(seed=seed)
        places.append(env.place)
    assert not any(wall.holds(place) for place in places for wall in env.walls)
    assert {(x > 32, y > 32) for x, y in places} == {(a, b) for a in (0, 1) for b in (0, 1)}
    with pytest.raises(ValueError, match=r"start: expected two numbers .*or anywhere, got 'there'"):
        FourRooms(start="there")
