"""Returns of whole episodes, and their mean with an interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from agent.agent import Agent
from agent.learning.statistics import percentile_interval
from agent.live import live
from agent.recording.episode_stats import EpisodeStats, Summary
from modules.ports import World

UNLIMITED = 2**40
"""Steps that no run reaches."""


@dataclass(frozen=True)
class Evaluation:
    """The returns of whole episodes, those of a row together, and the summary of the run.

    The order depends on no action, so the returns of two agents with one seed are pairs: the i-th
    episode of a row has the same random numbers for both. `whole`: all episodes have ended.
    """

    returns: list[float]
    summary: Summary
    whole: bool = True


class EvaluationProgress(NamedTuple):
    """How far an evaluation is: `ended` of `episodes` have ended, in `steps` steps so far."""

    ended: int
    episodes: int
    steps: int

    def __str__(self) -> str:
        return f"{self.ended} of {self.episodes} episodes ended, {self.steps} steps"


class Score(NamedTuple):
    """The mean of `size` numbers and its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    size: int

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def whole_episodes(
    agent: Agent,
    world: World,
    episodes: int,
    seed: int,
    steps: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[EvaluationProgress], object] = lambda progress: None,
) -> Evaluation:
    """Runs until `episodes` have ended (`EpisodeQuota`), or for `steps` steps, or until `stop()`.

    An episode that `steps` cuts off has not ended. `on_progress` is called after every turn.
    """
    stats, began = EpisodeStats(world.spec.id, world.num_envs, episodes), time.perf_counter()
    for moment in live(agent, world, steps or UNLIMITED, seed):
        stats.add(moment)
        on_progress(EvaluationProgress(len(stats.returns), episodes, stats.steps))
        if stats.whole or stop():
            break
    return Evaluation(stats.returns, stats.summary(time.perf_counter() - began), stats.whole)


def score(values: Sequence[float]) -> Score:
    """The mean of `values` and its bootstrap interval (percentiles; Efron & Tibshirani 1993).

    Resampling is seeded, so equal values have equal intervals. The interval of one value is that
    value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    low, high = percentile_interval(lambda drawn: numbers[drawn].mean(-1), [len(numbers)])
    return Score(float(numbers.mean()), float(low), float(high), len(numbers))
