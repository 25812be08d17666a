"""An orchard: fruits of four kinds, of which one counts, among leaves that look like them.

The world for which a percept cannot be good for everything at once: what is worth seeing depends
on the task, and the task is told (`desired_goal`), not shown. Made to measure priming (LeCun 2022,
§6): "the configurator may prime the perception to extract the information relevant to a task".
"""

from __future__ import annotations

import colorsys
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

ID = "sextet/Orchard-v0"
STEPS = 100
"""Length of an episode."""

KINDS = ("cherry", "lime", "mint", "plum")
"""The kinds of fruit, and the tasks: red, green, cyan, violet."""

SIDE, CELL, RIM = 9, 5, 2
"""The orchard is 9×9 cells, each 5×5 pixels; a rim of 2 dark pixels (1 at right and below)."""

FRUITS_A_KIND, LEAVES = 6, 8
SIZE = RIM + SIDE * CELL + 1
MOVES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""What each action adds to row and column: stay, up, down, left, right."""

_FRUITS = FRUITS_A_KIND * len(KINDS)
_CELLS = SIDE * SIDE
_GRAIN = 30
"""Every pixel shown is off by up to so much of 255, anew at each step."""


def _paint() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What fruits look like, [kind shade 5 5 3], and leaves, [kind other kind 5 5 3]."""
    disc = np.array(
        [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0]], bool
    )
    number = len(KINDS)
    hues = np.array([colorsys.hsv_to_rgb(k / number, 0.75, 1.0) for k in range(number)])
    fruits = np.full((number, 3, CELL, CELL, 3), 60, np.uint8)
    for shade, bright in enumerate((150, 185, 220)):
        fruits[:, shade, disc] = (hues * bright).astype(np.uint8)[:, None]
    leaves = np.empty((number, number, CELL, CELL, 3), np.uint8)
    stripes = (np.add.outer(np.arange(CELL), np.arange(CELL)) % 2).astype(bool)
    for one in range(number):
        for other in range(number):
            leaves[one, other] = np.where(
                stripes[..., None], hues[one] * 185, hues[other] * 185
            ).astype(np.uint8)
    return fruits, leaves


def _piece(ground: NDArray[np.int16], top: int, left: int) -> NDArray[np.int16]:
    """A view of 45×45 pixels."""
    return ground[top : top + SIDE * CELL, left : left + SIDE * CELL]


_KIND_OF = np.arange(_FRUITS) // FRUITS_A_KIND
_DRIFTS = np.array([*MOVES, *[MOVES[0]] * 3])
"""How a leaf may move in a step: half of the time not at all."""

_FRUIT, _LEAF = _paint()
_WALKER = np.full((CELL, CELL, 3), 245, np.uint8)
_WALKER[1:4, 1:4] = 20


class _Look(NamedTuple):
    """How an episode looks: the ground, twice over each way so that any part of the torus is one
    piece of it, and the grain of which each step shows a part; both [90 90 3].
    """

    ground: NDArray[np.int16]
    grain: NDArray[np.int16]


class Orchard(gymnasium.Env[dict[str, NDArray[Any]], np.int64]):
    """One walks on a 9×9 torus and picks what lies there by stepping on it.

    The walker is always in the middle of the frame [48 48 3]; the ground moves under it. Of each
    of the 4 kinds lie 6 fruits about; one that is picked grows anew in an empty place. Leaves,
    striped in the colours of two kinds, drift over all and hide what is below; stepping on one
    does nothing. `desired_goal` is one-hot for the kind that counts in this episode,
    `achieved_goal` for the kind picked on this step (all 0: none). Score +1 for the fruit that
    counts, -1 for any other. An episode is 100 steps, cut off by Gymnasium's time limit.

    All luck is that of `np_random`, so that a seed and the actions since decide everything.
    `options={"task": 2}` (or a name) at `reset` sets the task.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = spaces.Discrete(len(MOVES))
        told = spaces.Box(0.0, 1.0, (len(KINDS),), np.float32)
        # Gymnasium's own types do not say that such a space holds dictionaries of arrays.
        seen: Any = spaces.Dict(
            {
                "observation": spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
                "desired_goal": told,
                "achieved_goal": told,
            }
        )
        self.observation_space = seen
        self.task = 0
        self.picked: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """A new orchard; the task is drawn where `options` name none."""
        super().reset(seed=seed)
        luck = self.np_random
        self.task = int(luck.integers(len(KINDS)))
        if options is not None and "task" in options:
            wanted = options["task"]
            self.task = KINDS.index(wanted) if wanted in KINDS else int(wanted)
        self.picked = None
        self.walker = int(luck.integers(_CELLS))
        free = np.array([cell for cell in range(_CELLS) if cell != self.walker])
        self.fruits: NDArray[np.int64] = luck.permutation(free)[:_FRUITS]
        self.shades: NDArray[np.int64] = luck.integers(3, size=_FRUITS)
        self.leaves: NDArray[np.int64] = luck.integers(_CELLS, size=LEAVES)
        self.dyes: NDArray[np.int64] = luck.integers(len(KINDS), size=(LEAVES, 2))
        ground = luck.integers(30, 90, size=(SIDE * CELL, SIDE * CELL, 1), dtype=np.int16)
        grain = luck.integers(
            -_GRAIN, _GRAIN + 1, size=(2 * SIDE * CELL, 2 * SIDE * CELL, 3), dtype=np.int16
        )
        self.look = _Look(np.tile(ground, (2, 2, 3)), grain)
        self._draw()
        return self._shown(), {"task": KINDS[self.task]}

    def step(
        self, action: np.int64
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """Walks one cell, or stays; then the leaves drift."""
        down, right = MOVES[int(action)]
        row, column = divmod(self.walker, SIDE)
        self.walker = (row + down) % SIDE * SIDE + (column + right) % SIDE
        self.picked, score = None, 0.0
        found = (self.fruits == self.walker).nonzero()[0]
        if len(found):
            which = int(found[0])
            self.picked = which // FRUITS_A_KIND
            score = 1.0 if self.picked == self.task else -1.0
            self._grow(which)
        self._drift()
        self._draw()
        return self._shown(), score, False, False, {}

    def _grow(self, which: int) -> None:
        """A fruit in the place of one that was picked, where nothing lies yet."""
        taken = {self.walker, *self.fruits.tolist()}
        while (cell := int(self.np_random.integers(_CELLS))) in taken:
            pass
        # Copies may share their arrays, so these are never written into.
        self.fruits = np.where(np.arange(_FRUITS) == which, cell, self.fruits)
        shade = int(self.np_random.integers(3))
        self.shades = np.where(np.arange(_FRUITS) == which, shade, self.shades)

    def _drift(self) -> None:
        """Half of the leaves move to a neighbouring cell."""
        moves = _DRIFTS[self.np_random.integers(len(_DRIFTS), size=LEAVES)]
        rows, columns = self.leaves // SIDE + moves[:, 0], self.leaves % SIDE + moves[:, 1]
        self.leaves = rows % SIDE * SIDE + columns % SIDE

    def _draw(self) -> None:
        """The frame: ground, fruits, leaves over them, the walker over all, and grain."""
        top, left = divmod(self.walker, SIDE)
        middle = SIDE // 2
        seen = _piece(
            self.look.ground, (top - middle) % SIDE * CELL, (left - middle) % SIDE * CELL
        ).copy()
        tiles = seen.reshape(SIDE, CELL, SIDE, CELL, 3).transpose(0, 2, 1, 3, 4)
        lying = np.concatenate([self.fruits, self.leaves])
        rows = (lying // SIDE - (top - middle)) % SIDE
        columns = (lying - (left - middle)) % SIDE  # 9 cells a row: whole rows do not matter
        tiles[rows[:_FRUITS], columns[:_FRUITS]] = _FRUIT[_KIND_OF, self.shades]
        tiles[rows[_FRUITS:], columns[_FRUITS:]] = _LEAF[self.dyes[:, 0], self.dyes[:, 1]]
        tiles[middle, middle] = _WALKER
        at = int(self.np_random.integers(_CELLS * CELL * CELL))
        seen += _piece(self.look.grain, *divmod(at, SIDE * CELL))
        self.frame = np.zeros((SIZE, SIZE, 3), np.uint8)
        np.clip(seen, 0, 255, out=self.frame[RIM:-1, RIM:-1], casting="unsafe")

    def _shown(self) -> dict[str, NDArray[Any]]:
        wanted, got = np.zeros((2, len(KINDS)), np.float32)
        wanted[self.task] = 1.0
        if self.picked is not None:
            got[self.picked] = 1.0
        return {"observation": self.frame, "desired_goal": wanted, "achieved_goal": got}

    def __deepcopy__(self, memo: dict[int, Any]) -> Orchard:
        """A copy that goes its own way; what is never written into is shared."""
        copy = object.__new__(Orchard)
        copy.__dict__.update(self.__dict__)
        if self._np_random is not None:
            copy._np_random = np.random.Generator(np.random.PCG64())
            copy._np_random.bit_generator.state = self._np_random.bit_generator.state
        memo[id(self)] = copy
        return copy

    def render(self) -> NDArray[np.uint8]:
        """The frame in four times its size, under a bar in the colour of the kind that counts."""
        bar = np.broadcast_to(_FRUIT[self.task, 2, 2, 2], (4, SIZE, 3))
        picture = np.concatenate([bar, self.frame])
        return picture.repeat(4, 0).repeat(4, 1)


if ID not in gymnasium.registry:
    gymnasium.register(ID, entry_point="worlds.orchard:Orchard", max_episode_steps=STEPS)
