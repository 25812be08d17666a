"""A configurator that plans at random steps: the control of one that chooses when to plan."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from modules import chance
from modules.configurator.base_directive import BaseDirective
from modules.messages import ConfigError, Directive, Frozen, Situation

_FOREVER = 1e7
"""A pause of this many steps never ends; float32 counts exactly below it."""


class RandomRate:
    """Plans at a given rate, at steps drawn by chance.

    At every step of an episode a plan is made with the same probability `rate`, independently of
    the situation. A plan is carried out until the next one or for `commit_steps`, whichever is
    shorter; then the row reacts. So it differs from the configurator that it is the control of in
    *when* it plans, and in nothing else.

    The pause to the next plan is drawn when a plan is made (geometric, from the row's `rng_key`),
    so that the plan is committed to for as long as it will be carried out. An actor that replans
    by itself after a surprise does so here as under any configurator.
    """

    class Config(Frozen):
        """`rate`: share of steps at which a plan is made. `model_calls_per_episode`: above 0 it
        sets the rate instead, so that an episode of `episode_steps` costs this many model calls:
        matches the spending of another configurator.
        """

        rate: float = Field(0.125, ge=0, le=1)
        model_calls_per_episode: float = Field(0.0, ge=0, le=1e12)
        episode_steps: int = Field(500, ge=1, le=10_000_000)

    def __init__(self, *, config: Config, base: BaseDirective) -> None:
        self.base, self.rate = base, config.rate
        if budget := config.model_calls_per_episode:
            if not (model_calls := base.settings.model_calls):
                raise ConfigError(
                    f"config configurator.model_calls_per_episode: expected 0 where "
                    f"directive.model_calls is 0 and plans cost nothing, got {budget:g}; "
                    "raise directive.model_calls"
                )
            self.rate = min(1.0, budget / (config.episode_steps * model_calls))

    def initial(self, rows: int) -> Directive:
        """Mode-1; the first pause is drawn with the first step."""
        return self.base.uniform(rows, 1, 1, "an episode begins")

    def configure(self, situation: Situation) -> Directive:
        """Mode and reason of each row. Its `configurator_state` [B 1] is the number of steps to the
        next plan, 0 before the first step of an episode.
        """
        first, after = self._pauses(situation).T
        step, previous = situation.episode_step.numpy(), situation.previous
        pause = previous.directive.configurator_state[:, 0].double().numpy()
        pause = np.where(pause >= _FOREVER, np.inf, pause)
        # The first step waits too: a plan is no likelier there than at other steps.
        pause = np.where(step <= 0, first, pause) - 1
        plans = pause <= 0
        # With one draw for both, a plan at the first step would be followed by another.
        pause = np.where(plans, np.where(step <= 0, after, first), pause)
        left = previous.plan.remaining_commit
        reasons = tuple(
            self._reason(*row)
            for row in zip(plans.tolist(), pause.tolist(), left.tolist(), strict=True)
        )
        directive = self.base.directive(
            torch.from_numpy(np.where(plans | (left.numpy() > 0), 2, 1)),
            torch.from_numpy(np.minimum(pause, _FOREVER)[:, None].astype(np.float32)),
            reasons,
        )
        # A plan is committed to until the next one; one under way for as long as it was before.
        most = directive.commit_steps
        until = torch.from_numpy(np.clip(pause, 1, _FOREVER).astype(np.int64)).minimum(most)
        until = torch.where(left > 0, until.minimum(left), until)
        return directive.replace(commit_steps=torch.where(torch.from_numpy(plans), until, most))

    def _reason(self, plans: bool, pause: float, left: int) -> str:
        if plans:
            return f"thinks: by chance, {self.rate:.3g} of all steps"
        if left:
            return f"thinks: a plan is under way, {left} more to do"
        if np.isinf(pause):
            return "acts: by chance, for the rest of the episode"
        return f"acts: by chance, {pause:.0f} more to wait"

    def _pauses(self, situation: Situation) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Two draws of the steps to the next plan, [B 2], at least 1: geometric with the rate."""
        drawn = chance.uniform(situation.rng_key, "configurator random", 2).double().numpy()
        if self.rate <= 0:
            return np.full(drawn.shape, np.inf)
        if self.rate >= 1:
            return np.ones(drawn.shape)
        pauses: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.ceil(
            np.log(drawn) / np.log1p(-self.rate)
        ).clip(1, _FOREVER)
        return pauses
