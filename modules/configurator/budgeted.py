"""A configurator with so much thought for an episode, spent where it expects most of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from modules.configurator.base_directive import BaseDirective, Settings, rethink
from modules.configurator.running_stats import (
    LEAST,
    MEMORY_STEPS,
    WARM_STEPS,
    deviations,
    follow,
    stakes,
)
from modules.messages import Directive, Situation

CARRIED = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
           "steps felt", "steps since thinking", "stake", "stake mean", "stakes felt")  # fmt: skip
"""The columns of its carry [B Q]."""


class Budgeted:
    """Spends a given number of model calls in an episode, and never more.

    What a thought is worth now grows with the steps since the last one, times what is at stake,
    times alarm. *Stake*: the energy that the last thought foresaw and how far its candidates lay
    apart, against the mean of this episode's thoughts (its square root, 1/2 to 2). *Alarm*: 1
    while all is as usual, up to 5 where the last step surprised, or the critic disagreed, more
    than two deviations above its usual, and a half more where memory knows nothing like it.

    What a thought costs is counted in steps too: the *price* is the pause between thoughts that
    would make the rest of the budget last for the rest of the episode. It rises when much was
    spent and falls when little was. A thought is bought where its worth reaches the price, and
    where a plan ran out though the budget allows one plan after another; it is carried out for
    the price over the stake, `max_commit_steps` steps at most. Where the budget is too small for
    that the row reacts in between.

    The hard limit is kept by the directive: `model_calls` is never more than what is left.
    """

    class Config(Settings):
        """A budget of thought.

        `model_calls_per_episode`: model calls an episode may cost. `episode_steps`: how long an
        episode is expected to last; one that lasts longer paces what is left over a tenth of it.
        `max_commit_steps`: actions of a plan to carry out at most, whatever the price;
        `commit_steps` is not used. `model_calls`: of one thought.
        """

        kind: Literal["budgeted"] = "budgeted"
        model_calls_per_episode: int = Field(100_000, ge=0, le=2**40)
        episode_steps: int = Field(500, ge=1, le=10_000_000)
        max_commit_steps: int = Field(16, ge=1, le=1000)

    def __init__(
        self,
        *,
        standing: BaseDirective,
        model_calls_per_episode: int = 100_000,
        episode_steps: int = 500,
        max_commit_steps: int = 16,
    ) -> None:
        self.model_calls_per_episode, self.episode_steps = model_calls_per_episode, episode_steps
        self.max_commit_steps, self.model_calls = max_commit_steps, standing.model_calls
        self.standing = standing

    def initial(self, rows: int) -> Directive:
        """It thinks, if it may: nothing is known yet."""
        calls = min(self.model_calls, self.model_calls_per_episode)
        said = self.standing.directive(
            torch.full((rows,), 2 if calls else 1),
            torch.zeros(rows, len(CARRIED)),
            (("thinks" if calls else "acts") + ": an episode begins",) * rows,
        )
        return said.replace(model_calls=torch.full((rows,), calls))

    def configure(self, situation: Situation) -> Directive:
        """Mode, budget, commitment and reason of each row."""
        before, configurator_state = (
            situation.previous,
            situation.previous.directive.configurator_state.numpy(),
        )
        age, begun = situation.episode_step.numpy(), situation.episode_step.numpy() > 0
        mean, variance, count = (
            configurator_state[:, 0:4:2],
            configurator_state[:, 1:4:2],
            configurator_state[:, 4],
        )
        felt = np.stack([situation.surprise.numpy(), situation.energies.disagreement.numpy()], -1)
        stake, usual_stake, thoughts = stakes(before.plan, configurator_state[:, 6:]).T
        weight = np.where(
            (usual_stake > 0) & (thoughts > 1),
            np.sqrt(stake / np.maximum(usual_stake, 1e-9)).clip(0.5, 2),
            1,
        )
        above = deviations(felt, mean, variance, LEAST).max(-1) - 2
        alarm = 1 + np.where(count >= WARM_STEPS, above.clip(0, 4), 0)
        alarm = alarm + 0.5 * (situation.recollection.novelty.numpy() > 0.5)

        left = np.maximum(self.model_calls_per_episode - situation.episode_model_calls.numpy(), 0)
        to_go = np.maximum(self.episode_steps - age, max(1.0, self.episode_steps / 10))
        price = to_go * self.model_calls / np.maximum(left, 1)
        # Whoever it was that made the row think: it has not since then.
        idle = np.where(before.plan.model_calls.numpy() > 0, 0, configurator_state[:, 5]) + 1
        worth = np.where(begun, idle * weight * alarm, np.inf)
        under_way = before.plan.remaining_commit.numpy()
        # To react between two plans costs most: where the budget lasts without it, it is not done.
        gapless = (under_way == 0) & (price <= self.max_commit_steps)
        buys = ((worth >= price) | gapless) & (left > 0) & (self.model_calls > 0)
        thinks = buys | (under_way > 0)

        new = np.empty_like(configurator_state)
        new[:, 0:4:2], new[:, 1:4:2] = follow(mean, variance, count, felt, begun, MEMORY_STEPS)
        new[:, 4], new[:, 5] = count + begun, idle
        new[:, 6], new[:, 7], new[:, 8] = stake, usual_stake, thoughts
        commit = np.ceil(price / weight).clip(1, self.max_commit_steps).astype(np.int64)
        # What a plan under way promised stands until a thought is bought; one made anew of
        # itself, by a surprise, lasts as if bought.
        commit = np.where(buys, commit, np.maximum(commit, under_way + 1))
        said = self.standing.directive(
            torch.from_numpy(1 + thinks.astype(np.int64)),
            torch.from_numpy(new),
            tuple(
                _why(bool(buys[i]), float(worth[i]), float(price[i]), float(weight[i]),
                     float(alarm[i]), int(left[i]), int(under_way[i]))
                for i in range(len(configurator_state))
            ),
        ).replace(
            model_calls=torch.from_numpy(np.minimum(self.model_calls, left).astype(np.int64)),
            commit_steps=torch.from_numpy(commit),
        )  # fmt: skip
        return rethink(said, situation, torch.from_numpy(buys & (under_way > 0)))


def _why(
    buys: bool, worth: float, price: float, weight: float, alarm: float, left: int, under_way: int
) -> str:
    """The reason of one row, with its numbers."""
    if left <= 0:
        return f"{'thinks: a plan is under way' if under_way else 'acts'}: the budget is spent"
    of = f"worth {worth:.3g} (stake ×{weight:.2g}, alarm ×{alarm:.2g})"
    if buys and worth == float("inf"):
        return f"thinks: an episode begins, {left} calls to spend"
    if buys:
        return f"thinks: {of} at a price of {price:.3g}, {left} calls left"
    if under_way:
        return f"thinks: a plan is under way, {under_way} more to do; {of}, price {price:.3g}"
    return f"acts: {of} below the price of {price:.3g}, {left} calls left"
