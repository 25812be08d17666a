"""A film as a recording: one episode of frames, of which nothing else is known."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from agent.recording.readers.pictures import Picture, PictureReader
from agent.recording.readers.recording import Episode, Form, OfEpisodes, signals_of
from modules.messages import TraceError

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v")


class VideoRecording(OfEpisodes):
    """The frames of a video file, each a step."""

    lacks: tuple[str, ...] = ("actions", "rewards", "ends")
    world: tuple[str, str | None] | None = None
    episodes = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps = sum(1 for _ in self._pictures())
        if self.steps < 2:
            raise TraceError(
                f"recording {path}: expected a video of at least 2 frames, got {self.steps}"
            )

    def _pictures(self) -> Iterator[Picture]:
        # OpenCV and its reader would print lines of their own on a damaged file.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            film = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        finally:
            cv2.utils.logging.setLogLevel(level)
        try:
            while True:
                whole, frame = film.read()
                if not whole:
                    return
                yield np.ascontiguousarray(frame[..., ::-1], np.uint8)
        finally:
            film.release()

    def require(self, form: Form) -> None:
        """Raises TraceError, one line, where the frames have another form."""
        reader = PictureReader(form, self.path)
        pictures = self._pictures()
        reader.read(next(pictures), "frame 0")
        pictures.close()  # type: ignore[attr-defined]

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """The only episode."""
        reader = PictureReader(form, self.path)
        frames = (reader.read(one, f"frame {t}") for t, one in enumerate(self._pictures()))
        signals, known = signals_of(form.world, self.steps, None, None, None)
        yield Episode(frames, self.steps, signals, known)
