"""Pictures for a person, all of one size and in the same colours."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


class Pictures:
    """Turns all that an environment may draw into pictures [H W 3] uint8 of the first one's size.

    A later picture of another size is scaled to fit and padded with black. Floats are taken to be
    in [0, 1] or in [0, 255], as the first picture that is not black says.
    """

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._white: float | None = None

    def picture(self, drawn: Any, observed: NDArray[Any]) -> Picture:
        """The picture of `drawn`, or of the observation where `drawn` is none."""
        picture = self._read(drawn)
        if picture is None:
            picture = _of_observation(observed)
        if self._size is None:
            self._size = (picture.shape[0], picture.shape[1])
        return picture if picture.shape[:2] == self._size else _fitted(picture, self._size)

    def _read(self, drawn: Any) -> Picture | None:
        """[H W 3] of a frame, grey, RGB or RGBA, or of the last one of a list."""
        if isinstance(drawn, list | tuple) and drawn:
            drawn = drawn[-1]
        try:
            frame = np.asarray(drawn)
        except Exception:
            return None
        if frame.ndim == 2:
            frame = frame[:, :, None]
        if frame.ndim != 3 or not frame.size or frame.dtype.kind not in "biuf":
            return None
        if frame.shape[2] not in (1, 3, 4) and frame.shape[0] in (1, 3, 4):
            frame = frame.transpose(1, 2, 0)
        if frame.shape[2] not in (1, 2, 3, 4):
            return None
        if frame.dtype != np.uint8:
            frame = self._scaled(frame)
        if frame.shape[2] < 3:
            frame = frame[:, :, :1].repeat(3, axis=2)
        return np.ascontiguousarray(frame[:, :, :3])

    def _scaled(self, frame: NDArray[Any]) -> Picture:
        frame = np.nan_to_num(frame.astype(np.float64))
        brightest = float(frame.max())
        if self._white is None and brightest > 0:
            self._white = 1.0 if brightest <= 1 else 255.0
        return (frame / (self._white or 1.0) * 255).round().clip(0, 255).astype(np.uint8)


def _fitted(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture, scaled with its proportions kept, in the middle of a black one of `size`."""
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    height, width = (max(1, round(edge * scale)) for edge in picture.shape[:2])
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    fitted = np.zeros((*size, 3), np.uint8)
    fitted[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA
    )
    return fitted


def _of_observation(observed: NDArray[Any]) -> Picture:
    """[H W 3]: an observed frame in three channels, or an observed vector as bars."""
    if observed.ndim == 3:
        frame = observed if observed.dtype.kind != "f" else (observed.clip(0, 1) * 255).round()
        frame = frame.astype(np.uint8)[:, :, :3]
        return frame if frame.shape[2] == 3 else frame[:, :, :1].repeat(3, axis=2)
    height, bar = 64, 12
    picture = np.zeros((height, bar * observed.size, 3), np.uint8)
    for index, value in enumerate(np.tanh(observed).tolist()):
        reach = round(value * (height // 2 - 1))
        top, bottom = sorted((height // 2, height // 2 - reach))
        picture[top : bottom + 1, bar * index + 1 : bar * (index + 1) - 1] = (90, 170, 250)
    return picture
