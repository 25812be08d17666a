"""An objective inferred: an expert walks round a place that no reward names, and plans do so, too.

    python examples/infer.py --json
    python examples/infer.py --quick

In TwoRooms an expert goes to its goals by the shortest way that does not touch a square on the far
side of the door. Its episodes are films, folders of pictures with the actions beside them. From
these and the agent's own episodes, which are planned to goals of the same kind, the head `expert`
of the cost `inferred` learns where the expert goes and where it does not (LeCun 2022, §3.2);
perception and world model are those of `examples/two_rooms.py`, which is trained first where its
run is not there, and do not change. Then episodes from other starts to other goals are planned
(Mode-2) by the distance to the goal, with and without the head. All are episodes whose shortest way
leads through the square. *Avoided*: no frame shows the point inside. Beside them the policy that
cloned the expert's actions, which knows no goal.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agent import load, play
from command_line import options_of, print_results
from films import filmed
from probing import Rows, column, table_of, trained
from two_rooms import QUICK as QUICK_BASE
from two_rooms import Size as BaseSize
from two_rooms import point_in, run_of
from worlds.point_rooms import SPEED, STEPS, TwoRooms
from worlds.walls import Place, Wall, shortest_path

SQUARE = Wall(38.0, 14.0, 50.0, 34.0)
"""What the expert avoids, pixels: the ground behind the door, which most ways lead across."""

CLEAR = 1.5
"""Distance, pixels, that the expert keeps from it, and depth at which a point counts as inside:
a frame shows a place to a pixel.
"""

GOAL_ALONE = "directive.v={goal: 1}"
"""The setting of plans by the distance to the goal alone."""

PLANS = (
    "configurator.mode=2",
    "actor.planner={kind: cem, samples: 128, iterations: 1, action_repeat: 4}",
    "directive.horizon_steps=24", "directive.model_calls=3072",
)  # fmt: skip
"""Settings of plans that look far enough to go round the square."""

HEAD = 20.0
"""Weight of the inferred head against a step of the way to the goal, chosen on other episodes: as
large as the time from the square to far goals, because a plan adds that time up over its steps.
"""


def _walls() -> tuple[Wall, ...]:
    env = TwoRooms(goal_form="none")
    env.reset(seed=0)
    return env.walls


WALLS = _walls()
"""Those of TwoRooms with its fixed layout."""


class Size(NamedTuple):
    """Seeds; episodes of the expert and as many of the agent, updates of a training; episodes of
    plans; the training of perception and world model.
    """

    seeds: int = 1
    shown: int = 100
    updates: int = 1500
    episodes: int = 40
    base: BaseSize = BaseSize()


QUICK = Size(seeds=1, shown=6, updates=40, episodes=2, base=QUICK_BASE)


def inside(place: Place, depth: float = CLEAR) -> bool:
    """Whether a place is in the square, at least `depth` pixels deep."""
    shrunk = Wall(
        SQUARE.left + depth, SQUARE.top + depth, SQUARE.right - depth, SQUARE.bottom - depth
    )
    return shrunk.holds(place)


def crosses(start: Place, goal: Place) -> bool:
    """Whether start and goal of an episode are outside of the square and the way is through it."""
    if inside(start, -3) or inside(goal, -3):
        return False
    points = [
        (one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1]))
        for one, other in pairwise(shortest_path(start, goal, WALLS))
        for share in np.linspace(0, 1, 40)
    ]
    return any(inside(point, 3) for point in points)


def shown(place: Path, episodes: int) -> Path:
    """The expert's films, where they are not there."""
    env = TwoRooms(goal_form="none")
    wide = Wall(
        SQUARE.left - CLEAR, SQUARE.top - CLEAR, SQUARE.right + CLEAR, SQUARE.bottom + CLEAR
    )
    seeds = count()

    def film(_: int) -> tuple[list[Any], NDArray[Any]]:
        env.reset(seed=next(seeds))
        while inside(tuple(env.place), -3) or inside(tuple(env.goal), -3):
            env.reset(seed=next(seeds))
        frames, actions = [env.picture(env.place)], list[NDArray[np.float32]]()
        for _step in range(60):
            way = shortest_path(tuple(env.place), tuple(env.goal), (*env.walls, wide))
            along = (np.array(way[1]) - env.place) / SPEED if len(way) > 1 else np.zeros(2)
            along = along / max(1.0, float(np.hypot(*along)))
            actions.append(along.astype(np.float32))
            env.step(along)
            frames.append(env.picture(env.place))
        return frames, np.stack(actions)

    return filmed(place, map(film, range(episodes)), labels=1)


def own(runs: Path, seed: int, size: Size) -> Path:
    """The recorded episodes of the agent itself, which plans to goals of the same kind and knows no
    expert: what sets these apart is what the expert wants besides.
    """
    base = run_of(runs.parent / "two_rooms", seed, size.base)
    place = runs / f"own-{size.shown}-{base.name}"
    if not (place / "trace.sqlite").is_file():
        play(
            base, "configurator.mode=2", GOAL_ALONE, f"world.num_envs={size.shown}",
            "world.episode_steps=60", steps=61 * size.shown, run=place, seed=5,
        )  # fmt: skip
    return place


def inferred(runs: Path, seed: int, size: Size) -> Path:
    """A run whose cost has learned the head `expert`, on a trained perception and world model."""
    base = run_of(runs.parent / "two_rooms", seed, size.base)
    place = runs / f"inferred-{size.shown}-{size.updates}-{base.name}"
    trained(
        place, base, "cost={kind: inferred, drives: [], critic: {kind: time-to-goal, window: 9}}",
        "learner.train_modules=[cost]", "learner.online_steps=2", "learner.warmup_steps=2",
        "learner.replay_ratio=1", "learner.learning_rate=0.002",
        f"learner.decay_updates={size.updates}",
        steps=size.updates, seed=seed, recordings=[own(runs, seed, size)],
        experts=[shown(runs / f"expert-{size.shown}", size.shown)],
    )  # fmt: skip
    return place


def cloned(runs: Path, seed: int, size: Size) -> Path:
    """A run whose policy has cloned the expert's actions, on the same perception."""
    base = run_of(runs.parent / "two_rooms", seed, size.base)
    place = runs / f"cloned-{size.shown}-{size.updates}-{base.name}"
    trained(
        place, base, "actor.policy.noise=0", "learner.train_modules=[actor]", "learner.batch=64",
        "learner.online_steps=1", "learner.warmup_steps=2", "learner.replay_ratio=1",
        "learner.learning_rate=0.001", f"learner.decay_updates={size.updates}",
        steps=size.updates, seed=seed,
        experts=[shown(runs / f"expert-{size.shown}", size.shown)],
    )  # fmt: skip
    return place


def starts(episodes: int, seed: int) -> list[tuple[Place, Place]]:
    """Starts and goals of episodes that no training has seen, whose way is through the square."""
    env, drawn = TwoRooms(goal_form="none"), list[tuple[Place, Place]]()
    while len(drawn) < episodes:
        env.reset(seed=seed)
        seed += 1
        if crosses(tuple(env.place), tuple(env.goal)):
            drawn.append((tuple(env.place), tuple(env.goal)))
    return drawn


def ways(run: Path, drawn: Sequence[tuple[Place, Place]], *overrides: str) -> dict[str, float]:
    """Shares of the episodes `drawn` that avoid the square, that touch the goal, and that do both;
    each of 100 steps.
    """
    avoided, touched = list[bool](), list[bool]()
    for start, goal in drawn:
        settings = json.dumps({"start": list(start), "goal": list(goal)})
        player = load(run, f"world.settings={settings}", "world.num_envs=1", *overrides, seed=1)
        with closing(player.world):
            seen = [moment.observation for moment in player.live(STEPS // 2)]
        frames = torch.cat([one.pixels for one in seen if one.pixels is not None]).numpy()
        avoided.append(not any(inside(tuple(place)) for place in point_in(frames).tolist()))
        touched.append(any(bool(one.signals[0, 0] > 0) for one in seen))
    both = np.array(avoided) & np.array(touched)
    figures = {"avoided": avoided, "touched": touched, "both": both}
    return {name: float(np.mean(values)) for name, values in figures.items()}


def rows_of(runs: Path, size: Size) -> Rows:
    """Plans with the inferred head and without, and the clone, a seed each."""
    rows: Rows = {}
    plans, drawn = PLANS, starts(size.episodes, 9_000_000)
    for seed in range(size.seeds):
        run = inferred(runs, seed, size)
        arms: dict[str, tuple[Path, tuple[str, ...]]] = {
            "plans, with the head": (run, (*plans, f"directive.v={{goal: 1, expert: {HEAD}}}")),
            "plans, without": (run, (*plans, "directive.v={goal: 1, expert: 0}")),
            "cloning alone": (cloned(runs, seed, size), ()),
        }
        for name, (place, overrides) in arms.items():
            rows.setdefault(name, []).append(ways(place, drawn, *overrides))
    return rows


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def of(name: str, figure: str) -> float:
        return float(column(rows, name, figure).mean())

    return {
        "with the head at least 95 % avoid the square": of("plans, with the head", "avoided")
        >= 0.95,
        "and at least 80 % reach the goal": of("plans, with the head", "touched") >= 0.8,
        "without it at most half avoid it": of("plans, without", "avoided") <= 0.5,
    }


def main() -> None:
    """Trains what is missing, plans, and prints the table."""
    options = options_of(
        __doc__, quick="a small training, under a minute", runs="infer", counts=("seeds",)
    )
    size = QUICK if options.quick else Size()
    size = size._replace(seeds=options.seeds or size.seeds)
    options.runs.mkdir(parents=True, exist_ok=True)
    rows = rows_of(options.runs, size)
    figures: dict[str, Any] | None = {"seeds": size.seeds, "rows": rows} if options.json else None
    print_results([table_of(rows)], bars_of(rows), figures)


if __name__ == "__main__":
    main()
