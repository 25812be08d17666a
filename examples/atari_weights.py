"""New weights in Atari games: plans follow them, a reaction as far as its critic knows them.

    python examples/atari_weights.py --json
    python examples/atari_weights.py --quick

Bundled agents were trained for the score. When they act the drives weigh otherwise: in Boxing and
Pong the score counts the other way round, in Breakout effort counts, which no critic of theirs
knows. *Mode-2* plans in the emulator by the preset `fair` (sticky actions are drawn anew), under
the new weights `directive.u`; it has learned nothing. *Mode-1* is the trained agent, greedy on its
critic: once under the weights it was trained with, once under the new ones, which it reads as
`directive.v` of its heads. The cost is the sum of the weighted drives over the steps of a play,
lower is better; all arms have the same seeds, go on after an end, and random is the mean of
`RANDOM_ROWS` environments from each seed. A play that is done is a JSON file in `--runs` and is not
repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agent import load
from agent.learning.statistics import mean, ratio
from agent.recording.atomic import write_json
from benchmarks.emulator import agent_signals, random_signals, scores_of
from command_line import options_of, print_results, table
from modules.cost.drives import DRIVES
from modules.messages import SIGNALS
from probing import Rows, column, shown, table_of

RANDOM_ROWS = 4
"""Environments in which random plays from each seed."""


class Task(NamedTuple):
    """A bundled `agent`, its `game`, and the weights of drives at the moment of acting."""

    agent: str
    game: str
    weights: Mapping[str, float]


TASKS = {
    "Boxing, be hit": Task("boxing", "Boxing", {"score": -1, "pain": 0}),
    "Breakout, spare effort": Task(
        "breakout", "Breakout", {"score": 1, "pain": 0, "effort": 0.02}
    ),
    "Pong, lose": Task("pong", "Pong", {"score": -1, "pain": 0}),
}  # fmt: skip
HEADS = ("score", "pain")
"""The heads of the bundled agents' critics; the weight of pain was 0 in training."""

TRAINED, REACTS, PLANS = "Mode-1, as trained", "Mode-1, new weights", "Mode-2, new weights"
ARMS = ("random", TRAINED, REACTS, PLANS)


class Size(NamedTuple):
    """Seeds, steps of a play, and settings of the plans."""

    seeds: int = 4
    steps: int = 300
    settings: tuple[str, ...] = ()


QUICK = Size(
    seeds=2, steps=12, settings=("directive.model_calls=16", "directive.horizon_steps=8")
)  # fmt: skip


def cost_of(signals: Tensor, weights: Mapping[str, float]) -> float:
    """The sum over steps of u·IC of signals [T B S], mean over rows."""
    every = [
        weight * drive.energy(*(signals[..., SIGNALS.index(name)] for name in drive.signals))
        for weight, drive in ((weight, DRIVES[name]()) for name, weight in weights.items())
    ]
    return float(sum(energies.sum(0).mean() for energies in every))


def played(task: Task, arm: str, seed: int, size: Size) -> dict[str, float]:
    """The figures of one play of an arm."""
    if arm == "random":
        signals, _ = random_signals(task.game, RANDOM_ROWS, size.steps, seed)
        costs: dict[str, Any] = {}
    else:
        v = {name: task.weights[name] for name in HEADS}
        player = {
            TRAINED: lambda: load(task.agent, protocol="v5", seed=seed),
            REACTS: lambda: load(
                task.agent, f"directive.v={json.dumps(v)}", protocol="v5", seed=seed
            ),
            PLANS: lambda: load(
                f"ALE/{task.game}-v5", f"directive.u={json.dumps(task.weights)}", *size.settings,
                preset="fair", seed=seed,
            ),
        }[arm]()  # fmt: skip
        signals, costs = agent_signals(player, size.steps, seed)
    effort = signals[..., SIGNALS.index("effort")].sum(0).mean()
    scores = scores_of(signals)
    return {
        "cost": cost_of(signals, task.weights),
        "score": sum(scores) / len(scores),
        "effort": float(effort),
        "model calls": float(costs.get("model_calls", 0)),
        "CPU, s": float(costs.get("cpu_s", 0)),
    }


def rows_of(runs: Path, size: Size) -> Rows:
    """The figures of each arm in each game, of each seed."""
    rows: Rows = {}
    for seed in range(size.seeds):
        for name, task in TASKS.items():
            for arm in ARMS:
                words = "-".join(word.rpartition("=")[2] for word in (*size.settings, str(seed)))
                place = runs / f"{task.game}-{arm.replace(', ', '-')}-{size.steps}-{words}.json"
                if not place.is_file():
                    runs.mkdir(parents=True, exist_ok=True)
                    write_json(place, played(task, arm, seed, size))
                figures = json.loads(place.read_text("utf-8"))
                rows.setdefault(f"{name}: {arm}", []).append(figures)
    return rows


def gain(rows: Rows, task: str, arm: str) -> NDArray[np.float64]:
    """The cost of random less that of an arm in a game, of each seed, [S]."""
    return column(rows, f"{task}: random", "cost") - column(rows, f"{task}: {arm}", "cost")


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold, and whether it does."""
    plans = {task: gain(rows, task, PLANS) for task in TASKS}
    reacts = {task: [gain(rows, task, arm) for arm in (TRAINED, REACTS)] for task in TASKS}
    bars = {
        f"{task}: Mode-2 ahead of Mode-1 by either weights, interval clear of 0": all(
            mean(plans[task] - one).low > 0 for one in reacts[task]
        )
        for task in TASKS
    }
    twice = [
        plans[task].mean() > max(0, *(2 * one.mean() for one in reacts[task])) for task in TASKS
    ]
    return bars | {"in some game more than twice Mode-1's gain over random": any(twice)}


def compared(rows: Rows) -> str:
    """A table of Mode-2's gain over random against Mode-1's: paired differences and ratios."""
    lines = []
    for task in TASKS:
        plans = gain(rows, task, PLANS)
        for arm in (TRAINED, REACTS):
            reacts = gain(rows, task, arm)
            times = shown(ratio([(plans, reacts)])) if reacts.mean() > 0 else "no gain of Mode-1"
            lines.append([f"{task}: {arm}", shown(mean(plans - reacts)), times])
    return table(["Mode-2's gain over random against", "less, paired", "times"], lines)


def main() -> None:
    """Plays what is missing and prints the tables."""
    options = options_of(
        __doc__, quick="short plays, under a minute", runs="atari_weights", counts=("seeds",)
    )
    size = QUICK if options.quick else Size()
    size = size._replace(seeds=options.seeds or size.seeds)
    rows = rows_of(options.runs, size)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows), compared(rows)], bars_of(rows), figures)


if __name__ == "__main__":
    main()
