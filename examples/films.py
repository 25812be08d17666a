"""Films that examples learn from: folders of numbered pictures, a folder an episode."""

from __future__ import annotations

from collections.abc import Callable
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
        folder = partial / f"{episode:04}"
        folder.mkdir(parents=True, exist_ok=True)
        frames, actions = film(episode)
        for step, frame in enumerate(frames):
            cv2.imwrite(str(folder / f"{step:03}.png"), frame[..., ::-1])
        if labels and episode % labels == 0:
            np.save(folder / "actions.npy", actions)
    partial.rename(place)
    return place
