"""What is usual for a row: a mean and a variance over its episode, recent steps counting more."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from modules.messages import Plan

WARM_STEPS, MEMORY_STEPS, LEAST = 8, 100, 0.01
"""As `surprise` has them by default: steps before anything is usual, steps remembered, least
deviation.
"""

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


def deviations(felt: Floats, mean: Floats, variance: Floats, least: float) -> Floats:
    """How far above its usual each of `felt` [B N] is, in standard deviations, -10 to 10.

    A deviation counts as at least `least`: where nothing ever varied, what is tiny stays small.
    """
    scale = np.maximum(np.sqrt(variance), least)
    far: Floats = np.clip((felt - mean) / scale, -10, 10).astype(np.float32)
    return far


def follow(
    mean: Floats, variance: Floats, count: Floats, felt: Floats, heard: Flags, stats_window: int
) -> tuple[Floats, Floats]:
    """Mean and variance [B N] after `felt` [B N], the first `count` [B] known before it.

    Up to `stats_window` every step counts alike, then those before fade. Rows not `heard` [B]
    stay as they were.
    """
    rate = np.where(heard, 1 / np.minimum(count + 1, stats_window), 0)[:, None]
    error = felt - mean
    after: Floats = (mean + rate * error).astype(np.float32)
    spread: Floats = ((1 - rate) * (variance + rate * error * error)).astype(np.float32)
    return after, spread


def foreseen(plan: Plan) -> tuple[Flags, Floats]:
    """Whether a plan was just thought of, [B], and how much it saw at stake, [B], >= 0.

    The size of the energy it foresees plus how far the dearest of the candidates shown lies above
    the cheapest: 0 where nothing in reach mattered or made a difference.
    """
    energies = plan.candidate_energies.numpy()
    known = np.isfinite(energies)
    thought = plan.model_calls.numpy() > 0
    low = np.where(known, energies, np.inf).min(-1, initial=np.inf)
    high = np.where(known, energies, -np.inf).max(-1, initial=-np.inf)
    several = known.any(-1)
    apart = np.where(several, high, 0) - np.where(several, low, 0)
    stake: Floats = np.where(thought, np.abs(plan.energy.numpy()) + apart, 0).astype(np.float32)
    return thought, stake


def stakes(plan: Plan, known: Floats) -> Floats:
    """What is at stake by the last thought, the mean of such, and how many went into it, [B 3],
    after `plan`; `known` [B 3] is the same before it.
    """
    thought, fresh = foreseen(plan)
    fresh = np.where(thought, fresh, known[:, 0]).astype(np.float32)
    count = known[:, 2] + thought
    rate = np.where(thought, 1 / np.minimum(np.maximum(count, 1), MEMORY_STEPS), 0)
    usual = known[:, 1] + rate * (fresh - known[:, 1])
    return np.stack([fresh, usual, count], -1).astype(np.float32)
