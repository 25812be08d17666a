"""Which reader a recording needs, by what lies at its path."""

from __future__ import annotations

from pathlib import Path

from agent.recording.readers import minari, video
from agent.recording.readers.frames import FramesRecording
from agent.recording.readers.recording import RecordedEpisodes
from agent.recording.readers.run import RunRecording
from modules.messages import TraceError


def open_recording(path: Path) -> RecordedEpisodes:
    """A recording: a run folder or its trace, a Minari dataset, a film, a folder of pictures.

    Raises TraceError or ConfigError, one line, where it is none of them or cannot be read.
    """
    if minari.is_dataset(path):
        return minari.MinariRecording(path)
    if path.is_dir() and not (path / "trace.sqlite").exists():
        if (path / "config.yaml").is_file():
            raise TraceError(
                f"recording {path}: expected a recorded run, got one without trace.sqlite; "
                "`sextet play` records, `sextet train` does not"
            )
        return FramesRecording(path)
    if path.is_file() and path.suffix.lower() in video.SUFFIXES:
        return video.VideoRecording(path)
    return RunRecording(path)
