"""Counterfactual futures for the page: each fork becomes a recording that can be looked into."""

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
"""The page forks no further than this."""

_OFFERED = {
    "directive": ("mode", "horizon_steps", "model_calls", "commit_steps", "u", "v", "risk"),
    "observation": ("signals",),
    "recollection": ("novelty",),
    "energies": ("intrinsic", "critic", "disagreement"),
}  # fmt: skip
"""The fields worth changing by hand; `sextet fork` changes any."""


class Forks:
    """Forks of the runs on a page; `recordings` holds the runs and every fork by number.

    One fork at a time. What is written for a fork lies in a temporary folder until closed.
    """

    def __init__(self, runs: Sequence[Recording], plugins: tuple[str, ...] = ()) -> None:
        self.runs, self.plugins = list(runs), plugins
        self.recordings: dict[int, Recording] = dict(enumerate(runs))
        self._replays: dict[int, Replay] = {}
        self._folder: Path | None = None
        self._lock = threading.Lock()

    def possible(self, number: int) -> dict[str, Any]:
        """What of a run can be changed: paths as `Replay.fork` takes them, by message."""
        run = self.runs[number]
        if not run.config:
            return {"reason": "This run does not say how it was made, so it cannot be forked."}
        return {"fields": list(_fields(run)), "most": MOST_STEPS}

    def fork(
        self, number: int, at: int, steps: int, changes: Mapping[str, str], hold: int, row: int
    ) -> dict[str, Any]:
        """Lives on from a step with something changed, and says how that compares.

        `hold`: for so many steps, 0: all. Raises SextetError, one line.
        """
        if not 0 <= number < len(self.runs):
            raise ConfigError(f"fork: expected a run below {len(self.runs)}, got {number}")
        if not 1 <= steps <= MOST_STEPS:
            raise ConfigError(f"fork --steps: expected 1 to {MOST_STEPS}, got {steps}")
        run = self.runs[number]
        told = [f"{name}={value}" for name, value in changes.items()]
        with self._lock:
            if number not in self._replays:
                self._replays[number] = Replay(run.path, self.plugins)
            replay = self._replays[number]
            one = None if run.rows == 1 else row
            found = replay.fork(at, told, steps, row=one, hold=hold)
            place = len(self.recordings)
            self.recordings[place] = self._recorded(run, found, place)
        figures = found.as_dict()
        compared = [
            (said, figures[f"{name}_original"], figures[f"{name}_fork"])
            for said, name in (
                ("score", "score"),
                ("model calls", "model_calls"),
                ("share of Mode-2", "mode2_share"),
                ("episodes ended", "ended"),
            )
        ]
        compared += [
            (f"energy, {drive}", value, found.fork.energy[drive])
            for drive, value in found.original.energy.items()
        ]
        return {**figures, "number": place, "about": self.recordings[place].about(),
                "figures": compared}  # fmt: skip

    def _recorded(self, run: Recording, found: Fork, place: int) -> Recording:
        """The other future, written down as any run is."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sextet-forks-"))
        file = self._folder / f"fork-{place}.sqlite"
        with TraceWriter(
            file, run.world, run.rows, run.drives, run.heads, run.config, keyframe_every=0
        ) as writer:
            for moment in found.fork.moments:
                writer.write(moment)
        return Recording(file, name=f"fork of {run.name}")

    def close(self) -> None:
        """Frees what was opened for forking, and forgets the forks."""
        for replay in self._replays.values():
            replay.close()
        for number in range(len(self.runs), len(self.recordings)):
            self.recordings[number].close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _fields(run: Recording) -> Iterator[str]:
    """Every path offered, those of drives, heads and signals by name."""
    names = {"K": run.drives, "L": run.heads, "S": run.world.signals}
    for part, offered in _OFFERED.items():
        shapes = fields_of(part)
        for name in offered:
            axes = shapes[name].axes[1:]
            # Of a critic of actions this follows from `critic_actions` and v, so it has no effect.
            if (part, name) == ("energies", "critic") and run.moment(
                0
            ).energies.critic_actions is not None:
                continue
            if not axes:
                yield f"{part}.{name}"
            else:
                yield from (f"{part}.{name}.{place}" for place in names[axes[0]])
    yield "plan.action"
