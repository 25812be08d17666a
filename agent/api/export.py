"""Recordings as Minari datasets."""

from __future__ import annotations

from pathlib import Path

from agent.api.recordings import sources_of
from agent.recording.minari_export import export as write
from agent.recording.readers import Form
from agent.recording.readers.minari import MinariRecording
from agent.recording.readers.run import RunRecording
from agent.recording.trace import Trace
from modules.messages import ConfigError


def export(recording: str | Path, place: str | Path) -> dict[str, int]:
    """Writes a recorded run, or a Minari dataset, as a Minari dataset into the new folder `place`;
    the numbers of its `episodes` and `steps`.

    Raises ConfigError or TraceError, one line; nothing has been written then.
    """
    ((opened, _),) = sources_of([recording], []).opened()
    if isinstance(opened, RunRecording):
        with Trace.open(opened.path) as trace:
            form = Form(trace.world)
    elif isinstance(opened, MinariRecording):
        form = opened.own_form()
    else:
        raise ConfigError(
            f"export {recording}: expected actions, rewards and ends, which a Minari dataset has, "
            f"got a recording without {', '.join(opened.lacks)}; try a recorded run"
        )
    return write(opened, form, Path(place))
