"""`sextet export`: a recording as a Minari dataset."""

from __future__ import annotations

from pathlib import Path

from agent.api.export import export as call
from agent.recording.plain_json import dumps


def export(recording: Path, to: Path, *, as_json: bool) -> None:
    """Writes the dataset, and prints what it holds."""
    figures = call(recording, to)
    print(f"dataset   {to}: {figures['episodes']} episodes, {figures['steps']} steps")
    if as_json:
        print(dumps({**figures, "dataset": str(to)}))
