"""A road among cars, people, trees and a pond: what can be predicted of it, and what cannot.

LeCun's example of what a representation should drop: other cars matter and can be predicted for a
while; the leaves of the trees and the ripples of the pond fill the frame and, in a strong wind,
cannot be predicted at all (LeCun 2022, §4.5; the interview on it).
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worlds.copies import SharingEnv

ID, STATE_ID = "sextet/Road-v0", "sextet/Road-state-v0"
STEPS = 200
"""Length of an episode, steps."""

SIDE = 64
"""Pixels a side of a frame; a pixel is the unit of length."""

LANES, LANE_WIDTH, LEFT = 3, 10, 17
"""Lanes, their width, and the left edge of the first."""

CARS, CAR_LENGTH, CAR_WIDTH = 4, 9, 6
OWN_TOP = 46
"""Top edge of the agent's own car."""

SPEEDS = (1.0, 2.0, 3.0)
"""Own speeds, pixels a step."""

CAR_SPEEDS = (0.75, 1.5)
"""Other cars draw their speed between these."""

AHEAD, BEHIND = -36.0, 80.0
"""Top edges between which other cars are; one that leaves comes back at the other end."""

LANE_CHANGE, SPEED_CHANGE, STEP_OUT = 0.01, 0.02, 0.01
"""Probabilities a step: that a car begins to change lane or speed, that a person steps out."""

DRIFT = 1.25
"""Sideways speed of a car that changes lane, pixels a step."""

WALK = 1.5
"""Speed of a person across the road, pixels a step."""

PERSON = 3
"""Pixels a side of a person."""

TREES, LEAVES, RIPPLES = 4, 6, 6
"""Trees, phases of the leaves of each, and phases of the pond."""

_TREE, _POND, _POND_TOP = 14, 24, 20
"""Heights of a tree and of the pond, pixels, and the top edge of the pond."""

_WIDE, _TREE_LEFT, _POND_LEFT = 14, 1, SIDE - 15
"""The width of a tree and of the pond, pixels, and their left edges."""

_DASH = 8
"""Pixels after which the dashes between lanes repeat; half of them are white."""

_GRASS, _ROAD, _WHITE = (60, 110, 50), 70, 170
_LEAF, _RIPPLE = (70, 130, 40), (60, 90, 150)
_PERSON_COLOUR, _CAR_COLOUR, _OWN_COLOUR = np.array(
    [(240, 210, 80), (200, 60, 50), (235, 235, 240)], np.float32
)


def _grounds() -> NDArray[np.float32]:
    """Grass, road and dashes, [8 64 64 3], for each remainder of the pixels travelled."""
    grounds = np.empty((_DASH, SIDE, SIDE, 3), np.float32)
    grounds[:] = _GRASS
    grounds[:, :, LEFT : LEFT + LANES * LANE_WIDTH] = _ROAD
    for travelled in range(_DASH):
        dashes = (np.arange(SIDE) - travelled) % _DASH < _DASH // 2
        for lane in range(1, LANES):
            grounds[travelled, dashes, LEFT + lane * LANE_WIDTH] = _WHITE
    return grounds


_GROUNDS = _grounds()
_COLUMN_PHASES = np.arange(_WIDE) * (2 * np.pi / 7)
_COLOURS = np.array([_LEAF] * (TREES * LEAVES) + [_RIPPLE] * RIPPLES)[:, None]
"""The colour of each band of leaves, then of ripples, [4·6 + 6, 1, 3]."""

_LEAF_BANDS = np.arange(TREES)[:, None] * LEAVES + np.arange(_TREE) // -(-_TREE // LEAVES)
"""The band of each row of each tree, [4 14]."""

_SIDES = np.array((-1, 1))


class Road(SharingEnv[NDArray[Any], np.int64]):
    """Drives along a road of three lanes among four cars, for 200 steps.

    `observation`: pixels [64 64 3] uint8 by default, or with `observation="state"` a vector
    [2 + 3·4 + 2] float32: own lane and speed, of each car its top and left edge and speed, and the
    edges of a person on the road, all in [-1, 1] or near. Actions: 3·steer + pedal, steer 0 left,
    1 straight, 2 right (a lane a step), pedal 0 slower, 1 as it is, 2 faster.

    Reward: own speed in pixels a step over the highest, minus `collision_cost` for each collision.
    A collision (the paths of this step overlap) takes the car or person off the road and stops the
    agent's car to its lowest speed; the episode goes on. `info` has the signals `progress` (own
    speed over the highest) and `collision` (0 or 1).

    `wind`: the deviation of a leaf's or ripple's turn in a step, radians; 1.5 cannot be predicted,
    .3 can for some steps. `leaves`: the contrast of leaves and ripples, 0 (still) to 1 (strong).
    Phases are in `leaf_phases` [4 6] and `ripple_phases` [6]; they act on nothing but the picture.
    All randomness is drawn from `np_random`.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "signals": ("progress", "collision"),
    }

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "pixels",
        wind: float = 1.5,
        leaves: float = 1.0,
        collision_cost: float = 5.0,
    ) -> None:
        if observation not in ("pixels", "state"):
            raise ValueError(f"observation: expected pixels or state, got {observation!r}")
        for name, value in (("wind", wind), ("leaves", leaves), ("collision_cost", collision_cost)):
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
        self.render_mode, self.as_pixels = render_mode, observation == "pixels"
        self.wind, self.contrast, self.collision_cost = wind, leaves, collision_cost
        self.action_space = spaces.Discrete(9)
        space: Any = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        if not self.as_pixels:
            space = spaces.Box(-np.inf, np.inf, (4 + 3 * CARS,), np.float32)
        self.observation_space = space

    # -- dynamics ---------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts an episode in the middle lane, at the lowest speed, with no car near."""
        super().reset(seed=seed)
        rng = self.np_random
        self.lane, self.speed = LANES // 2, 0
        self.travelled = 0.0
        gap = (BEHIND - AHEAD) / CARS
        self.car_lane = rng.integers(LANES, size=CARS)
        self.car_left = self._left_of(self.car_lane)
        self.car_top = AHEAD + gap * (np.arange(CARS) + rng.uniform(0, 0.5, CARS))
        near = np.abs(self.car_top - OWN_TOP) < 2 * CAR_LENGTH
        self.car_top = np.where(near, AHEAD, self.car_top)
        self.car_speed = rng.uniform(*CAR_SPEEDS, CARS)
        self.person: tuple[float, float, float] | None = None
        self.leaf_phases = rng.uniform(0, 2 * np.pi, (TREES, LEAVES))
        self.ripple_phases = rng.uniform(0, 2 * np.pi, RIPPLES)
        return self._observation(), {"progress": 0.0, "collision": 0.0}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Moves the agent's car, then the others, the person, leaves and ripples.

        Returns observation, reward, terminated (always False), truncated (always False), and
        `progress` and `collision`.
        """
        steer, pedal = divmod(int(action), 3)
        before = float(self._left_of(self.lane))
        self.lane = min(max(self.lane + steer - 1, 0), LANES - 1)
        self.speed = min(max(self.speed + pedal - 1, 0), len(SPEEDS) - 1)
        moved = SPEEDS[self.speed]
        self.travelled += moved
        after = float(self._left_of(self.lane))
        collision = self._move_cars(moved, before, after) | self._move_person(moved, before, after)
        if collision:
            self.speed = 0
        turns = self.np_random.normal(0, self.wind, TREES * LEAVES + RIPPLES)
        self.leaf_phases = self.leaf_phases + turns[RIPPLES:].reshape(TREES, LEAVES)
        self.ripple_phases = self.ripple_phases + turns[:RIPPLES]
        reward = moved / SPEEDS[-1] - self.collision_cost * collision
        info = {"progress": moved / SPEEDS[-1], "collision": float(collision)}
        return self._observation(), reward, False, False, info

    def _left_of(self, lane: Any) -> Any:
        """Left edge of a car in the middle of a lane."""
        return LEFT + np.asarray(lane) * LANE_WIDTH + (LANE_WIDTH - CAR_WIDTH) / 2

    def _move_cars(self, moved: float, before: float, after: float) -> bool:
        """Moves the other cars relative to the agent's; whether one of them is hit."""
        rng = self.np_random
        chances, changes = rng.random((2, CARS)), rng.uniform(*CAR_SPEEDS, CARS)
        side = _SIDES[rng.integers(len(_SIDES), size=CARS)]
        wished = self.car_lane + side
        in_lane = self.car_left == self._left_of(self.car_lane)
        change = (chances[0] < LANE_CHANGE) & in_lane & (wished >= 0) & (wished < LANES)
        self.car_lane = np.where(change, wished, self.car_lane)
        self.car_speed = np.where(chances[1] < SPEED_CHANGE, changes, self.car_speed)
        goal = self._left_of(self.car_lane)
        left = self.car_left + np.clip(goal - self.car_left, -DRIFT, DRIFT)
        top = self.car_top + moved - self.car_speed
        # The whole path of the step: a car that is passed within it is hit, too.
        hit = (np.minimum(top, self.car_top) < OWN_TOP + CAR_LENGTH) & (
            np.maximum(top, self.car_top) + CAR_LENGTH > OWN_TOP
        )
        hit &= (np.minimum(left, self.car_left) < max(before, after) + CAR_WIDTH) & (
            np.maximum(left, self.car_left) + CAR_WIDTH > min(before, after)
        )
        # A car that fell behind comes back ahead, one that drew away comes back behind.
        gone_behind, gone_ahead = hit | (top > BEHIND), top < AHEAD - CAR_LENGTH
        lanes, speeds = rng.integers(LANES, size=CARS), rng.uniform(*CAR_SPEEDS, CARS)
        again = gone_behind | gone_ahead
        self.car_lane = np.where(again, lanes, self.car_lane)
        self.car_left = np.where(again, self._left_of(self.car_lane), left)
        self.car_top = np.where(gone_behind, AHEAD, np.where(gone_ahead, BEHIND, top))
        self.car_speed = np.where(again, speeds, self.car_speed)
        return bool(hit.any())

    def _move_person(self, moved: float, before: float, after: float) -> bool:
        """Moves the person on the road, or lets one step out; whether the person is hit."""
        out, side, height = self.np_random.random(3)
        if self.person is None:
            if out < STEP_OUT:
                right = side < 0.5
                edge = LEFT - PERSON if right else LEFT + LANES * LANE_WIDTH
                self.person = (height * OWN_TOP / 2, float(edge), WALK if right else -WALK)
            return False
        top, left, walk = self.person
        new_top, new_left = top + moved, left + walk
        hit = (
            top < OWN_TOP + CAR_LENGTH
            and new_top + PERSON > OWN_TOP
            and min(left, new_left) < max(before, after) + CAR_WIDTH
            and max(left, new_left) + PERSON > min(before, after)
        )
        crossed = new_left < LEFT - PERSON or new_left > LEFT + LANES * LANE_WIDTH
        self.person = None if hit or crossed or new_top > SIDE else (new_top, new_left, walk)
        return hit

    # -- observation ------------------------------------------------------------------------

    def state(self) -> NDArray[np.float32]:
        """Own lane and speed, each car's top, left and speed, and the person's top and left."""
        top, left = (-1.0, -1.0) if self.person is None else self.person[:2]
        cars = np.stack([self.car_top / SIDE, self.car_left / SIDE, self.car_speed / 3], 1)
        own = [self.lane / (LANES - 1), self.speed / (len(SPEEDS) - 1)]
        person = [top / SIDE, left / SIDE]
        return np.concatenate([own, cars.ravel(), person]).astype(np.float32)

    def _observation(self) -> NDArray[Any]:
        return self._draw() if self.as_pixels else self.state()

    def _draw(self) -> NDArray[np.uint8]:
        """The frame, [64 64 3]. Floats until the end: sprites at fractions of a pixel overlap."""
        frame: NDArray[np.float32] = _GROUNDS[int(self.travelled) % _DASH].copy()
        self._draw_waves(frame)
        if self.person is not None:
            _fill(frame, self.person[0], self.person[1], (PERSON, PERSON), _PERSON_COLOUR)
        for top, left in zip(self.car_top.tolist(), self.car_left.tolist(), strict=True):
            _fill(frame, top, left, (CAR_LENGTH, CAR_WIDTH), _CAR_COLOUR)
        _fill(frame, OWN_TOP, self._left_of(self.lane), (CAR_LENGTH, CAR_WIDTH), _OWN_COLOUR)
        np.clip(frame, 0, 255, out=frame)
        return frame.astype(np.uint8)

    def _draw_waves(self, frame: NDArray[np.float32]) -> None:
        """Draws leaves and ripples: bands of light, one a phase, that shift with it."""
        phases = np.concatenate([self.leaf_phases.ravel(), self.ripple_phases])
        light = 1 + 0.8 * self.contrast * np.sin(phases[:, None] + _COLUMN_PHASES)
        bands = light[..., None] * _COLOURS
        trees = frame.reshape(TREES, SIDE // TREES, SIDE, 3)
        trees[:, 1 : 1 + _TREE, _TREE_LEFT : _TREE_LEFT + _WIDE] = bands.take(_LEAF_BANDS, 0)
        ripples = bands[TREES * LEAVES :].repeat(_POND // RIPPLES, 0)
        frame[_POND_TOP : _POND_TOP + _POND, _POND_LEFT : _POND_LEFT + _WIDE] = ripples

    def render(self) -> NDArray[np.uint8]:
        """[256 256 3] uint8: the frame, enlarged four times."""
        return self._draw().repeat(4, 0).repeat(4, 1)


def _fill(
    frame: NDArray[np.float32],
    top: float,
    left: float,
    size: tuple[int, int],
    colour: NDArray[np.float32],
) -> None:
    """Draws a rectangle at fractions of a pixel: its edges are mixed with what is below."""
    (rows, down), (columns, across) = _cover(top, size[0]), _cover(left, size[1])
    if down and across:
        below = frame[rows, columns]
        cover = np.array(down, np.float32)[:, None] * np.array(across, np.float32)
        below += cover[..., None] * (colour - below)


def _cover(edge: float, length: int) -> tuple[slice, list[float]]:
    """The pixels of one axis that `length` pixels from `edge` on lie in, and their share of each;
    none where they are out of the frame.
    """
    first = math.floor(edge)
    shares = [1 - (edge - first), *(1.0,) * (length - 1), edge - first]
    start, stop = max(first, 0), max(min(first + len(shares), SIDE), first, 0)
    return slice(start, stop), shares[start - first : stop - first]


for _id, _settings in ((ID, {}), (STATE_ID, {"observation": "state"})):
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id, entry_point="worlds.road:Road", max_episode_steps=STEPS, kwargs=_settings
        )
