"""Returns of whole episodes, and their mean with an interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
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
) -> Evaluation:
    """Runs until `episodes` have ended, or for `steps` steps, or until `stop()` is True.

    With several rows side by side, the first episodes to *begin* count: the first to end would be
    the short ones.
    """
    rows = world.num_envs
    quota = [episodes // rows + (row < episodes % rows) for row in range(rows)]
    stats, began = EpisodeStats(world.spec.id, rows), time.perf_counter()
    returns, whole = [list[float]() for _ in range(rows)], False
    for moment in live(agent, world, steps or UNLIMITED, seed):
        for row, value in stats.add(moment):
            if len(returns[row]) < quota[row]:
                returns[row].append(value)
        whole = [len(ended) for ended in returns] == quota
        if whole or stop():
            break
    return Evaluation([*chain(*returns)], stats.summary(time.perf_counter() - began), whole)


def score(values: Sequence[float]) -> Score:
    """The mean of `values` and its bootstrap interval (percentiles; Efron & Tibshirani 1993).

    Resampling is seeded, so equal values have equal intervals. The interval of one value is that
    value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    low, high = percentile_interval(lambda drawn: numbers[drawn].mean(-1), [len(numbers)])
    return Score(float(numbers.mean()), float(low), float(high), len(numbers))
