"""Five rooms, of which only one is seen: where are the things that were carried out of sight?

LeCun's bottle (2022, §4.9): someone carries a bottle from the kitchen to the dining room; a world
model with a memory changes what it holds of the bottle and leaves the rest of the world as it is.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worlds.copies import SharingEnv, one_of

ID, STATE_ID = "sextet/Rooms-v0", "sextet/Rooms-state-v0"

STEPS = 80
"""Length of an episode at most, steps."""

THINGS = ("bottle", "cup", "key")
ROOMS = ("north", "east", "south", "west", "hall")
MOVES = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))
"""Rows and columns that each action moves by: stay, north, east, south, west."""

WIDE = 5
"""Cells a side of a room."""

CARRIED = 4
"""Steps of an event: a thing comes in, crosses the hall, goes out; the hall is empty."""

EVENTS = (len(THINGS), 8)
"""Least and greatest number of events."""

SIDE, CELL, RIM = 64, 12, 2
"""Pixels a side of a frame and of a cell, and the width of the wall around a room."""

_CORNERS = {"north": (0, 1), "east": (1, 2), "south": (2, 1), "west": (1, 0), "hall": (1, 1)}
"""Rows and columns of rooms from the upper left one."""

Cell = tuple[int, int]
"""Row and column, 0 to 14; the hall is from 5 to 9 in both."""

_ROOM_AT = {place: number for number, place in enumerate(_CORNERS[name] for name in ROOMS)}
_INNER = {"north": (4, 7), "east": (7, 10), "south": (10, 7), "west": (7, 4)}
_OUTER = {"north": (5, 7), "east": (7, 9), "south": (9, 7), "west": (7, 5)}
_DOORS = [(_INNER[name], _OUTER[name]) for name in ROOMS[:4]]
"""The cells on both sides of each door: in the room, in the hall."""

_HALL_CORNERS = ((5, 5), (5, 9), (9, 5), (9, 9))
_CENTRE = (7, 7)


def room_of(cell: Cell) -> int:
    """The number of the room that a cell is in."""
    return _ROOM_AT[cell[0] // WIDE, cell[1] // WIDE]


def cell_of(state: NDArray[np.float32]) -> Cell:
    """The agent's cell, read from what it sees as numbers, [16]."""
    top, left = _CORNERS[ROOMS[int(state[2 : 2 + len(ROOMS)].argmax())]]
    down, right = (round(float(place) * (WIDE - 1)) for place in state[:2])
    return WIDE * top + down, WIDE * left + right


def path_length(start: Cell, end: Cell) -> int:
    """Steps of the shortest way between two cells."""
    first, last = room_of(start), room_of(end)
    stops = [start]
    if first != last:
        stops += [_DOORS[room][0] for room in (first, last) if room != len(_DOORS)]
    stops.append(end)
    return sum(abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in pairwise(stops))


class Rooms(SharingEnv[dict[str, NDArray[Any]], np.int64]):
    """Watches how things are carried from room to room, then is asked to fetch one of them.

    A hall with a door to each of four rooms, all of 5 by 5 cells; the agent sees the room that it
    is in. At first it stands in a corner of the hall, and its actions move nothing: `events` times,
    3 to 8, a bottle, a cup or a key is carried through the hall from one room to another, each of
    them at least once. A thing is set down in one of the nine inner cells. Then one of them is
    asked for. Reward: 1 where the agent steps on it, which ends the episode; else 0.

    `observation`: "pixels", [64 64 3] uint8, the room with the things in it, the agent, and a floor
    in the room's colour; or "state" [16], the agent's cell in its room, the room one-hot, and of
    each thing whether it is seen and its cell in the room. The goal is an entry of the observation:
    with `goal_form` "state" (the default) `desired_goal` [3], the thing asked for one-hot, 0 before
    that, beside `achieved_goal` [3], the thing fetched; with "pixels" `goal_pixels`, a picture of
    the thing in an empty hall. Actions: stay, north, east, south, west.

    `info` has `steps_since_asked`, and `shortest`, the steps of the shortest way from where the
    agent was asked; 0 before that. Neither is a signal, so no agent sees them. All randomness is
    drawn from `np_random`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(
        self,
        render_mode: str | None = None,
        observation: str = "pixels",
        goal_form: str = "state",
        events: int = 4,
    ) -> None:
        if type(events) is not int or not EVENTS[0] <= events <= EVENTS[1]:
            raise ValueError(f"events: expected {EVENTS[0]} to {EVENTS[1]}, got {events!r}")
        self.render_mode, self.events = render_mode, events
        self.as_pixels = one_of("observation", observation, ("pixels", "state")) == "pixels"
        self.goal_form = one_of("goal_form", goal_form, ("pixels", "state", "none"))
        self.action_space = spaces.Discrete(len(MOVES))
        frame = spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)
        numbers = spaces.Box(0, 1, (2 + len(ROOMS) + 3 * len(THINGS),), np.float32)
        seen: dict[str, spaces.Space[Any]] = {"observation": frame if self.as_pixels else numbers}
        if self.goal_form == "pixels":
            seen["goal_pixels"] = frame
        elif self.goal_form == "state":
            of_things = spaces.Box(0, 1, (len(THINGS),), np.float32)
            seen["desired_goal"] = seen["achieved_goal"] = of_things
        self.observation_space: Any = spaces.Dict(seen)

    # -- dynamics ---------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Draws where things are, what will be carried where, and what will be asked for."""
        super().reset(seed=seed)
        rng = self.np_random
        self.steps, self.asked_at, self.shortest, self.fetched = 0, -1, 0, -1
        self.agent = _HALL_CORNERS[int(rng.integers(4))]
        self.things: tuple[Cell, ...] = ()
        for room in rng.integers(4, size=len(THINGS)).tolist():
            self.things = (*self.things, self._free_cell(room))
        carried = [*rng.permutation(len(THINGS)).tolist()]
        carried += rng.integers(len(THINGS), size=self.events - len(THINGS)).tolist()
        at, plan = [room_of(cell) for cell in self.things], []
        for thing in carried:
            source, at[thing] = at[thing], (at[thing] + int(rng.integers(1, 4))) % 4
            plan.append((thing, source, at[thing]))
        self.plan = tuple(plan)
        self.request = int(rng.integers(len(THINGS)))
        return self._observation(), self._info()

    def _free_cell(self, room: int) -> Cell:
        """A random inner cell of a room without a thing in it."""
        top, left = (WIDE * place for place in _CORNERS[ROOMS[room]])
        while True:
            down, right = self.np_random.integers(1, WIDE - 1, size=2).tolist()
            if (cell := (top + down, left + right)) not in self.things:
                return cell

    def step(
        self, action: np.int64
    ) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """A step of the event, or of the agent once it was asked. Returns observation, reward,
        terminated, truncated (always False), `steps_since_asked` and `shortest`.
        """
        self.steps += 1
        if self.asked_at < 0:
            self._carry()
        else:
            self._walk(int(action))
        done = self.fetched == self.request
        return self._observation(), float(done), done, False, self._info()

    def _carry(self) -> None:
        """Moves the thing of the present event; after the last one the agent is asked."""
        event, phase = divmod(self.steps - 1, CARRIED)
        thing, source, target = self.plan[event]
        cells = (_DOORS[source][1], _CENTRE, _DOORS[target][1])
        cell = cells[phase] if phase < len(cells) else self._free_cell(target)
        self.things = tuple(cell if k == thing else at for k, at in enumerate(self.things))
        if self.steps == CARRIED * self.events:
            self.asked_at = self.steps
            self.shortest = path_length(self.agent, self.things[self.request])

    def _walk(self, action: int) -> None:
        (row, column), (down, right) = self.agent, MOVES[action]
        cell = (row + down, column + right)
        if self.may_step(cell):
            self.agent = cell
        if self.agent == self.things[self.request]:
            self.fetched = self.request

    def may_step(self, cell: Cell) -> bool:
        """Whether the agent may step to a cell beside it: one of its room, or through a door."""
        row, column = self.agent
        inside = (cell[0] // WIDE, cell[1] // WIDE) == (row // WIDE, column // WIDE)
        return inside or (self.agent, cell) in _CROSSINGS

    def _info(self) -> dict[str, Any]:
        since = self.steps - self.asked_at if self.asked_at >= 0 else 0
        return {"steps_since_asked": since, "shortest": self.shortest}

    # -- observation ------------------------------------------------------------------------

    def state(self) -> NDArray[np.float32]:
        """What is seen as numbers, [16]."""
        room = room_of(self.agent)
        numbers = [place % WIDE / (WIDE - 1) for place in self.agent]
        numbers += [float(number == room) for number in range(len(ROOMS))]
        for cell in self.things:
            if room_of(cell) == room:
                numbers += [1.0, *(place % WIDE / (WIDE - 1) for place in cell)]
            else:
                numbers += [0.0, 0.0, 0.0]
        return np.array(numbers, np.float32)

    def picture(self) -> NDArray[np.uint8]:
        """The room that the agent is in, [64 64 3]."""
        room = room_of(self.agent)
        frame: NDArray[np.uint8] = _FLOORS[room].copy()
        for thing, cell in enumerate(self.things):
            if room_of(cell) == room:
                _draw(frame, cell, thing)
        top, left = _corner(self.agent)
        frame[top + 3 : top + 9, left + 3 : left + 9] = (250, 250, 250)
        return frame

    def goal_picture(self) -> NDArray[np.uint8]:
        """The thing asked for in an empty hall, [64 64 3]; the hall alone before that."""
        frame: NDArray[np.uint8] = _FLOORS[-1].copy()
        if self.asked_at >= 0:
            _draw(frame, _CENTRE, self.request)
        return frame

    def _observation(self) -> dict[str, NDArray[Any]]:
        seen: dict[str, NDArray[Any]] = {
            "observation": self.picture() if self.as_pixels else self.state()
        }
        if self.goal_form == "pixels":
            seen["goal_pixels"] = self.goal_picture()
        elif self.goal_form == "state":
            desired, achieved = np.zeros((2, len(THINGS)), np.float32)
            desired[self.request] = self.asked_at >= 0
            achieved[self.request] = self.fetched == self.request
            seen["desired_goal"], seen["achieved_goal"] = desired, achieved
        return seen

    def render(self) -> NDArray[np.uint8]:
        """[256 320 3] uint8: the room, and beside it what is asked for, enlarged four times."""
        beside = np.zeros((SIDE, 16, 3), np.uint8)
        if self.asked_at >= 0:
            beside[:CELL, 2 : 2 + CELL] = _SPRITES[self.request]
        return np.concatenate([self.picture(), beside], 1).repeat(4, 0).repeat(4, 1)


def _corner(cell: Cell) -> tuple[int, int]:
    """The top and left pixel of a cell in the frame of its room."""
    return RIM + cell[0] % WIDE * CELL, RIM + cell[1] % WIDE * CELL


def _draw(frame: NDArray[np.uint8], cell: Cell, thing: int) -> None:
    top, left = _corner(cell)
    part = frame[top : top + CELL, left : left + CELL]
    np.copyto(part, _SPRITES[thing], where=_SPRITES[thing].any(-1, keepdims=True))


def _sprites() -> NDArray[np.uint8]:
    """Pictures of the things, [3 12 12 3]; black is transparent."""
    sprites = np.zeros((len(THINGS), CELL, CELL, 3), np.uint8)
    bottle, cup, key = sprites
    bottle[1:5, 5:7], bottle[5:11, 3:9] = (40, 200, 90), (40, 200, 90)
    cup[3:10, 2:8], cup[4:8, 8:10], cup[5:7, 8:9] = (230, 120, 50), (230, 120, 50), 0
    key[2:6, 2:6], key[3:5, 3:5] = (240, 220, 60), 0
    key[4:6, 6:11], key[6:8, 9:11] = (240, 220, 60), (240, 220, 60)
    return sprites


def _floors() -> NDArray[np.uint8]:
    """Each room without things, [5 64 64 3], its doors gaps in the wall."""
    colours = ((70, 30, 40), (30, 60, 40), (30, 40, 80), (70, 60, 20), (50, 50, 55))
    floors = np.zeros((len(ROOMS), SIDE, SIDE, 3), np.uint8)
    for floor, colour in zip(floors, colours, strict=True):
        floor[:] = (140, 140, 150)
        floor[RIM:-RIM, RIM:-RIM] = colour
    middle = slice(RIM + 2 * CELL, RIM + 3 * CELL)
    # North of the south room is the hall, and so on.
    sides = ((slice(-RIM, None), middle), (middle, slice(0, RIM)),
             (slice(0, RIM), middle), (middle, slice(-RIM, None)))  # fmt: skip
    for room, side in enumerate(sides):
        floors[room][side] = colours[room]
        floors[-1][sides[(room + 2) % 4]] = colours[-1]
    return floors


_CROSSINGS = {pair for inner, outer in _DOORS for pair in ((inner, outer), (outer, inner))}
_SPRITES, _FLOORS = _sprites(), _floors()

for _id, _seen in ((ID, "pixels"), (STATE_ID, "state")):
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id,
            entry_point="worlds.rooms:Rooms",
            max_episode_steps=STEPS,
            kwargs={"observation": _seen},
        )
