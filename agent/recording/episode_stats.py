"""Counting a run: score, episodes, modes and model calls, moment by moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from agent.recording.trace import TraceDigest
from modules.messages import SIGNALS, Moment

_SCORE, _END = SIGNALS.index("reward"), SIGNALS.index("end")


@dataclass(frozen=True)
class Summary:
    """What a run amounts to.

    `steps` counts turns of the loop times rows. `score` is the unclipped reward gained in them
    over all rows. `mean_return` is that of the episodes that ended, None where none did.
    `mode2_share` is the share of steps that planned, `model_calls` all imagined steps.
    """

    world: str
    steps: int
    episodes: int
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
    """Told every moment of a run, in order; says at any time what it amounts to.

    An episode ends where the game does (signal `end`) or where a limit cuts it (`truncated`). A
    lost life that the protocol treats as an end of the episode goes on counting. What is felt at
    a moment was earned by the action before it. A turn that shows a last frame, whose action is
    ignored, counts in `steps` like any other.
    """

    def __init__(self, world: str, rows: int) -> None:
        self.world, self.rows = world, rows
        self.steps, self.planned_steps, self.model_calls, self.score = 0, 0, 0, 0.0
        self.running = torch.zeros(rows, dtype=torch.float64)
        self.returns: list[float] = []
        self._digest = TraceDigest()

    def add(self, moment: Moment) -> list[tuple[int, float]]:
        """Counts one more moment; the episodes that ended in it, as (row, return)."""
        self._digest.add(moment)
        observation = moment.observation
        felt = observation.signals[:, _SCORE].double().cpu()
        self.running += felt
        self.score += float(felt.sum())
        over = (observation.signals[:, _END] > 0) | observation.truncated
        ended = [(row, float(self.running[row])) for row in over.nonzero().flatten().tolist()]
        self.returns += [value for _, value in ended]
        self.running[over] = 0.0
        self.steps += self.rows
        self.planned_steps += int((moment.plan.mode == 2).sum())
        self.model_calls += int(moment.plan.model_calls.sum())
        return ended

    def summary(self, seconds: float, run: str | None = None) -> Summary:
        """The run so far, which took `seconds`; `run` is its folder."""
        returns = self.returns
        return Summary(
            world=self.world,
            steps=self.steps,
            episodes=len(returns),
            mean_return=sum(returns) / len(returns) if returns else None,
            score=self.score,
            steps_per_s=self.steps / seconds if seconds > 0 else 0.0,
            mode2_share=self.planned_steps / self.steps if self.steps else 0.0,
            model_calls=self.model_calls,
            run=run,
            trace_digest=self._digest.hexdigest(),
        )
