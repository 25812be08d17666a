"""A configurator that thinks when there is reason to: the switch between Mode-1 and Mode-2.

The paper gives no rule for it (LeCun 2022, §6, §8.1); this one is ours.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from modules.configurator.base_directive import BaseDirective, Settings, rethink
from modules.configurator.running_stats import follow
from modules.messages import Directive, Situation

CARRIED = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
           "steps felt", "alert steps left", "steps since thinking", "alert")  # fmt: skip
"""The columns of its carry [B Q]: all that it knows of the episode so far."""


class Surprise:
    """Acts while things go as expected, thinks when they do not.

    A row becomes *alert* when the last step surprised it more than `enter_std` standard
    deviations above its own mean, the critic's members disagree so, or memory knows nothing like
    it. It stays alert for `min_dwell_steps`, and after them until all three are below the lower
    levels `exit_std` and `novelty_below`: between the levels nothing changes (hysteresis).
    What is usual is a mean and a variance over this episode, recent steps counting more, taken
    before the step is judged.

    A row thinks while it is alert; while too little of the episode is known to say what is usual;
    and where it has not thought for `max_idle_steps` steps. A plan under way is carried out, which
    costs no thought, but one that was under way when alertness began is made anew. All that it
    knows lies in the directive's carry and begins anew with an episode.
    """

    class Config(Settings):
        """Mode-2 on surprise, disagreement or novelty.

        `enter_std`: how far above its usual is too much, and alerts. `exit_std`: how far
        above it is still too much for who is alert. `min_threshold`: what is below is never too
        much. `novelty_above`, `novelty_below`: the same two levels of novelty. `min_dwell_steps`:
        steps of alertness after a reason. `max_idle_steps`: never act without thinking for longer,
        steps; 0: no such limit. `warmup_steps`: steps of an episode before anything is usual.
        `stats_window`: how many steps what is usual remembers.
        """

        kind: Literal["surprise"] = "surprise"
        enter_std: float = Field(2.0, ge=0, le=100)
        exit_std: float = Field(1.0, ge=0, le=100)
        min_threshold: float = Field(0.01, ge=0, le=10)
        novelty_above: float = Field(0.5, ge=0, le=1)
        novelty_below: float = Field(0.4, ge=0, le=1)
        min_dwell_steps: int = Field(4, ge=0, le=100_000)
        max_idle_steps: int = Field(8, ge=0, le=1_000_000)
        warmup_steps: int = Field(8, ge=1, le=100_000)
        stats_window: int = Field(100, ge=1, le=1_000_000)

        @model_validator(mode="after")
        def _levels(self) -> Self:
            for low, high in (
                ("exit_std", "enter_std"),
                ("novelty_below", "novelty_above"),
            ):
                if getattr(self, low) > getattr(self, high):
                    raise ValueError(
                        f"{low} {getattr(self, low):g} at most {high} {getattr(self, high):g}; "
                        "alertness is left at the lower level"
                    )
            return self

    def __init__(
        self,
        *,
        standing: BaseDirective,
        enter_std: float = 2.0,
        exit_std: float = 1.0,
        min_threshold: float = 0.01,
        novelty_above: float = 0.5,
        novelty_below: float = 0.4,
        min_dwell_steps: int = 4,
        max_idle_steps: int = 8,
        warmup_steps: int = 8,
        stats_window: int = 100,
    ) -> None:
        self.enter, self.leave, self.min_threshold = enter_std, exit_std, min_threshold
        self.novelty_above, self.novelty_below = novelty_above, novelty_below
        self.min_dwell_steps, self.max_idle_steps = min_dwell_steps, max_idle_steps
        self.warmup_steps, self.stats_window = warmup_steps, stats_window
        self.standing = standing

    def initial(self, rows: int) -> Directive:
        """It thinks: of an episode that begins nothing is known."""
        return self.standing.directive(
            torch.full((rows,), 2),
            torch.zeros(rows, len(CARRIED)),
            ("thinks: an episode begins",) * rows,
        )

    def configure(self, situation: Situation) -> Directive:
        """Mode and reason of each row, from the standing directive's carry and the latest words."""
        configurator_state = situation.previous.directive.configurator_state.numpy()
        felt = np.stack(
            [situation.surprise.numpy(), situation.energies.disagreement.numpy()], -1
        )  # [B 2]
        novelty = situation.recollection.novelty.numpy()
        mean, variance, count = (
            configurator_state[:, 0:4:2],
            configurator_state[:, 1:4:2],
            configurator_state[:, 4],
        )
        was_alert, left = configurator_state[:, 7] > 0, configurator_state[:, 5]
        # An episode's first step was not expected by anyone: it says nothing about what is usual.
        begun = situation.episode_step.numpy() > 0

        spread = np.sqrt(variance)
        limit = np.maximum(mean + self.enter * spread, self.min_threshold)
        lower = np.maximum(mean + self.leave * spread, self.min_threshold)
        over = felt > limit
        warming = count < self.warmup_steps
        reasons = over.any(-1) | (novelty > self.novelty_above)
        reasons &= ~warming
        restless = (felt > lower).any(-1) | (novelty > self.novelty_below)
        alert = reasons | (was_alert & ((left > 0) | restless))
        idle = configurator_state[:, 6] + 1
        due = (idle >= self.max_idle_steps) if self.max_idle_steps else np.zeros_like(begun)
        under_way = situation.previous.plan.remaining_commit.numpy()
        thinks = warming | alert | (under_way > 0) | due

        new = np.empty_like(configurator_state)
        new[:, 0:4:2], new[:, 1:4:2] = follow(mean, variance, count, felt, begun, self.stats_window)
        new[:, 4] = count + begun
        new[:, 5] = np.where(reasons, self.min_dwell_steps, np.maximum(left - 1, 0))
        new[:, 6] = np.where(thinks, 0, idle)
        new[:, 7] = alert
        why = tuple(
            self._why(
                bool(warming[i]),
                float(felt[i, 0]), float(limit[i, 0]), float(felt[i, 1]), float(limit[i, 1]),
                float(novelty[i]), int(left[i]), bool(alert[i]), int(under_way[i]), int(idle[i]),
                bool(thinks[i]),
            )
            for i in range(len(configurator_state))
        )  # fmt: skip
        said = self.standing.directive(
            torch.from_numpy(1 + thinks.astype(np.int64)), torch.from_numpy(new), why
        )
        anew = reasons & ~was_alert & (under_way > 0)
        return said if not anew.any() else rethink(said, situation, torch.from_numpy(anew))

    def _why(
        self,
        warming: bool,
        surprise: float,
        usual: float,
        disagreement: float,
        agreed: float,
        novelty: float,
        left: int,
        alert: bool,
        under_way: int,
        idle: int,
        thinks: bool,
    ) -> str:
        """The reason of one row, the first that holds, with its numbers."""
        if warming:
            return "thinks: too early to know what is usual"
        if surprise > usual:
            return f"thinks: surprise {surprise:.2g} over {usual:.2g} usual"
        if disagreement > agreed:
            return f"thinks: critics disagree by {disagreement:.2g} over {agreed:.2g} usual"
        if novelty > self.novelty_above:
            return f"thinks: novelty {novelty:.2g} over {self.novelty_above:.2g}"
        if alert and left:
            return f"thinks: alert for {left} more {'step' if left == 1 else 'steps'}"
        if alert:
            return f"thinks: still alert, surprise {surprise:.2g}, novelty {novelty:.2g}"
        if under_way:
            return f"thinks: a plan is under way, {under_way} more to do"
        if thinks:
            return f"thinks: has not for {idle} {'step' if idle == 1 else 'steps'}"
        return f"acts: surprise {surprise:.2g} within {usual:.2g} usual"
