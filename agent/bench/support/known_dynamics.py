"""World models that know the worlds `sextet/Rocket-state-v0` and the rooms exactly.

A plugin (`--plugin agent.bench.support.known_dynamics`): kinds `known-rocket` and `known-rooms`.
They compute all candidates at once, so that planners can be compared at budgets for which copies of
the environment would be too slow; that of the rocket is differentiable. The state of the world is
read from the signals `achieved_…`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.messages import Directive, Frozen, Situation, State, WorldSpec
from modules.world_model.persistence import Persistence
from worlds.point_rooms import SIDE, SPEED, FourRooms, TwoRooms
from worlds.rocket import (
    FUEL_COST,
    PLACE_COST,
    SPEED_COST,
    THRUST,
    WEAK_THRUST,
    dynamics,
)
from worlds.walls import Wall

Points = NDArray[np.float64]


class KnownRocket(Persistence):
    """s' = A s + B u, and the signals `error` and `fuel`; differentiable."""

    class Config(Frozen):
        """`limits`: as in the world."""

        limits: bool = False

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        self.greatest = WEAK_THRUST if config.limits else THRUST
        a, b = dynamics()
        self.a, self.b = torch.from_numpy(a), torch.from_numpy(b)
        self.columns = [world.signals.index(f"achieved_{i}") for i in range(4)]
        self.error, self.fuel = world.signals.index("error"), world.signals.index("fuel")
        self.scale = torch.tensor([10.0, 10.0, 1.0, 1.0], dtype=torch.float64)

    def start(self, situation: Situation, directive: Directive) -> State:
        """The present state; `hidden` [B 4] is place and speed."""
        ship = situation.state.signals[:, self.columns].double() * self.scale
        return situation.state.replace(hidden=ship)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after the thrust `action` [M 2]."""
        thrust = action.double() * self.greatest
        ship = state.hidden @ self.a.T + thrust @ self.b.T
        place, speed = ship[:, :2].square().sum(-1), ship[:, 2:].square().sum(-1)
        signals = [torch.zeros_like(place)] * state.signals.shape[1]
        signals[self.error] = PLACE_COST * place + SPEED_COST * speed
        signals[self.fuel] = FUEL_COST * thrust.square().sum(-1)
        for column, number in zip(self.columns, (ship / self.scale).unbind(-1), strict=True):
            signals[column] = number
        return state.unchecked(
            latent=state.latent,
            hidden=ship,
            signals=torch.stack(signals, -1),
            ended=torch.zeros(len(ship)),
            uncertainty=torch.zeros(len(ship)),
            goal=state.goal,
        )

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The state expected after `action` [B 2], `hidden` [B 0]."""
        expected = self.step(self.start(situation, directive), action)
        return expected.replace(
            hidden=torch.zeros(len(action), 0), signals=expected.signals.float()
        )


class KnownRooms(Persistence):
    """The point among the walls of a fixed layout, swept along each step."""

    class Config(Frozen):
        """`rooms`: 2 or 4. `doors`: of four rooms, as in the world."""

        rooms: int = 2
        doors: int = 3

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        rooms: Any = TwoRooms() if config.rooms == 2 else FourRooms(doors=config.doors)
        rooms.reset(seed=0)
        self.walls = rooms.walls
        self.columns = [world.signals.index(f"achieved_{i}") for i in range(2)]

    def start(self, situation: Situation, directive: Directive) -> State:
        """The present state; `hidden` [B 2] is the place in pixels."""
        middle = (SIDE - 1) / 2
        place = situation.state.signals[:, self.columns].double() * middle + middle
        return situation.state.replace(hidden=place)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after the step `action` [M 2], a share of the greatest."""
        by = action.detach().double()
        by = SPEED * by / by.norm(dim=-1, keepdim=True).clamp_min(1)
        place = torch.from_numpy(moved_together(state.hidden.numpy(), by.numpy(), self.walls))
        signals = torch.zeros_like(state.signals)
        middle = (SIDE - 1) / 2
        signals[:, self.columns] = ((place - middle) / middle).to(signals.dtype)
        return state.unchecked(
            latent=state.latent,
            hidden=place,
            signals=signals,
            ended=torch.zeros(len(place)),
            uncertainty=torch.zeros(len(place)),
            goal=state.goal,
        )

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The state expected after `action` [B 2], `hidden` [B 0]."""
        expected = self.step(self.start(situation, directive), action)
        return expected.replace(hidden=torch.zeros(len(action), 0))


def moved_together(places: Points, by: Points, walls: tuple[Wall, ...]) -> Points:
    """`worlds.walls.moved` of many points [M 2] at once."""
    low = np.array([(wall.left, wall.top) for wall in walls])
    high = np.array([(wall.right, wall.bottom) for wall in walls])
    ends, at = places.copy(), places
    # Most points touch no wall in a step: only the others are followed from wall to wall.
    when, _, _ = _first(at, by, low, high)
    ends += by
    touching = (when < 1).nonzero()[0]
    at, going, rest = places[touching], by[touching], np.ones(len(touching))
    for _ in range(4 * len(walls) + 4):
        if not len(touching):
            break
        at, rest, done = _slide(at, going, rest, low, high)
        ends[touching[done]] = at[done]
        touching, at, going, rest = touching[~done], at[~done], going[~done], rest[~done]
    return ends


def _slide(
    at: Points, by: Points, rest: Points, low: Points, high: Points
) -> tuple[Points, Points, NDArray[np.bool_]]:
    """Moves points to their next wall or corner: places, what is left of the step, which end."""
    going, rows = by.copy(), np.arange(len(at))
    surfaces = np.zeros((len(at), len(low)), bool)
    for _ in range(3):
        when, axis, wall = _first(at, going, low, high)
        stopped = when == 0
        if not stopped.any():
            break
        surfaces[rows[stopped], wall[stopped]] = True
        going[rows[stopped], axis[stopped]] = 0.0
    hit = when < rest
    when = np.where(hit, when, rest)
    ahead = going[rows, axis] > 0
    edge = np.where(ahead, low[wall, axis], high[wall, axis])
    along = np.where(going[:, 0] != 0, 0, 1)
    speed = going[rows, along]
    corner = np.where(speed[:, None] > 0, high[:, along].T, low[:, along].T)
    with np.errstate(divide="ignore", invalid="ignore"):
        leave = np.where(
            surfaces & (speed[:, None] != 0),
            (corner - at[rows, along][:, None]) / speed[:, None],
            math.inf,
        )
    nearest = leave.argmin(1)
    leaves = leave[rows, nearest] < when
    when = np.where(leaves, leave[rows, nearest], when)
    axis, edge = np.where(leaves, along, axis), np.where(leaves, corner[rows, nearest], edge)
    after, event = at + when[:, None] * going, hit | leaves
    after[rows[event], axis[event]] = edge[event]
    return after, rest - when, ~event


def _first(
    at: Points, going: Points, low: Points, high: Points
) -> tuple[Points, NDArray[np.int64], NDArray[np.int64]]:
    """When each point enters its first wall (inf: never), by which axis, and which wall, [M]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        one = (low - at[:, None]) / going[:, None]
        other = (high - at[:, None]) / going[:, None]
    enter, leave = np.minimum(one, other), np.maximum(one, other)
    still = going[:, None] == 0
    within = (low < at[:, None]) & (at[:, None] < high)
    enter = np.where(still, np.where(within, -math.inf, math.inf), enter)
    leave = np.where(still, np.where(within, math.inf, -math.inf), leave)
    first, last = enter.max(2), leave.min(2)
    enters = (first < last) & (last > 0) & (first >= 0) & (first < 1)
    when = np.where(enters, first, math.inf)
    wall = when.argmin(1)
    rows = np.arange(len(at))
    axis = (enter[rows, wall, 1] > enter[rows, wall, 0]).astype(np.int64)
    return when[rows, wall], axis, wall


MODULES = {"world_model": {"known-rocket": KnownRocket, "known-rooms": KnownRooms}}
