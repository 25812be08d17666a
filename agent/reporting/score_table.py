"""Scores of trained agents: one row a game, and all games together.

The measures are those of Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the
statistical precipice"): human-normalised scores (HNS), their mean and median over games, the
interquartile mean (IQM) over all runs, and percentile intervals of a bootstrap stratified by game.
Where a game has several runs, runs are resampled. Where it has one, its episodes are, and the
interval does not cover the variation between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agent.learning.evaluation import score
from modules.messages import ConfigError
from modules.suggest import not_one_of
from worlds.scores import columns, human_normalised, published_score

Numbers = npt.NDArray[np.float64]

RESAMPLES = 4_000
_SEED = 20221
_NORMAL = 1.96
"""Half the width of the central 95 % of a normal distribution, in standard deviations."""


class Played(NamedTuple):
    """The result of one run: the mean return of its episodes and, where recorded, each return."""

    world: str
    protocol: str | None
    seed: int | None
    mean: float
    returns: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    episodes: int = 0
    setting: str = ""
    """A name for its configuration where a world has runs of several."""


class Interval(NamedTuple):
    """A figure and its 95 % confidence interval, None where unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return _figure(self.value)
        return f"{_figure(self.value)} [{_figure(self.low)}, {_figure(self.high)}]"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class GameRow:
    """One world: the interval is over `over` ("runs", "episodes", or "" without an interval).

    `human_normalised` is None where no human score is published; `compared` has the published
    scores of other agents, None where there is none.
    """

    world: str
    protocol: str | None
    setting: str
    runs: int
    episodes: int
    score: Interval
    over: str
    human_normalised: Interval | None
    compared: dict[str, float | None]


@dataclass(frozen=True)
class ScoreTable:
    """Rows by world, and `together`: mean, median and IQM of the human-normalised scores, empty
    where a game has several rows.

    `compared` has the same for published agents over the same games, without agents that lack one
    of these. `games` is their number.
    """

    rows: tuple[GameRow, ...]
    games: int
    together: dict[str, Interval]
    compared: dict[str, dict[str, float]]


def compared_columns(text: str | None) -> tuple[str, ...]:
    """The published agents named in `SPR,BBF_RR2`. Raises ConfigError where one is unknown."""
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    for name in names:
        if name not in columns():
            raise ConfigError(f"--compare: {not_one_of(name, columns())}")
    return names


def interquartile_mean(values: Numbers, axis: int = -1) -> Numbers:
    """The mean without the lowest and the highest quarter, ⌊n/4⌋ values at each end."""
    ordered = np.sort(values, axis)
    cut = ordered.shape[axis] // 4
    middle = ordered.take(np.arange(cut, ordered.shape[axis] - cut), axis)
    return np.asarray(middle.mean(axis))


def score_table(results: Sequence[Played], compare: Sequence[str] = ()) -> ScoreTable:
    """The table of these results; runs of a world, protocol and setting are joined."""
    worlds: dict[tuple[str, str, str], list[Played]] = {}
    for played in results:
        key = (played.world, played.protocol or "", played.setting)
        worlds.setdefault(key, []).append(played)
    rows = tuple(_row(runs, compare) for _, runs in sorted(worlds.items()))
    normalised = [
        runs for (world, *_), runs in worlds.items() if human_normalised(world, 0.0) is not None
    ]
    games = len({runs[0].world for runs in normalised})
    # A game with several rows has no single score, so there are no means over games.
    alone = games == len(normalised) > 0
    return ScoreTable(
        rows=rows,
        games=games,
        together=_together(normalised) if alone else {},
        compared=_others(normalised, compare) if alone else {},
    )


def _row(runs: Sequence[Played], compare: Sequence[str]) -> GameRow:
    world = runs[0].world
    interval, over = _interval(runs)
    ends = [None if end is None else human_normalised(world, end) for end in interval]
    normalised = None if ends[0] is None else Interval(ends[0], ends[1], ends[2])
    return GameRow(
        world=world,
        protocol=runs[0].protocol,
        setting=runs[0].setting,
        runs=len(runs),
        episodes=sum(run.episodes or len(run.returns) for run in runs),
        score=interval,
        over=over,
        human_normalised=normalised,
        compared={name: published_score(world, name) for name in compare},
    )


def _interval(runs: Sequence[Played]) -> tuple[Interval, str]:
    """The score of a world, and what its interval is over."""
    if len(runs) > 1:
        estimate = score([run.mean for run in runs])
        return Interval(estimate.mean, estimate.low, estimate.high), "runs"
    (run,) = runs
    if len(run.returns) > 1:
        estimate = score(run.returns)
        return Interval(estimate.mean, estimate.low, estimate.high), "episodes"
    if run.low is not None and run.high is not None:
        return Interval(run.mean, run.low, run.high), "episodes"
    return Interval(run.mean), ""


def _together(worlds: Sequence[Sequence[Played]]) -> dict[str, Interval]:
    """Mean, median and IQM of HNS, with intervals where there is something to resample."""
    rng = np.random.default_rng(_SEED)
    resampled = [_resampled(runs, rng) for runs in worlds]
    values = _aggregate([each[:, :1] for each, _ in resampled])
    if not any(known for _, known in resampled):
        return {name: Interval(float(value[0])) for name, value in values.items()}
    drawn = _aggregate([each[:, 1:] for each, _ in resampled])
    intervals = {}
    for name, value in values.items():
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        intervals[name] = Interval(float(value[0]), float(low), float(high))
    return intervals


def _resampled(runs: Sequence[Played], rng: np.random.Generator) -> tuple[Numbers, bool]:
    """HNS of a game's runs [runs, 1 + RESAMPLES], first as they are and then resampled, and whether
    there was anything to resample.
    """
    means = np.array([run.mean for run in runs])
    if len(runs) > 1:
        picked = rng.integers(len(runs), size=(len(runs), RESAMPLES))
        again, known = means[picked], True
    elif len(runs[0].returns) > 1:
        returns = np.array(runs[0].returns)
        picked = rng.integers(len(returns), size=(RESAMPLES, len(returns)))
        again, known = returns[picked].mean(1)[None], True
    elif runs[0].low is not None and runs[0].high is not None:
        # The episodes were not recorded, but the interval of their mean was.
        deviation = (runs[0].high - runs[0].low) / (2 * _NORMAL)
        again, known = means[:, None] + deviation * rng.standard_normal((1, RESAMPLES)), True
    else:
        again, known = np.repeat(means[:, None], RESAMPLES, 1), False
    scores = np.concatenate([means[:, None], again], 1)
    # The human-normalised score is linear in the score.
    nought, one = (human_normalised(runs[0].world, at) or 0.0 for at in (0.0, 1.0))
    return nought + scores * (one - nought), known


def _aggregate(games: Sequence[Numbers]) -> dict[str, Numbers]:
    """Each measure [draws] of the HNS of games, [runs, draws] each."""
    means = np.stack([game.mean(0) for game in games])
    return {
        "mean": np.asarray(means.mean(0)),
        "median": np.asarray(np.median(means, 0)),
        "iqm": interquartile_mean(np.concatenate(games), 0),
    }


def _others(
    worlds: Sequence[Sequence[Played]], compare: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The measures of published agents over the games of these worlds, each game once."""
    names = sorted({runs[0].world for runs in worlds})
    measures: dict[str, dict[str, float]] = {}
    for column in compare:
        known = [published_score(world, column) for world in names]
        scores = [
            human_normalised(world, value)
            for world, value in zip(names, known, strict=True)
            if value is not None
        ]
        if names and len(scores) == len(names):
            games = [np.array([[value]], dtype=np.float64) for value in scores]
            measures[column] = {name: float(value[0]) for name, value in _aggregate(games).items()}
    return measures


def as_markdown(table: ScoreTable) -> str:
    """The table as Markdown, games first, then all of them together."""
    compare = list(table.rows[0].compared) if table.rows else []
    lines = [
        _line(["world", "protocol", "runs", "episodes", "return", "interval of", "HNS", *compare]),
        _line(["---"] * (7 + len(compare))),
    ]
    lines += [_line(cells(row)) for row in table.rows]
    for name, value in table.together.items():
        label = {"mean": "mean", "median": "median", "iqm": "IQM"}[name]
        others = [f"{table.compared[c][name]:.3g}" if c in table.compared else "–" for c in compare]
        lines.append(
            _line(
                [f"**{label} HNS**, {table.games} games", "", "", "", "", "", str(value), *others]
            )
        )
    return "\n".join(lines) + "\n"


def cells(row: GameRow) -> list[str]:
    """A row's cells as text, in the order of `as_markdown`."""
    return [
        f"{row.world} {row.setting}".rstrip(),
        row.protocol or "–",
        str(row.runs),
        str(row.episodes) if row.episodes else "–",
        str(row.score),
        row.over or "–",
        "–" if row.human_normalised is None else str(row.human_normalised),
        *("–" if value is None else f"{value:g}" for value in row.compared.values()),
    ]


def _line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"
