"""How Gymnasium's spaces are read: observations as pixels or vectors, actions as native values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from modules.messages import ActionSpec, ConfigError
from worlds.frames import Frames, brief, shows_pictures
from worlds.protocols import Reading, Sensor
from worlds.vectors import UnreadableSpace, flattened, parts, reading_of, size_of

MAX_VECTOR = 1 << 17
"""Numbers of the longest vector: what networks of the usual widths can still take."""

MAX_PRODUCT = 1024
"""Actions of the largest product of discrete parts."""

MAX_ACTIONS = (1 << 15) - 1
"""Actions of the largest Discrete: memory stores them as int16."""

_NO_BOUND = 1e30
_GOAL_KEYS = {"observation", "desired_goal", "achieved_goal"}
_PICTURE_KEYS = {"observation", "goal_pixels"}


class ActionCodec:
    """Converts native actions to elements of the environment's action space.

    Native are an int where `spec.discrete`, else an array [A]. Discrete parts (Discrete,
    MultiDiscrete, MultiBinary, and Dict and Tuple of those) are one discrete action, the product of
    them, with a factor for each choice; continuous parts (bounded Boxes) are one vector.
    `dtype` and `shape` are those of a native action. `description`: what the space was taken for.

    Raises: ConfigError for a space that is neither, has infinite bounds or too many combinations.
    """

    def __init__(self, id: str, space: spaces.Space[Any]) -> None:
        self._space = space
        self.dtype: np.dtype[Any] = np.dtype(np.int64)
        self.shape: tuple[int, ...] = ()
        leaves = list(_leaves(space))
        self._choices = tuple(n for leaf in leaves for n in _choices(leaf))
        if leaves and all(isinstance(leaf, _DISCRETE) for leaf in leaves):
            self.spec = self._product(id)
            count = "the product of its parts" if len(self._choices) > 1 else "discrete"
            self.description = f"{brief(space)} → {self.spec.size} actions ({count})"
        elif leaves and all(isinstance(leaf, spaces.Box) for leaf in leaves):
            self.spec = self._continuous(id, leaves)
            self.dtype, self.shape = np.dtype(np.float64), (self.spec.size,)
            rounded = any(leaf.dtype is not None and leaf.dtype.kind in "iu" for leaf in leaves)
            count = "continuous, rounded" if rounded else "continuous"
            self.description = f"{brief(space)} → {self.spec.size} numbers ({count})"
        else:
            raise ConfigError(
                f"world {id}: expected actions that are all discrete (Discrete, MultiDiscrete, "
                f"MultiBinary) or all in a Box, got {brief(space)}; wrap the environment, for "
                "instance in gymnasium.wrappers.TransformAction"
            )

    def _product(self, id: str) -> ActionSpec:
        size = math.prod(self._choices)
        largest = MAX_ACTIONS if len(self._choices) == 1 else MAX_PRODUCT
        if not 1 <= size <= largest:
            raise ConfigError(
                f"world {id}: expected at most {largest} combinations of discrete actions, got "
                f"{size} in {brief(self._space)}; wrap the environment so that it offers fewer, "
                "for instance in gymnasium.wrappers.TransformAction"
            )
        factors: tuple[tuple[float, ...], ...] = ()
        if len(self._choices) > 1:
            digits = np.unravel_index(np.arange(size), self._choices)
            # Of two choices one number tells which.
            tables = [np.eye(n)[:, 1 if n == 2 else 0 :] for n in self._choices]
            columns = [table[of] for table, of in zip(tables, digits, strict=True)]
            factors = tuple(map(tuple, np.hstack(columns).tolist()))
        return ActionSpec(discrete=True, size=size, factors=factors)

    def _continuous(self, id: str, leaves: list[Any]) -> ActionSpec:
        low = np.concatenate([leaf.low.astype(np.float64).ravel() for leaf in leaves])
        high = np.concatenate([leaf.high.astype(np.float64).ravel() for leaf in leaves])
        if not low.size or not (np.maximum(abs(low), abs(high)) < _NO_BOUND).all():
            raise ConfigError(
                f"world {id}: expected actions with finite bounds, got {brief(self._space)}; wrap "
                "the environment, for instance in gymnasium.wrappers.TransformAction with a Box of "
                "the range that it takes"
            )
        if not bool((low < high).all()):
            raise ConfigError(
                f"world {id}: expected low < high for actions, got {brief(self._space)}; wrap the "
                "environment so that it offers only what can be chosen"
            )
        return ActionSpec(
            discrete=False, size=low.size, low=tuple(low.tolist()), high=tuple(high.tolist())
        )

    def to_env(self, native: Any) -> Any:
        """The element of the action space for a native action, an int or an array [A]; new."""
        if self.spec.discrete:
            numbers = iter(map(int, np.unravel_index(int(native), self._choices)))
        else:
            numbers = iter(np.asarray(native, np.float64).tolist())
        return _element(self._space, numbers)

    def from_env(self, element: Any) -> Any:
        """The native action of an element of the action space, an int or an array [A] float64."""
        numbers = list(_numbers(self._space, element))
        if self.spec.discrete:
            return int(np.ravel_multi_index(tuple(map(int, numbers)), self._choices))
        return np.array(numbers, np.float64)

    def effort(self, native: Any) -> float:
        """Effort in [0, 1]: 0 for the first discrete action, else 1; mean square if continuous."""
        if self.spec.discrete:
            return float(int(native) != 0)
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        scaled = (np.asarray(native, np.float64) - low) / (high - low) * 2 - 1
        return float(np.clip(np.square(scaled).mean(), 0.0, 1.0))


_DISCRETE = (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def _leaves(space: spaces.Space[Any]) -> Iterator[spaces.Space[Any]]:
    """The spaces within nested Dicts and Tuples, in order."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for part in parts(space).values():
            yield from _leaves(part)
    else:
        yield space


def _choices(leaf: spaces.Space[Any]) -> tuple[int, ...]:
    """The number of options of each choice that a discrete space offers."""
    if isinstance(leaf, spaces.Discrete):
        return (int(leaf.n),)
    if isinstance(leaf, spaces.MultiDiscrete):
        return tuple(int(n) for n in leaf.nvec.ravel())
    return (2,) * math.prod(leaf.shape or ())


def _element(space: spaces.Space[Any], numbers: Iterator[Any]) -> Any:
    """The element of `space` that takes its choices or coordinates from `numbers`."""
    if isinstance(space, spaces.Dict):
        return {key: _element(part, numbers) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_element(part, numbers) for part in space.spaces)
    if isinstance(space, spaces.Discrete):
        return next(numbers) + int(space.start)
    shape = space.shape or ()
    values = np.array([next(numbers) for _ in range(math.prod(shape))])
    if isinstance(space, spaces.Box) and space.dtype.kind in "iu":
        values = values.round()
    element = values.astype(space.dtype).reshape(shape)
    if isinstance(space, spaces.MultiDiscrete):
        element += space.start.astype(space.dtype)
    return element


def _numbers(space: spaces.Space[Any], element: Any) -> Iterator[Any]:
    """The choices, from 0, or coordinates of an element of `space`: the inverse of `_element`."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in parts(space).items():
            yield from _numbers(part, element[key])
    elif isinstance(space, spaces.Discrete):
        yield int(element) - int(space.start)
    elif isinstance(space, spaces.MultiDiscrete):
        yield from (np.asarray(element) - space.start).ravel().tolist()
    else:
        yield from np.asarray(element).ravel().tolist()


class Percept(NamedTuple):
    """One observation of one row: pixels [H W C] or a vector [N], goal [G], achieved goal (G), goal
    as a picture [H W C].
    """

    array: NDArray[Any]
    goal: NDArray[np.float32] | None
    achieved: tuple[float, ...] = ()
    goal_pixels: NDArray[Any] | None = None


class ObservationCodec:
    """Converts the environment's observations to pixels [H W C] uint8 or vectors [N] float32.

    `reading`: what the perception reads; None: pixels where the space shows pictures, see
    `worlds.frames.shows_pictures`, else a vector. `description`: what the space was taken for.
    `shows_goal`: whether goals are pictures; where these are read as vectors, a goal is one too.

    Raises: ConfigError where pictures are asked of a space without them, for a vector longer than
    MAX_VECTOR, and for a space without numbers of a fixed count.
    """

    def __init__(
        self,
        id: str,
        space: spaces.Space[Any],
        sensor: Sensor | None,
        reading: Reading | None = None,
    ) -> None:
        self.pixels: tuple[int, int, int] | None = None
        self.vector = self.goal = None
        self._frames: Frames | None = None
        main, achieved, goal_space = space, 0, None
        if isinstance(space, spaces.Dict) and set(space.keys()) == _GOAL_KEYS:
            main = space["observation"]
            for key in ("desired_goal", "achieved_goal"):
                if not isinstance(space[key], spaces.Box):
                    raise ConfigError(f"world {id}: expected a Box as {key}, got {space[key]}")
            self.goal = spaces.flatdim(space["desired_goal"])
            achieved = spaces.flatdim(space["achieved_goal"])
        elif isinstance(space, spaces.Dict) and set(space.keys()) == _PICTURE_KEYS:
            main, goal_space = space["observation"], space["goal_pixels"]
        self._space, self._goal_space = main, goal_space
        if reading == "pixels" or (reading is None and shows_pictures(main)):
            self._frames = Frames(id, main, sensor)
            self.pixels = self._frames.shape
            size = "×".join(map(str, self.pixels))
            self.description = (
                f"{brief(main)} → pictures {size}; perception.kind=vectors reads a vector"
            )
        else:
            self.vector = self._vector_size(id, main) + achieved
            if goal_space is not None:
                self.goal = self._vector_size(id, goal_space)
            self.description = reading_of(main)
            if isinstance(main, spaces.Dict | spaces.Tuple):
                self.description += f" → a vector of {self.vector}"
            elif isinstance(main, spaces.Box) and len(main.shape) > 1:
                self.description += "; perception.kind=pixels-small reads a picture"
        self.shows_goal = False
        if self._frames is not None and goal_space is not None:
            self.shows_goal = True
            if goal_space != main:
                raise ConfigError(
                    f"world {id}: goal_pixels: expected the space of the observation, {brief(main)}"
                    f", got {brief(goal_space)}; give pictures of one form"
                )
            self.description += ", a goal as a picture"
        if self.goal is not None:
            self.description += f", a goal of {self.goal}"
        self.goal_signals = tuple(f"achieved_{number}" for number in range(achieved))

    @staticmethod
    def _vector_size(id: str, space: spaces.Space[Any]) -> int:
        try:
            size = size_of(space)
        except UnreadableSpace as error:
            raise ConfigError(
                f"world {id}: expected observations of a fixed count of numbers, got "
                f"{brief(error.args[0])}; wrap the environment, for instance in "
                "gymnasium.wrappers.TransformObservation"
            ) from None
        if not 1 <= size <= MAX_VECTOR:
            pictures = isinstance(space, spaces.Box) and len(space.shape) > 1
            raise ConfigError(
                f"world {id}: expected observations of 1 to {MAX_VECTOR} numbers, got {size} from "
                f"{brief(space)}; "
                + ("try perception.kind=pixels-small, or " if pictures else "")
                + "wrap the environment so that it shows fewer, for instance in "
                "gymnasium.wrappers.TransformObservation"
            )
        return size

    def encode(self, observation: Any) -> Percept:
        """One percept. The achieved goal becomes signals, and the end of a vector."""
        goal, goal_pixels, achieved = None, None, np.zeros(0, np.float32)
        if self._goal_space is not None:
            shown, observation = observation["goal_pixels"], observation["observation"]
            if self._frames is None:
                goal = flattened(self._goal_space, shown)
            else:
                goal_pixels = self._frames.read(np.asarray(shown))
        elif self.goal is not None:
            goal = np.asarray(observation["desired_goal"], np.float32).ravel()
            achieved = np.asarray(observation["achieved_goal"], np.float32).ravel()
            observation = observation["observation"]
        goal_signals = tuple(achieved.tolist())
        if self._frames is not None:
            frame = self._frames.read(np.asarray(observation))
            return Percept(frame, goal, goal_signals, goal_pixels)
        values = flattened(self._space, observation)
        return Percept(np.concatenate([values, achieved]), goal, goal_signals)
