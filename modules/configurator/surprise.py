"""A configurator that thinks when there is reason to: the switch between Mode-1 and Mode-2.

The paper gives no rule for it (LeCun 2022, §6, §8.1); this one is ours.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from modules.configurator.standing import Settings, Standing
from modules.messages import Directive, Situation

Floats = npt.NDArray[np.float32]

CARRIED = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
           "steps felt", "alert steps left", "steps since thinking")  # fmt: skip
"""The columns of its carry [B Q]: all that it knows of the episode so far."""


class Surprise:
    """Acts while things go as expected, thinks when they do not.

    A row thinks when, in this order: too little of the episode is known to say what is usual; the
    last step surprised it more than `deviations` standard deviations above its own mean; the
    critic's members disagree so; memory knows nothing like it; it has been alert for less than
    `dwell_steps` since the last of these; a plan is under way; or it has not thought for
    `think_every` steps. What is usual is a mean and a variance over this episode, the recent
    steps counting more, taken before the step is judged. All of it lies in the directive's carry
    and begins anew with an episode.
    """

    class Config(Settings):
        """Mode-2 on surprise, disagreement or novelty.

        `deviations`: how far above its usual is too much. `least`: what is below is never too
        much. `novelty_above`: what is newer is thought about. `dwell_steps`: steps of alertness
        after a reason. `think_every`: never act without thinking for longer, steps; 0: no such
        limit. `warm_steps`: steps of an episode before anything is usual. `memory_steps`: how
        many steps what is usual remembers.
        """

        kind: Literal["surprise"] = "surprise"
        deviations: float = Field(2.0, ge=0, le=100)
        least: float = Field(0.01, ge=0, le=10)
        novelty_above: float = Field(0.5, ge=0, le=1)
        dwell_steps: int = Field(4, ge=0, le=100_000)
        think_every: int = Field(8, ge=0, le=1_000_000)
        warm_steps: int = Field(8, ge=1, le=100_000)
        memory_steps: int = Field(100, ge=1, le=1_000_000)

    def __init__(
        self,
        *,
        deviations: float = 2.0,
        least: float = 0.01,
        novelty_above: float = 0.5,
        dwell_steps: int = 4,
        think_every: int = 8,
        warm_steps: int = 8,
        memory_steps: int = 100,
        u: dict[str, float] | None = None,
        v: dict[str, float] | None = None,
        horizon_steps: int = 48,
        model_calls: int = 800,
        commit_steps: int = 8,
        latent_temperature: float = 1.0,
        risk: float = 0.0,
        drives: tuple[str, ...],
        heads: tuple[str, ...],
        token_shape: tuple[int, int],
        horizon_max: int,
    ) -> None:
        self.deviations, self.least, self.novelty_above = deviations, least, novelty_above
        self.dwell_steps, self.think_every = dwell_steps, think_every
        self.warm_steps, self.memory_steps = warm_steps, memory_steps
        self.standing = Standing(
            u=u or {},
            v=v or {},
            horizon_steps=horizon_steps,
            model_calls=model_calls,
            commit_steps=commit_steps,
            latent_temperature=latent_temperature,
            risk=risk,
            drives=drives,
            heads=heads,
            token_shape=token_shape,
            horizon_max=horizon_max,
        )

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
        # An episode's first step was not expected by anyone: it says nothing about what is usual.
        begun = situation.age.numpy() > 0

        limit = np.maximum(mean + self.deviations * np.sqrt(variance), self.least)
        over = felt > limit
        warming = count < self.warm_steps
        reasons = over[:, 0] | over[:, 1] | (novelty > self.novelty_above)
        reasons &= ~warming
        alert = np.where(reasons, self.dwell_steps, np.maximum(carry[:, 5] - 1, 0))
        idle = carry[:, 6] + 1
        due = (idle >= self.think_every) if self.think_every else np.zeros_like(begun)
        # A plan under way is carried out, which costs no thought; a reason makes it anew.
        under_way = situation.before.plan.committed.numpy()
        thinks = warming | reasons | (carry[:, 5] > 0) | (under_way > 0) | due

        new = np.empty_like(carry)
        rate = np.where(begun, 1 / np.minimum(count + 1, self.memory_steps), 0)[:, None]
        error = felt - mean
        new[:, 0:4:2] = mean + rate * error
        new[:, 1:4:2] = (1 - rate) * (variance + rate * error * error)
        new[:, 4] = count + begun
        new[:, 5] = alert
        new[:, 6] = np.where(thinks, 0, idle)
        why = tuple(
            self._why(
                bool(warming[i]),
                float(felt[i, 0]), float(limit[i, 0]), float(felt[i, 1]), float(limit[i, 1]),
                float(novelty[i]), int(carry[i, 5]), int(under_way[i]), int(idle[i]),
                bool(thinks[i]),
            )
            for i in range(len(carry))
        )  # fmt: skip
        return self.standing.directive(
            torch.from_numpy(1 + thinks.astype(np.int64)), torch.from_numpy(new), why
        )

    def _why(
        self,
        warming: bool,
        surprise: float,
        usual: float,
        disagreement: float,
        agreed: float,
        novelty: float,
        alert: int,
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
        if alert:
            return f"thinks: alert for {alert} more {'step' if alert == 1 else 'steps'}"
        if under_way:
            return f"thinks: a plan is under way, {under_way} more to do"
        if thinks:
            return f"thinks: has not for {idle} steps"
        return f"acts: surprise {surprise:.2g} within {usual:.2g} usual"
