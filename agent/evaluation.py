"""Whole episodes, what they came to, and how sure one can be of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from agent.agent import Agent
from agent.live import live
from agent.scorekeeper import Scorekeeper, Summary
from modules import chance
from modules.ports import World

UNLIMITED = 2**40

RESAMPLES = 4_000


@dataclass(frozen=True)
class Evaluation:
    """The returns of whole episodes, in the order they ended, and the summary of the life.

    `whole`: every episode that was asked for has ended.
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
    rows = world.rows
    quota = [episodes // rows + (row < episodes % rows) for row in range(rows)]
    keeper, returns, done = Scorekeeper(world.spec.id, rows), list[float](), [0] * rows
    for moment in live(agent, world, steps or UNLIMITED, seed):
        for row, value in keeper.add(moment):
            if done[row] < quota[row]:
                done[row] += 1
                returns.append(value)
        if done == quota or stop():
            break
    return Evaluation(returns, keeper.summary(0.0), done == quota)


def score(values: Sequence[float]) -> Score:
    """The mean of `values` and its bootstrap interval (percentiles; Efron & Tibshirani 1993).

    The same values give the same interval: resampling is derived, not random. One value alone has
    no interval but itself.
    """
    given = torch.tensor(values, dtype=torch.float64)
    drawn = chance.integers(chance.keys(0, 1, 0), "bootstrap", len(given), RESAMPLES, len(given))
    means = given[drawn[0]].mean(-1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Score(float(given.mean()), low, high, len(given))
