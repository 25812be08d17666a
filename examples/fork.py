"""A step that branches at random: what a deterministic model predicts, and what a latent z adds.

    python examples/fork.py --out docs/figures/fork.png
    python examples/fork.py --quick --json
    python examples/fork.py --only planning

Part `prediction` (`fork_prediction.py`): a deterministic JEPA and four kinds of z learn a step
whose branches have known rates, in a space of fixed scale, under an encoder that learns along, and
in `sextet/Fork-v0` from its vectors and its frames.

Part `planning` (`fork_planning.py`): agents in `sextet/Fork-state-v0`, whose three routes each have
a fork and pay-offs, plan under directives that ask for three different routes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fork_planning as planning
import fork_prediction as prediction
from branching_step import BRANCHES, RATES
from command_line import options_of, print_results, save_picture

PARTS = ("prediction", "planning")
COLOURS = ("#0b7285", "#e8590c", "#5f3dc4")


class Size(NamedTuple):
    """Trainings of each row of the part `prediction`, of those on frames, their updates in the
    synthetic space and in the world; agents of the part `planning`, their steps and the episodes of
    each evaluation.
    """

    seeds: int = 5
    frame_seeds: int = 1
    updates: int = 1000
    world_updates: int = 3000
    agents: int = 4
    steps: int = 32_000
    episodes: int = 100


QUICK = Size(seeds=1, updates=150, world_updates=150, agents=1, steps=12_000, episodes=20)


def predicted(seed: int, size: Size) -> tuple[list[prediction.Row], dict[str, Tensor]]:
    """What each training of the part `prediction` learned, and where the futures of the first ones
    with a fixed encoder lie, [K 2].
    """
    rows, points = [], dict[str, Tensor]()
    for one in range(seed, seed + size.seeds):
        for kind, encoder in prediction.ROWS:
            if encoder == "pixels" and one >= seed + size.frame_seeds:
                continue
            updates = size.updates if encoder in ("fixed", "learned") else size.world_updates
            result = prediction.trained(kind, encoder, one, updates)
            row, futures = prediction.row_of(result, kind, encoder, one)
            rows.append(row)
            if encoder == "fixed":
                points.setdefault(kind, futures)
        print(f"seed {one}: models done", file=sys.stderr, flush=True)
    return rows, points


def planned(seed: int, size: Size) -> list[planning.Way]:
    """The routes of each agent of the part `planning`."""
    ways = []
    for one in range(seed, seed + size.agents):
        ways += planning.ways_of(one, size.steps, size.episodes)
        print(f"seed {one}: agent done", file=sys.stderr, flush=True)
    return ways


# -- picture -------------------------------------------------------------------------------------


def draw_prediction(above: Any, rows: list[prediction.Row], points: dict[str, Tensor]) -> None:
    """Where futures lie among the branches, and what encoders keep of these."""
    *panels, right = above.subplots(1, len(points) + 1, width_ratios=(*[1] * len(points), 1.6))
    for panel, (kind, futures) in zip(panels, points.items(), strict=True):
        size, alpha = (5, 0.3) if len(futures) > 1 else (30, 1)
        panel.scatter(*futures.T, s=size, alpha=alpha, color=COLOURS[0], lw=0)
        panel.scatter(*BRANCHES.T, s=1200 * RATES, marker="o", fc="none", ec=COLOURS[1], lw=1.4)
        panel.set(xlim=(-0.95, 0.95), ylim=(-0.75, 0.95), aspect="equal")
        panel.set_title("no z" if kind == "none" else kind, fontsize=9)
        panel.tick_params(labelsize=7)
    encoders = prediction.ENCODERS[1:]
    for number, kind in enumerate(("none", "categorical")):
        for place, encoder in enumerate(encoders):
            values = [row.separation for row in prediction.named(rows, kind, encoder)]
            across = [place + 0.3 * (number - 0.5)] * len(values)
            label = "no z" if kind == "none" else "categorical z"
            right.scatter(
                across, values, color=COLOURS[number], s=16, label=None if place else label
            )
    names = {"learned": "synthetic", "state": "Fork-state", "pixels": "Fork, frames"}
    right.set_xticks(range(len(encoders)), [names[encoder] for encoder in encoders], fontsize=7)
    right.axhline(0.2, color="#7b8794", lw=0.8, ls=":")
    right.axhline(0.5, color="#7b8794", lw=0.8, ls="--")
    right.set(xlim=(-0.5, len(encoders) - 0.5), ylim=(0, None))
    right.set_title("Branch distance that encoders keep\n[deviations of latents]", fontsize=9)
    right.tick_params(axis="y", labelsize=7)
    right.legend(fontsize=7, frameon=False)
    above.suptitle(
        "Predicted futures of one fork (circles: its branches, sized by rate)", fontsize=10
    )


def draw_planning(below: Any, ways: list[planning.Way]) -> None:
    """The routes that agents take under each directive."""
    panel = below.subplots()
    reached = torch.zeros(len(planning.WAYS))
    for route in range(3):
        shares = [planning.share_of(planning.named(ways, name), route) for name in planning.WAYS]
        width = torch.tensor([share.count / share.of for share in shares])
        panel.barh(
            list(planning.WAYS), width, left=reached, color=COLOURS[route],
            label=f"route {route + 1}",
        )  # fmt: skip
        reached += width
    panel.invert_yaxis()
    panel.tick_params(labelsize=7)
    panel.set_xlabel("share of episodes", fontsize=8)
    panel.set_title("Routes of sextet/Fork-state-v0 that agents plan", fontsize=10)
    panel.legend(fontsize=7, ncols=3, loc="upper right", bbox_to_anchor=(1, 1.14), frameon=False)


# -- command -------------------------------------------------------------------------------------


def main() -> None:
    """Prints the tables and draws the picture."""
    from matplotlib.figure import Figure

    options = options_of(
        __doc__, quick="one small training of each", picture="fork", seed=True, parts=PARTS
    )
    seed, size = options.seed, QUICK if options.quick else Size()
    parts = PARTS if options.only is None else (options.only,)
    tables, bars, figures = list[str](), dict[str, bool](), dict[str, Any]()
    panels = dict[str, Callable[[Any], None]]()
    if "prediction" in parts:
        rows, points = predicted(seed, size)
        tables.append(prediction.table_of(rows))
        bars |= prediction.bars_of(rows)
        figures["rows"] = [asdict(row) for row in rows]
        panels["prediction"] = lambda part: draw_prediction(part, rows, points)
    if "planning" in parts:
        ways = planned(seed, size)
        tables.append(planning.table_of(ways))
        bars |= planning.bars_of(ways)
        figures["ways"] = [asdict(way) for way in ways]
        panels["planning"] = lambda part: draw_planning(part, ways)
    figure = Figure(figsize=(13, 3.1 * len(panels)), layout="constrained")
    for part, draw in zip(
        figure.subfigures(len(panels), 1, squeeze=False)[:, 0], panels.values(), strict=True
    ):
        draw(part)
    save_picture(figure, options.out, dpi=90)
    settings = {"seed": seed, **size._asdict(), "picture": str(options.out)}
    print_results(tables, bars, {**settings, **figures} if options.json else None)


if __name__ == "__main__":
    main()
