"""A configurator that plans when something is unexpected: the switch from Mode-1 to Mode-2.

The paper gives no rule for it (LeCun 2022, §6, §8.1); this one is ours.
"""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator

from modules.configurator.base_directive import BaseDirective, replanned
from modules.configurator.running_stats import (
    STATS_WINDOW,
    WARMUP_STEPS,
    signals_of,
    updated,
)
from modules.messages import Directive, Frozen, Situation

STATE = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
         "steps", "alert steps left", "steps since planning", "alert")  # fmt: skip
"""The columns of its `configurator_state` [B Q]: all that it keeps of an episode."""


class Surprise:
    """Mode-1 while steps go as predicted, Mode-2 when they do not.

    A row becomes *alert* when surprise or the critics' disagreement is more than `enter_std`
    standard deviations above its mean, or novelty above `novelty_above`. It stays alert for
    `min_dwell_steps`, and then until all three are below the lower thresholds `exit_std` and
    `novelty_below` (hysteresis). Mean and variance are those of this episode before the step, over
    a window of `stats_window` steps.

    A row is in Mode-2 while it is alert, in the first `warmup_steps`, and after `max_idle_steps`
    steps without Mode-2. A plan under way is carried out, which costs no model calls; a row that
    becomes alert replaces it. The state of all this is in `Directive.configurator_state` and starts
    again with each episode.
    """

    class Config(Frozen):
        """Thresholds of Mode-2.

        `enter_std`, `exit_std`: standard deviations above the mean at which alertness begins and
        ends. `min_threshold`: surprise or disagreement below it never alerts. `novelty_above`,
        `novelty_below`: the same two thresholds of novelty. `min_dwell_steps`: steps of alertness
        after its cause. `max_idle_steps`: most steps without Mode-2; 0: no such limit.
        `warmup_steps`: first steps of an episode, all in Mode-2. `stats_window`: steps of the mean.
        """

        enter_std: float = Field(2.0, ge=0, le=100)
        exit_std: float = Field(1.0, ge=0, le=100)
        min_threshold: float = Field(0.01, ge=0, le=10)
        novelty_above: float = Field(0.5, ge=0, le=1)
        novelty_below: float = Field(0.4, ge=0, le=1)
        min_dwell_steps: int = Field(4, ge=0, le=100_000)
        max_idle_steps: int = Field(8, ge=0, le=1_000_000)
        warmup_steps: int = Field(WARMUP_STEPS, ge=1, le=100_000)
        stats_window: int = Field(STATS_WINDOW, ge=1, le=1_000_000)

        @model_validator(mode="after")
        def _thresholds(self) -> Self:
            for low, high in (("exit_std", "enter_std"), ("novelty_below", "novelty_above")):
                if getattr(self, low) > getattr(self, high):
                    raise ValueError(
                        f"expected {low} of at most {high} {getattr(self, high):g}, got "
                        f"{getattr(self, low):g}; alertness ends at the lower threshold"
                    )
            return self

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.config, self.base = config, base

    def initial(self, rows: int) -> Directive:
        """Mode-2: nothing is known of an episode that begins."""
        return self.base.uniform(rows, 2, len(STATE), "an episode begins")

    def configure(self, situation: Situation) -> Directive:
        """Mode and reason of each row."""
        config, previous = self.config, situation.previous
        state = previous.directive.configurator_state.numpy()
        mean, variance, count = state[:, 0:4:2], state[:, 1:4:2], state[:, 4]
        signals, novelty = signals_of(situation), situation.recollection.novelty.numpy()
        was_alert, alert_left = state[:, 7] > 0, state[:, 5]
        # Nothing predicted the first step of an episode, so its surprise counts for nothing.
        mask = situation.episode_step.numpy() > 0

        std = np.sqrt(variance)
        upper = np.maximum(mean + config.enter_std * std, config.min_threshold)
        lower = np.maximum(mean + config.exit_std * std, config.min_threshold)
        warming = count < config.warmup_steps
        causes = (signals > upper).any(-1) | (novelty > config.novelty_above)
        causes &= ~warming
        unsettled = (signals > lower).any(-1) | (novelty > config.novelty_below)
        alert = causes | (was_alert & ((alert_left > 0) | unsettled))
        idle = state[:, 6] + 1
        due = (idle >= config.max_idle_steps) if config.max_idle_steps else np.zeros_like(mask)
        under_way = previous.plan.remaining_commit.numpy()
        mode_2 = warming | alert | (under_way > 0) | due

        new = np.empty_like(state)
        new[:, 0:4:2], new[:, 1:4:2] = updated(
            mean, variance, count, signals, mask, config.stats_window
        )
        new[:, 4] = count + mask
        new[:, 5] = np.where(causes, config.min_dwell_steps, np.maximum(alert_left - 1, 0))
        new[:, 6] = np.where(mode_2, 0, idle)
        new[:, 7] = alert

        def reason(row: int) -> str:
            """The first cause that holds in a row, with its numbers."""
            (surprise, disagreement), (most_surprise, most_disagreement) = signals[row], upper[row]
            left, steps = int(alert_left[row]), int(idle[row])
            if warming[row]:
                return "thinks: too early to know what is usual"
            if surprise > most_surprise:
                return f"thinks: surprise {surprise:.2g} over {most_surprise:.2g} usual"
            if disagreement > most_disagreement:
                return (
                    f"thinks: critics disagree by {disagreement:.2g} over "
                    f"{most_disagreement:.2g} usual"
                )
            if novelty[row] > config.novelty_above:
                return f"thinks: novelty {novelty[row]:.2g} over {config.novelty_above:.2g}"
            if alert[row] and left:
                return f"thinks: alert for {left} more {'step' if left == 1 else 'steps'}"
            if alert[row]:
                return f"thinks: still alert, surprise {surprise:.2g}, novelty {novelty[row]:.2g}"
            if under_way[row]:
                return f"thinks: a plan is under way, {under_way[row]} more to do"
            if mode_2[row]:
                return f"thinks: has not for {steps} {'step' if steps == 1 else 'steps'}"
            return f"acts: surprise {surprise:.2g} within {most_surprise:.2g} usual"

        directive = self.base.directive(
            torch.from_numpy(1 + mode_2.astype(np.int64)),
            torch.from_numpy(new),
            tuple(map(reason, range(len(state)))),
        )
        replans = causes & ~was_alert & (under_way > 0)
        if not replans.any():
            return directive
        return replanned(directive, situation, torch.from_numpy(replans))
