"""A configurator that thinks at random: the control of whoever claims to choose well when."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from modules import chance
from modules.configurator.base_directive import BaseDirective, Settings
from modules.messages import Directive, Situation

_NEVER = 1e7
"""A pause this long, in steps, is for ever; below it float32 counts exactly."""


class RandomRate:
    """Thinks at a given rate, at steps that chance alone chooses.

    At every step of an episode a thought begins with the same probability, whatever happened
    before, so in the long run the share of steps with a thought is `rate`. What was planned is
    carried out until the next thought or for `commit_steps`, whichever comes first; where
    neither is left the row reacts. So it differs in *when* it thinks from whoever it is the
    control of, and in nothing else: how plans are made and carried out is the same.

    The pause to the next thought is drawn when one begins (geometric, from the row's `chance`),
    so that a plan is promised for just as long as it will be carried out. An actor that thinks
    anew of itself because a step surprised it does so here too, as under any other.
    """

    class Config(Settings):
        """Mode-2 at random.

        `rate`: share of steps in which a thought begins. `model_calls_per_episode`: where above 0
        the rate follows from it instead, so that an episode of `episode_steps` costs so many model
        calls: the way to match what another configurator spent.
        """

        kind: Literal["random-rate"] = "random-rate"
        rate: float = Field(0.125, ge=0, le=1)
        model_calls_per_episode: float = Field(0.0, ge=0, le=1e12)
        episode_steps: int = Field(500, ge=1, le=10_000_000)

        @model_validator(mode="after")
        def _affordable(self) -> Self:
            if self.model_calls_per_episode and not self.model_calls:
                raise ValueError(
                    "model_calls_per_episode 0 where model_calls is 0; thoughts cost nothing"
                )
            return self

    def __init__(
        self,
        *,
        standing: BaseDirective,
        rate: float = 0.125,
        model_calls_per_episode: float = 0.0,
        episode_steps: int = 500,
    ) -> None:
        if model_calls_per_episode:
            rate = min(1.0, model_calls_per_episode / (episode_steps * standing.model_calls))
        self.rate = rate
        self.standing = standing

    def initial(self, rows: int) -> Directive:
        """It acts; the first thought is drawn with the first step."""
        return self.standing.directive(
            torch.ones(rows, dtype=torch.int64),
            torch.zeros(rows, 1),
            ("acts: an episode begins",) * rows,
        )

    def configure(self, situation: Situation) -> Directive:
        """Mode and reason of each row; the carry [B 1] is the number of steps to the next thought.

        0 before the first step of an episode.
        """
        first, after = self._pauses(situation).T
        age = situation.episode_step.numpy()
        before = situation.previous.directive.configurator_state[:, 0].double().numpy()
        before = np.where(before >= _NEVER, np.inf, before)
        # The first step waits too: a thought is no likelier there than anywhere.
        waits = np.where(age <= 0, first, before) - 1
        thinks = waits <= 0
        # One draw for both would have a thought at the first step followed by another.
        waits = np.where(thinks, np.where(age <= 0, after, first), waits)
        under_way = situation.previous.plan.remaining_commit.numpy()
        reasons = []
        for now, wait, left in zip(
            thinks.tolist(), waits.tolist(), under_way.tolist(), strict=True
        ):
            if now:
                reasons.append(f"thinks: by chance, {self.rate:.3g} of all steps")
            elif left:
                reasons.append(f"thinks: a plan is under way, {left} more to do")
            elif np.isinf(wait):
                reasons.append("acts: by chance, for the rest of the episode")
            else:
                reasons.append(f"acts: by chance, {wait:.0f} more to wait")
        said = self.standing.directive(
            torch.from_numpy(np.where(thinks | (under_way > 0), 2, 1)),
            torch.from_numpy(np.minimum(waits, _NEVER)[:, None].astype(np.float32)),
            tuple(reasons),
        )
        # A plan is promised until the next thought; one under way goes on as it was promised.
        most = said.commit_steps
        until = torch.from_numpy(np.clip(waits, 1, _NEVER).astype(np.int64)).minimum(most)
        left = situation.previous.plan.remaining_commit
        until = torch.where(left > 0, until.minimum(left), until)
        return said.replace(commit_steps=torch.where(torch.from_numpy(thinks), until, most))

    def _pauses(self, situation: Situation) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """Steps to the next thought, [B 2], at least 1: two draws, geometric with the rate."""
        drawn = chance.uniform(situation.rng_key, "configurator random", 2).double().numpy()
        if self.rate <= 0:
            return np.full(drawn.shape, np.inf)
        if self.rate >= 1:
            return np.ones(drawn.shape)
        pauses: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.ceil(
            np.log(drawn) / np.log1p(-self.rate)
        ).clip(1, _NEVER)
        return pauses
