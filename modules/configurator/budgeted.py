"""A configurator with a budget of model calls for an episode, spent where it gains most."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from modules.configurator.base_directive import BaseDirective, CommitSteps, replanned
from modules.configurator.running_stats import STATE, planning_stats
from modules.messages import Directive, Frozen, Situation


class Budgeted:
    """Spends at most a given number of model calls in an episode.

    worth = (steps since the last plan) · weight · alarm. *Weight*: sqrt(importance of the last
    plan / mean importance of this episode's plans), 1/2 to 2; importance is the predicted energy
    plus the spread of the candidates' energies. *Alarm*: 1, rising to 5 as surprise or the critics'
    disagreement goes from 2 to 6 standard deviations above its mean, plus 1/2 where novelty is
    above 1/2.

    price = the number of steps from one plan to the next that makes the rest of the budget last for
    the rest of the episode: it rises as the budget is spent faster than evenly and falls as it is
    spent more slowly. A plan is made where its worth reaches the price, and where the last one is
    carried out and the budget allows one plan after another; it is carried out for price / weight
    steps, `max_commit_steps` at most. Where the budget is too small for that, the row reacts in
    between.

    `model_calls` of the directive is never above what is left, so the budget cannot be exceeded.
    """

    class Config(Frozen):
        """The budget; `directive.model_calls` is that of a single plan, `directive.commit_steps` is
        not used.

        `model_calls_per_episode`: the budget. `episode_steps`: expected length of an episode; in a
        longer one a further tenth of it is assumed to remain. `max_commit_steps`: most actions of a
        plan that are carried out.
        """

        model_calls_per_episode: int = Field(100_000, ge=0, le=2**40)
        episode_steps: int = Field(500, ge=1, le=10_000_000)
        max_commit_steps: CommitSteps = 16

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.config, self.base = config, base
        self.model_calls = base.settings.model_calls

    def initial(self, rows: int) -> Directive:
        """Mode-2 if the budget allows it: no statistics are known yet."""
        calls = min(self.model_calls, self.config.model_calls_per_episode)
        mode = 2 if calls else 1
        directive = self.base.uniform(rows, mode, len(STATE), "an episode begins")
        return directive.replace(model_calls=torch.full((rows,), calls))

    def configure(self, situation: Situation) -> Directive:
        """Mode, budget, commitment and reason of each row."""
        config, stats = self.config, planning_stats(situation)
        step = situation.episode_step.numpy()
        weight = np.where(
            (stats.mean_importance > 0) & (stats.plans > 1),
            np.sqrt(stats.importance / np.maximum(stats.mean_importance, 1e-9)).clip(0.5, 2),
            1,
        )
        alarm = 1 + (stats.scores.max(-1) - 2).clip(0, 4)
        alarm = alarm + 0.5 * (situation.recollection.novelty.numpy() > 0.5)

        left = np.maximum(config.model_calls_per_episode - situation.episode_model_calls.numpy(), 0)
        to_go = np.maximum(config.episode_steps - step, max(1.0, config.episode_steps / 10))
        price = to_go * self.model_calls / np.maximum(left, 1)
        worth = np.where(step > 0, stats.idle_steps * weight * alarm, np.inf)
        under_way = situation.previous.plan.remaining_commit.numpy()
        # Reacting between two plans costs most return: it is avoided while the budget lasts.
        gapless = (under_way == 0) & (price <= config.max_commit_steps)
        plans = ((worth >= price) | gapless) & (left > 0) & (self.model_calls > 0)
        mode_2 = plans | (under_way > 0)

        commit = np.ceil(price / weight).clip(1, config.max_commit_steps).astype(np.int64)
        # A plan under way is carried out until the next one is made; where the actor replans by
        # itself after a surprise, the new plan has the usual length.
        commit = np.where(plans, commit, np.maximum(commit, under_way + 1))
        directive = self.base.directive(
            torch.from_numpy(1 + mode_2.astype(np.int64)),
            torch.from_numpy(stats.state),
            tuple(
                _reason(bool(plans[i]), float(worth[i]), float(price[i]), float(weight[i]),
                        float(alarm[i]), int(left[i]), int(under_way[i]))
                for i in range(situation.batch)
            ),
        ).replace(
            model_calls=torch.from_numpy(np.minimum(self.model_calls, left).astype(np.int64)),
            commit_steps=torch.from_numpy(commit),
        )  # fmt: skip
        return replanned(directive, situation, torch.from_numpy(plans & (under_way > 0)))


def _reason(
    plans: bool, worth: float, price: float, weight: float, alarm: float, left: int, under_way: int
) -> str:
    """The reason of one row, with its numbers."""
    if left <= 0:
        return f"{'thinks: a plan is under way' if under_way else 'acts'}: the budget is spent"
    # Traces record reasons: forks of those of version 0.1 compare this text.
    factors = f"worth {worth:.3g} (stake ×{weight:.2g}, alarm ×{alarm:.2g})"
    if plans and worth == float("inf"):
        return f"thinks: an episode begins, {left} calls to spend"
    if plans:
        return f"thinks: {factors} at a price of {price:.3g}, {left} calls left"
    if under_way:
        return f"thinks: a plan is under way, {under_way} more to do; {factors}, price {price:.3g}"
    return f"acts: {factors} below the price of {price:.3g}, {left} calls left"
