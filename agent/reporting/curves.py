"""Pictures of learning curves and of the score table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.learning.evaluation import score
from agent.reporting.runs_index import Point, TrainedRun, setting_names
from agent.reporting.score_table import GameRow, ScoreTable, table_cells
from worlds.scores import human_normalised, published_score

Numbers = npt.NDArray[np.float64]

_COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c92a2a", "#1864ab", "#e67700", "#862e9c")
_INK, _FAINT, _GRAY = "#1f2933", "#d5dbe1", "#7b8794"
_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """The mean return of `runs` trainings over `steps` [n], and its 95 % band where known.

    The band is of the seeds where there are several, else of the episodes of each evaluation.
    """

    steps: Numbers
    mean: Numbers
    low: Numbers | None
    high: Numbers | None
    runs: int


def curve(runs: Sequence[Sequence[Point]]) -> Curve:
    """The mean curve of several trainings, interpolated linearly between the points of each.

    It ends with the shortest training, so that all seeds are part of every mean.
    """
    first = max(points[0].steps for points in runs)
    last = min(points[-1].steps for points in runs)
    measured = sorted({p.steps for points in runs for p in points if first <= p.steps <= last})
    steps = np.array(measured or [first], dtype=np.float64)
    if len(steps) > _POINTS:
        steps = np.linspace(steps[0], steps[-1], _POINTS)
    values = np.stack(
        [np.interp(steps, [p.steps for p in points], [p.value for p in points]) for points in runs]
    )
    if len(runs) > 1:
        bands = [score(column.tolist()) for column in values.T]
        low, high = np.array([b.low for b in bands]), np.array([b.high for b in bands])
        return Curve(steps, values.mean(0), low, high, len(runs))
    (points,) = runs
    ends = [(p.low, p.high) for p in points]
    if any(low is None or high is None for low, high in ends):
        return Curve(steps, values[0], None, None, 1)
    places = [p.steps for p in points]
    return Curve(
        steps,
        values[0],
        np.interp(steps, places, [float(low or 0.0) for low, _ in ends]),
        np.interp(steps, places, [float(high or 0.0) for _, high in ends]),
        1,
    )


def curves_picture(runs: Sequence[TrainedRun]) -> bytes:
    """A PNG: a panel a world, a curve a setting, over steps (below) and emulated frames (above).

    Thick lines are evaluations on data-out seeds, thin dotted ones training episodes. Horizontal
    lines are the scores of random play and of humans, where they are near the curves.
    """
    from matplotlib.figure import Figure

    worlds = sorted({run.world for run in runs})
    across = min(3, len(worlds))
    down = math.ceil(len(worlds) / across)
    figure = Figure(figsize=(4.6 * across + 0.4, 3.4 * down + 0.5), layout="constrained")
    for place, world in enumerate(worlds):
        axes = figure.add_subplot(down, across, place + 1)
        _panel(axes, world, [run for run in runs if run.world == world])
    return _png(figure)


def _panel(axes: Any, world: str, runs: Sequence[TrainedRun]) -> None:
    from matplotlib.ticker import EngFormatter

    settings: dict[str, list[TrainedRun]] = {}
    for run in runs:
        settings.setdefault(run.setting, []).append(run)
    names = setting_names(runs)
    for number, (setting, group) in enumerate(settings.items()):
        name = f"{names[setting]}: " if names[setting] else ""
        colour = _COLOURS[number % len(_COLOURS)]
        training = [run.training_returns for run in group if run.training_returns]
        evaluated = [run.evaluations for run in group if run.evaluations]
        if training:
            thin = curve(training)
            axes.plot(thin.steps, thin.mean, color=colour, lw=0.9, ls=":", alpha=0.8)
        main = curve(evaluated or training)
        seeds = f"{main.runs} seeds" if main.runs > 1 else "1 seed"
        axes.plot(
            main.steps, main.mean, color=colour, lw=2, marker="o", ms=3, label=f"{name}{seeds}"
        )
        if main.low is not None and main.high is not None:
            axes.fill_between(main.steps, main.low, main.high, color=colour, alpha=0.18, lw=0)
    low, high = axes.get_ylim()
    for column in ("random", "human"):
        known = published_score(world, column)
        if known is not None and low - (high - low) <= known <= high + (high - low):
            axes.axhline(known, color=_GRAY, lw=0.9, ls=(0, (4, 3)))
            axes.annotate(column, (1.0, known), xycoords=("axes fraction", "data"), ha="right",
                          va="bottom", fontsize=7, color=_GRAY)  # fmt: skip
    protocols = {run.protocol for run in runs if run.protocol}
    under = f"  ({', '.join(sorted(protocols))})" if protocols else ""
    axes.set_title(f"{world.removeprefix('ALE/')}{under}", fontsize=10, loc="left", color=_INK)
    axes.set_xlabel("steps", fontsize=8)
    axes.set_ylabel("return", fontsize=8)
    short = EngFormatter(sep="")
    axes.xaxis.set_major_formatter(short)
    axes.legend(fontsize=7, frameon=False, loc="best")
    _dress(axes)
    ratio = _frames_a_step(runs)
    if ratio > 1:
        above = axes.secondary_xaxis("top", functions=(lambda x: x * ratio, lambda x: x / ratio))
        above.set_xlabel("frames", fontsize=7, color=_GRAY, labelpad=2)
        above.tick_params(labelsize=7, colors=_GRAY)
        above.xaxis.set_major_formatter(short)


def _frames_a_step(runs: Sequence[TrainedRun]) -> float:
    points = [p for run in runs for p in (*run.evaluations, *run.training_returns) if p.steps > 0]
    return max((p.frames / p.steps for p in points), default=1.0)


def table_picture(table: ScoreTable) -> bytes:
    """A PNG: the table as text, and beside it a chart of the human-normalised scores (HNS)."""
    from matplotlib.figure import Figure

    head, body, foot = table_cells(table)
    lines = [head, *body, *foot]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    offsets = np.concatenate([[0], np.cumsum([width + 2.5 for width in widths])])
    chart = any(row.human_normalised is not None for row in table.rows)
    text_width, chart_width = 0.078 * offsets[-1], 3.2 if chart else 0.0
    height = 0.27 * len(lines) + 0.55
    total = text_width + chart_width + 0.4
    figure = Figure(figsize=(total, height))
    bottom, tall = 0.42 / height, 0.27 * len(lines) / height
    words = figure.add_axes((0.1 / total, bottom, text_width / total, tall))
    words.set_xlim(0, offsets[-1])
    words.set_ylim(len(lines), 0)
    words.axis("off")
    for number, line in enumerate(lines):
        bold = number == 0 or number > len(body)
        for column, text in enumerate(line):
            words.text(offsets[column], number + 0.5, text, va="center", fontsize=8,
                       color=_INK, weight="bold" if bold else "normal")  # fmt: skip
        if number in (0, len(body)):
            words.axhline(number + 1, color=_FAINT, lw=1)
    if chart:
        axes = figure.add_axes(((text_width + 0.2) / total, bottom, chart_width / total, tall))
        _bars(axes, table.rows)
        axes.set_ylim(len(lines), 0)
    return _png(figure)


def _bars(axes: Any, rows: Sequence[GameRow]) -> None:
    """HNS of each row at the height of its line of text; published agents as hollow marks."""
    compare = list(rows[0].compared)
    for number, row in enumerate(rows):
        if row.human_normalised is None:
            continue
        value, low, high = row.human_normalised
        if low is not None and high is not None:
            axes.plot([low, high], [number + 1.5] * 2, color=_COLOURS[0], lw=5, alpha=0.3)
        axes.plot(value, number + 1.5, "o", color=_COLOURS[0], ms=5, zorder=3)
        for place, name in enumerate(compare):
            known = row.compared[name]
            if known is not None:
                axes.plot(human_normalised(row.world, known), number + 1.5, "dsv^"[place % 4],
                          mfc="none", mec=_COLOURS[1 + place % 7], ms=6)  # fmt: skip
    for place, name in enumerate(compare):
        axes.plot([], [], "dsv^"[place % 4], mfc="none", mec=_COLOURS[1 + place % 7], ms=5,
                  ls="none", label=name)  # fmt: skip
    axes.axvline(0, color=_GRAY, lw=0.8, ls=":")
    axes.axvline(1, color=_GRAY, lw=0.8, ls="--")
    axes.set_yticks([])
    axes.set_xlabel("HNS: 0 random, 1 human", fontsize=7)
    if compare:
        axes.legend(fontsize=7, frameon=False, loc="lower right")
    _dress(axes)
    axes.spines["left"].set_visible(False)


def _dress(axes: Any) -> None:
    axes.tick_params(labelsize=7, colors=_INK)
    axes.grid(True, color=_FAINT, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=130, facecolor="white")
    return data.getvalue()
