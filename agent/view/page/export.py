"""Exports a page as one file: all series, and a bounded number of frames, moments and futures.

The file is self-contained and makes no requests: its Content-Security-Policy names its scripts and
styles by hash, and its data is deflated inside it. The page lists what was left out.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.recording.atomic import new_file
from agent.recording.plain_json import dumps
from agent.view.page.data import Recording
from agent.view.page.futures import Imagined
from agent.view.page.server import SCRIPTS, filled_page, static
from modules.messages import ConfigError

FRAME_BYTES = 24 * 2**20
"""Bytes of frames before compression; of a longer run every n-th frame is exported."""

MOMENTS, FUTURES, FRAMES_EACH = 600, 48, 50
"""Limits of the exported moments and futures, and the number of frames in one piece."""


def export(
    runs: Sequence[Recording], file: Path, row: int = 0, plugins: tuple[str, ...] = ()
) -> int:
    """Writes the page of some runs whole or not at all; its size in bytes.

    Raises ConfigError, one line, where `file` cannot be, and WriteError where the disk fails.
    """
    if file.is_dir():
        raise ConfigError(f"option --export: expected a file, got the folder '{file}'")
    for run in runs:
        run.allows(row)
    # Opened before the work, so that an unwritable place is reported at once.
    with new_file(file) as out:
        contents = [_contents(run, Imagined(run, plugins), row) for run in runs]
        return out.write(html(contents).encode())


def html(contents: Sequence[dict[str, Any]]) -> str:
    """The page with the contents of its runs."""
    style = static("page.css")
    scripts = [static(name) for name in SCRIPTS]
    hashes = " ".join(_hash(script) for script in scripts)
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; "
        "img-src blob: data:; base-uri 'none'; form-action 'none'"
    )
    # No "<" of a run's text stays: it cannot end the element or begin another.
    data = dumps({"runs": list(contents)}).replace("<", "\\u003c")
    return filled_page(
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        token="",
        styles=f"<style>{style}</style>",
        data=f'<script type="application/json" id="embedded">{data}</script>',
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _contents(run: Recording, imagined: Imagined, row: int) -> dict[str, Any]:
    """The exported part of one run."""
    series = run.series(row)
    notes = []
    frames, every = _frames(run, row)
    if every > 1:
        notes.append(f"one frame in {every} of {run.steps}")
    chosen_steps = _notable(series.arrays, run.first, MOMENTS)
    moments = {step: run.tree(step, row) for step in chosen_steps}
    if len(chosen_steps) < run.steps:
        notes.append(f"the messages of {len(chosen_steps)} moments, events first")
    planning = run.first + np.flatnonzero(series.arrays["calls"] > 0)
    chosen = _evenly(planning, FUTURES)
    futures = {int(s): _packed(imagined.pack(int(s), row).to_bytes()) for s in chosen}
    if len(chosen) < len(planning):
        notes.append(f"the futures of {len(chosen)} of {len(planning)} plans")
    return {
        "about": run.about(),
        "row": row,
        "notes": ["this file holds " + ", ".join(notes) + "."] if notes else [],
        "series": _packed(series.to_bytes()),
        "frames": frames,
        "moments": _packed(dumps(moments).encode()),
        "futures": futures,
    }


def _frames(run: Recording, row: int) -> tuple[dict[str, Any], int]:
    """Frames in pieces, and n where only every n-th is exported; `pieces` are their steps."""
    pieces, packs, every = list[list[int]](), list[str](), 1
    if run.world.pixels is not None:
        every = -(-max(run.steps, 1) // max(FRAME_BYTES // int(np.prod(run.world.pixels)), 100))
        steps = range(run.first, run.first + run.steps, every)
        for start in range(0, len(steps), FRAMES_EACH):
            pack = run.frames(row, steps[start : start + FRAMES_EACH])
            if pack.facts["steps"]:
                pieces.append(pack.facts["steps"])
                packs.append(_packed(pack.to_bytes()))
    return {"pieces": pieces, "packs": packs}, every


def _notable(arrays: dict[str, NDArray[Any]], first: int, most: int) -> list[int]:
    """Up to `most` steps: events first, then evenly spaced ones."""
    mode, steps = arrays["mode"], len(arrays["mode"])
    if steps <= most:
        return [first + i for i in range(steps)]
    switches = 1 + np.flatnonzero(np.diff(np.nan_to_num(mode)) != 0)
    rewarded = np.flatnonzero((np.nan_to_num(arrays["score"]) != 0) | (arrays["lost"] > 0))
    surprise = np.nan_to_num(arrays["surprise"])
    peaks = np.argsort(-surprise)[: most // 6]
    chosen = {0, steps - 1, *map(int, peaks)}
    for events in (switches, rewarded):
        chosen.update(int(i) for i in _evenly(events, most // 4))
    chosen.update(int(i) for i in _evenly(np.arange(steps), most - len(chosen)))
    return sorted(first + i for i in chosen)


def _evenly(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Up to `most` of some values, evenly spaced."""
    if len(values) <= most:
        return values
    chosen: NDArray[Any] = values[np.linspace(0, len(values) - 1, most).round().astype(int)]
    return chosen


def _packed(raw: bytes) -> str:
    return base64.b64encode(zlib.compress(raw, 9)).decode()
