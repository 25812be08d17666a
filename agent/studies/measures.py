"""The series of numbers recorded from every moment of a run, and the measures of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch

from agent.recording.episode_stats import game_over
from modules import chance
from modules.messages import SIGNALS, ActionSpec, Moment, Observation

Array = npt.NDArray[Any]

MEASURES: dict[str, str] = {
    "return": "score of the episode, cut at the cap: n steps observe the rewards of n - 1",
    "length": "steps of the episode",
    "mode2_share": "share of steps in Mode-2, steps that carry out a plan included",
    "thought_share": "share of steps with model calls",
    "model_calls": "imagined steps, one row × candidate × step each",
    "return_per_kcall": "score per thousand model calls",
    "switch_rate": "changes of mode per 100 steps",
    "dwell_1": "steps in Mode-1 before it changes, mean",
    "dwell_2": "steps in Mode-2 before it changes, mean",
    "effort": "share of full effort in the actions, mean",
    "lives_lost": "lives lost in the episode",
    "surprise": "surprise, mean",
    "wall_s": "seconds by the clock, without assembly of the agent",
    "cpu_s": "seconds of processor, without assembly of the agent",
}
"""Measures of a run by name. There are `energy.DRIVE` and `signal.NAME` besides: the mean energy
of a drive, and the sum of a signal over the episode."""

TIMED = ("wall_s", "cpu_s")
"""Measures that differ from one time to the next."""

SKETCH = 6
"""Size of the sketch of an observation: its projections onto fixed random directions."""

_GRID = 12
"""Frames are averaged to this number of rows and columns before they are projected."""

_SCORE, _LOST, _EFFORT = (SIGNALS.index(n) for n in ("reward", "life_lost", "effort"))


@dataclass(frozen=True)
class Series:
    """A run's moments as arrays, [T B …]: T turns, B rows, each row's first episode.

    `counts` [T B]: moments of the first episode; `acting`: those before its last observation.
    `signals` [T B S], `energies` [T B K] unweighted, `actions` [T B] as whole numbers (continuous
    ones by third of their range), `sketch` [T B 6] of the observation, the same for every agent.
    """

    counts: Array
    acting: Array
    mode: Array
    calls: Array
    signals: Array
    surprise: Array
    disagreement: Array
    energies: Array
    energy: Array
    actions: Array
    sketch: Array

    def save(self, out: BinaryIO) -> None:
        """Writes the arrays, compressed."""
        np.savez_compressed(out, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Series:
        """Reads what `save` wrote."""
        with np.load(path) as stored:
            return cls(**{name: stored[name] for name in cls.__dataclass_fields__})


class SeriesRecorder:
    """Collects the series of a run from its moments, added in order."""

    def __init__(self, actions: ActionSpec, rows: int) -> None:
        self.actions = actions
        self.over = np.zeros(rows, dtype=bool)
        self._directions: torch.Tensor | None = None
        self._columns: list[tuple[Array, ...]] = []

    def add(self, moment: Moment) -> bool:
        """Adds a moment; true once every row's first episode is over."""
        observation, signals = moment.observation, moment.observation.signals.numpy()
        counts = ~self.over
        ends = game_over(observation).numpy()
        waits = observation.ended.numpy()
        self.over = self.over | (counts & ends)
        weighted = (moment.energies.intrinsic * moment.directive.u).sum(-1).numpy()
        self._columns.append(
            (
                counts,
                counts & ~waits,
                moment.plan.mode.numpy().astype(np.int8),
                moment.plan.model_calls.numpy().astype(np.int32),
                signals.astype(np.float32).copy(),
                moment.surprise.numpy().astype(np.float32),
                moment.energies.disagreement.numpy().astype(np.float32),
                moment.energies.intrinsic.numpy().astype(np.float32),
                weighted.astype(np.float32),
                self._action_codes(moment.plan.action),
                self._sketch(observation),
            )
        )
        return bool(self.over.all())

    def _action_codes(self, action: torch.Tensor) -> Array:
        """Actions [B A] as whole numbers."""
        if self.actions.discrete:
            return action.argmax(-1).numpy().astype(np.int32)
        thirds = ((action[:, :4].clamp(-1, 1) + 1) * 1.5).floor().clamp_max(2).long()
        places = 3 ** torch.arange(thirds.shape[1])
        return (thirds * places).sum(-1).numpy().astype(np.int32)

    def _sketch(self, observation: Observation) -> Array:
        """Pixels or vector projected onto `SKETCH` directions, [B 6]."""
        if observation.pixels is not None:
            shades = observation.pixels.float().mean(-1) / 255
            features = torch.nn.functional.adaptive_avg_pool2d(shades[:, None], _GRID).flatten(1)
        else:
            assert observation.vector is not None
            features = observation.vector.float()
        if self._directions is None:
            self._directions = chance.normal(torch.arange(SKETCH), "sketch", features.shape[1])
        return (features @ self._directions.T).numpy().astype(np.float32)

    def series(self) -> Series:
        """The series of all moments added."""
        return Series(*(np.stack(column) for column in zip(*self._columns, strict=True)))


def measured(
    series: Series, drives: Sequence[str], signals: Sequence[str]
) -> dict[str, float | None]:
    """Every measure of a run but those of time, means over its rows; None where undefined."""
    rows = range(series.counts.shape[1])
    each = [_of_row(series, row, drives, signals) for row in rows]
    return {name: _mean(one[name] for one in each) for name in each[0]}


def _of_row(
    series: Series, row: int, drives: Sequence[str], signals: Sequence[str]
) -> dict[str, float | None]:
    counts, acting = series.counts[:, row], series.acting[:, row]
    signal = series.signals[counts, row].astype(np.float64)
    mode, calls = series.mode[acting, row], series.calls[acting, row].astype(np.float64)
    score, spent = float(signal[:, _SCORE].sum()), float(calls.sum())
    stays = _stays(mode)
    result: dict[str, float | None] = {
        "return": score,
        "length": float(len(mode)),
        "mode2_share": _mean(mode == 2),
        "thought_share": _mean(calls > 0),
        "model_calls": spent,
        "return_per_kcall": 1000 * score / spent if spent else None,
        "switch_rate": 100 * float((mode[1:] != mode[:-1]).mean()) if len(mode) > 1 else None,
        "dwell_1": _mean(length for which, length in stays if which == 1),
        "dwell_2": _mean(length for which, length in stays if which == 2),
        # A signal follows the action before it: that of an episode's first moment has none.
        "effort": _mean(signal[1:, _EFFORT]),
        "lives_lost": float(signal[:, _LOST].sum()),
        "surprise": _mean(series.surprise[acting, row]),
    }
    energies = series.energies[counts, row].astype(np.float64)
    for place, drive in enumerate(drives):
        result[f"energy.{drive}"] = _mean(energies[:, place])
    for place, name in enumerate(signals):
        result[f"signal.{name}"] = float(signal[:, place].sum())
    return result


def _stays(mode: Array) -> list[tuple[int, int]]:
    """Each stay in one mode, (mode, steps)."""
    if len(mode) == 0:
        return []
    begins = np.flatnonzero(np.concatenate([[True], mode[1:] != mode[:-1]]))
    lengths = np.diff(np.concatenate([begins, [len(mode)]]))
    return [(int(mode[at]), int(length)) for at, length in zip(begins, lengths, strict=True)]


def _mean(values: Iterable[Any]) -> float | None:
    """The mean of the values that are not None; None where all are."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None
