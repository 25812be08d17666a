"""A configurator that thinks when there is reason to: the switch between Mode-1 and Mode-2.

The paper gives no rule for it (LeCun 2022, §6, §8.1); this one is ours.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from modules.configurator.base_directive import Settings, Standing, rethink
from modules.configurator.running_stats import follow
from modules.messages import Directive, Situation

CARRIED = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
           "steps felt", "alert steps left", "steps since thinking", "alert")  # fmt: skip
"""The columns of its carry [B Q]: all that it knows of the episode so far."""


class Surprise:
    """Acts while things go as expected, thinks when they do not.

    A row becomes *alert* when the last step surprised it more than `deviations` standard
    deviations above its own mean, the critic's members disagree so, or memory knows nothing like
    it. It stays alert for `dwell_steps`, and after them until all three are below the lower
    levels `calm_deviations` and `novelty_below`: between the levels nothing changes (hysteresis).
    What is usual is a mean and a variance over this episode, recent steps counting more, taken
    before the step is judged.

    A row thinks while it is alert; while too little of the episode is known to say what is usual;
    and where it has not thought for `think_every` steps. A plan under way is carried out, which
    costs no thought, but one that was under way when alertness began is made anew. All that it
    knows lies in the directive's carry and begins anew with an episode.
    """

    class Config(Settings):
        """Mode-2 on surprise, disagreement or novelty.

        `deviations`: how far above its usual is too much, and alerts. `calm_deviations`: how far
        above it is still too much for who is alert. `least`: what is below is never too much.
        `novelty_above`, `novelty_below`: the same two levels of novelty. `dwell_steps`: steps of
        alertness after a reason. `think_every`: never act without thinking for longer, steps; 0:
        no such limit. `warm_steps`: steps of an episode before anything is usual.
        `memory_steps`: how many steps what is usual remembers.
        """

        kind: Literal["surprise"] = "surprise"
        deviations: float = Field(2.0, ge=0, le=100)
        calm_deviations: float = Field(1.0, ge=0, le=100)
        least: float = Field(0.01, ge=0, le=10)
        novelty_above: float = Field(0.5, ge=0, le=1)
        novelty_below: float = Field(0.4, ge=0, le=1)
        dwell_steps: int = Field(4, ge=0, le=100_000)
        think_every: int = Field(8, ge=0, le=1_000_000)
        warm_steps: int = Field(8, ge=1, le=100_000)
        memory_steps: int = Field(100, ge=1, le=1_000_000)

        @model_validator(mode="after")
        def _levels(self) -> Self:
            for low, high in (
                ("calm_deviations", "deviations"),
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
        standing: Standing,
        deviations: float = 2.0,
        calm_deviations: float = 1.0,
        least: float = 0.01,
        novelty_above: float = 0.5,
        novelty_below: float = 0.4,
        dwell_steps: int = 4,
        think_every: int = 8,
        warm_steps: int = 8,
        memory_steps: int = 100,
    ) -> None:
        self.enter, self.leave, self.least = deviations, calm_deviations, least
        self.novelty_above, self.novelty_below = novelty_above, novelty_below
        self.dwell_steps, self.think_every = dwell_steps, think_every
        self.warm_steps, self.memory_steps = warm_steps, memory_steps
        self.standing = standing

    def neutral(self, rows: int) -> Directive:
        """It thinks: of an episode that begins nothing is known."""
        return self.standing.directive(
            torch.full((rows,), 2),
            torch.zeros(rows, len(CARRIED)),
            ("thinks: an episode begins",) * rows,
        )

    def configure(self, situation: Situation) -> Directive:
        """Mode and reason of each row, from the standing directive's carry and the latest words."""
        carry = situation.before.directive.carry.numpy()
        felt = np.stack(
            [situation.surprise.numpy(), situation.energies.disagreement.numpy()], -1
        )  # [B 2]
        novelty = situation.recollection.novelty.numpy()
        mean, variance, count = carry[:, 0:4:2], carry[:, 1:4:2], carry[:, 4]
        was_alert, left = carry[:, 7] > 0, carry[:, 5]
        # An episode's first step was not expected by anyone: it says nothing about what is usual.
        begun = situation.age.numpy() > 0

        spread = np.sqrt(variance)
        limit = np.maximum(mean + self.enter * spread, self.least)
        lower = np.maximum(mean + self.leave * spread, self.least)
        over = felt > limit
        warming = count < self.warm_steps
        reasons = over.any(-1) | (novelty > self.novelty_above)
        reasons &= ~warming
        restless = (felt > lower).any(-1) | (novelty > self.novelty_below)
        alert = reasons | (was_alert & ((left > 0) | restless))
        idle = carry[:, 6] + 1
        due = (idle >= self.think_every) if self.think_every else np.zeros_like(begun)
        under_way = situation.before.plan.committed.numpy()
        thinks = warming | alert | (under_way > 0) | due

        new = np.empty_like(carry)
        new[:, 0:4:2], new[:, 1:4:2] = follow(mean, variance, count, felt, begun, self.memory_steps)
        new[:, 4] = count + begun
        new[:, 5] = np.where(reasons, self.dwell_steps, np.maximum(left - 1, 0))
        new[:, 6] = np.where(thinks, 0, idle)
        new[:, 7] = alert
        why = tuple(
            self._why(
                bool(warming[i]),
                float(felt[i, 0]), float(limit[i, 0]), float(felt[i, 1]), float(limit[i, 1]),
                float(novelty[i]), int(left[i]), bool(alert[i]), int(under_way[i]), int(idle[i]),
                bool(thinks[i]),
            )
            for i in range(len(carry))
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
