"""Rooms with doors for a point: a goal that is near in the picture and far on foot.

`TwoRooms` is the task on which joint-embedding models plan towards pictures (PLDM: Sobal et al.
2025; EB-JEPA 2026): a wall with one door, start and goal on its two sides. In `FourRooms` with
three doors the way round leads through all rooms, away from the goal at first: planning step by
step fails where sub-goals do not (LeCun 2022, §4.6 and 4.7).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worlds.copies import SharingEnv, one_of
from worlds.walls import Place, Wall, moved, shortest_path

TWO_ID, TWO_STATE_ID = "sextet/TwoRooms-v0", "sextet/TwoRooms-state-v0"
FOUR_ID, FOUR_STATE_ID = "sextet/FourRooms-v0", "sextet/FourRooms-state-v0"

STEPS = 200
"""Length of an episode, steps."""

SIDE = 65
"""Pixels a side of a frame; a pixel is the unit of length."""

BORDER = 5.0
"""Width of the wall around, pixels; the point is from here to 64 - `BORDER`."""

RADIUS = 4.5
"""The goal is reached within this distance, pixels."""

SPEED = 1.8
"""The longest step, pixels."""

THICKNESS, DOOR = 3.0, 4.0
"""Thickness of a wall, and the half of a door's width, pixels."""

MARGIN = 2.0
"""Distance from walls at which starts and goals are drawn: no goal is reached through a wall."""

WALL_X, DOOR_Y = (20, 44), (10, 54)
"""Ranges of a random wall and of the middle of its door in `TwoRooms`."""

FIXED_WALL, FIXED_DOOR = 32, 20
"""The fixed wall, and the middle of its door."""

DOORS_OF_FOUR = (16, 16, 48, 48)
"""Middles of the fixed doors in `FourRooms`: upper, left, lower, right."""

_SPREAD, _WINDOW = 1.3, 4
"""Deviation of the picture of the point, and how far it reaches, pixels."""

_FAR = 1000.0
_UNIT = (SIDE - 1) / 2
_POINT = np.array((255, 200, 40), np.float32)
_WALL = (0, 70, 160)


class PointRooms(SharingEnv[dict[str, NDArray[Any]], NDArray[np.float32]], ABC):
    """A point that moves by up to 1.8 pixels a step among walls, along which it slides.

    Actions: the step [2], x and y, as a share of 1.8 pixels; one longer than 1 is shortened to 1.
    Walls stop the point along the whole path of a step. An episode has 200 steps and does not end
    at the goal. Reward: 1 in every step that ends within 4.5 pixels of the goal, else 0. *Touched*
    is an episode with such a step, *held* one whose last step is such a step. `info` has `at_goal`
    (0 or 1) and `distance`, pixels as the crow flies; neither is a signal, so no agent sees it.

    Places are scaled to [-1, 1], (pixels - 32) / 32. `observation`: "pixels", [65 65 3] uint8, the
    point in the red channel, walls in the blue one; or "state", the point, and the layout where it
    is random. The goal is an entry of the observation, in the same form unless `goal_form` says
    otherwise: "pixels", `goal_pixels`, the frame with the point at the goal; or "state",
    `desired_goal` [2] beside `achieved_goal` [2]; or "none".

    `layout`: "fixed" or "random" in each episode. `start`, `goal`: places in pixels, [2]; None:
    drawn such that the goal is not reached at the start. They are also options of `reset`. A place
    inside a wall is refused with a ValueError. `start` may be "anywhere": drawn from all that is
    not wall, so that experience is of all rooms. All randomness is drawn from `np_random`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}
    layout_size: ClassVar[int]
    """Numbers of a layout."""

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "pixels",
        goal_form: str | None = None,
        layout: str = "fixed",
        start: Sequence[float] | str | None = None,
        goal: Sequence[float] | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.as_pixels = one_of("observation", observation, ("pixels", "state")) == "pixels"
        forms = ("pixels", "state", "none")
        self.goal_form = one_of("goal_form", observation if goal_form is None else goal_form, forms)
        self.is_random = one_of("layout", layout, ("fixed", "random")) == "random"
        self.starts_anywhere = start == "anywhere"
        drawn = start is None or self.starts_anywhere
        self.fixed_start = None if drawn else _place("start", start)
        self.fixed_goal = None if goal is None else _place("goal", goal)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        frame = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        size = 2 + self.layout_size * self.is_random
        seen: dict[str, spaces.Space[Any]] = {
            "observation": frame if self.as_pixels else spaces.Box(-1, 1, (size,), np.float32)
        }
        if self.goal_form == "pixels":
            seen["goal_pixels"] = frame
        elif self.goal_form == "state":
            seen["desired_goal"] = spaces.Box(-1, 1, (2,), np.float32)
            seen["achieved_goal"] = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space: Any = spaces.Dict(seen)

    # -- the layout -------------------------------------------------------------------------

    @abstractmethod
    def _draw_layout(self) -> tuple[int, ...]:
        """The numbers of a layout, pixels: the fixed one, or one from `np_random`."""

    @abstractmethod
    def _walls(self, layout: tuple[int, ...]) -> tuple[Wall, ...]:
        """The inner walls of a layout."""

    @abstractmethod
    def _rooms(self, layout: tuple[int, ...]) -> tuple[Wall, Wall]:
        """The floors of the rooms of start and goal; drawn from `np_random`."""

    def shortest_path(self, start: Place, goal: Place) -> list[Place]:
        """Corners of the shortest way between two places in this episode's layout, pixels."""
        return shortest_path(start, goal, self.walls)

    # -- dynamics ---------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Draws layout, start and goal; `options` may have `start` and `goal`, [2] pixels."""
        super().reset(seed=seed)
        options = options or {}
        self.layout = self._draw_layout()
        self.walls = (*_OUTER, *self._walls(self.layout))
        self.ground = _ground(self.walls)
        start, goal = (
            _place(name, options[name]) if options.get(name) is not None else fixed
            for name, fixed in (("start", self.fixed_start), ("goal", self.fixed_goal))
        )
        for name, place in (("start", start), ("goal", goal)):
            if place is not None and any(wall.holds(place) for wall in self.walls):
                raise ValueError(f"{name}: expected a place outside of walls, got {place}")
        while True:
            first, second = self._rooms(self.layout)
            self.place = start or (self._free() if self.starts_anywhere else self._place_in(first))
            self.goal = goal or self._place_in(second)
            if (start and goal) or math.dist(self.place, self.goal) > RADIUS:
                break
        self.goal_frame = self.picture(self.goal)
        return self._observation(), self._info()

    def _free(self) -> Place:
        """A place that is in no wall."""
        while True:
            x, y = ((SIDE - 1) * self.np_random.random(2)).tolist()
            if not any(wall.holds((x, y)) for wall in self.walls):
                return x, y

    def _place_in(self, room: Wall) -> Place:
        x, y = self.np_random.random(2).tolist()
        left, top, right, bottom = room
        across, down = right - left - 2 * MARGIN, bottom - top - 2 * MARGIN
        return left + MARGIN + across * x, top + MARGIN + down * y

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Moves the point. Returns observation, reward, terminated and truncated (always False),
        `at_goal` and `distance`.
        """
        dx, dy = (float(part) for part in action)
        pixels = SPEED / max(math.hypot(dx, dy), 1)
        self.place = moved(self.place, (dx * pixels, dy * pixels), self.walls)
        info = self._info()
        return self._observation(), info["at_goal"], False, False, info

    def _info(self) -> dict[str, Any]:
        distance = math.dist(self.place, self.goal)
        return {"at_goal": float(distance <= RADIUS), "distance": distance}

    # -- observation ------------------------------------------------------------------------

    def state(self) -> NDArray[np.float32]:
        """The point, and the layout where it is random, in [-1, 1]."""
        return _scaled((*self.place, *(self.layout if self.is_random else ())))

    def picture(self, place: Place) -> NDArray[np.uint8]:
        """The frame with the point at a place in pixels, [65 65 3]: a goal as a picture."""
        frame: NDArray[np.uint8] = self.ground.copy()
        x, y = place
        left, top = round(x) - _WINDOW, round(y) - _WINDOW
        across = np.exp(-((_REACH + (left - x)) ** 2) / (2 * _SPREAD**2))
        down = np.exp(-((_REACH + (top - y)) ** 2) / (2 * _SPREAD**2))
        part = frame[top : top + len(_REACH), left : left + len(_REACH)]
        cover = (down[:, None] * across)[..., None]
        part[:] = part + cover * (_POINT - part)
        return frame

    def _observation(self) -> dict[str, NDArray[Any]]:
        self.frame = self.picture(self.place) if self.as_pixels else None
        seen: dict[str, NDArray[Any]] = {
            "observation": self.state() if self.frame is None else self.frame
        }
        if self.goal_form == "pixels":
            seen["goal_pixels"] = self.goal_frame.copy()
        elif self.goal_form == "state":
            seen["desired_goal"], seen["achieved_goal"] = _scaled(self.goal), _scaled(self.place)
        return seen

    def render(self) -> NDArray[np.uint8]:
        """[260 260 3] uint8: the frame, with a green ring around the goal, enlarged four times."""
        picture = self.picture(self.place).repeat(4, 0).repeat(4, 1)
        x, y = self.goal
        far = np.hypot(_FINE[:, None] - y, _FINE - x)
        picture[np.abs(far - RADIUS) < 0.3] = (60, 220, 90)
        return picture


class TwoRooms(PointRooms):
    """Two rooms side by side, with one door; start and goal in different ones. See `PointRooms`.

    The wall is at x = 32 with the middle of its door at y = 20, or, where the layout is random, at
    x from 20 to 44 and y from 10 to 54; the door is 8 pixels wide. A random layout is shown in the
    state as (wall, door).
    """

    layout_size = 2

    def _draw_layout(self) -> tuple[int, ...]:
        if not self.is_random:
            return FIXED_WALL, FIXED_DOOR
        return tuple(int(self.np_random.integers(low, high + 1)) for low, high in (WALL_X, DOOR_Y))

    def _walls(self, layout: tuple[int, ...]) -> tuple[Wall, ...]:
        x, door = layout
        return _upright(x, 0, SIDE - 1, door)

    def _rooms(self, layout: tuple[int, ...]) -> tuple[Wall, Wall]:
        low, high, half = BORDER, SIDE - 1 - BORDER, THICKNESS / 2
        left = Wall(low, low, layout[0] - half, high)
        right = Wall(layout[0] + half, low, high, high)
        return (left, right) if self.np_random.random() < 0.5 else (right, left)


class FourRooms(PointRooms):
    """Four rooms around a cross of walls, with three doors or four. See `PointRooms`.

    With three `doors` there is none between the two rooms on the right, and start and goal are in
    these two: the way leads round through the rooms on the left. With four doors, start and goal
    are in any two rooms. Doors are 8 pixels wide, in the middle of their walls or, where the layout
    is random, anywhere in them; the random layout is shown in the state as the places of the doors:
    upper, left, lower, right.
    """

    layout_size = 4

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "pixels",
        goal_form: str | None = None,
        layout: str = "fixed",
        start: Sequence[float] | str | None = None,
        goal: Sequence[float] | None = None,
        doors: int = 3,
    ) -> None:
        if doors not in (3, 4):
            raise ValueError(f"doors: expected 3 or 4, got {doors!r}")
        super().__init__(render_mode, observation, goal_form, layout, start, goal)
        self.doors = doors

    def _draw_layout(self) -> tuple[int, ...]:
        if not self.is_random:
            return DOORS_OF_FOUR
        drawn = self.np_random.integers(DOOR_Y[0], 32 - 5, size=4).tolist()
        return drawn[0], drawn[1], 64 - drawn[2], 64 - drawn[3]

    def _walls(self, layout: tuple[int, ...]) -> tuple[Wall, ...]:
        upper, left, lower, right = layout
        end, middle = SIDE - 1, (SIDE - 1) / 2
        closed = None if self.doors == 3 else right
        # Walls overlap where they meet: the point could slip between two that only touch.
        return (
            *_upright(middle, 0, middle + THICKNESS, upper),
            *_upright(middle, middle - THICKNESS, end, lower),
            *_level(middle, 0, middle + THICKNESS, left),
            *_level(middle, middle - THICKNESS, end, closed),
        )

    def _rooms(self, layout: tuple[int, ...]) -> tuple[Wall, Wall]:
        low, high, middle = BORDER, SIDE - 1 - BORDER, (SIDE - 1) / 2
        before, behind = middle - THICKNESS / 2, middle + THICKNESS / 2
        left, right = (low, before), (behind, high)
        rooms = [Wall(x[0], y[0], x[1], y[1]) for x in (right, left) for y in (left, right)]
        count = 2 if self.doors == 3 else 4
        first, second = self.np_random.permutation(count)[:2].tolist()
        return rooms[first], rooms[second]


def _upright(x: float, top: float, bottom: float, door: float | None) -> tuple[Wall, ...]:
    """A wall from top to bottom at x, with its door's middle at y = `door`."""
    half = THICKNESS / 2
    if door is None:
        return (Wall(x - half, top, x + half, bottom),)
    return Wall(x - half, top, x + half, door - DOOR), Wall(x - half, door + DOOR, x + half, bottom)


def _level(y: float, left: float, right: float, door: float | None) -> tuple[Wall, ...]:
    """A wall from left to right at y, with its door's middle at x = `door`."""
    turned = _upright(y, left, right, door)
    return tuple(Wall(wall.top, wall.left, wall.bottom, wall.right) for wall in turned)


def _place(name: str, value: Any) -> Place:
    """A place that a user gave. Raises ValueError unless it is two numbers within the frame."""
    numbers = np.asarray(value, np.float64) if np.isscalar(value) is False else np.zeros(0)
    if numbers.shape != (2,) or not ((numbers >= 0) & (numbers <= SIDE - 1)).all():
        raise ValueError(
            f"{name}: expected two numbers from 0 to {SIDE - 1}, pixels"
            f"{', or anywhere' if name == 'start' else ''}, got {value!r}"
        )
    return float(numbers[0]), float(numbers[1])


def _scaled(pixels: Sequence[float]) -> NDArray[np.float32]:
    return ((np.array(pixels) - _UNIT) / _UNIT).astype(np.float32)


_FINE = np.arange(4 * SIDE) / 4
_REACH = np.arange(2 * _WINDOW + 1)
_OUTER = (
    Wall(-_FAR, -_FAR, BORDER, _FAR),
    Wall(SIDE - 1 - BORDER, -_FAR, _FAR, _FAR),
    Wall(-_FAR, -_FAR, _FAR, BORDER),
    Wall(-_FAR, SIDE - 1 - BORDER, _FAR, _FAR),
)


@cache
def _ground(walls: tuple[Wall, ...]) -> NDArray[np.uint8]:
    """The frame without the point, [65 65 3], of a layout."""
    middles = np.arange(SIDE)
    ground = np.zeros((SIDE, SIDE, 3), np.uint8)
    for left, top, right, bottom in walls:
        rows = (middles > top) & (middles < bottom)
        columns = (middles > left) & (middles < right)
        ground[rows[:, None] & columns] = _WALL
    return ground


for _id, _class, _observation in (
    (TWO_ID, "TwoRooms", "pixels"),
    (TWO_STATE_ID, "TwoRooms", "state"),
    (FOUR_ID, "FourRooms", "pixels"),
    (FOUR_STATE_ID, "FourRooms", "state"),
):
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point=f"worlds.point_rooms:{_class}",
            max_episode_steps=STEPS,
            kwargs={"observation": _observation},
        )
