"""Boxes of pictures, read as frames [H W C] of bytes, with all of their channels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from modules.messages import ConfigError
from worlds.protocols import Sensor

SMALLEST_PICTURE = 32
"""Least height and width, pixels, of what is taken for a picture unless one is asked for: grids of
codes are smaller (MiniGrid's are at most 25 a side), pictures larger.
"""

LARGEST_CODE = 32
"""Integers up to this one are taken for codes, which have no order; larger ones for shades."""

Box = spaces.Box[Any]

_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


def bounds(space: Box) -> tuple[float, float]:
    """The least lower and the greatest upper bound of a Box."""
    return (float(space.low.min()), float(space.high.max())) if space.low.size else (0.0, 0.0)


def shows_pictures(space: spaces.Space[Any]) -> bool:
    """Whether a space is taken for pictures unless the perception asks for another reading.

    Pictures are Boxes of 2 to 4 axes, at least 32 by 32 pixels, of integers up to 255 or floats up
    to 1 or 255; integers up to 32 are codes.
    """
    if not isinstance(space, spaces.Box) or not 2 <= len(space.shape) <= 4:
        return False
    low, high = bounds(space)
    if space.dtype.kind == "f":
        shades = low == 0 and high in (1, 255)
    else:
        shades = low >= 0 and LARGEST_CODE < high <= 255
    at = _height_axis(space.shape)
    return shades and min(space.shape[at : at + 2]) >= SMALLEST_PICTURE


def _are_pictures(space: Box) -> bool:
    low, high = bounds(space)
    return 2 <= len(space.shape) <= 4 and 0 not in space.shape and -np.inf < low < high < np.inf


def _height_axis(shape: tuple[int, ...]) -> int:
    """The axis of the height, before that of the width: the two neighbours of greatest length."""
    pairs = range(len(shape) - 1)
    return max(pairs, key=lambda i: (min(shape[i : i + 2]), shape[i] == shape[i + 1], -i))


class Frames:
    """Converts the pictures of a Box to frames [H W C] uint8.

    Height and width are the two neighbouring axes of greatest length; all others are channels, in
    their order: [H W], [H W C], [C H W], stacked frames [F H W C] or [F C H W]. An axis of three is
    taken for red, green and blue. The bounds of the Box become 0 and 255. The sensor's size and its
    `gray`, which leaves one channel of each three colours, are applied to all channels.

    Raises: ConfigError where the Box has no height and width or no finite bounds.
    """

    def __init__(self, id: str, space: spaces.Space[Any], sensor: Sensor | None) -> None:
        if not isinstance(space, spaces.Box) or not _are_pictures(space):
            raise ConfigError(
                f"world {id}: expected pictures, a Box of 2 to 4 axes with finite bounds, for a "
                f"perception of pixels, got {brief(space)}; try perception.kind=vectors"
            )
        self._sensor, shape = sensor, space.shape
        at = _height_axis(shape)
        others = [axis for axis in range(len(shape)) if axis not in (at, at + 1)]
        self.colour = next((axis for axis in reversed(others) if shape[axis] == 3), None)
        others.sort(key=lambda axis: axis == self.colour)
        self._order = (at, at + 1, *others)
        self._low, high = bounds(space)
        integers = space.dtype.kind in "iu"
        if integers and self._low >= 0 and LARGEST_CODE < high <= 255:
            self._low, high = 0.0, 255.0
        self._scale = 255 / (high - self._low)
        height, width, channels = self.read(np.zeros(shape, space.dtype)).shape
        self.shape = (height, width, channels)

    def read(self, observed: NDArray[Any]) -> NDArray[np.uint8]:
        """The frame [H W C] of a picture, a copy."""
        frame: NDArray[Any] = observed.transpose(self._order)
        if (self._low, self._scale) != (0, 1):
            frame = (frame.astype(np.float32) - self._low) * self._scale
        if frame.dtype != np.uint8:
            frame = frame.round().clip(0, 255).astype(np.uint8)
        sensor = self._sensor
        if sensor is not None and sensor.gray and self.colour is not None:
            frame = _grayed(frame)
        frame = np.ascontiguousarray(frame.reshape(*frame.shape[:2], -1))
        if sensor is not None and frame.shape[:2] != (sensor.height, sensor.width):
            frame = _resized(frame, sensor.width, sensor.height)
        return np.array(frame, np.uint8) if np.may_share_memory(frame, observed) else frame


def _resized(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """A frame [H W C] of another size, by area. OpenCV takes at most four channels at once."""
    parts = [frame[:, :, first : first + 4] for first in range(0, frame.shape[2], 4)]
    resized = [
        cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_AREA)
        for part in parts
    ]
    return np.concatenate([part.reshape(height, width, -1) for part in resized], 2, dtype=np.uint8)


def _grayed(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luminance of the last axis, red, green and blue."""
    if frame.ndim == 3:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY), np.uint8)
    return (frame @ _GRAY).round().astype(np.uint8)


def brief(space: spaces.Space[Any]) -> str:
    """A space in a few words, on one line."""
    if isinstance(space, spaces.Box):
        low, high = bounds(space)
        axes = " ".join(map(str, space.shape))
        return f"Box [{axes}] {space.dtype} of {low:g} to {high:g}"
    text = " ".join(str(space).split())
    return text if len(text) <= 160 else f"{text[:157]}…"
