"""Readers of recordings: one for each form, behind `open_recording`."""

from agent.recording.readers.recording import Form, RecordedEpisodes, remember
from agent.recording.readers.sources import open_recording

__all__ = ["Form", "RecordedEpisodes", "open_recording", "remember"]
