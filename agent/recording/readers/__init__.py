"""Readers of recordings: one for each form, behind `open_recording`."""

from agent.recording.readers.recording import (
    Episode,
    Form,
    OfEpisodes,
    RecordedEpisodes,
    remember,
)
from agent.recording.readers.sources import open_recording

__all__ = ["Episode", "Form", "OfEpisodes", "RecordedEpisodes", "open_recording", "remember"]
