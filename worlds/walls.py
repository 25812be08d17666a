"""Walls as rectangles: a point's path among them, swept along the whole step, and the shortest way.

Lengths are in pixels; x is a column and y a row of the frame. Every function of this module is a
function of its arguments alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Place = tuple[float, float]
"""A point, (x, y)."""

_CLEAR = 1e-9
"""A path may touch a wall this closely: its surface is free."""


class Wall(NamedTuple):
    """A rectangle of wall; its surface is free, its inside is not."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, place: Place) -> bool:
        """Whether a place is inside."""
        x, y = place
        return self.left < x < self.right and self.top < y < self.bottom

    def entry(self, x: float, y: float, dx: float, dy: float) -> tuple[float, int]:
        """When the path from (x, y) along (dx, dy) enters, a share of the path, and the axis of the
        side that it enters by (0: left or right, 1: top or bottom); (inf, 0) if it does not.
        """
        first, last, axis = -math.inf, math.inf, 0
        spans = ((x, dx, self.left, self.right), (y, dy, self.top, self.bottom))
        for number, (at, by, low, high) in enumerate(spans):
            if by == 0:
                if not low < at < high:
                    return math.inf, 0
                continue
            enter, leave = (low - at) / by, (high - at) / by
            if enter > leave:
                enter, leave = leave, enter
            if enter > first:
                first, axis = enter, number
            last = min(last, leave)
        # A path along a surface, or away from it, does not enter.
        return (first, axis) if first < last and last > 0 and 0 <= first < 1 else (math.inf, 0)


def moved(place: Place, by: Place, walls: Sequence[Wall]) -> Place:
    """Where a point ends that moves `by` from a free `place`.

    The path is swept: a point that would enter a wall, however fast, slides along its surface while
    the wall is in the way. So one step ends where many shorter ones of its direction do.
    """
    at, rest = list(place), 1.0
    for _ in range(4 * len(walls) + 4):
        going, surfaces = list(by), list[Wall]()
        when, axis, wall = _first(at, going, walls, rest)
        while wall is not None and when == 0:
            surfaces.append(wall)
            going[axis] = 0.0
            when, axis, wall = _first(at, going, walls, rest)
        # Places on a surface are set exactly: a rounded one could lie within the wall.
        edge = None if wall is None else wall[axis if going[axis] > 0 else axis + 2]
        for surface in surfaces:
            along = 0 if going[0] else 1
            if going[along]:
                corner = surface[along + 2 if going[along] > 0 else along]
                if (ends := (corner - at[along]) / going[along]) < when:
                    when, axis, edge = ends, along, corner
        at = [at[0] + when * going[0], at[1] + when * going[1]]
        if edge is None:
            break
        at[axis] = edge
        rest -= when
    return at[0], at[1]


def _first(
    at: Sequence[float], going: Sequence[float], walls: Sequence[Wall], rest: float
) -> tuple[float, int, Wall | None]:
    """The first wall that a path enters, when, and by which axis; (rest, 0, None) if none before
    `rest`.
    """
    entry: tuple[float, int, Wall | None] = rest, 0, None
    for wall in walls:
        when, axis = wall.entry(at[0], at[1], going[0], going[1])
        if when < entry[0]:
            entry = when, axis, wall
    return entry


def is_clear(start: Place, end: Place, walls: Sequence[Wall]) -> bool:
    """Whether the straight line between two free places enters no wall."""
    (x, y), (dx, dy) = start, (end[0] - start[0], end[1] - start[1])
    shrunk = (
        Wall(w.left + _CLEAR, w.top + _CLEAR, w.right - _CLEAR, w.bottom - _CLEAR) for w in walls
    )
    return all(wall.entry(x, y, dx, dy)[0] == math.inf for wall in shrunk)


def shortest_path(start: Place, end: Place, walls: Sequence[Wall]) -> list[Place]:
    """The corners of the shortest way from `start` to `end`, both included; empty without a way.

    It bends only at corners of walls (Lozano-Pérez & Wesley 1979), so it is found among these by
    Dijkstra's algorithm.
    """
    corners = [
        (x, y) for wall in walls for x in (wall.left, wall.right) for y in (wall.top, wall.bottom)
    ]
    free = [corner for corner in corners if not any(wall.holds(corner) for wall in walls)]
    places = [start, end, *free]
    reached, before = {0: 0.0}, {0: 0}
    waiting, done = [(0.0, 0)], set[int]()
    while waiting:
        length, here = heapq.heappop(waiting)
        if here in done:
            continue
        if here == 1:
            path = [1]
            while path[-1]:
                path.append(before[path[-1]])
            return [places[place] for place in reversed(path)]
        done.add(here)
        for there in range(len(places)):
            if there not in done and is_clear(places[here], places[there], walls):
                further = length + math.dist(places[here], places[there])
                if further < reached.get(there, math.inf):
                    reached[there], before[there] = further, here
                    heapq.heappush(waiting, (further, there))
    return []


def length(path: Sequence[Place]) -> float:
    """The length of a path; infinite where there is none."""
    if not path:
        return math.inf
    return sum(math.dist(one, other) for one, other in pairwise(path))
