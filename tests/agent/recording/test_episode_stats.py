"""Returns of episodes are the same moment by moment and as arrays."""

import numpy as np
import torch

from agent.recording.episode_stats import EpisodeReturns, game_over, returns_so_far
from modules.messages import SIGNALS


def observations(life, steps):
    """Moments whose row 0 is rewarded 1, 2, 3, …, and ends at 4 (the game) and 7 (a limit)."""
    for step, moment in enumerate(life(steps)):
        signals = torch.zeros_like(moment.observation.signals)
        signals[0, SIGNALS.index("reward")] = step + 1.0
        signals[0, SIGNALS.index("end")] = float(step == 4)
        signals[0, SIGNALS.index("life_lost")] = float(step == 2)
        yield moment.observation.replace(
            signals=signals,
            terminated=torch.tensor([step in (2, 4), False]),
            truncated=torch.tensor([step == 7, False]),
        )


def test_an_episode_ends_with_the_game_or_a_limit_and_not_with_a_life(life):
    episodes = EpisodeReturns(2)
    ended = [episodes.add(observation) for observation in observations(life, 10)]
    assert [(step, value) for step, value in enumerate(ended) if value] == [
        (4, [(0, 15.0)]),
        (7, [(0, 21.0)]),
    ]
    assert episodes.returns == [15.0, 21.0]
    assert episodes.score == 55.0
    assert episodes.running.tolist() == [19.0, 0.0]


def test_arrays_give_what_moments_give(life):
    episodes, expected, over = EpisodeReturns(2), [], []
    for observation in observations(life, 10):
        expected.append(float(episodes.running[0] + observation.signals[0, 0]))
        over.append(bool(game_over(observation)[0]))
        episodes.add(observation)
    rewards = np.arange(1.0, 11.0)
    np.testing.assert_array_equal(returns_so_far(rewards, np.array(over)), expected)


def test_missing_steps_add_nothing_and_no_steps_have_no_returns():
    rewards, over = np.array([1.0, np.nan, 2.0]), np.zeros(3, bool)
    assert returns_so_far(rewards, over).tolist() == [1, 1, 3]
    assert returns_so_far(np.zeros(0), np.zeros(0, bool)).tolist() == []
