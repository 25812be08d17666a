"""Running statistics of an episode: means and variances of signals, importance of recent plans."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from modules.messages import Plan, Situation

WARMUP_STEPS = 8
"""Steps of an episode before its statistics count."""

STATS_WINDOW = 100
"""Steps that a mean is taken over; older ones fade exponentially."""

MIN_STD = 0.01
"""A standard deviation counts as at least this: a signal that never varied gives small scores."""

STATE = ("surprise mean", "surprise variance", "disagreement mean", "disagreement variance",
         "steps", "steps since planning", "importance", "mean importance", "plans")  # fmt: skip
"""The columns of the `configurator_state` [B Q] that `planning_stats` reads and writes."""

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


class PlanningStats(NamedTuple):
    """What `budgeted` and `learned` know of each row's episode.

    `scores` [B 2]: how many standard deviations surprise and disagreement lie above their means,
    -10 to 10, 0 in the first `WARMUP_STEPS`. `idle_steps` [B]: steps since the last plan was made.
    `importance` [B] of that plan, `mean_importance` [B] over the `plans` [B] of this episode.
    `state` [B 9]: the next `configurator_state`.
    """

    scores: Floats
    idle_steps: Floats
    importance: Floats
    mean_importance: Floats
    plans: Floats
    state: Floats


def signals_of(situation: Situation) -> Floats:
    """Surprise and disagreement of the critics, [B 2]."""
    return np.stack([situation.surprise.numpy(), situation.energies.disagreement.numpy()], -1)


def planning_stats(situation: Situation) -> PlanningStats:
    """The statistics of each row's episode with the present step in them."""
    plan = situation.previous.plan
    state = situation.previous.directive.configurator_state.numpy()
    signals, mean, variance, count = (
        signals_of(situation), state[:, 0:4:2], state[:, 1:4:2], state[:, 4],
    )  # fmt: skip
    # Nothing predicted the first step of an episode, so its surprise counts for nothing.
    mask = situation.episode_step.numpy() > 0
    scores = np.clip((signals - mean) / np.maximum(np.sqrt(variance), MIN_STD), -10, 10)
    idle_steps = np.where(plan.model_calls.numpy() > 0, 0, state[:, 5]) + 1
    importance, mean_importance, plans = _importances(plan, state[:, 6:]).T

    new = np.empty_like(state)
    new[:, 0:4:2], new[:, 1:4:2] = updated(mean, variance, count, signals, mask, STATS_WINDOW)
    new[:, 4], new[:, 5] = count + mask, idle_steps
    new[:, 6], new[:, 7], new[:, 8] = importance, mean_importance, plans
    return PlanningStats(
        scores=np.where((count >= WARMUP_STEPS)[:, None], scores.astype(np.float32), 0),
        idle_steps=idle_steps,
        importance=importance,
        mean_importance=mean_importance,
        plans=plans,
        state=new,
    )


def updated(
    mean: Floats, variance: Floats, count: Floats, values: Floats, mask: Flags, stats_window: int
) -> tuple[Floats, Floats]:
    """Mean and variance [B N] once `values` [B N] follow the first `count` [B] steps.

    The plain mean of up to `stats_window` steps, from then on an exponential one. Rows where
    `mask` [B] is false stay as they were.
    """
    rate = np.where(mask, 1 / np.minimum(count + 1, stats_window), 0)[:, None]
    error = values - mean
    next_mean: Floats = (mean + rate * error).astype(np.float32)
    next_variance: Floats = ((1 - rate) * (variance + rate * error * error)).astype(np.float32)
    return next_mean, next_variance


def _importances(plan: Plan, before: Floats) -> Floats:
    """Importance of the last plan made, its mean over plans and their number, [B 3]; `before` [B 3]
    is the same without `plan`.

    Importance is |predicted energy| + (largest - smallest energy of the logged candidates), >= 0: 0
    where nothing within the horizon costs anything or depends on the choice.
    """
    energies = plan.candidate_energies.numpy()
    finite = np.isfinite(energies)
    planned = plan.model_calls.numpy() > 0
    smallest = np.where(finite, energies, np.inf).min(-1, initial=np.inf)
    largest = np.where(finite, energies, -np.inf).max(-1, initial=-np.inf)
    spread = np.where(finite.any(-1), largest, 0) - np.where(finite.any(-1), smallest, 0)
    importance = np.where(planned, np.abs(plan.energy.numpy()) + spread, before[:, 0])
    importance = importance.astype(np.float32)
    count = before[:, 2] + planned
    rate = np.where(planned, 1 / np.minimum(np.maximum(count, 1), STATS_WINDOW), 0)
    mean = before[:, 1] + rate * (importance - before[:, 1])
    return np.stack([importance, mean, count], -1).astype(np.float32)
