"""Films that examples learn from: folders of numbered pictures, a folder an episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def filmed(
    place: Path, episodes: int, film: Callable[[int], tuple[list[Any], NDArray[Any]]], labels: int
) -> Path:
    """A folder of `episodes` of pictures, where it is not there. `film` gives the frames of one and
    the actions between them, which are put beside each `labels`-th; 0: beside none.
    """
    if place.is_dir():
        return place
    partial = place.with_name(f"{place.name}.partial")
    for episode in range(episodes):
        frames, actions = film(episode)
        put_frames(partial / f"{episode:04}", frames)
        if labels and episode % labels == 0:
            np.save(partial / f"{episode:04}" / "actions.npy", actions)
    partial.rename(place)
    return place


def put_frames(folder: Path, frames: Iterable[NDArray[Any]]) -> None:
    """Writes the frames [H Y 3] of an episode as numbered pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{step:04}.png"), frame[..., ::-1])
