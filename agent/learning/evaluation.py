"""Whole episodes, what they came to, and how sure one can be of it."""

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


@dataclass(frozen=True)
class Evaluation:
    """The returns of whole episodes, those of a row together, and the summary of the life.

    The order depends on nothing that was done, so those of two agents with one seed are pairs: what
    the world does with a row's first episode is the same luck. `whole`: every episode that was
    asked for has ended.
    """

    returns: list[float]
    summary: Summary
    whole: bool = True


class Score(NamedTuple):
    """A mean and the interval it lies in with a confidence of 95 %, of `size` numbers."""

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
    """Lives until `episodes` have ended, or `steps` are done, or `stop` says so.

    Where several rows are lived side by side, the first episodes to *begin* count, not the first
    to end: those would be the short ones.
    """
    rows = world.num_envs
    quota = [episodes // rows + (row < episodes % rows) for row in range(rows)]
    keeper, began = EpisodeStats(world.spec.id, rows), time.perf_counter()
    returns, whole = [list[float]() for _ in range(rows)], False
    for moment in live(agent, world, steps or UNLIMITED, seed):
        for row, value in keeper.add(moment):
            if len(returns[row]) < quota[row]:
                returns[row].append(value)
        whole = [len(ended) for ended in returns] == quota
        if whole or stop():
            break
    return Evaluation([*chain(*returns)], keeper.summary(time.perf_counter() - began), whole)


def score(values: Sequence[float]) -> Score:
    """The mean of `values` and its bootstrap interval (percentiles; Efron & Tibshirani 1993).

    The same values give the same interval. The interval of one value is that value.
    """
    numbers = np.asarray(values, dtype=np.float64)
    low, high = percentile_interval(lambda drawn: numbers[drawn].mean(-1), [len(numbers)])
    return Score(float(numbers.mean()), float(low), float(high), len(numbers))
