"""Four rooms, three doors: sub-goals of a level above lead the long way round.

    python examples/four_rooms.py --out docs/figures/four_rooms.png
    python examples/four_rooms.py --quick --json
    python examples/four_rooms.py --seeds 1 --episodes 40 --only modes

Start and goal are in the two rooms on the right, between which there is no door. Perception and a
hierarchical JEPA are learned from the experience of random steps, then, from other random steps,
the time to goals and a policy towards them; the level above predicts ten steps at once. The same
agent then goes to the places of pictures.

*plans*: flat plans, by the distance of the plain latents, by the whitened one, by the time to the
goal, at as many model calls and at a quarter; plans with sub-goals by the same three, at fewer
calls, with sub-goals on the true shortest way, and with random ones. *modes*: Mode-1, Mode-2, and
configurators that choose between them, two of them for .3 of Mode-2's model calls. *Touched*: the
point was at the goal in some step of 200; *held*: in the last one. The floors are a random walk and
a straight line to the goal by one who knows both places and not the walls.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent import load
from command_line import options_of, print_results
from modules.messages import Directive, Observation, Situation
from probing import Rows, column, table_of, trained
from two_rooms import (
    NO_NOISE,
    PLAN_SEED,
    REACTION,
    Size,
    Ways,
    draw,
    floors,
    learned_by,
    outcome_of,
    point_in,
    train_in_two_parts,
    ways_of,
)
from worlds.point_rooms import FOUR_ID, SIDE, SPEED, STEPS, FourRooms

SETTINGS = Path(__file__).parent / "four_rooms.yaml"

FLAT = (
    "actor.planner={kind: cem, samples: 64, iterations: 1, action_repeat: 2}",
    "directive.horizon_steps=40", "directive.model_calls=2048", "directive.commit_steps=4",
)  # fmt: skip
LEVELS = (
    "actor.planner={kind: hierarchical, upper: {kind: cem, samples: 64, iterations: 3}, "
    "lower: {kind: cem, samples: 32, iterations: 2, action_repeat: 2}}",
    "directive.horizon_steps=100", "directive.model_calls=2562", "directive.commit_steps=5",
)  # fmt: skip
FEW_CALLS = (
    "actor.planner={kind: hierarchical, upper: {kind: cem, samples: 44, iterations: 1}, "
    "lower: {kind: cem, samples: 16, iterations: 1, action_repeat: 5}, upper_share: 0.35}",
    "directive.horizon_steps=20", "directive.model_calls=256", "directive.commit_steps=5",
)  # fmt: skip
"""Sub-goals at a tenth of the calls: two macro-actions, the critic knows the rest of the way."""

NEAR = (*FLAT, "directive.horizon_steps=8", "directive.model_calls=512")
MODE_2 = ("configurator.mode=2", *NO_NOISE)
PLAIN = ("directive.u={goal: 1}", "directive.v={goal: 0}")
PLANS: Mapping[str, tuple[str, ...]] = {
    "Mode-1, by hindsight": REACTION,
    "flat, plain latent": (*FLAT, *PLAIN),
    "flat, whitened latent": FLAT,
    "flat, time to goal": FLAT,
    "flat, time to goal, a quarter": NEAR,
    "sub-goals, plain latent": (*LEVELS, *PLAIN),
    "sub-goals, whitened latent": LEVELS,
    "sub-goals, time to goal": LEVELS,
    "sub-goals, a tenth of the calls": FEW_CALLS,
    "sub-goals of the shortest way": LEVELS,
    "sub-goals at random": LEVELS,
}  # fmt: skip
"""Settings of each way to plan, by the time to the goal unless said otherwise. The policy, whose
action is one of the candidates, draws no noise.
"""

WAY_STEPS = 100
"""Steps in which most ways round have been gone; from then on a reaction holds the goal."""

_CALLS = f"model_calls_per_episode: {0.3 * 512 * STEPS / 4:.0f}"
_HALF = (*NEAR, *NO_NOISE, "directive.model_calls=256")
MODES: Mapping[str, tuple[str, ...]] = {
    "Mode-1": REACTION,
    "Mode-2": (*MODE_2, *NEAR),
    "budgeted": (
        *_HALF,
        f"configurator={{kind: budgeted, max_commit_steps: 8, {_CALLS}}}",
        f"configurator.episode_steps={WAY_STEPS}",
    ),
    "surprise": (*_HALF, "configurator={kind: surprise, max_idle_steps: 6}"),
    "at random": (
        *_HALF, f"configurator={{kind: random-rate, episode_steps: {STEPS}, {_CALLS}}}",
    ),
}  # fmt: skip
"""Settings of each way to choose the mode: Mode-2 as in "flat, time to goal, a quarter"; the others
with half as large plans; two may spend .3 of its model calls, "budgeted" on the way.
"""

SUBGOAL_STEPS = 10
"""Steps of the world to a sub-goal on the shortest way, and for which a random one holds."""


QUICK = Size(seeds=1, steps=1200, updates=12, episodes=1, goal_updates=6)


def run_of(runs: Path, seed: int, size: Size) -> Path:
    """The folder of a training."""
    return train_in_two_parts(runs, FOUR_ID, SETTINGS, seed, size)


def whitened(run: Path, size: Size) -> Path:
    """The same perception and world model with the whitened distance of latents as critic, fitted
    to a quarter of the experience.
    """
    place, steps = run.with_name(f"{run.name}-whitened"), max(size.steps // 4, 1000)
    trained(
        place, run, "cost.critic={kind: goal-distance}", "learner.train_modules=[cost]",
        "learner.online_steps=2", f"learner.warmup_steps={steps // 2}",
        f"learner.replay_ratio={size.updates / 4 / steps}", "learner.decay_updates=0",
        steps=steps,
    )  # fmt: skip
    return place


# -- sub-goals that are not planned ------------------------------------------------------------


class SetSubgoals:
    """A configurator around another one that sets the sub-goals of `choose`: of the points' places
    and goals [E 2], pixels, the places to go to [E 2], NaN for the goal itself. They change where a
    new plan is due.
    """

    def __init__(self, wrapped: Any, encode: Callable[[Tensor], Tensor], choose: Any) -> None:
        self.wrapped, self.encode, self.choose = wrapped, encode, choose
        self.room = FourRooms()
        self.room.reset(seed=0)
        self.subgoals: Tensor | None = None
        self.places = self.goals = np.zeros((0, 2), np.int64)

    def look(self, observation: Observation) -> None:
        """Reads where points and goals are from frames, as `point_in` does."""
        self.places = point_in(cast(Tensor, observation.pixels).numpy())
        self.goals = point_in(cast(Tensor, observation.goal_pixels).numpy())

    def initial(self, rows: int) -> Directive:
        """That of the wrapped configurator."""
        return cast(Directive, self.wrapped.initial(rows))

    def configure(self, situation: Situation) -> Directive:
        """That of the wrapped configurator, with sub-goals."""
        directive: Directive = self.wrapped.configure(situation)
        assert directive.subgoal is not None  # the planner has levels
        due = situation.previous.plan.remaining_commit == 0
        last = directive.subgoal if self.subgoals is None else self.subgoals
        if bool(due.any()):
            chosen = self.choose(self.room, self.places, self.goals)
            there = ~np.isnan(chosen).any(1)
            shown = [self.room.picture(tuple(p)) for p in np.where(there[:, None], chosen, 32.0)]
            latents = self.encode(torch.from_numpy(np.stack(shown))[:, None])
            goal = cast(Tensor, situation.state.goal)
            latents = latents.where(torch.from_numpy(there)[:, None], goal)
            last = latents.where(due[:, None], last)
        self.subgoals = last
        return directive.replace(subgoal=last)


def on_shortest_way(
    room: FourRooms, places: NDArray[np.int64], goals: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The places SUBGOAL_STEPS ahead on the shortest ways; NaN where the goal is nearer."""
    chosen = np.full(places.shape, np.nan)
    for row, (place, goal) in enumerate(zip(places.tolist(), goals.tolist(), strict=True)):
        left, at = SPEED * SUBGOAL_STEPS, np.array(free(room, place))
        for corner in room.shortest_path(free(room, place), free(room, goal))[1:]:
            way = np.array(corner) - at
            length = float(np.hypot(*way))
            if length >= left:
                chosen[row] = at + way * left / length
                break
            left, at = left - length, np.array(corner)
    return chosen


def free(room: FourRooms, place: list[int]) -> tuple[float, float]:
    """The nearest place to one read from a frame that is in no wall."""
    x, y = place
    offsets = [(dx, dy) for dx in (0, -1, 1, -2, 2) for dy in (0, -1, 1, -2, 2)]
    near = sorted(offsets, key=lambda by: by[0] ** 2 + by[1] ** 2)
    inside = ((x + dx, y + dy) for dx, dy in near)
    return next(at for at in inside if not any(wall.holds(at) for wall in room.walls))


class AtRandom:
    """Places anywhere in the rooms."""

    def __init__(self, seed: int) -> None:
        self.rng, self.calls, self.last = np.random.default_rng(seed), 0, np.zeros((0, 2))

    def __call__(
        self, room: FourRooms, places: NDArray[np.int64], goals: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        # Every second plan: a sub-goal holds for SUBGOAL_STEPS.
        if self.calls % 2 == 0:
            drawn = self.rng.integers(7, SIDE - 7, places.shape).tolist()
            self.last = np.array([free(room, place) for place in drawn])
        self.calls += 1
        return self.last


# -- figures -----------------------------------------------------------------------------------


def planned(
    run: Path, name: str, of_plan: Sequence[str], seed: int, episodes: int
) -> tuple[dict[str, float], Ways]:
    """Episodes, side by side, of an agent that goes to the places of pictures in the way `name`,
    with its settings `of_plan`.
    """
    settings = (f"world.num_envs={episodes}", "world.settings={start: null}")
    player = load(run, *settings, *of_plan, seed=PLAN_SEED + seed)
    agent, world = player.agent, player.world
    setter: SetSubgoals | None = None
    choose = {
        "sub-goals of the shortest way": on_shortest_way,
        "sub-goals at random": AtRandom(seed),
    }
    if name in choose:
        perception: Any = agent.modules.perception
        setter = SetSubgoals(agent.modules.configurator, perception.encode, choose[name])
        agent.modules = dataclasses.replace(agent.modules, configurator=setter)
    seen, calls, spent = list[Observation](), 0, 0.0
    with closing(world), torch.no_grad():
        agent.reset(episodes, PLAN_SEED + seed)
        observation = world.reset(PLAN_SEED + seed)
        for _ in range(STEPS + 1):
            if setter is not None:
                setter.look(observation)
            began = time.process_time()
            moment = agent.step(observation)
            spent += time.process_time() - began
            seen.append(observation)
            calls += int(moment.plan.model_calls.sum())
            observation = world.step(moment.plan.action)
    costs = {
        "calls, thousands": calls / episodes / 1000,
        "CPU, s an episode": spent / episodes,
    }
    return outcome_of(seen) | costs, ways_of(seen)


def modes_of(runs: Path, size: Size) -> Rows:
    """Each way to choose the mode, in the model of each seed."""
    rows: Rows = {}
    for seed in range(size.seeds):
        run = run_of(runs, seed, size)
        for name, settings in MODES.items():
            figures, _ = planned(run, name, settings, seed, size.episodes)
            rows.setdefault(name, []).append(figures)
    return rows


def bars_of_modes(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def of(name: str, figure: str = "touched") -> float:
        return float(column(rows, name, figure).mean())

    gap, calls = of("Mode-2") - of("Mode-1"), "calls, thousands"
    shares = [
        (of(name) - of("Mode-1")) / gap
        for name in ("budgeted", "surprise")
        if gap > 0 and of(name, calls) <= 0.3 * of("Mode-2", calls)
    ]
    return {
        "the gap between the modes is at least .3": gap >= 0.3,
        "budgeted or surprise has .8 of it for .3 of the calls": max(shares, default=0) >= 0.8,
    }


def rows_of(runs: Path, size: Size) -> tuple[Rows, dict[str, Ways]]:
    """Floors, and each way to plan in the model of each seed; the ways of the first seed."""
    rows = floors(FourRooms(observation="state"), 10 * size.episodes)
    ways: dict[str, Ways] = {}
    for seed in range(size.seeds):
        run = run_of(runs, seed, size)
        learned = learned_by(run, FourRooms())
        by_latent = whitened(run, size)
        for name, settings in PLANS.items():
            place = by_latent if "whitened" in name else run
            figures, of_plan = planned(place, name, (*MODE_2, *settings), seed, size.episodes)
            ways.setdefault(name, of_plan)
            rows.setdefault(name, []).append(figures | learned)
    return rows, ways


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def of(plan: str, name: str) -> float:
        return float(column(rows, plan, name).mean())

    levels, flat = "sub-goals, time to goal", "flat, time to goal"
    ahead = of(levels, "held") - of("flat, whitened latent", "held")
    return {
        "sub-goals: touched in at least 95 %": of(levels, "touched") >= 0.95,
        "sub-goals: held in at least 95 %": of(levels, "held") >= 0.95,
        "sub-goals: held 10 points more than flat, whitened": ahead >= 0.1,
        "sub-goals: at most ¾ of the steps of flat, time to goal": of(levels, "steps")
        <= 0.75 * of(flat, "steps"),
        "a tenth of the calls: held in at least 90 %": of("sub-goals, a tenth of the calls", "held")
        >= 0.9,
        "trained in at most 10 CPU minutes": of(levels, "training, CPU min") <= 10,
    }


def main() -> None:
    """Trains what is missing, plans, prints the table and draws the picture."""
    options = options_of(
        __doc__,
        quick="a small training, under a minute",
        picture="four_rooms",
        runs="four_rooms",
        counts=("seeds", "episodes"),
        parts=("plans", "modes"),
    )
    size = QUICK if options.quick else Size()
    size = size._replace(
        seeds=options.seeds or size.seeds, episodes=options.episodes or size.episodes
    )
    rows: Rows = {}
    bars: dict[str, bool] = {}
    if options.only != "modes":
        rows, ways = rows_of(options.runs, size)
        bars = bars_of(rows)
        drawn = ("flat, whitened latent", "flat, time to goal", "sub-goals, time to goal")
        draw({name: ways[name] for name in drawn}, options.out)
    if options.only != "plans":
        modes = modes_of(options.runs, size)
        rows, bars = rows | modes, bars | bars_of_modes(modes)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows)], bars, figures)


if __name__ == "__main__":
    main()
