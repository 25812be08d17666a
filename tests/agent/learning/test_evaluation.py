"""Which episodes count, and what an evaluation says that its steps cut short."""

import gymnasium as gym
import numpy as np
import pytest

from agent import evaluate, play, train
from agent.cli import run
from agent.recording.episode_stats import EpisodeQuota
from tests.agent.api.test_api import SMALL


class ShortOrLong(gym.Env):
    """Half of the episodes end after 5 steps with 5 points, half after 50 steps with 50."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.last = 0, (5, 50)[int(self.np_random.integers(2))]
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == self.last, False, {}


@pytest.fixture(autouse=True)
def world():
    gym.register("ShortOrLong-v0", ShortOrLong)
    yield "ShortOrLong-v0"
    del gym.registry["ShortOrLong-v0"]


def test_the_first_episodes_to_begin_count():
    quota = EpisodeQuota(episodes=3, rows=2)
    quota.add([(1, 5.0), (1, 6.0)])
    assert (quota.ended, quota.whole) == (1, False)
    quota.add([(0, 50.0), (0, 51.0), (0, 52.0)])
    assert quota.returns == [[50.0, 51.0], [5.0]]
    assert quota.whole


@pytest.mark.parametrize("rows", [1, 4])
def test_more_rows_do_not_prefer_short_episodes(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = evaluate("ShortOrLong-v0", episodes=20, num_envs=rows, preset="reactive")
    assert whole.mean_return == np.mean(whole.returns)
    assert whole.returns.count(50.0) > 5
    played = play("ShortOrLong-v0", episodes=20, num_envs=rows, preset="reactive", seed=whole.seed)
    assert played.returns == whole.returns
    assert played.summary.mean_return == whole.mean_return


def test_an_evaluation_cut_short_has_no_mean(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["ShortOrLong-v0", "--preset", "reactive", "--episodes", "20", "--num-envs", "10",
             "--steps", "400"]  # fmt: skip
    assert run(["eval", *asked]) == 0
    assert " of 20 ended" in capsys.readouterr().out
    scores = evaluate("ShortOrLong-v0", episodes=20, num_envs=10, steps=400, preset="reactive")
    assert 0 < scores.episodes < scores.episodes_requested == 20
    assert (scores.mean_return, scores.std_return, scores.interval) == (None, None, None)
    assert f"{scores.episodes} of 20 episodes ended" in str(scores)
    assert run(["play", *asked, "--no-live"]) == 0
    said = capsys.readouterr().out
    assert " of 20 episodes ended" in said
    assert "mean" not in said


def test_evaluation_says_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    evaluate("ShortOrLong-v0", episodes=2, preset="reactive", on_progress=seen.append)
    assert [progress.ended for progress in (seen[0], seen[-1])] == [0, 2]
    running = set()
    train(
        "CartPole-v1", *SMALL, steps=40, run="r",
        on_progress=lambda progress: running.add(progress.evaluating is None),
    )  # fmt: skip
    assert running == {True, False}
