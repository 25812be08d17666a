"""Forks for the page: each becomes a recording that the page shows like a run."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.counterfactual.fork import Fork, Replay
from agent.recording.trace import TraceWriter
from agent.view.page.data import Recording
from modules.field_path import fields_of
from modules.messages import ConfigError

MOST_STEPS = 2000
"""The most steps of a fork on the page."""

_OFFERED = {
    "directive": ("mode", "horizon_steps", "model_calls", "commit_steps", "u", "v", "risk"),
    "observation": ("signals",),
    "recollection": ("novelty",),
    "energies": ("intrinsic", "critic", "disagreement"),
}  # fmt: skip
"""The fields that the page offers; `sextet fork` changes any."""

_COMPARED = {
    "score": "score",
    "model_calls": "model calls",
    "mode2_share": "share of Mode-2",
    "ended": "episodes ended",
}


class Forks:
    """Forks of the runs on a page; `recordings` holds the runs and every fork by number.

    One fork runs at a time. Their traces lie in a temporary folder until `close`.
    """

    def __init__(self, runs: Sequence[Recording], plugins: tuple[str, ...] = ()) -> None:
        self.runs, self.plugins = list(runs), plugins
        self.recordings: dict[int, Recording] = dict(enumerate(runs))
        self._replays: dict[int, Replay] = {}
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def possible(self, number: int) -> dict[str, Any]:
        """The paths that can be changed in a run, for `Replay.fork`, or why there are none."""
        run = self.runs[number]
        if not run.config:
            return {"reason": "This run has no configuration, so it cannot be forked."}
        return {"fields": list(_fields(run)), "most": MOST_STEPS}

    def fork(
        self, number: int, at: int, steps: int, changes: Mapping[str, str], hold: int, row: int
    ) -> dict[str, Any]:
        """Forks a run at a step with some fields changed, and compares it with the run.

        `hold`: the steps of the change, 0 for all. Raises SextetError, one line.
        """
        if not 0 <= number < len(self.runs):
            raise ConfigError(f"fork: expected a run below {len(self.runs)}, got {number}")
        if not 1 <= steps <= MOST_STEPS:
            raise ConfigError(f"fork --steps: expected 1 to {MOST_STEPS}, got {steps}")
        run = self.runs[number]
        edits = [f"{name}={value}" for name, value in changes.items()]
        with self._lock:
            if number not in self._replays:
                self._replays[number] = Replay(run.path, self.plugins)
            replay = self._replays[number]
            one = None if run.rows == 1 else row
            fork = replay.fork(at, edits, steps, row=one, hold=hold)
            place = len(self.recordings)
            self.recordings[place] = self._recorded(run, fork, place)
        figures = fork.as_dict()
        compared = [
            (label, figures[f"{name}_original"], figures[f"{name}_fork"])
            for name, label in _COMPARED.items()
        ]
        compared += [
            (f"energy, {drive}", value, fork.fork.energy[drive])
            for drive, value in fork.original.energy.items()
        ]
        about = self.recordings[place].about()
        return {**figures, "number": place, "about": about, "figures": compared}

    def _recorded(self, run: Recording, fork: Fork, place: int) -> Recording:
        """The trace of a fork, as a recording."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sextet-forks-"))
        file = self._folder / f"fork-{place}.sqlite"
        with TraceWriter(
            file, run.world, run.rows, run.drives, run.heads, run.config, keyframe_every=0
        ) as writer:
            for moment in fork.fork.moments:
                writer.write(moment)
        return Recording(file, name=f"fork of {run.name}")

    def close(self) -> None:
        """Closes the replays and removes the forks."""
        for replay in self._replays.values():
            replay.close()
        for number in range(len(self.runs), len(self.recordings)):
            self.recordings[number].close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _fields(run: Recording) -> Iterator[str]:
    """Every path that is offered, with drives, heads and signals by name."""
    for part, offered in _OFFERED.items():
        shapes = fields_of(part)
        for name in offered:
            axes = shapes[name].axes[1:]
            # Of a critic of actions this follows from `critic_actions` and v, so it has no effect.
            if (part, name) == ("energies", "critic") and run.moment(
                0
            ).energies.critic_actions is not None:
                continue
            if name == "risk" and not run.predicts_uncertainty():
                continue
            if not axes:
                yield f"{part}.{name}"
            else:
                yield from (f"{part}.{name}.{place}" for place in run.trace.axis_names[axes[0]])
    yield "plan.action"
