"""A path that branches at random with known rates: what cannot be predicted, and three ways to act.

Three routes lead to the goal. On each of them luck takes one of three branches, and the branch says
what arriving pays. One route has the best mean, one the best mean minus risk, one the best worst
case (LeCun 2022, §4.8: plans under uncertainty).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

ID, STATE_ID = "sextet/Fork-v0", "sextet/Fork-state-v0"

SIDE = 64
"""Pixels a side of a frame."""

ROUTES = BRANCHES = 3

BEFORE, AFTER = 2, 2
"""Steps along a route before its fork, and along a branch after it."""

RATES = (0.4, 0.3, 0.3)
"""Probability of each branch, on every route."""

PAYS = ((41.9, 20.7, -4.8), (25.6, 18.1, 4.3), (6.0, 6.0, 6.0))
"""What each branch of each route pays: means 21.5, 17 and 6, deviations 19.3, 8.9 and 0."""

VERTICES = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
"""Places of the branches: equally far from each other, at distance 1."""

_LANES = (12, 32, 52)
_MARKER = 5
_SPREAD = 9.0


class ForkedPath(gymnasium.Env[NDArray[Any], np.int64]):
    """Chooses a route, travels to its fork, is taken along a branch, and is paid at its end.

    `observation`: pixels [64 64 3] uint8 by default, a marker on a map; with `observation="state"`
    a vector [6] float32: progress from 0 to 1, the route one-hot (0 before it is chosen), and the
    branch as a place in the plane (`VERTICES` about their middle; 0 before the fork). The first
    action is the route, later ones have no effect. An episode ends with the payment, after 5 steps.

    `rates` [3]: of the branches; `pays` [3 3]: of the branches of each route. `info` has `branch`,
    −1 before the fork. All randomness is drawn from `np_random`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "pixels",
        rates: Sequence[float] = RATES,
        pays: Sequence[Sequence[float]] = PAYS,
    ) -> None:
        if observation not in ("pixels", "state"):
            raise ValueError(f"observation: expected pixels or state, got {observation!r}")
        if len(rates) != BRANCHES or min(rates) < 0 or abs(sum(rates) - 1) > 1e-9:
            raise ValueError(f"rates: expected {BRANCHES} that sum to 1, got {tuple(rates)}")
        if len(pays) != ROUTES or any(len(one) != BRANCHES for one in pays):
            raise ValueError(f"pays: expected {ROUTES} by {BRANCHES} numbers, got {pays}")
        self.render_mode, self.as_pixels = render_mode, observation == "pixels"
        self.rates, self.pays = np.asarray(rates, np.float64), np.asarray(pays, np.float64)
        self.action_space = spaces.Discrete(ROUTES)
        space: Any = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        if not self.as_pixels:
            space = spaces.Box(-1, 1, (3 + ROUTES,), np.float32)
        self.observation_space = space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Starts at the place where the routes begin."""
        super().reset(seed=seed)
        self.steps, self.route, self.branch = 0, -1, -1
        return self._observation(), {"branch": -1}

    def step(self, action: np.int64) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """One step along the path; the first chooses the route, the third takes the fork.

        Returns observation, reward (0 before the end), terminated, truncated (always False), and
        `branch`.
        """
        self.steps += 1
        if self.steps == 1:
            self.route = int(action)
        if self.steps == BEFORE + 1:
            reached = np.cumsum(self.rates) / self.rates.sum()
            self.branch = int(np.searchsorted(reached, self.np_random.random(), side="right"))
        ended = self.steps == BEFORE + 1 + AFTER
        reward = float(self.pays[self.route, self.branch]) if ended else 0.0
        return self._observation(), reward, ended, False, {"branch": self.branch}

    def state(self) -> NDArray[np.float32]:
        """Progress, route and branch, [6]."""
        route, branch = np.zeros(ROUTES), np.zeros(2)
        if self.route >= 0:
            route[self.route] = 1
        if self.branch >= 0:
            branch = VERTICES[self.branch] - VERTICES.mean(0)
        progress = [self.steps / (BEFORE + 1 + AFTER)]
        return np.concatenate([progress, route, branch]).astype(np.float32)

    def _observation(self) -> NDArray[Any]:
        self.frame = self._draw()
        return self.frame if self.as_pixels else self.state()

    def _draw(self) -> NDArray[np.uint8]:
        frame = np.full((SIDE, SIDE, 3), 30, np.uint8)
        for lane in _LANES:
            frame[lane - 1 : lane + 2, 12:54] = 90
        frame[_LANES[0] : _LANES[-1], 10:13] = 90
        x, y = 6.0 + 10 * self.steps, float(_LANES[1])
        if self.route >= 0:
            y = _LANES[self.route]
        if self.branch >= 0:
            across, along = _SPREAD * (VERTICES[self.branch] - VERTICES.mean(0))
            x, y = x + along, y + across
        top, left = round(y) - _MARKER // 2, round(x) - _MARKER // 2
        frame[max(top, 0) : top + _MARKER, max(left, 0) : left + _MARKER] = (240, 200, 60)
        return frame

    def render(self) -> NDArray[np.uint8]:
        """[256 256 3] uint8: the frame, enlarged four times."""
        return self.frame.repeat(4, 0).repeat(4, 1)


for _id, _settings in ((ID, {}), (STATE_ID, {"observation": "state"})):
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point="worlds.fork:ForkedPath", kwargs=_settings)
