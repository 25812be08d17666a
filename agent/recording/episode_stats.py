"""Statistics of a run, moment by moment: returns, episodes, modes and model calls.

An episode ends where the game does (signal `end`) or where a limit cuts it (`truncated`). A lost
life that the protocol treats as the end of an episode does not end it here: the return goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent.recording.trace import TraceDigest
from modules.messages import SIGNALS, Moment, Observation

_REWARD, _END = SIGNALS.index("reward"), SIGNALS.index("end")


def game_over(observation: Observation) -> Tensor:
    """Whether the episode of each row ends with this observation, [B] bool."""
    return (observation.signals[:, _END] > 0) | observation.truncated


def returns_so_far(rewards: NDArray[Any], over: NDArray[Any]) -> NDArray[np.float64]:
    """The return of the running episode at each step, [T]; NaN rewards count as 0.

    `rewards` [T] are those of one row, `over` [T] is true where an episode ended.
    """
    total = np.cumsum(np.nan_to_num(rewards), dtype=np.float64)
    ends = np.where(np.asarray(over[:-1], bool), np.arange(1, len(over[:-1]) + 1), 0)
    starts = np.maximum.accumulate(np.append(0, ends)[: len(total)])
    before: NDArray[np.float64] = np.append(0.0, total)[starts]
    return total - before


class EpisodeReturns:
    """Sums of the unclipped reward: `running` [B] of the episodes so far, `returns` of those that
    ended, `score` of all steps and rows.
    """

    def __init__(self, rows: int) -> None:
        self.running = torch.zeros(rows, dtype=torch.float64)
        self.returns: list[float] = []
        self.score = 0.0

    def add(self, observation: Observation) -> list[tuple[int, float]]:
        """Adds one observation; the episodes that ended with it, as (row, return)."""
        rewards = observation.signals[:, _REWARD].double().cpu()
        self.running += rewards
        self.score += float(rewards.sum())
        over = game_over(observation)
        ended = [(row, float(self.running[row])) for row in over.nonzero().flatten().tolist()]
        self.returns += [value for _, value in ended]
        self.running[over] = 0.0
        return ended


class EpisodeQuota:
    """The episodes that count where `episodes` are asked of `rows` rows: the first to *begin*.

    The first to end would be the short ones. Each row plays its share, so which episodes count
    depends on no action. `returns` of each row, in order; `whole`: all of them have ended.
    """

    def __init__(self, episodes: int, rows: int) -> None:
        self.episodes = episodes
        self._shares = [episodes // rows + (row < episodes % rows) for row in range(rows)]
        self.returns = [list[float]() for _ in range(rows)]

    def add(self, ended: Iterable[tuple[int, float]]) -> None:
        """Counts episodes that ended, as (row, return)."""
        for row, value in ended:
            if len(self.returns[row]) < self._shares[row]:
                self.returns[row].append(value)

    @property
    def whole(self) -> bool:
        """Whether as many episodes ended as were asked for."""
        return self.ended == self.episodes

    @property
    def ended(self) -> int:
        """How many of the episodes that count have ended."""
        return sum(map(len, self.returns))


@dataclass(frozen=True)
class Summary:
    """Statistics of a whole run.

    `steps` counts turns of the loop times rows. `score` is the sum of the unclipped
    reward over all rows. `episodes_requested`: how many episodes were to end, None
    where no number was set. `episodes` ended and count (`EpisodeQuota`). `mean_return` is theirs,
    None where none ended or fewer than requested: those that ended first are the short ones.
    `mode2_share` is the share of steps that planned, `model_calls` all imagined steps.
    """

    world: str
    steps: int
    episodes: int
    episodes_requested: int | None
    mean_return: float | None
    score: float
    steps_per_s: float
    mode2_share: float
    model_calls: int
    run: str | None
    trace_digest: str

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dict(vars(self))


class EpisodeStats:
    """Statistics of the moments added so far, in order; with `episodes`, of that many episodes.

    The reward of a moment follows from the action before it. A moment that shows the last frame of
    an episode, whose action is ignored, counts in `steps` like any other.
    """

    def __init__(self, world: str, rows: int, episodes: int | None = None) -> None:
        self.world, self.rows = world, rows
        self.quota = None if episodes is None else EpisodeQuota(episodes, rows)
        self.steps, self.planned_steps, self.model_calls = 0, 0, 0
        self.episodes = EpisodeReturns(rows)
        self._digest = TraceDigest()

    def add(self, moment: Moment) -> list[tuple[int, float]]:
        """Adds a moment; the episodes that ended in it, as (row, return)."""
        self._digest.add(moment)
        self.steps += self.rows
        self.planned_steps += int((moment.plan.mode == 2).sum())
        self.model_calls += int(moment.plan.model_calls.sum())
        ended = self.episodes.add(moment.observation)
        if self.quota is not None:
            self.quota.add(ended)
        return ended

    @property
    def returns(self) -> list[float]:
        """The returns of the episodes that count: with a quota those of a row together, else in the
        order in which they ended.
        """
        return self.episodes.returns if self.quota is None else [*chain(*self.quota.returns)]

    @property
    def whole(self) -> bool:
        """Whether no episode that was asked for is missing."""
        return self.quota is None or self.quota.whole

    def summary(self, seconds: float, run: str | None = None) -> Summary:
        """The run so far, which took `seconds`; `run` is its folder."""
        returns = self.returns
        return Summary(
            world=self.world,
            steps=self.steps,
            episodes=len(returns),
            episodes_requested=None if self.quota is None else self.quota.episodes,
            mean_return=sum(returns) / len(returns) if returns and self.whole else None,
            score=self.episodes.score,
            steps_per_s=self.steps / seconds if seconds > 0 else 0.0,
            mode2_share=self.planned_steps / self.steps if self.steps else 0.0,
            model_calls=self.model_calls,
            run=run,
            trace_digest=self._digest.hexdigest(),
        )
