"""Planning in the emulator: how much more than a random agent one that only plans scores.

    python examples/benchmarks/emulator.py --games Breakout,Carnival --seeds 0,1,2,3
    python examples/benchmarks/emulator.py --planners tree,annealing --presets fair
    python examples/benchmarks/emulator.py --table

Nothing is learned. In each game an agent with the emulator as its world model plays `--steps` steps
from each seed, by the presets `clairvoyant` (foresees the emulator's random numbers) and `fair`
(draws them anew) and their budget. `--planners` names others than theirs (`default`), at the same
model calls. Random is an agent of uniform actions, in 16 environments for the same steps. All go on
after an end, protocol `v5`; a score is the sum of rewards.

`--results` holds a JSON file of each play that is done; it is not repeated, and an interrupted
command continues. Unknown options are settings of all plays, as `--directive.horizon_steps=24`;
another folder holds plays by other settings. Printed is a table: for each game the mean score of
random and, of each preset and planner, the mean score and its ratio to random's with a 95 %
interval (bootstrap over seeds and over environments of random), then the median of the ratios.
`--json`: the last line has its figures. Exit codes: 0 all done; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from agent import load
from agent.assembly.load import Player
from agent.bench.support.programs import add_engine_options, engine_of, results_of
from agent.engines.engine import Job, Report
from agent.engines.threads import default_threads
from agent.learning.statistics import percentile_interval
from agent.recording.atomic import write_json
from modules import chance
from modules.actor.planner import one_hot
from modules.messages import SIGNALS, Observation, SextetError
from modules.ports import World
from modules.suggest import suggestion
from worlds.make import list_games, make_world

GAMES = (
    "Assault", "Asterix", "BeamRider", "Breakout", "Carnival", "DemonAttack", "Gopher",
    "KungFuMaster", "Qbert", "Riverraid", "Seaquest", "SpaceInvaders",
)  # fmt: skip
PRESETS = ("clairvoyant", "fair")
PLANNERS = ("default", "annealing", "beam", "cem-categorical", "rollout", "tree")
RANDOM_ROWS = 16
"""Environments in which random plays."""

BAR, MEDIAN_BAR = 2.0, 3.0
"""Times random's score, in each game and in the median."""


class UsageError(Exception):
    """Wrong usage of the command, in one line."""


class Play(NamedTuple):
    """The plays of a game by one agent from one seed; `preset` None: by random."""

    game: str
    preset: str | None = None
    planner: str = "default"
    seed: int = 0

    @property
    def name(self) -> str:
        """`Carnival-fair-default-0`, `Carnival-random`."""
        if self.preset is None:
            return f"{self.game}-random"
        return f"{self.game}-{self.preset}-{self.planner}-{self.seed}"


class Ratio(NamedTuple):
    """A ratio and its 95 % interval."""

    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} [{self.low:.2f}, {self.high:.2f}]"


# -- plays -------------------------------------------------------------------------------------


def signals_of(
    world: World, choose: Callable[[int, Observation], Tensor], steps: int, seed: int
) -> tuple[Tensor, int]:
    """The signals [T B S] of `steps` steps of each row, and the episodes that ended.

    `choose(step, observation)`: encoded actions [B A].
    """
    observation, signals, ends = world.reset(seed), list[Tensor](), 0
    for step in range(steps):
        observation = world.step(choose(step, observation))
        signals.append(observation.signals)
        ends += int((observation.terminated | observation.truncated).sum())
    return torch.stack(signals), ends


def random_signals(game: str, rows: int, steps: int, seed: int) -> tuple[Tensor, int]:
    """`signals_of` uniform actions in `rows` environments."""
    with closing(make_world(f"ALE/{game}-v5", num_envs=rows)) as world:
        size = world.spec.actions.size

        def choose(step: int, observation: Observation) -> Tensor:
            keys = chance.keys(seed, rows, step)
            return one_hot(chance.integers(keys, "random agent", size), size)

        return signals_of(world, choose, steps, seed)


def agent_signals(player: Player, steps: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
    """The signals [T B S] of an agent's steps; its `episodes`, `model_calls` and CPU time."""
    calls = 0

    def choose(step: int, observation: Observation) -> Tensor:
        nonlocal calls
        action = player.act(observation)
        assert player.moment is not None
        calls += int(player.moment.plan.model_calls.sum())
        return action

    began = time.process_time()
    with closing(player.world) as world:
        signals, ends = signals_of(world, choose, steps, seed)
    seconds = round(time.process_time() - began, 1)
    return signals, {"episodes": ends, "model_calls": calls, "cpu_s": seconds}


def scores_of(signals: Tensor) -> list[float]:
    """The sum of rewards of each row of signals [T B S]."""
    scores: list[float] = signals[..., SIGNALS.index("reward")].sum(0).tolist()
    return scores


def random_play(game: str, steps: int) -> dict[str, Any]:
    """Scores of uniform actions, a row a score."""
    signals, ends = random_signals(game, RANDOM_ROWS, steps, seed=0)
    return {"scores": scores_of(signals), "episodes": ends}


def planned_play(play: Play, steps: int, settings: list[str]) -> dict[str, Any]:
    """The score of an agent that plans, its model calls and its CPU time."""
    chosen = [] if play.planner == "default" else [f"actor.planner.kind={play.planner}"]
    player = load(f"ALE/{play.game}-v5", *chosen, *settings, preset=play.preset, seed=play.seed)
    signals, costs = agent_signals(player, steps, play.seed)
    kind = player.config.slots["actor"].inner["planner"].kind
    return {"planner_kind": kind, "scores": scores_of(signals), **costs}


def carry_out(
    play: Play, steps: int, settings: list[str], results: Path, folder: None, report: Report
) -> None:
    """A job: one play, unless it is done."""
    place = results / f"{play.name}.json"
    if place.is_file():
        return
    with default_threads():
        figures = (
            random_play(play.game, steps)
            if play.preset is None
            else planned_play(play, steps, settings)
        )
    write_json(place, {**play._asdict(), "steps": steps, "settings": settings, **figures})


# -- table -------------------------------------------------------------------------------------


def results_in(folder: Path) -> list[dict[str, Any]]:
    """The figures of all plays that are done. Raises UsageError where there are none."""
    results = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*-*.json"))]
    if not results:
        raise UsageError(f"--results: expected results in '{folder}', got none")
    return results


def require_same(folder: Path, steps: int, settings: list[str]) -> None:
    """Raises UsageError where plays in the folder had other steps or settings."""
    for path in sorted(folder.glob("*-*.json")):
        one = json.loads(path.read_text("utf-8"))
        others = one["settings"] if one["preset"] else settings
        if (one["steps"], others) != (steps, settings):
            raise UsageError(
                f"--results {folder}: {path.name} has {one['steps']} steps and settings {others}, "
                f"got {steps} and {settings}; try another folder"
            )


def ratios(over: list[list[float]], under: list[list[float]]) -> tuple[list[Ratio], Ratio]:
    """Mean score by mean score of random, of each game, and the median of these."""
    tops, floors = [np.asarray(one) for one in over], [np.asarray(one) for one in under]

    def by_game(*drawn: Any) -> Any:
        half = len(tops)
        return np.stack(
            [
                top[i].mean(-1) / floor[j].mean(-1)
                for top, floor, i, j in zip(tops, floors, drawn[:half], drawn[half:], strict=True)
            ]
        )

    def with_median(*drawn: Any) -> Any:
        each = by_game(*drawn)
        return np.concatenate([each, np.median(each, 0, keepdims=True)])

    sizes = [len(one) for one in (*tops, *floors)]
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = with_median(*map(np.arange, sizes))
    low, high = percentile_interval(with_median, sizes)
    *games, median = (Ratio(*map(float, three)) for three in zip(whole, low, high, strict=True))
    return games, median


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of the table: random's mean of each `game`; of each arm, a preset and a planner,
    its `games`, the `median` ratio, and in how many games it reaches the bar.
    """
    random = {one["game"]: one["scores"] for one in results if one["preset"] is None}
    arms: dict[str, dict[str, list[float]]] = {}
    for one in results:
        if one["preset"] is not None and one["game"] in random:
            arm = arms.setdefault(f"{one['preset']}, {one['planner']}", {})
            arm.setdefault(one["game"], []).extend(one["scores"])
    figures: dict[str, Any] = {}
    for arm, games in arms.items():
        each, median = ratios(list(games.values()), [random[game] for game in games])
        figures[arm] = {
            "games": {
                game: {"score": float(np.mean(scores)), "seeds": len(scores), **ratio._asdict()}
                for (game, scores), ratio in zip(games.items(), each, strict=True)
            },
            "median": median._asdict(),
            "games_at_bar": sum(one.ratio >= BAR for one in each),
        }
    means = {game: float(np.mean(scores)) for game, scores in random.items()}
    return {"random": means, "arms": figures}


def table(figures: dict[str, Any]) -> str:
    """A Markdown table of `summary`."""
    arms = figures["arms"]
    lines = ["| game | random | " + " | ".join(arms) + " |", "|---|---|" + "---|" * len(arms)]
    for game, mean in figures["random"].items():
        cells = []
        for arm in arms.values():
            one = arm["games"].get(game)
            if one is None:
                cells.append("–")
                continue
            ratio = Ratio(one["ratio"], one["low"], one["high"])
            cells.append(f"{one['score']:.4g}, {ratio} times, {one['seeds']} s.")
        lines.append(f"| {game} | {mean:.4g} | " + " | ".join(cells) + " |")
    medians = [str(Ratio(**arm["median"])) for arm in arms.values()]
    lines.append(f"| median (bar {MEDIAN_BAR:g}) | | " + " | ".join(medians) + " |")
    reached = [f"{arm['games_at_bar']} of {len(arm['games'])}" for arm in arms.values()]
    lines.append(f"| at least {BAR:g} times | | " + " | ".join(reached) + " |")
    return "\n".join(lines)


# -- command -----------------------------------------------------------------------------------


def chosen(option: str, text: str, known: tuple[str, ...] | list[str], what: str) -> list[str]:
    """The names of an option, separated by commas. Raises UsageError for an unknown one."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [""]:
        if name not in known:
            raise UsageError(f"{option}: expected {what}, got {name!r}{suggestion(name, known)}")
    return names


def plays_of(options: argparse.Namespace) -> list[Play]:
    """All plays that were named. Raises UsageError before any begins."""
    atari = [name.removeprefix("ALE/").removesuffix("-v5") for name in list_games()]
    games = chosen("--games", options.games, atari, "Atari games")
    presets = chosen("--presets", options.presets, PRESETS, f"some of {', '.join(PRESETS)}")
    planners = chosen("--planners", options.planners, PLANNERS, f"some of {', '.join(PLANNERS)}")
    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds: expected numbers as 0,1,2, got {options.seeds!r}") from None
    if options.steps < 1:
        raise UsageError(f"--steps: expected at least 1, got {options.steps}")
    # By game, so that an interrupted command leaves whole rows of the table.
    plays = [
        play
        for seed in seeds
        for game in games
        for play in (
            Play(game),
            *(Play(game, preset, planner, seed) for planner in planners for preset in presets),
        )
    ]
    return list(dict.fromkeys(plays))


def bench(arguments: list[str]) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="emulator.py", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--games", default=",".join(GAMES))
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--planners", default="default", help=", ".join(PLANNERS))
    parser.add_argument("--seeds", default="0,1,2,3", help="of the plays (0,1,2,3)")
    parser.add_argument("--steps", type=int, default=400, help="of each play (400)")
    add_engine_options(parser)
    parser.add_argument(
        "--results", type=Path, default=Path("docs/emulator"), help="a JSON of each"
    )
    parser.add_argument("--table", action="store_true", help="print what is done")
    parser.add_argument("--json", action="store_true", help="the last line: the table's figures")
    options, more = parser.parse_known_args(arguments)
    if strange := [word for word in more if not word.startswith("--") or "=" not in word]:
        raise UsageError(f"{strange[0]!r}: expected a setting as --directive.horizon_steps=24")
    if not options.table:
        settings, plays = [word.removeprefix("--") for word in more], plays_of(options)
        engine = engine_of(options)  # a wrong one is refused before anything is written
        require_same(options.results, options.steps, settings)
        # A wrong setting is refused here, in one line, and not by each job.
        load(f"ALE/{plays[0].game}-v5", *settings, preset=PRESETS[0]).world.close()
        options.results.mkdir(parents=True, exist_ok=True)
        how = (options.steps, settings, options.results)
        jobs = [Job(play.name, functools.partial(carry_out, play, *how)) for play in plays]
        for _ in results_of(engine, jobs):
            pass
    figures = summary(results_in(options.results))
    print(table(figures))
    if options.json:
        print(json.dumps(figures))
    return 0


def main() -> int:
    """Runs the command; a wrong usage is one line and exit code 2."""
    try:
        return bench(sys.argv[1:])
    except (UsageError, SextetError) as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
