"""Pictures as the world's frames: recorded at its size, or at that which the perception reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agent.recording.readers.recording import Form
from modules.messages import TraceError
from worlds.frames import Frames

Picture = NDArray[np.uint8]


class PictureReader:
    """Converts pictures [H Y C] of bytes to frames of the form `WorldSpec.pixels`.

    Accepted are pictures of that form, of the form that the world shows, which the perception's
    sensor reduces as it does in acting, and coloured ones, or grey ones in three equal channels,
    where the frames are grey. Raises TraceError, one line, for all others, and where the perception
    reads no frames.
    """

    def __init__(self, form: Form, path: Path) -> None:
        if form.world.pixels is None:
            raise TraceError(
                f"recording {path}: expected numbers, which the perception reads in "
                f"{form.world.id}, got pictures; try perception.kind=pixels-small"
            )
        self.form, self.expected, self.path = form, form.world.pixels, path
        self._readers: dict[tuple[int, ...], Frames] = {}

    def read(self, picture: Picture, where: str) -> Picture:
        """The frame of a picture; `where` names it in errors."""
        shape, (height, width, channels) = picture.shape, self.expected
        if shape == self.expected:
            return picture
        if shape[2:] == (3,) and channels == 1 and bool((picture == picture[..., :1]).all()):
            return self.read(picture[..., :1], where)
        coloured = channels == 1 and shape == (height, width, 3)
        if shape != self.form.shown and not coloured:
            shown = self.form.shown
            also = "" if shown in (None, self.expected) else f", or {_size(shown)} as the world has"
            raise TraceError(
                f"recording {self.path}: {where}: expected a picture of {_size(self.expected)}"
                f"{also}, got {_size(shape)}; record frames of that size, or resize them"
            )
        if shape not in self._readers:
            space: spaces.Box[Any] = spaces.Box(0, 255, shape, np.uint8)
            self._readers[shape] = Frames(self.form.world.id, space, self.form.sensor)
        return self._readers[shape].read(picture)


def _size(shape: tuple[int, ...] | None) -> str:
    return "×".join(map(str, shape or ()))
