"""The picture of a run: scores, modes, energies, surprise and model calls over its steps."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from agent.recording.atomic import write_bytes
from agent.recording.episode_stats import returns_so_far
from agent.recording.trace import Trace
from agent.reporting.text import counted, number, percent
from modules.messages import TraceError

_INK, _FAINT = "#1f2933", "#d5dbe1"
_SCORE_COLOUR, _PLANNING, _SURPRISE = "#0b7285", "#e8590c", "#5f3dc4"
_DRIVES = ("#2b8a3e", "#c92a2a", "#1864ab", "#e67700", "#862e9c", "#087f5b")
_FRAMES, _POINTS = 6, 1500


def picture(run: str | PathLike[str], row: int = 0) -> Path:
    """Draws one row of a run into `summary.png` beside its trace; the path of the picture.

    Score, share of Mode-2, energy of each drive, surprise and imagined steps over the steps, and
    frames of notable moments. `run` is a run folder or a trace. Raises TraceError, one line,
    where there is nothing to draw, and as `agent.recording.atomic.writing`.
    """
    with Trace.open(run) as trace:
        if trace.steps == 0:
            raise TraceError(f"report {trace.path}: expected at least one step, got none")
        figure = _drawn(trace, row)
        place = trace.path.parent / "summary.png"
    # In memory first: PIL writes into an open file by itself, and leaves half of it.
    data = BytesIO()
    figure.savefig(data, format="png", dpi=120, facecolor="white")
    write_bytes(place, data.getvalue())
    return place


def notable(trace: Trace, row: int, count: int) -> list[tuple[int, str]]:
    """Up to `count` notable steps, in order, each with a reason: rewards, lost lives, surprises.

    The run is cut into `count` parts, and the most notable step of each is taken.
    """
    score = trace.series("reward")[:, row]
    lost = trace.series("life_lost")[:, row]
    surprise = trace.series("surprise")[:, row]
    worth = np.abs(np.sign(score)) * 3 + (lost > 0) * 2 + surprise / (surprise.max() + 1e-9)
    steps: list[tuple[int, str]] = []
    for part in np.array_split(np.arange(len(score)), min(count, len(score))):
        step = int(part[np.argmax(worth[part])])
        if lost[step] > 0:
            why = "a life lost"
        elif score[step] != 0:
            why = f"score {'+' if score[step] > 0 else ''}{number(float(score[step]))}"
        else:
            why = f"surprise {number(float(surprise[step]))}"
        steps.append((step, why))
    return steps


def _means(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Steps and values, averaged over stretches where there are too many to be seen."""
    stretch = max(1, -(-len(values) // _POINTS))
    whole = len(values) // stretch * stretch
    means = values[:whole].reshape(-1, stretch).mean(1)
    return np.arange(len(means)) * stretch, means


def _drawn(trace: Trace, row: int) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    def series(name: str) -> np.ndarray[Any, Any]:
        return trace.series(name)[:, row].astype(np.float64)

    steps, score, calls = trace.steps, series("reward"), series("model_calls")
    over = (series("end") > 0) | (series("observation.truncated") > 0)
    planned = series("mode") == 2
    framed = trace.world.pixels is not None
    heights = [0.75, *([2.6] if framed else []), 2.2, 0.45, 2.2, 1.5, 1.5]
    figure = Figure(
        figsize=(11, 1.2 * sum(heights)),
        layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.08, hspace=0.04),
    )
    grid = figure.add_gridspec(len(heights), _FRAMES, height_ratios=heights)

    title = figure.add_subplot(grid[0, :])
    title.axis("off")
    ended = int(over.sum())
    title.text(
        0, 0.95, trace.world.id, size=26, weight="bold", color=_INK, va="top", family="sans-serif"
    )
    facts = [
        counted(steps, "step"),
        f"{counted(ended, 'episode')} ended" if ended else "no episode ended",
        f"score {number(float(score.sum()))}",
        f"Mode-2 {percent(float(planned.mean()))}",
        f"{int(calls.sum()):,} imagined steps".replace(",", " "),
    ]
    if trace.rows > 1:
        facts.append(f"row {row} of {trace.rows}")
    title.text(0, 0.2, "   ·   ".join(facts), size=11, color=_INK, va="top")

    if framed:
        for place, (step, why) in enumerate(notable(trace, row, _FRAMES)):
            shown = figure.add_subplot(grid[1, place])
            frame = trace.frame(step, row)
            shown.imshow(frame[..., 0] if frame.shape[-1] == 1 else frame[..., :3], cmap="gray")
            shown.set_title(f"step {step}\n{why}", size=9, color=_INK)
            shown.set_xticks([])
            shown.set_yticks([])
            for edge in shown.spines.values():
                edge.set_color(_FAINT)

    axes = [figure.add_subplot(grid[-5, :])]
    axes += [figure.add_subplot(grid[line, :], sharex=axes[0]) for line in range(-4, 0)]
    of_score, of_mode, of_energy, of_surprise, of_calls = axes

    running = returns_so_far(score, over)
    of_score.step(np.arange(steps), running, where="post", color=_SCORE_COLOUR, lw=1.6)
    of_score.fill_between(
        np.arange(steps), running, step="post", color=_SCORE_COLOUR, alpha=0.12, lw=0
    )
    for end in np.flatnonzero(over).tolist():
        of_score.axvline(end, color=_FAINT, lw=0.8, zorder=0)
    of_score.set_title("score of the episode", **_LABEL)

    cells = min(steps, 600)
    band = np.array([part.mean() for part in np.array_split(planned.astype(float), cells)])
    of_mode.imshow(
        band[None], aspect="auto", extent=(0, steps, 0, 1), cmap=_mode_colours(), vmin=0, vmax=1
    )
    of_mode.set_yticks([])
    of_mode.set_title("mode: pale Mode-1 (policy), orange Mode-2 (planning)", **_LABEL)

    energies = series("energies.intrinsic")
    for place, name in enumerate(trace.drives):
        colour, label = _DRIVES[place % len(_DRIVES)], name.replace("_", " ")
        of_energy.plot(*_means(energies[:, place]), color=colour, lw=1.2, label=label)
    of_energy.axhline(0, color=_FAINT, lw=0.8, zorder=0)
    of_energy.set_title("energy of each drive, lower is better", **_LABEL)
    if trace.drives:
        of_energy.legend(loc="upper right", ncols=6, frameon=False, fontsize=8)

    of_surprise.plot(*_means(series("surprise")), color=_SURPRISE, lw=1.0)
    of_surprise.set_ylim(bottom=0)
    of_surprise.set_title("surprise", **_LABEL)
    of_calls.fill_between(*_means(calls), color=_PLANNING, alpha=0.8, lw=0)
    of_calls.set_ylim(bottom=0, top=max(1.0, float(calls.max()) * 1.05))
    of_calls.set_title("imagined steps", **_LABEL)
    of_calls.set_xlabel("step", color=_INK)
    for axis in axes:
        axis.set_xlim(0, max(steps - 1, 1))
        axis.tick_params(colors=_INK, labelsize=8, labelbottom=axis is of_calls)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axis.spines[side].set_color(_FAINT)
    return figure


_LABEL: dict[str, Any] = {"loc": "left", "size": 9, "color": _INK, "pad": 3}


def _mode_colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("modes", ["#f1f3f5", _PLANNING])
