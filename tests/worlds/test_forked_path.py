"""The fork: rates, pays, three ways to act, equally distant branches."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from worlds.fork import ID, PAYS, RATES, STATE_ID, VERTICES, ForkedPath
from worlds.make import list_worlds, make_world


def episode(env, route, seed):
    """Observations, the branch and the reward of one episode."""
    seen, ended, reward = [env.reset(seed=seed)[0]], False, 0.0
    while not ended:
        observation, reward, ended, _, info = env.step(route)
        seen.append(observation)
    return seen, info["branch"], reward


@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_it_is_registered_and_passes_gymnasiums_checks(id):
    assert id in list_worlds()
    check_env(gymnasium.make(id, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("id", [ID, STATE_ID])
def test_it_is_seeded_and_restored_by_replay(id):
    world, restored = make_world(id, 2), make_world(id, 2)
    assert world.rehearse() is None
    world.require_simulation()
    world.reset(4)
    for route in (0, 1, 2):
        observed = world.step(torch.eye(3)[[route, 2]])
    assert shown(restored.restore(world.snapshot())) == shown(observed)
    for _ in range(9):
        steps = [shown(one.step(torch.eye(3)[[1, 0]])) for one in (world, restored)]
        assert steps[0] == steps[1]


def shown(observation):
    """The numbers of an observation; its signals are those of every world: no branch."""
    assert observation.signals.shape[1] == 6
    return [None if values is None else values.tolist() for _, values in observation.tensors()]


def test_branches_come_at_their_rates_and_pay_what_they_say():
    env, count = ForkedPath(observation="state"), np.zeros(3)
    for seed in range(1500):
        _, branch, reward = episode(env, seed % 3, seed)
        count[branch] += 1
        assert reward == PAYS[seed % 3][branch]
    assert np.abs(count / count.sum() - RATES).max() < 0.04


def test_three_criteria_choose_three_routes():
    pays, rates = np.array(PAYS), np.array(RATES)
    mean = pays @ rates
    deviation = np.sqrt((pays - mean[:, None]) ** 2 @ rates)
    assert mean.argmax() == 0
    assert (mean - 0.8 * deviation).argmax() == 1
    assert pays.min(1).argmax() == 2


@pytest.mark.parametrize("observation", ["state", "pixels"])
def test_the_branch_shows_after_the_fork_and_not_before(observation):
    env, by_branch = ForkedPath(observation=observation), {}
    for seed in range(40):
        seen, branch, _ = episode(env, 1, seed)
        by_branch[branch] = seen
    assert set(by_branch) == {0, 1, 2}
    for step in range(6):
        shown = {np.asarray(seen[step]).tobytes() for seen in by_branch.values()}
        assert len(shown) == (1 if step <= 2 else 3)


def test_branches_are_equally_far_from_each_other():
    ends = {}
    for seed in range(40):
        seen, branch, _ = episode(ForkedPath(observation="state"), 0, seed)
        ends[branch] = seen[-1]
    distances = [np.linalg.norm(ends[a] - ends[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    assert distances == pytest.approx([1, 1, 1], abs=1e-6)
    # What a deterministic model with the least squared error predicts lies on none of them.
    mean = np.array([0.5, 0.3, 0.2]) @ VERTICES
    assert np.linalg.norm(VERTICES - mean, axis=1).min() == pytest.approx(0.436, abs=1e-3)


@pytest.mark.parametrize(
    "settings", [{"rates": (0.5, 0.6, -0.1)}, {"pays": ((1, 2, 3),)}, {"observation": "words"}]
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        ForkedPath(**settings)
