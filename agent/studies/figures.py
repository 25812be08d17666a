"""The figures of a study's report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from agent.learning.statistics import Estimate
from agent.recording.atomic import write_bytes, writing
from agent.studies.findings import FEATURES, Findings, GapResult
from agent.studies.study import Gap, Study

_INK, _FAINT = "#1f2933", "#d5dbe1"
_COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c92a2a", "#1864ab", "#e67700", "#862e9c",
            "#087f5b", "#495057", "#a61e4d", "#5c940d")  # fmt: skip
_MARKS = "osD^vPX<>hpd"
_LABEL: dict[str, Any] = {"loc": "left", "size": 9.5, "color": _INK}


def draw(study: Study, findings: Findings, folder: Path) -> dict[str, str]:
    """Draws the figures that a study has data for; returns the caption of each by file name."""
    import matplotlib

    matplotlib.use("Agg")
    with writing(folder):
        folder.mkdir(exist_ok=True)
    captions = {}
    for panels, name, caption in (
        (_front, "front.png", "Return against imagined steps; means with 95 % intervals. The line "
         "is the front: no other arm has more return for fewer imagined steps."),
        (_measures, "measures.png", "Each measure by arm and world; means with 95 % intervals."),
        (_trends, "trends.png", "What the arms' order does to a measure; means with 95 % "
         "intervals. Green where the trend holds."),
        (_curves, "curves.png", "Share of Mode-2 at each level of what the configurator observes "
         "(filled), and share of steps with model calls (hollow). Bins of equally many moments, "
         "95 % intervals over runs."),
        (_energies, "energies.png", "Energy of each drive over the episode, unweighted, lower is "
         "better; means over seeds with 95 % intervals."),
    ):  # fmt: skip
        figure = panels(study, findings)
        if figure is not None:
            data = BytesIO()
            figure.savefig(data, format="png", dpi=110, facecolor="white")
            write_bytes(folder / name, data.getvalue())
            captions[name] = caption
    return captions


def _figure(count: int, columns: int, width: float, height: float) -> tuple[Any, list[Any]]:
    """A figure and the axes of its panels, `columns` in a row."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axis in axes:
        axis.tick_params(colors=_INK, labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axis.spines[side].set_color(_FAINT)
    return figure, axes


def _style(study: Study, arm: str) -> dict[str, Any]:
    at = list(study.arms).index(arm)
    return {"color": _COLOURS[at % len(_COLOURS)], "marker": _MARKS[at % len(_MARKS)]}


def _points(
    axis: Any, xs: Iterable[float | Estimate], ys: Iterable[float | Estimate], **style: Any
) -> None:
    """Points with error bars, the intervals of coordinates that are estimates."""
    (x, x_error), (y, y_error) = (_coordinates(values) for values in (xs, ys))
    axis.errorbar(x, y, xerr=x_error, yerr=y_error, **{"lw": 1.2, "capsize": 2, **style})


def _coordinates(values: Iterable[float | Estimate]) -> tuple[list[float], Any]:
    """Coordinates and the lengths of their error bars, [2 N]; None where no bar has a length."""
    ends = [
        (value.mean, value.low, value.high) if isinstance(value, Estimate) else (value,) * 3
        for value in values
    ]
    means, lows, highs = np.array(ends, dtype=float).reshape(-1, 3).T
    bars = np.nan_to_num(np.stack([means - lows, highs - means])).clip(0)
    return means.tolist(), bars if bars.any() else None


def _front_line(axis: Any, points: Sequence[tuple[Estimate, Estimate]]) -> None:
    """Joins the points that are above all points to their left."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(((x.mean, y.mean) for x, y in points), key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    if len(front) > 1:
        axis.plot(*zip(*front, strict=True), color=_INK, lw=0.9, ls=":", zorder=0)


def _front(study: Study, findings: Findings) -> Any | None:
    """Return against model calls an arm and world; the gap's share against the calls' share."""
    worlds, gap = [world.id for world in study.worlds], findings.gap
    spent = [findings.table[world, arm, "model_calls"].mean for world in worlds
             for arm in study.arms]  # fmt: skip
    # Where all arms spend alike there is no front to see.
    if len(study.arms) < 2 or not max(spent) > 1.2 * min(spent):
        return None
    with_gap = gap is not None and bool(gap.worlds)
    count = len(worlds) + with_gap
    figure, axes = _figure(count, min(count, 3), 4.0, 3.1)
    if with_gap:
        assert gap is not None
        assert study.gap is not None
        _gap_panel(axes[0], study, study.gap, gap)
    for world, axis in zip(worlds, axes[with_gap:], strict=True):
        points = {
            arm: (findings.table[world, arm, "model_calls"], findings.table[world, arm, "return"])
            for arm in study.arms
        }
        points = {arm: (x, y) for arm, (x, y) in points.items() if x.count and y.count}
        for arm, (x, y) in points.items():
            _points(axis, [x], [y], label=arm, ms=6, **_style(study, arm))
        _front_line(axis, list(points.values()))
        axis.set_title(f"{world}: return", **_LABEL)
        axis.set_xlabel("imagined steps an episode", size=8)
    _legend(figure, axes)
    return figure


def _gap_panel(axis: Any, study: Study, gap: Gap, result: GapResult) -> None:
    none, whole = Estimate(0, 0, 0, 1), Estimate(1, 1, 1, 1)
    arms = {gap.low: (none, none), gap.high: (whole, whole)}
    arms |= {one.arm: (one.calls, one.share) for one in result.shares}
    controls = {one.control: (one.control_calls, one.control_share) for one in result.shares}
    points = {**controls, **arms}
    for arm, (x, y) in points.items():
        hollow = {} if arm in arms else {"mfc": "white"}
        _points(axis, [x], [y], label=arm, ms=6, **_style(study, arm), **hollow)
    _front_line(axis, list(points.values()))
    if gap.keep is not None:
        axis.axhline(gap.keep, color=_FAINT, lw=0.8, zorder=0)
        axis.axvline(gap.calls, color=_FAINT, lw=0.8, zorder=0)
    count = len(result.worlds)
    axis.set_title(f"share of the gap kept, {count} world{'s' * (count != 1)}", **_LABEL)
    axis.set_xlabel(f"share of the model calls of {gap.high}", size=8)


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
    measures, arms = study.measures, list(study.arms)
    panels = [(world.id, measure) for world in study.worlds for measure in measures]
    figure, axes = _figure(len(panels), len(measures), 2.9, 0.9 + 0.22 * len(arms))
    for i, (axis, (world, measure)) in enumerate(zip(axes, panels, strict=True)):
        for at, arm in enumerate(arms):
            _points(axis, [findings.table[world, arm, measure]], [at], ms=5, **_style(study, arm))
        leftmost = i % len(measures) == 0
        axis.set_yticks(range(len(arms)), arms if leftmost else [""] * len(arms))
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.grid(axis="y", color=_FAINT, lw=0.5)
        axis.set_title(f"{world}\n{measure}" if leftmost else measure, **_LABEL)
    return figure


def _trends(_: Study, findings: Findings) -> Any | None:
    trends = findings.trends
    if not trends:
        return None
    figure, axes = _figure(len(trends), min(len(trends), 4), 3.0, 2.5)
    for axis, trend in zip(axes, trends, strict=True):
        at = range(len(trend.arms))
        colour = _COLOURS[3] if trend.holds else _COLOURS[9]
        _points(axis, at, trend.means, color=colour, marker="o", ms=5, ls="-")
        axis.set_xticks(at, trend.arms, rotation=20, ha="right")
        fails = "" if trend.holds else ": does not hold"
        axis.set_title(f"{trend.world}\n{trend.measure} {trend.direction}{fails}", **_LABEL)
    return figure


def _curves(_: Study, findings: Findings) -> Any | None:
    arms = [arm for arm, curves in findings.curves.items() if any(curves.values())]
    if not arms:
        return None
    panels = [(arm, feature) for arm in arms for feature in FEATURES]
    figure, axes = _figure(len(panels), len(FEATURES), 3.4, 2.4)
    for axis, (arm, feature) in zip(axes, panels, strict=True):
        for curves, colour, face in (
            (findings.curves, _COLOURS[0], _COLOURS[0]),
            (findings.thoughts, _COLOURS[1], "white"),
        ):
            points = curves[arm].get(feature, [])
            _points(axis, [point.at for point in points], [point.share for point in points],
                    color=colour, mfc=face, marker="o", ms=4, lw=1.1)  # fmt: skip
        axis.set_ylim(-0.03, 1.03)
        axis.set_title(f"{arm}: by {feature}", **_LABEL)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    return figure


def _energies(study: Study, findings: Findings) -> Any | None:
    energies = {key: drives for key, drives in findings.energies.items() if drives}
    if not energies:
        return None
    worlds = list(dict.fromkeys(world for world, _ in energies))
    names = list(dict.fromkeys(drive for drives in energies.values() for drive in drives))
    panels = [(world, drive) for world in worlds for drive in names]
    figure, axes = _figure(len(panels), len(names), 3.0, 2.3)
    for axis, (world, drive) in zip(axes, panels, strict=True):
        for (place, arm), drives in energies.items():
            if place == world and drive in drives:
                parts = drives[drive]
                at = (np.arange(len(parts)) + 0.5) / len(parts)
                colour = _style(study, arm)["color"]
                axis.plot(at, [part.mean for part in parts], color=colour, lw=1.2, label=arm)
                axis.fill_between(at, [part.low for part in parts], [part.high for part in parts],
                                  color=colour, alpha=0.12, lw=0)  # fmt: skip
        axis.set_title(f"{world}: {drive}" if drive == names[0] else drive, **_LABEL)
        if world == worlds[-1]:
            axis.set_xlabel("share of the capped episode", size=8)
    _legend(figure, axes)
    return figure
