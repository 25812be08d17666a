"""A film of a run, written by the ffmpeg of imageio-ffmpeg."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from modules.messages import ConfigError

FRAMES_PER_S = 15
"""A step of an Atari world is four frames of a sixtieth of a second."""


class Film(AbstractContextManager["Film"]):
    """Writes frames to an mp4 file; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: Generator[None, Any, None] | None = None

    @staticmethod
    def require() -> None:
        """Raises ConfigError, one line, where the extra is not installed."""
        if importlib.util.find_spec("imageio_ffmpeg") is None:
            raise ConfigError(
                "option --video: expected imageio-ffmpeg, which is not installed; "
                "pip install 'sextet[video]'"
            )

    def add(self, frame: Tensor) -> None:
        """Adds a frame [H W 3] uint8; a small one is enlarged by a whole factor."""
        import imageio_ffmpeg

        times = max(1, round(420 / frame.shape[0]))
        large = frame.repeat_interleave(times, 0).repeat_interleave(times, 1)
        # yuv420 halves both sides, so both must be even.
        large = large[: large.shape[0] // 2 * 2, : large.shape[1] // 2 * 2].contiguous()
        if self._writer is None:
            size = (large.shape[1], large.shape[0])
            self._writer = imageio_ffmpeg.write_frames(
                str(self.path), size, fps=FRAMES_PER_S, macro_block_size=2
            )
            self._writer.send(None)
        self._writer.send(large.numpy().tobytes())

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
