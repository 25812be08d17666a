"""An environment to measure priming of perception: which of four kinds of fruit to collect.

The walker collects fruits among leaves of the same colours. The task, the rewarded kind, is in
`desired_goal` and not in the frame, so which features the encoder should extract depends on the
task (LeCun 2022, §6: "the configurator may prime the perception to extract the information
relevant to a task").
"""

from __future__ import annotations

import colorsys
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worlds.copies import SharingEnv

ID = "sextet/Orchard-v0"
STEPS = 100
"""Length of an episode, steps."""

KINDS = ("cherry", "lime", "mint", "plum")
"""The kinds of fruit, one a task: red, green, cyan, violet."""

SIDE, CELL, RIM = 9, 5, 2
"""Cells a side, pixels a side of a cell, and dark pixels above and left (1 below and right)."""

FRUITS_A_KIND, LEAVES = 6, 8
SIZE = RIM + SIDE * CELL + 1
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Change of (row, column) by action: stay, up, down, left, right."""

_FRUITS = FRUITS_A_KIND * len(KINDS)
_CELLS = SIDE * SIDE
_GRAIN = 30
"""Greatest absolute noise of a pixel, of 255, drawn anew at each step."""


def _paint() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images of the fruits, [kind shade 5 5 3], and of the leaves, [kind kind 5 5 3]."""
    disc = np.array(
        [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]], bool
    )
    number = len(KINDS)
    hues = np.array([colorsys.hsv_to_rgb(k / number, 0.75, 1.0) for k in range(number)])
    fruits = np.full((number, 3, CELL, CELL, 3), 60, np.uint8)
    for shade, bright in enumerate((150, 185, 220)):
        fruits[:, shade, disc] = (hues * bright).astype(np.uint8)[:, None]
    stripes = (np.add.outer(np.arange(CELL), np.arange(CELL)) % 2).astype(bool)
    dyes = (hues * 185).astype(np.uint8)
    leaves = np.where(stripes[..., None], dyes[:, None, None, None], dyes[:, None, None])
    return fruits, leaves


def _crop(image: NDArray[np.int16], top: int, left: int) -> NDArray[np.int16]:
    """A view [45 45 3] of `image` from pixel (top, left)."""
    return image[top : top + SIDE * CELL, left : left + SIDE * CELL]


_KIND_OF = np.arange(_FRUITS) // FRUITS_A_KIND
_DRIFTS = np.array([*MOVES, *[MOVES[0]] * 3])
"""Moves of a leaf in a step, equally likely; half of them stay."""

_FRUIT_IMAGES, _LEAF_IMAGES = _paint()
_WALKER_IMAGE = np.full((CELL, CELL, 3), 245, np.uint8)
_WALKER_IMAGE[1:4, 1:4] = 20


class _Look(NamedTuple):
    """Background and noise of an episode, both [90 90 3].

    `ground` repeats the torus twice along each axis, so that every view of it is one crop. Each
    step adds a random crop of `grain`.
    """

    ground: NDArray[np.int16]
    grain: NDArray[np.int16]


class Orchard(SharingEnv[dict[str, NDArray[Any]], np.int64]):
    """A walker on a 9×9 torus collects fruits by stepping on them.

    `observation` [48 48 3] uint8 is centred on the walker; the ground moves. There are 6 fruits of
    each of the 4 kinds; a collected fruit regrows in an empty cell. Leaves, striped in the colours
    of two kinds, drift and hide what is below; stepping on one has no effect. `desired_goal` [4]
    is one-hot for the episode's task, `achieved_goal` [4] for the kind collected on this step
    (all 0: none). Reward: +1 for a fruit of the task's kind, -1 for any other. Gymnasium's time
    limit truncates an episode after 100 steps.

    All randomness is drawn from `np_random`, so a seed and the actions determine an episode.
    `options={"task": 2}` (or a kind's name) at `reset` sets the task.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(len(MOVES))
        goal_space = spaces.Box(0.0, 1.0, (len(KINDS),), np.float32)
        # Any: Gymnasium's types do not declare a Dict space to contain dictionaries of arrays.
        space: Any = spaces.Dict(
            {
                "observation": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
                "desired_goal": goal_space,
                "achieved_goal": goal_space,
            }
        )
        self.observation_space = space
        self.task = 0
        self.picked: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Starts an episode; the task is drawn unless `options` set it.

        Returns the observation and `{"task": name of the kind}`.
        """
        super().reset(seed=seed)
        rng = self.np_random
        self.task = int(rng.integers(len(KINDS)))
        if options is not None and "task" in options:
            task = options["task"]
            self.task = KINDS.index(task) if task in KINDS else int(task)
        self.picked = None
        self.walker = int(rng.integers(_CELLS))
        free = np.array([cell for cell in range(_CELLS) if cell != self.walker])
        self.fruits: NDArray[np.int64] = rng.permutation(free)[:_FRUITS]
        self.shades: NDArray[np.int64] = rng.integers(3, size=_FRUITS)
        self.leaves: NDArray[np.int64] = rng.integers(_CELLS, size=LEAVES)
        self.dyes: NDArray[np.int64] = rng.integers(len(KINDS), size=(LEAVES, 2))
        ground = rng.integers(30, 90, size=(SIDE * CELL, SIDE * CELL, 1), dtype=np.int16)
        grain = rng.integers(
            -_GRAIN, _GRAIN + 1, size=(2 * SIDE * CELL, 2 * SIDE * CELL, 3), dtype=np.int16
        )
        self.look = _Look(np.tile(ground, (2, 2, 3)), grain)
        self._draw()
        return self._observation(), {"task": KINDS[self.task]}

    def step(
        self, action: np.int64
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Moves the walker by `MOVES[action]`, then the leaves.

        Returns observation, reward, terminated (always False), truncated (always False), {}.
        """
        down, right = MOVES[int(action)]
        row, column = divmod(self.walker, SIDE)
        self.walker = (row + down) % SIDE * SIDE + (column + right) % SIDE
        self.picked, reward = None, 0.0
        fruits_here = (self.fruits == self.walker).nonzero()[0]
        if len(fruits_here):
            index = int(fruits_here[0])
            self.picked = index // FRUITS_A_KIND
            reward = 1.0 if self.picked == self.task else -1.0
            self._regrow(index)
        self._drift()
        self._draw()
        return self._observation(), reward, False, False, {}

    def _regrow(self, index: int) -> None:
        """Replaces a collected fruit: same kind, new shade, in a random empty cell."""
        taken = {self.walker, *self.fruits.tolist()}
        while (cell := int(self.np_random.integers(_CELLS))) in taken:
            pass
        # Copies of the environment share these arrays, so they are replaced, not written into.
        self.fruits = np.where(np.arange(_FRUITS) == index, cell, self.fruits)
        shade = int(self.np_random.integers(3))
        self.shades = np.where(np.arange(_FRUITS) == index, shade, self.shades)

    def _drift(self) -> None:
        """Moves each leaf to a neighbouring cell with probability 1/2."""
        moves = _DRIFTS[self.np_random.integers(len(_DRIFTS), size=LEAVES)]
        rows, columns = self.leaves // SIDE + moves[:, 0], self.leaves % SIDE + moves[:, 1]
        self.leaves = rows % SIDE * SIDE + columns % SIDE

    def _draw(self) -> None:
        """Renders the frame: ground, then fruits, leaves, the walker, and noise over all."""
        top, left = divmod(self.walker, SIDE)
        middle = SIDE // 2
        view = _crop(
            self.look.ground, (top - middle) % SIDE * CELL, (left - middle) % SIDE * CELL
        ).copy()
        tiles = view.reshape(SIDE, CELL, SIDE, CELL, 3).transpose(0, 2, 1, 3, 4)
        items = np.concatenate([self.fruits, self.leaves])
        rows = (items // SIDE - (top - middle)) % SIDE
        columns = (items - (left - middle)) % SIDE  # row * 9 vanishes modulo 9
        tiles[rows[:_FRUITS], columns[:_FRUITS]] = _FRUIT_IMAGES[_KIND_OF, self.shades]
        tiles[rows[_FRUITS:], columns[_FRUITS:]] = _LEAF_IMAGES[self.dyes[:, 0], self.dyes[:, 1]]
        tiles[middle, middle] = _WALKER_IMAGE
        at = int(self.np_random.integers(_CELLS * CELL * CELL))
        view += _crop(self.look.grain, *divmod(at, SIDE * CELL))
        self.frame = np.zeros((SIZE, SIZE, 3), np.uint8)
        np.clip(view, 0, 255, out=self.frame[RIM:-1, RIM:-1], casting="unsafe")

    def _observation(self) -> dict[str, NDArray[Any]]:
        desired, achieved = np.zeros((2, len(KINDS)), np.float32)
        desired[self.task] = 1.0
        if self.picked is not None:
            achieved[self.picked] = 1.0
        return {"observation": self.frame, "desired_goal": desired, "achieved_goal": achieved}

    def render(self) -> NDArray[np.uint8]:
        """[208 192 3] uint8: a bar in the task's colour above the frame, enlarged four times."""
        bar = np.broadcast_to(_FRUIT_IMAGES[self.task, 2, 2, 2], (4, SIZE, 3))
        picture = np.concatenate([bar, self.frame])
        return picture.repeat(4, 0).repeat(4, 1)


if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point="worlds.orchard:Orchard", max_episode_steps=STEPS)
