"""What goals cost without learning: agents that act at random, walk straight, or know the world.

    python examples/benchmarks/goal_floors.py --episodes 2000         # --json: the last line

For each world with goals, over the same seeds for each agent: *touched* and *held* in TwoRooms and
FourRooms (see `worlds.point_rooms`), the cost of an episode in Rocket, *fetched* in Rooms, and the
mean steps of the way where there is one. The straight line knows both places and not the walls; the
oracle knows all. Intervals are 95 %, Wilson's for shares.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binomtest

from worlds.point_rooms import SPEED, STEPS, FourRooms, PointRooms, TwoRooms
from worlds.rocket import STEPS as FLIGHT_STEPS
from worlds.rocket import Rocket, riccati
from worlds.rooms import MOVES, Rooms, path_length
from worlds.rooms import STEPS as ROOMS_STEPS

Choose = Callable[[Any, np.random.Generator], Any]


def random_step(env: Any, rng: np.random.Generator) -> Any:
    """Any action."""
    return rng.uniform(-1, 1, 2)


def straight_step(env: PointRooms, rng: np.random.Generator) -> Any:
    """Towards the goal as the crow flies."""
    return (np.array(env.goal) - env.place) / SPEED


def _oracle(env: PointRooms, rng: np.random.Generator) -> Any:
    return (np.array(env.shortest_path(env.place, env.goal)[1]) - env.place) / SPEED


def walk(env: PointRooms, choose: Choose, episodes: int) -> dict[str, Any]:
    """Touched, held and the mean steps until the goal is touched."""
    touched, held, steps = 0, 0, list[int]()
    for seed in range(episodes):
        env.reset(seed=seed)
        rng, rewards = np.random.default_rng(seed), list[float]()
        for _ in range(STEPS):
            rewards.append(env.step(choose(env, rng))[1])
        held += rewards[-1] > 0
        if any(rewards):
            touched += 1
            steps.append(rewards.index(1.0) + 1)
    return {
        "touched": share(touched, episodes),
        "held": share(held, episodes),
        "steps": float(np.mean(steps)) if steps else None,
    }


def fly(limits: bool, choose: Choose, episodes: int) -> dict[str, Any]:
    """Mean cost of an episode, and its median."""
    env, costs = Rocket(observation="state", limits=limits), list[float]()
    for seed in range(episodes):
        env.reset(seed=seed)
        rng = np.random.default_rng(seed)
        costs.append(0.0)
        for _ in range(FLIGHT_STEPS):
            costs[-1] -= env.step(choose(env, rng))[1]
    return {"cost": float(np.mean(costs)), "median_cost": float(np.median(costs))}


def _optimal(env: Rocket, rng: np.random.Generator) -> Any:
    return -_FEEDBACK[env.time] @ env.ship / env.greatest


_FEEDBACK, _ = riccati(FLIGHT_STEPS)


def fetch(choose: Choose, episodes: int) -> dict[str, Any]:
    """Fetched before the time limit, and with a way of at most 1.1 times the shortest."""
    env, fetched, short = Rooms(observation="state"), 0, 0
    for seed in range(episodes):
        env.reset(seed=seed)
        rng, info = np.random.default_rng(seed), dict[str, Any]()
        for _ in range(ROOMS_STEPS):
            *_, terminated, _, info = env.step(choose(env, rng))
            if terminated:
                fetched += 1
                short += info["steps_since_asked"] <= 1.1 * info["shortest"]
                break
    return {"fetched": share(fetched, episodes), "fetched_by_short_way": share(short, episodes)}


def wandering_step(env: Rooms, rng: np.random.Generator) -> Any:
    """Any action."""
    return rng.integers(len(MOVES))


def knowing_step(env: Rooms, rng: np.random.Generator) -> Any:
    """Towards the thing asked for by the shortest way."""
    (row, column), target = env.agent, env.things[env.request]
    ways = []
    for action, (down, right) in enumerate(MOVES):
        cell = (row + down, column + right)
        if env.may_step(cell):
            ways.append((path_length(cell, target), action))
    return min(ways)[1]


def share(count: int, of: int) -> dict[str, float]:
    """A share with its interval."""
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return {"share": count / of, "low": float(interval.low), "high": float(interval.high)}


def main() -> None:
    """Prints a line for each world and agent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    episodes, table = options.episodes, dict[str, dict[str, Any]]()
    worlds = {
        "TwoRooms fixed": TwoRooms(observation="state"),
        "TwoRooms random": TwoRooms(observation="state", layout="random"),
        "FourRooms 3 doors": FourRooms(observation="state"),
        "FourRooms 4 doors": FourRooms(observation="state", doors=4),
        "FourRooms 3 doors random": FourRooms(observation="state", layout="random"),
    }
    for name, env in worlds.items():
        agents = {"random": random_step, "straight": straight_step, "oracle": _oracle}
        for agent, choose in agents.items():
            # An oracle searches the shortest way in every step.
            count = min(episodes, 50) if agent == "oracle" else episodes
            table[f"{name}, {agent}"] = walk(env, choose, count)
    for limits in (False, True):
        for agent, pilot in {"idle": lambda env, rng: np.zeros(2), "random": random_step,
                             "riccati": _optimal}.items():  # fmt: skip
            table[f"Rocket{' limits' * limits}, {agent}"] = fly(limits, pilot, episodes)
    table["Rooms, random"] = fetch(wandering_step, episodes)
    table["Rooms, knows"] = fetch(knowing_step, episodes)
    for name, figures in table.items():
        print(f"{name:<36}" + "   ".join(_words(key, value) for key, value in figures.items()))
    if options.json:
        print(json.dumps(table))


def _words(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{key} {value['share']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{key} {'none' if value is None else format(value, '.4g')}"


if __name__ == "__main__":
    main()
