"""A rocket near a space station: a rendezvous whose best thrusts are known exactly.

LeCun's example of what planning comes from: given a model of the rocket and a cost, the distance
from the station, the thrusts are improved by gradients carried backward through time (Kelley 1960,
Bryson 1962; the interview on LeCun 2022). Relative motion near a station on a circular orbit is
linear (Clohessy & Wiltshire 1960): a rocket that does nothing drifts away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from scipy.linalg import expm

from worlds.copies import SharingEnv, one_of

ID, STATE_ID = "sextet/Rocket-v0", "sextet/Rocket-state-v0"

STEPS = 60
"""Length of an episode, steps."""

SIDE = 64
"""Pixels a side of a frame, which shows 24 units of length."""

ORBIT = 0.05
"""Mean motion of the station, radians a step."""

NEAR, FAR, FASTEST = 5.0, 10.0, 0.3
"""Distances between which a rocket starts, and its greatest speed there, a step."""

THRUST, WEAK_THRUST = 3.0, 0.08
"""The greatest thrust in each axis: unlimited in effect, and limited."""

PLACE_COST, SPEED_COST, FUEL_COST = 0.01, 0.05, 0.5
"""Cost a step of a squared distance, of a squared speed and of a squared thrust."""

_PIXELS = SIDE / 24

Vector = NDArray[np.float64]


def dynamics() -> tuple[Vector, Vector]:
    """A [4 4] and B [4 2] of s' = A s + B u, for s = (x, y, speed x, speed y), u the thrust.

    x points away from the planet, y along the orbit: x'' = 3n²x + 2n y' + u_x,
    y'' = -2n x' + u_y. The thrust is constant during a step, so A and B are exact.
    """
    n = ORBIT
    rates = np.zeros((6, 6))
    rates[:2, 2:4] = np.eye(2)
    rates[2, 0], rates[2, 3], rates[3, 2] = 3 * n**2, 2 * n, -2 * n
    rates[2:4, 4:] = np.eye(2)
    whole = expm(rates)
    return whole[:4, :4], whole[:4, 4:]


def costs() -> tuple[Vector, Vector]:
    """Q [4 4] and R [2 2] of the cost s'ᵀQs' + uᵀRu of a step with thrust u that ends in s'."""
    return (
        np.diag([PLACE_COST, PLACE_COST, SPEED_COST, SPEED_COST]),
        FUEL_COST * np.eye(2),
    )


def riccati(steps: int, discount: float = 1.0, fuel_weight: float = 1.0) -> tuple[Vector, Vector]:
    """Of the best plan of `steps` H, where nothing limits the thrust: the feedback K [H 2 4], such
    that u_t = -K_t s_t, and the cost to go P [H+1 4 4], such that s_tᵀ P_t s_t is the cost of steps
    t to H-1, discounted from t on. The costates of the plan are λ_t = 2 P_t s_t (Bryson & Ho 1975,
    §5.2). `fuel_weight`: factor of the cost of thrust.
    """
    (a, b), (q, r) = dynamics(), costs()
    r = fuel_weight * r
    to_go = np.zeros((steps + 1, 4, 4))
    feedback = np.zeros((steps, 2, 4))
    for t in range(steps - 1, -1, -1):
        after = q + discount * to_go[t + 1]
        feedback[t] = np.linalg.solve(r + b.T @ after @ b, b.T @ after @ a)
        closed = a - b @ feedback[t]
        to_go[t] = feedback[t].T @ r @ feedback[t] + closed.T @ after @ closed
    return feedback, to_go


class Rocket(SharingEnv[dict[str, NDArray[Any]], NDArray[np.float32]]):
    """A rocket that is to come to rest at a space station, for 60 steps.

    Actions: thrust [2] as a share of the greatest. `limits`: False, a thrust so great that the best
    plan never reaches it, so that the optimum is `riccati`'s; True, a weak one, which the best plan
    uses in full. Reward: minus the cost of the step, .01 |place|² + .05 |speed|² + .5 |thrust|²,
    whose parts are the signals `error` (place and speed) and `fuel`.

    `observation`: "pixels", [64 64 3] uint8, the station and the rocket, whose speed shows in two
    frames; or "state" [4], place / 10 and speed. The goal is an entry of the observation, in the
    same form unless `goal_form` says otherwise: "pixels", `goal_pixels`, the frame with the rocket
    at the station; "state", `desired_goal` [4] beside `achieved_goal` [4]; or "none". `start`:
    place and speed [4], also an option of `reset`; None: drawn at a distance of 5 to 10. All
    randomness is drawn from `np_random`.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "signals": ("error", "fuel"),
    }

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "pixels",
        goal_form: str | None = None,
        limits: bool = False,
        start: Sequence[float] | None = None,
    ) -> None:
        self.render_mode = render_mode
        self.as_pixels = one_of("observation", observation, ("pixels", "state")) == "pixels"
        forms = ("pixels", "state", "none")
        self.goal_form = one_of("goal_form", observation if goal_form is None else goal_form, forms)
        if not isinstance(limits, bool):
            raise ValueError(f"limits: expected true or false, got {limits!r}")
        self.greatest = WEAK_THRUST if limits else THRUST
        self.fixed_start = None if start is None else _state("start", start)
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        frame, numbers = (
            spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8),
            spaces.Box(-np.inf, np.inf, (4,), np.float32),
        )
        seen: dict[str, spaces.Space[Any]] = {"observation": frame if self.as_pixels else numbers}
        if self.goal_form == "pixels":
            seen["goal_pixels"] = frame
        elif self.goal_form == "state":
            seen["desired_goal"] = seen["achieved_goal"] = numbers
        self.observation_space: Any = spaces.Dict(seen)
        self._a, self._b = dynamics()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Draws place and speed; `options` may have `start`, [4]."""
        super().reset(seed=seed)
        start = (options or {}).get("start")
        fixed = self.fixed_start if start is None else _state("start", start)
        draws = self.np_random.random(4)
        far, speed = NEAR + (FAR - NEAR) * draws[0], FASTEST * draws[1]
        angles = 2 * math.pi * draws[2:]
        drawn = [far * math.cos(angles[0]), far * math.sin(angles[0]),
                 speed * math.cos(angles[1]), speed * math.sin(angles[1])]  # fmt: skip
        self.ship: Vector = np.array(drawn) if fixed is None else fixed
        self.thrust: Vector = np.zeros(2)
        self.time = 0
        return self._observation(), {"error": 0.0, "fuel": 0.0}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Moves the rocket. Returns observation, reward, terminated and truncated (always False),
        `error` and `fuel`.
        """
        self.time += 1
        self.thrust = np.clip(np.asarray(action, np.float64), -1, 1) * self.greatest
        self.ship = self._a @ self.ship + self._b @ self.thrust
        x, y, dx, dy = self.ship.tolist()
        error = PLACE_COST * (x * x + y * y) + SPEED_COST * (dx * dx + dy * dy)
        fuel = FUEL_COST * float(self.thrust @ self.thrust)
        return self._observation(), -(error + fuel), False, False, {"error": error, "fuel": fuel}

    # -- observation ------------------------------------------------------------------------

    def state(self) -> NDArray[np.float32]:
        """Place / 10 and speed, [4]."""
        scaled: NDArray[np.float32] = (self.ship * _SCALE).astype(np.float32)
        return scaled

    def picture(self, x: float, y: float) -> NDArray[np.uint8]:
        """The frame with the rocket at (x, y), [64 64 3]: a goal as a picture."""
        frame = _SKY.copy()
        column, row = SIDE / 2 + _PIXELS * x, SIDE / 2 - _PIXELS * y
        across = np.clip(1.5 - np.abs(_MIDDLES - column), 0, 1)
        down = np.clip(1.5 - np.abs(_MIDDLES - row), 0, 1)
        columns, rows = across.nonzero()[0], down.nonzero()[0]
        if len(columns) and len(rows):
            cover = down[rows[0] : rows[-1] + 1, None] * across[columns[0] : columns[-1] + 1]
            part = frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            part[:] = part + cover[..., None] * (_SHIP - part)
        return frame

    def _observation(self) -> dict[str, NDArray[Any]]:
        x, y = self.ship[:2].tolist()
        seen: dict[str, NDArray[Any]] = {
            "observation": self.picture(x, y) if self.as_pixels else self.state()
        }
        if self.goal_form == "pixels":
            seen["goal_pixels"] = self.picture(0.0, 0.0)
        elif self.goal_form == "state":
            seen["desired_goal"], seen["achieved_goal"] = np.zeros(4, np.float32), self.state()
        return seen

    def render(self) -> NDArray[np.uint8]:
        """[256 256 3] uint8: the frame with a flame opposite to the thrust, enlarged four times."""
        x, y = self.ship[:2].tolist()
        picture = self.picture(x, y).repeat(4, 0).repeat(4, 1)
        push = self.thrust / self.greatest
        for far in np.linspace(8, 8 + 12 * float(np.hypot(*push)), 12):
            direction = push / max(float(np.hypot(*push)), 1e-9)
            column = round(4 * (SIDE / 2 + _PIXELS * x) - far * direction[0])
            row = round(4 * (SIDE / 2 - _PIXELS * y) + far * direction[1])
            if far > 8 and 1 <= row < 4 * SIDE - 1 and 1 <= column < 4 * SIDE - 1:
                picture[row - 1 : row + 2, column - 1 : column + 2] = (255, 150, 40)
        return picture


def _state(name: str, value: Sequence[float]) -> Vector:
    """A state that a user gave. Raises ValueError unless it is four finite numbers."""
    numbers = np.zeros(0) if np.isscalar(value) else np.asarray(value, np.float64)
    if numbers.shape != (4,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name}: expected four numbers, place and speed, got {value!r}")
    return numbers


def _sky() -> NDArray[np.uint8]:
    """Space with the station, a hollow square, [64 64 3]."""
    sky = np.zeros((SIDE, SIDE, 3), np.uint8)
    middle = SIDE // 2
    sky[middle - 4 : middle + 4, middle - 4 : middle + 4] = (60, 90, 160)
    sky[middle - 2 : middle + 2, middle - 2 : middle + 2] = 0
    return sky


_SCALE = np.array([0.1, 0.1, 1.0, 1.0])
_SHIP = np.array((255, 220, 120), np.float32)
_MIDDLES = np.arange(SIDE) + 0.5
_SKY = _sky()

for _id, _seen in ((ID, "pixels"), (STATE_ID, "state")):
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point="worlds.rocket:Rocket",
            max_episode_steps=STEPS,
            kwargs={"observation": _seen},
        )
