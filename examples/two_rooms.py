"""Two rooms: shown a picture of where it should be, an agent plans its way through the door.

    python examples/two_rooms.py --out docs/figures/two_rooms.png
    python examples/two_rooms.py --quick --json

Perception and world model are learned from the experience of random steps, without reward or goal;
then, from other random steps, the time to goals and a policy towards them, on latents that no
longer change. With these, every second step is planned: the cost of a plan is the sum over its
steps of the time from what is predicted to the goal. *Touched*: the point was at the goal in some
step of 200; *held*: in the last one. Places that the goal is reached from at once are no starts.
Beside it Mode-1, the policy alone. The floors are a random walk and a straight line to the goal by
one who knows both places and not the wall.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agent import load
from agent.recording.run_folder import RunFolder
from benchmarks.goal_floors import random_step, straight_step, walk
from command_line import options_of, print_results, save_picture
from modules.measures.probes import linear_probe
from modules.messages import SIGNALS, Observation
from probing import Rows, column, table_of, trained
from worlds.point_rooms import SIDE, STEPS, TWO_ID, PointRooms, TwoRooms

SETTINGS = Path(__file__).parent / "two_rooms.yaml"
TO_GOALS = SETTINGS.with_name("to_goals.yaml")
"""Settings of the training of perception and world model, and of what is learned after it."""

PLAN_SEED = 4_000_000
"""Added to the seed of a training for the episodes of its plans."""

GOALS_SEED = 1_000_000
"""Added to the seed of a training for that of its second part, whose random steps are others."""

NO_NOISE = ("actor.policy.noise=0", "actor.policy.repeat_prob=0")
REACTION = ("configurator.mode=1", *NO_NOISE)
"""Settings of the policy without noise, and of an agent that acts by it alone."""

_REWARD = SIGNALS.index("reward")


class Size(NamedTuple):
    """Seeds, steps and updates of a training, episodes of plans, updates of the second part."""

    seeds: int = 3
    steps: int = 24_000
    updates: int = 1800
    episodes: int = 100
    goal_updates: int = 600


QUICK = Size(seeds=1, steps=3000, updates=40, episodes=4, goal_updates=20)


def train_on_walks(
    place: Path, begins: str | Path, config: Path, seed: int, steps: int, updates: int
) -> Path:
    """A training on random steps in a world of rooms, or of an agent; its folder, `place`.

    Nearly all steps are collected before it learns from any: random steps get no better by
    learning, and late ones are learned from nearly as often as early ones.
    """
    first = steps - steps // 12
    trained(
        place, begins, f"training.steps={steps}", f"memory.capacity={steps}",
        f"learner.warmup_steps={first}", f"learner.replay_ratio={updates / (steps - first)}",
        f"learner.decay_updates={updates}", config=config, seed=seed,
    )  # fmt: skip
    return place


def train_in_two_parts(runs: Path, world: str, config: Path, seed: int, size: Size) -> Path:
    """A training of perception and world model by `config`, then of the way to goals by TO_GOALS;
    its folder.
    """
    name = f"{config.stem}-{size.steps}-{size.updates}"
    first, place = runs / f"{name}-{seed}", runs / f"{name}-{size.goal_updates}-{seed}"
    train_on_walks(first, world, config, seed, size.steps, size.updates)
    return train_on_walks(place, first, TO_GOALS, GOALS_SEED + seed, size.steps, size.goal_updates)


def run_of(runs: Path, seed: int, size: Size) -> Path:
    """The folder of a training."""
    return train_in_two_parts(runs, TWO_ID, SETTINGS, seed, size)


@torch.no_grad()
def place_read(run: Path, env: PointRooms, places: int = 1200) -> float:
    """R² of the point's place, read linearly from the latents of frames."""
    rng, drawn = np.random.default_rng(0), list[tuple[float, float]]()
    env.reset(seed=0)
    while len(drawn) < places:
        x, y = rng.uniform(0, SIDE - 1, 2).tolist()
        if not any(wall.holds((x, y)) for wall in env.walls):
            drawn.append((x, y))
    frames = torch.from_numpy(np.stack([env.picture(place) for place in drawn]))
    player = load(run)
    with closing(player.world):
        perception: Any = player.agent.modules.perception
        latents = perception.encode(frames[:, None])
    return float(linear_probe(latents, torch.tensor(drawn)).mean())


class Ways(NamedTuple):
    """Of E episodes the frame [H Y 3] of the goal of the first, the points' places [E T 2] and the
    goals' [E 2], pixels, as read from frames.
    """

    frame: NDArray[np.uint8]
    places: NDArray[np.int64]
    goals: NDArray[np.int64]


def planned(run: Path, seed: int, episodes: int, *overrides: str) -> tuple[dict[str, float], Ways]:
    """Episodes, side by side, of an agent that plans towards pictures of goals."""
    plans = ("configurator.mode=2", f"world.num_envs={episodes}", *overrides)
    player = load(run, *plans, seed=PLAN_SEED + seed)
    with closing(player.world):
        began = time.process_time()
        seen = [moment.observation for moment in player.live((STEPS + 1) * episodes)]
        spent = time.process_time() - began
    return outcome_of(seen) | {"CPU, s an episode": spent / episodes}, ways_of(seen)


def outcome_of(seen: Sequence[Observation]) -> dict[str, float]:
    """Shares of E episodes, side by side, that touched and that held the goal, and the mean number
    of steps until it was touched; NaN where it never was.
    """
    at_goal = torch.stack([observation.signals[:, _REWARD] for observation in seen]) > 0
    first = at_goal.int().argmax(0)[at_goal.any(0)].float()
    return {
        "touched": float(at_goal.any(0).float().mean()),
        "held": float(at_goal[-1].float().mean()),
        "steps": float(first.mean()) if len(first) else float("nan"),
    }


def ways_of(seen: Sequence[Observation]) -> Ways:
    """The ways of E episodes, side by side."""
    goals = _numpy(seen[0].goal_pixels)
    places = np.stack([point_in(_numpy(one.pixels)) for one in seen], 1)
    return Ways(goals[0], places, point_in(goals))


def _numpy(pixels: torch.Tensor | None) -> NDArray[np.uint8]:
    assert pixels is not None  # this world shows pictures
    return pixels.numpy()


def point_in(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the point is in frames [E H Y 3], (x, y) [E 2]: the place of the most red."""
    place = frames[..., 0].reshape(len(frames), -1).argmax(1)
    return np.stack([place % frames.shape[2], place // frames.shape[2]], 1)


def floors(env: PointRooms, episodes: int) -> Rows:
    """What a random walk and a straight line to the goal reach."""
    rows: Rows = {}
    for name, choose in {"random": random_step, "straight line": straight_step}.items():
        floor = walk(env, choose, episodes)
        figures = {key: float(floor[key]["share"]) for key in ("touched", "held")}
        figures["steps"] = float("nan" if floor["steps"] is None else floor["steps"])
        rows[name] = [figures]
    return rows


def learned_by(run: Path, env: PointRooms) -> dict[str, float]:
    """What a training learned of places, and its CPU time with that of those it began with."""
    spent, part = 0.0, run
    while True:
        spent += json.loads((part / "result.json").read_text())["cpu_seconds"]
        first = RunFolder(part).read_config()["training"]["init_from"]
        if first is None:
            return {"place, R²": place_read(run, env), "training, CPU min": spent / 60}
        part = Path(first)


def rows_of(runs: Path, size: Size) -> tuple[Rows, Ways]:
    """Floors, and plans in the model of each seed, with what was learned and what it cost; ways of
    the first seed.
    """
    rows, ways = floors(TwoRooms(observation="state"), 20 * size.episodes), list[Ways]()
    for seed in range(size.seeds):
        run = run_of(runs, seed, size)
        reaction, _ = planned(run, seed, size.episodes, *REACTION)
        rows.setdefault("Mode-1, by hindsight", []).append(reaction)
        figures, of_seed = planned(run, seed, size.episodes)
        ways.append(of_seed)
        rows.setdefault("plans", []).append(figures | learned_by(run, TwoRooms()))
    return rows, ways[0]


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def of(name: str) -> float:
        return float(column(rows, "plans", name).mean())

    return {
        "touched in at least 98 %": of("touched") >= 0.98,
        "held in at least 95 %": of("held") >= 0.95,
        "at most .5 s of CPU an episode": of("CPU, s an episode") <= 0.5,
        "trained in at most 5 CPU minutes": of("training, CPU min") <= 5,
    }


def draw(panels: Mapping[str, Ways], place: Path, episodes: int = 6) -> None:
    """A PNG with a panel for each way to plan: the ways of some episodes, a colour each, from the
    square to the ring, which is a goal.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 4.2), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, ways) in zip(every, panels.items(), strict=True):
        axes.imshow(ways.frame[..., 2] > 80, cmap="Greys", vmin=0, vmax=3, interpolation="nearest")
        for places, goal in list(zip(ways.places, ways.goals, strict=True))[:episodes]:
            (line,) = axes.plot(*places.T, lw=1.2)
            axes.plot(*places[0], "s", ms=5, color=line.get_color())
            axes.plot(*goal, "o", ms=13, mfc="none", mew=1.5, color=line.get_color())
        axes.set_title(f"{title}: from the square to the ring", fontsize=9)
        axes.set_axis_off()
    save_picture(figure, place, dpi=110)


def main() -> None:
    """Trains what is missing, plans, prints the table and draws the picture."""
    options = options_of(
        __doc__, quick="a small training, under a minute", picture="two_rooms", runs="two_rooms"
    )
    size = QUICK if options.quick else Size()
    rows, ways = rows_of(options.runs, size)
    draw({"plans": ways}, options.out)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows)], bars_of(rows), figures)


if __name__ == "__main__":
    main()
