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
from modules.suggest import suggestion
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
            near = suggestion(name, columns(), cutoff=0.4)
            raise ConfigError(f"--compare: {name!r} is not one of {', '.join(columns())}{near}")
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
        values, over = [run.mean for run in runs], "runs"
    elif len(runs[0].returns) > 1:
        values, over = list(runs[0].returns), "episodes"
    else:
        (run,) = runs
        return Interval(run.mean, run.low, run.high), "" if run.low is None else "episodes"
    estimate = score(values)
    return Interval(estimate.mean, estimate.low, estimate.high), over


def _together(worlds: Sequence[Sequence[Played]]) -> dict[str, Interval]:
    """Mean, median and IQM of HNS, with intervals where there is something to resample."""
    rng = np.random.default_rng(_SEED)
    resampled = [_resampled(runs, rng) for runs in worlds]
    known = any(known for _, known in resampled)
    intervals = {}
    for name, (value, *draws) in _aggregate([each for each, _ in resampled]).items():
        low, high = np.quantile(draws, (0.025, 0.975)).tolist() if known else (None, None)
        intervals[name] = Interval(float(value), low, high)
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


def table_cells(table: ScoreTable) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """The head of the table, its lines of games, and those of all games together, as text."""
    compare = list(table.rows[0].compared) if table.rows else []
    head = ["world", "protocol", "runs", "episodes", "return", "interval of", "HNS", *compare]
    games = [
        [
            f"{row.world} {row.setting}".rstrip(),
            row.protocol or "–",
            str(row.runs),
            str(row.episodes) if row.episodes else "–",
            str(row.score),
            row.over or "–",
            "–" if row.human_normalised is None else str(row.human_normalised),
            *("–" if value is None else f"{value:g}" for value in row.compared.values()),
        ]
        for row in table.rows
    ]
    together = []
    for name, value in table.together.items():
        label = f"{'IQM' if name == 'iqm' else name} HNS, {table.games} games"
        others = (table.compared.get(column) for column in compare)
        measures = ("–" if other is None else f"{other[name]:.3g}" for other in others)
        together.append([label, "", "", "", "", "", str(value), *measures])
    return head, games, together


def as_markdown(table: ScoreTable) -> str:
    """The table as Markdown, games first, then all of them together."""
    head, games, together = table_cells(table)
    bold = [[f"**{label}**", *cells] for label, *cells in together]
    lines = [head, ["---"] * len(head), *games, *bold]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
