"""The figures of a study's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.learning.statistics import CurvePoint, Estimate
from agent.studies.findings import FEATURES, Findings, Trended
from agent.studies.study import Study

_INK, _FAINT = "#1f2933", "#d5dbe1"
_COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c92a2a", "#1864ab", "#e67700", "#862e9c",
            "#087f5b", "#495057", "#a61e4d", "#5c940d")  # fmt: skip
_MARKS = "osD^vPX<>hpd"
_LABEL: dict[str, Any] = {"loc": "left", "size": 9.5, "color": _INK}


def draw(study: Study, findings: Findings, folder: Path) -> list[tuple[str, str]]:
    """Draws the figures that a study has data for; returns (file name, caption) of each."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    drawn: list[tuple[str, str]] = []
    for name, caption, figure in (
        ("front.png", "Return against imagined steps; means with 95 % intervals. The line is the "
         "front: no other arm has more return for fewer imagined steps.", _front(study, findings)),
        ("measures.png", "Each measure by arm and world; means with 95 % intervals.",
         _measures(study, findings)),
        ("trends.png", "What the arms' order does to a measure; means with 95 % intervals. Green "
         "where the trend holds.", _trends(findings.trends)),
        ("curves.png", "Share of Mode-2 at each level of what the configurator observes (filled), "
         "and share of steps with model calls (hollow). Bins of equally many moments, "
         "95 % intervals over runs.", _curves(findings)),
        ("energies.png", "Energy of each drive over the episode, unweighted, lower is better; "
         "means over seeds with 95 % intervals.", _energies(study, findings)),
    ):  # fmt: skip
        if figure is not None:
            figure.savefig(folder / name, dpi=110, facecolor="white")
            drawn.append((name, caption))
    return drawn


def _figure(columns: int, rows: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(columns * rows)]
    for axis in axes:
        axis.tick_params(colors=_INK, labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axis.spines[side].set_color(_FAINT)
    return figure, axes


def _grid(count: int, most: int = 3) -> tuple[int, int]:
    """Columns and rows for so many panels."""
    columns = min(count, most)
    return columns, -(-count // columns)


def _style(study: Study, arm: str) -> tuple[str, str]:
    at = list(study.arms).index(arm)
    return _COLOURS[at % len(_COLOURS)], _MARKS[at % len(_MARKS)]


def _ends(estimate: Estimate) -> tuple[list[float], list[float]]:
    """The lengths of an error bar, none where there is no interval."""
    low = 0.0 if math.isnan(estimate.low) else max(0.0, estimate.mean - estimate.low)
    high = 0.0 if math.isnan(estimate.high) else max(0.0, estimate.high - estimate.mean)
    return [low], [high]


def _point(axis: Any, study: Study, arm: str, x: Estimate, y: Estimate) -> None:
    colour, mark = _style(study, arm)
    axis.errorbar(
        [x.mean], [y.mean], xerr=_ends(x), yerr=_ends(y),
        color=colour, marker=mark, ms=6, lw=1.2, capsize=2, label=arm,
    )  # fmt: skip


def _front_line(axis: Any, points: Sequence[tuple[float, float]]) -> None:
    """Joins the points that are above all points to their left."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    if len(front) > 1:
        xs, ys = zip(*front, strict=True)
        axis.plot(xs, ys, color=_INK, lw=0.9, ls=":", zorder=0)


def _front(study: Study, findings: Findings) -> Any | None:
    """Return against model calls an arm and world; the gap's share against the calls' share."""
    spent = [
        findings.table[world.id, arm, "model_calls"].mean
        for world in study.worlds
        for arm in study.arms
    ]
    # Where all arms spend alike there is no front to see.
    if len(study.arms) < 2 or not max(spent) > 1.2 * min(spent):
        return None
    gap = findings.gap if findings.gap is not None and findings.gap.worlds else None
    columns, rows = _grid(len(study.worlds) + (gap is not None))
    figure, axes = _figure(columns, rows, 4.0, 3.1)
    panels = iter(axes)
    if gap is not None:
        assert study.gap is not None
        axis = next(panels)
        none, whole = Estimate(0, 0, 0, 1), Estimate(1, 1, 1, 1)
        places = {study.gap.low: (none, none), study.gap.high: (whole, whole)}
        places |= {one.arm: (one.calls, one.share) for one in gap.shares}
        for arm, (x, y) in places.items():
            _point(axis, study, arm, x, y)
        for one in gap.shares:
            if one.control not in places:
                colour, mark = _style(study, one.control)
                places[one.control] = (one.control_calls, one.control_share)
                axis.errorbar([one.control_calls.mean], [one.control_share.mean],
                              xerr=_ends(one.control_calls), yerr=_ends(one.control_share),
                              color=colour, marker=mark, ms=6, mfc="white", lw=1.2, capsize=2,
                              label=one.control)  # fmt: skip
        _front_line(axis, [(x.mean, y.mean) for x, y in places.values()])
        if study.gap.keep is not None:
            axis.axhline(study.gap.keep, color=_FAINT, lw=0.8, zorder=0)
            axis.axvline(study.gap.calls, color=_FAINT, lw=0.8, zorder=0)
        several = len(gap.worlds)
        over = f"{several} world{'s' * (several != 1)}"
        axis.set_title(f"share of the gap kept, {over}", **_LABEL)
        axis.set_xlabel(f"share of the model calls of {study.gap.high}", size=8)
    for world, axis in zip(study.worlds, panels, strict=False):
        points = []
        for arm in study.arms:
            x = findings.table[world.id, arm, "model_calls"]
            y = findings.table[world.id, arm, "return"]
            if x.count and y.count:
                _point(axis, study, arm, x, y)
                points.append((x.mean, y.mean))
        _front_line(axis, points)
        axis.set_title(f"{world.id}: return", **_LABEL)
        axis.set_xlabel("imagined steps an episode", size=8)
    for axis in panels:
        axis.axis("off")
    _legend(figure, axes)
    return figure


def _legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend for all axes, below them."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center",
        ncols=min(6, len(entries)), frameon=False, fontsize=8,
    )  # fmt: skip


def _measures(study: Study, findings: Findings) -> Any | None:
    """A panel for each measure and world, an arm a line."""
    worlds, measures = study.worlds, study.measures
    height = 0.9 + 0.22 * len(study.arms)
    figure, axes = _figure(len(measures), len(worlds), 2.9, height)
    arms = list(study.arms)
    for i, (world, measure) in enumerate((w, m) for w in worlds for m in measures):
        axis = axes[i]
        for at, arm in enumerate(arms):
            estimate = findings.table[world.id, arm, measure]
            if estimate.count:
                colour, mark = _style(study, arm)
                axis.errorbar([estimate.mean], [at], xerr=_ends(estimate), color=colour,
                              marker=mark, ms=5, lw=1.2, capsize=2)  # fmt: skip
        axis.set_yticks(range(len(arms)), arms if i % len(measures) == 0 else [""] * len(arms))
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.grid(axis="y", color=_FAINT, lw=0.5)
        axis.set_title(measure if i >= len(measures) else f"{measure}", **_LABEL)
        if i % len(measures) == 0:
            axis.set_title(f"{world.id}\n{measure}", **_LABEL)
    return figure


def _trends(trends: Sequence[Trended]) -> Any | None:
    if not trends:
        return None
    columns, rows = _grid(len(trends), most=4)
    figure, axes = _figure(columns, rows, 3.0, 2.5)
    for axis, trend in zip(axes, trends, strict=False):
        colour = _COLOURS[3] if trend.holds else _COLOURS[9]
        for at, estimate in enumerate(trend.means):
            axis.errorbar([at], [estimate.mean], yerr=_ends(estimate), color=colour, marker="o",
                          ms=5, lw=1.2, capsize=2)  # fmt: skip
        axis.plot(range(len(trend.means)), [e.mean for e in trend.means], color=colour, lw=1.2)
        axis.set_xticks(range(len(trend.arms)), trend.arms, rotation=20, ha="right")
        fails = "" if trend.holds else ": does not hold"
        axis.set_title(f"{trend.world}\n{trend.measure} {trend.direction}{fails}", **_LABEL)
    for axis in axes[len(trends) :]:
        axis.axis("off")
    return figure


def _curves(findings: Findings) -> Any | None:
    arms = [arm for arm, curves in findings.curves.items() if any(curves.values())]
    if not arms:
        return None
    figure, axes = _figure(len(FEATURES), len(arms), 3.4, 2.4)
    for row, arm in enumerate(arms):
        for column, feature in enumerate(FEATURES):
            axis = axes[row * len(FEATURES) + column]
            both = ((findings.curves, _COLOURS[0], _COLOURS[0]),
                    (findings.thoughts, _COLOURS[1], "white"))  # fmt: skip
            for curves, colour, face in both:
                points: list[CurvePoint] = curves[arm].get(feature, [])
                ends = [[p.share - p.low for p in points], [p.high - p.share for p in points]]
                axis.errorbar([p.at for p in points], [p.share for p in points],
                              yerr=[[max(0.0, e) for e in side] for side in ends],
                              color=colour, mfc=face, marker="o", ms=4, lw=1.1,
                              capsize=2)  # fmt: skip
            axis.set_ylim(-0.03, 1.03)
            axis.set_title(f"{arm}: by {feature}", **_LABEL)
            axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    return figure


def _energies(study: Study, findings: Findings) -> Any | None:
    shown = [key for key, drives in findings.energies.items() if drives]
    if not shown:
        return None
    worlds = list(dict.fromkeys(world for world, _ in shown))
    drives = list(dict.fromkeys(drive for key in shown for drive in findings.energies[key]))
    figure, axes = _figure(len(drives), len(worlds), 3.0, 2.3)
    for row, world in enumerate(worlds):
        for column, drive in enumerate(drives):
            axis = axes[row * len(drives) + column]
            for name, arm in shown:
                if name == world and drive in findings.energies[name, arm]:
                    colour, _ = _style(study, arm)
                    parts = findings.energies[name, arm][drive]
                    at = [(i + 0.5) / len(parts) for i in range(len(parts))]
                    axis.plot(at, [e.mean for e in parts], color=colour, lw=1.2, label=arm)
                    axis.fill_between(at, [e.low for e in parts], [e.high for e in parts],
                                      color=colour, alpha=0.12, lw=0)  # fmt: skip
            axis.set_title(f"{world}: {drive}" if column == 0 else drive, **_LABEL)
            if row == len(worlds) - 1:
                axis.set_xlabel("share of the capped episode", size=8)
    _legend(figure, axes)
    return figure
