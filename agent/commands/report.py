"""`sextet report`: curves and tables of trained runs, as PNG and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.recording.atomic import write_bytes
from agent.recording.plain_json import dumps
from agent.recording.run_folder import RunFolder
from agent.reporting.curves import curves_picture, table_picture
from agent.reporting.runs_index import TrainedRun, find_runs, results
from agent.reporting.score_table import (
    Interval,
    ScoreTable,
    as_markdown,
    compared_columns,
    score_table,
)

COMPARE = "SPR,BBF_RR2"
"""The published agents that a report compares with by default."""


def report(
    runs: Sequence[Path], out: Path | None = None, compare: str = COMPARE, *, as_json: bool
) -> None:
    """Writes `report.md`, `curves.png` and `scores.png` into the new folder `out`; prints a table.

    All is read and drawn before the folder is created.
    """
    columns, trained = compared_columns(compare), find_runs(runs)
    table = score_table(results(trained), columns)
    pictures = {"curves.png": curves_picture(trained), "scores.png": table_picture(table)}
    files = {**pictures, "report.md": _page(trained, table, columns).encode()}

    def write(hidden: RunFolder) -> None:
        for name, data in files.items():
            write_bytes(hidden.path / name, data)

    folder = RunFolder.create(out, "report", write).path
    print(as_markdown(table), end="")
    print(f"report    {folder / 'report.md'}")
    if as_json:
        print(dumps(_figures(trained, table, folder)))


def _page(runs: Sequence[TrainedRun], table: ScoreTable, columns: Sequence[str]) -> str:
    """The report as Markdown."""
    parts = [
        "# Trained runs\n",
        as_markdown(table),
        "Intervals hold with a confidence of 95 % (bootstrap): over runs where a world has several"
        " of one setting, else over the episodes of its one evaluation, which does not cover "
        "other seeds. Where a game was run in several ways there are no figures of all. HNS is "
        "(score − random) / (human − random); intervals of all games together are stratified by "
        "game (Agarwal et al. 2021). A human or published score that is not known is –.\n",
    ]
    if columns:
        parts.append(
            f"{', '.join(columns)}: published scores of whole methods at about 100,000 steps, "
            "usually of many seeds; their sources are in `worlds/data/SOURCES.md`.\n"
        )
    parts += ["![The score table](scores.png)\n", "![Learning curves](curves.png)\n", "## Runs\n"]
    lines = ["| run | world | seed | steps | frames | minutes | final |", "| --- " * 7 + "|"]
    for run in runs:
        last = (run.evaluations or run.training_returns or (None,))[-1]
        minutes = "–" if run.seconds is None else f"{run.seconds / 60:.1f}"
        reached = "– | –" if last is None else f"{last.steps} | {last.frames}"
        seed = "–" if run.seed is None else run.seed
        facts = f"`{run.path}` | {run.world} | {seed} | {reached} | {minutes}"
        lines.append(f"| {facts} | {run.final.mean:.4g} |")
    return "\n".join([*parts, "\n".join(lines)]) + "\n"


def _figures(runs: Sequence[TrainedRun], table: ScoreTable, folder: Path) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "report": str(folder),
        "runs": len(runs),
        "worlds": [
            {
                "world": row.world,
                "protocol": row.protocol,
                "setting": row.setting,
                "runs": row.runs,
                "episodes": row.episodes,
                "return": _ends(row.score),
                "interval_of": row.over or None,
                "human_normalised": row.human_normalised and _ends(row.human_normalised),
                "compared": row.compared,
            }
            for row in table.rows
        ],
        "games": table.games,
        "together": {name: _ends(value) for name, value in table.together.items()},
        "compared": table.compared,
    }


def _ends(interval: Interval) -> list[float | None]:
    return [interval.value, interval.low, interval.high]
