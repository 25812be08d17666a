"""Films that examples learn from: folders of numbered pictures, a folder an episode."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Film = tuple[list[Any], NDArray[Any] | None]
"""The frames [H Y 3] of an episode, and the actions between them, one less; None: unknown."""


def filmed(place: Path, films: Iterable[Film], labels: int) -> Path:
    """A folder of films; they are asked for where it is not there. Actions are put beside each
    `labels`-th film; 0: beside none.
    """
    if place.is_dir():
        return place
    partial = place.with_name(f"{place.name}.partial")
    for number, (frames, actions) in enumerate(films):
        folder = partial / f"{number:04}"
        folder.mkdir(parents=True, exist_ok=True)
        for step, frame in enumerate(frames):
            cv2.imwrite(str(folder / f"{step:04}.png"), frame[..., ::-1])
        if labels and number % labels == 0 and actions is not None:
            np.save(folder / "actions.npy", actions)
    partial.rename(place)
    return place
