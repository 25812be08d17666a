"""How Gymnasium's spaces are read: observations as pixels or vectors, actions as native values."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from modules.messages import ActionSpec, ConfigError
from worlds.protocols import Sensor

_CHANNELS = (1, 3, 4)
_SMALLEST_FRAME = 8
_GOAL_KEYS = {"observation", "desired_goal", "achieved_goal"}


class ActionCodec:
    """Converts native actions to elements of the environment's action space."""

    def __init__(self, id: str, space: spaces.Space[Any]) -> None:
        self.start = 0
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] = np.dtype(np.int64)
        if isinstance(space, spaces.Discrete):
            self.spec = ActionSpec(discrete=True, size=int(space.n))
            self.start = int(space.start)
        elif isinstance(space, spaces.Box) and space.is_bounded() and space.low.size:
            if not bool((space.low < space.high).all()):
                raise ConfigError(f"world {id}: expected low < high for actions, got {space}")
            self.shape, self.dtype = space.shape, space.dtype
            low, high = (bound.astype(np.float64).ravel() for bound in (space.low, space.high))
            self.spec = ActionSpec(
                discrete=False, size=low.size, low=tuple(low.tolist()), high=tuple(high.tolist())
            )
        else:
            raise ConfigError(
                f"world {id}: expected actions in Discrete or a Box with finite bounds, got {space}"
            )

    def to_env(self, native: Any) -> Any:
        """The element of the action space for a native action, an int or an array [A]."""
        if self.spec.discrete:
            return int(native) + self.start
        values = np.asarray(native, np.float64)
        if self.dtype.kind in "iu":
            values = values.round()
        return values.astype(self.dtype).reshape(self.shape)

    def effort(self, native: Any) -> float:
        """Effort in [0, 1]: 0 for the first discrete action, else 1; mean square if continuous."""
        if self.spec.discrete:
            return float(int(native) != 0)
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        scaled = (np.asarray(native, np.float64) - low) / (high - low) * 2 - 1
        return float(np.clip(np.square(scaled).mean(), 0.0, 1.0))


class Percept(NamedTuple):
    """One observation of one row: pixels [H W C] or a vector [N], goal [G], achieved goal (G)."""

    array: NDArray[Any]
    goal: NDArray[np.float32] | None
    achieved: tuple[float, ...] = ()


class ObservationCodec:
    """Converts the environment's observations to pixels [H W C] or vectors [N]."""

    def __init__(self, id: str, space: spaces.Space[Any], sensor: Sensor | None) -> None:
        self.pixels: tuple[int, int, int] | None = None
        self.vector = self.goal = None
        self._layout, self._sensor = "", None
        main, achieved = space, 0
        if isinstance(space, spaces.Dict) and set(space.keys()) == _GOAL_KEYS:
            main = space["observation"]
            for key in ("desired_goal", "achieved_goal"):
                if not isinstance(space[key], spaces.Box):
                    raise ConfigError(f"world {id}: expected a Box as {key}, got {space[key]}")
            self.goal = spaces.flatdim(space["desired_goal"])
            achieved = spaces.flatdim(space["achieved_goal"])
        self._space = main
        if isinstance(main, spaces.Box) and _layout(main):
            self._layout, self._sensor = _layout(main), sensor
            height, width, channels = self._ordered(np.zeros(main.shape, main.dtype)).shape
            self.pixels = (height, width, channels) if sensor is None else sensor.shape
        elif isinstance(main, spaces.Discrete | spaces.Box) and main.dtype.kind in "fiub":
            self.vector = spaces.flatdim(main) + achieved
        else:
            raise ConfigError(
                f"world {id}: expected observations in a Box, Discrete, or a Dict of those with "
                f"keys {', '.join(sorted(_GOAL_KEYS))}, got {space}; wrap the environment, "
                "for instance in gymnasium.wrappers.FlattenObservation"
            )
        self.goal_signals = tuple(f"achieved_{number}" for number in range(achieved))

    def encode(self, observation: Any) -> Percept:
        """One percept. The achieved goal becomes signals, and the end of a vector."""
        goal, achieved = None, np.zeros(0, np.float32)
        if self.goal is not None:
            goal = np.asarray(observation["desired_goal"], np.float32).ravel()
            achieved = np.asarray(observation["achieved_goal"], np.float32).ravel()
            observation = observation["observation"]
        goal_signals = tuple(achieved.tolist())
        if self._layout:
            return Percept(self._frame(np.asarray(observation)), goal, goal_signals)
        values = np.asarray(spaces.flatten(self._space, observation), np.float32)  # or one-hot
        return Percept(np.concatenate([values, achieved]), goal, goal_signals)

    def _ordered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """A frame in the order [H W C]."""
        if self._layout == "HW":
            return frame[:, :, None]
        return frame.transpose(1, 2, 0) if self._layout == "CHW" else frame

    def _frame(self, observed: NDArray[Any]) -> NDArray[Any]:
        frame = np.ascontiguousarray(self._ordered(observed))
        sensor = self._sensor
        if sensor is None:
            return frame.copy()
        if frame.dtype.kind == "f":
            frame = (frame.clip(0, 1) * 255).round()
        frame = frame.astype(np.uint8)[:, :, :3]
        if sensor.gray and frame.shape[2] == 3:
            frame = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        elif not sensor.gray and frame.shape[2] == 1:
            frame = frame.repeat(3, axis=2)
        if frame.shape[:2] != (sensor.height, sensor.width):
            frame = cv2.resize(frame, (sensor.width, sensor.height), interpolation=cv2.INTER_AREA)
        return frame if frame.ndim == 3 else frame[:, :, None]


def _layout(space: spaces.Box) -> str:
    """Axes of a Box of frames: `HWC`, `CHW` or `HW`; empty for a Box of other numbers.

    Frames are uint8, or floats in [0, 1], at least 8 by 8 pixels, with 1, 3 or 4 channels.
    """
    shape, kind = space.shape, space.dtype.kind
    unit = kind == "f" and float(space.low.min(initial=0)) == 0 and float(space.high.max()) == 1
    if not (unit or space.dtype == np.uint8) or len(shape) not in (2, 3):
        return ""
    layouts = {"HW": (*shape, 1)}
    if len(shape) == 3:
        layouts = {"HWC": shape, "CHW": (shape[1], shape[2], shape[0])}
    for layout, (height, width, channels) in layouts.items():
        if channels in _CHANNELS and min(height, width) >= _SMALLEST_FRAME:
            return layout
    return ""
