"""Scores of trained agents: one row a game, and all games together.

The measures are those of Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the
statistical precipice"): human-normalised scores (HNS), their mean and median over games, the
interquartile mean (IQM) over all runs, and percentile intervals of a bootstrap stratified by game.
Where a game has several runs, runs are resampled. Where it has one, its episodes are, and the
interval does not cover the variation between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agent.learning.evaluation import score
from agent.learning.statistics import Numbers, interquartile_mean, percentile_interval
from modules.messages import ConfigError
from worlds.scores import columns, human_normalised, published_score

_MEASURES = ("mean", "median", "iqm")
_NORMAL = NormalDist()
_STAND_INS = 100


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
    import difflib

    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    for name in names:
        if name not in columns():
            close = difflib.get_close_matches(name, columns(), n=1, cutoff=0.4)
            hint = f". Did you mean '{close[0]}'?" if close else ""
            raise ConfigError(f"--compare: {name!r} is not one of {', '.join(columns())}{hint}")
    return names


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
    units = [_units(runs) for runs in worlds]

    def measures(*drawn: npt.NDArray[np.int64]) -> Numbers:
        games = [scores[indices] for scores, indices in zip(units, drawn, strict=True)]
        # Where episodes are resampled, their mean is the score of the only run.
        return _aggregate(
            [
                game if len(runs) > 1 else game.mean(-1, keepdims=True)
                for game, runs in zip(games, worlds, strict=True)
            ]
        )

    sizes = [len(scores) for scores in units]
    values = measures(*map(np.arange, sizes))
    if max(sizes) == 1:
        return {name: Interval(float(value)) for name, value in zip(_MEASURES, values, strict=True)}
    lows, highs = percentile_interval(measures, sizes)
    return {
        name: Interval(float(value), float(low), float(high))
        for name, value, low, high in zip(_MEASURES, values, lows, highs, strict=True)
    }


def _units(runs: Sequence[Played]) -> Numbers:
    """HNS of what is resampled of a game, [N]: its runs, or the episodes of its only run."""
    run, values = runs[0], [run.mean for run in runs]
    if len(runs) == 1 and len(run.returns) > 1:
        values = list(run.returns)
    elif len(runs) == 1 and run.low is not None and run.high is not None:
        # The episodes were not recorded: normal ones stand for them, whose mean has this interval.
        deviation = (run.high - run.low) / (2 * _NORMAL.inv_cdf(0.975)) * math.sqrt(_STAND_INS)
        normal = (_NORMAL.inv_cdf((i + 0.5) / _STAND_INS) for i in range(_STAND_INS))
        values = [run.mean + deviation * z for z in normal]
    return np.array([human_normalised(run.world, value) for value in values], dtype=np.float64)


def _aggregate(games: Sequence[Numbers]) -> Numbers:
    """Each of `_MEASURES` of the HNS of games, [... runs] each, stacked: [3 ...]."""
    means = np.stack([game.mean(-1) for game in games], -1)
    runs = np.concatenate(games, -1)
    return np.stack([means.mean(-1), np.median(means, -1), interquartile_mean(runs)])


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
            values = _aggregate([np.array([value], dtype=np.float64) for value in scores])
            measures[column] = dict(zip(_MEASURES, map(float, values), strict=True))
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
