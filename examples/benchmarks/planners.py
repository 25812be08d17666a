"""Planners at equal model calls, in worlds whose dynamics are known.

    python examples/benchmarks/planners.py --starts 8 --seeds 0            # --json: the last line

Plain CEM with 300 samples and 30 iterations is the reference. Each other planner plans from the
same starts, from scratch, with shares of the reference's model calls. Printed for each: model
calls, CPU seconds of all starts together, the mean cost of its plans and that by the reference's,
and the mean over starts of its plan's cost by the reference's (1: equal, below: better), with a
95 % bootstrap interval.

The models are exact (`known_dynamics.py`): Rocket without and with limits, where a plan costs what
the world charges; TwoRooms and FourRooms with a fixed layout, where each step costs the squared
distance from the goal. In Rocket without limits the exact optimum is another row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agent import load
from agent.learning.statistics import mean
from worlds.rocket import riccati

sys.path.append(str(Path(__file__).parent))

HORIZON = 40
"""Steps of a plan."""

SAMPLES, ITERATIONS = 300, 30
"""Of the reference."""

SHARES = (1 / 64, 1 / 16, 1 / 4)
"""Of the reference's model calls."""

DISCOUNT = 1.0


@dataclass(frozen=True)
class Problem:
    """A world, its exact model, and the settings that make its cost."""

    world: str
    settings: tuple[str, ...]
    is_smooth: bool = False


ROCKET = ("world_model.kind=known-rocket", "cost.drives=[signal:error,signal:fuel]",
          "directive.u={goal: 0}")  # fmt: skip
ROOMS = ("world_model.kind=known-rooms", "cost.drives=[goal]")
PROBLEMS = {
    "rocket": Problem("sextet/Rocket-state-v0", ROCKET, is_smooth=True),
    "rocket limits": Problem(
        "sextet/Rocket-state-v0",
        (*ROCKET, "world.settings.limits=true", "world_model.limits=true"),
        is_smooth=True,
    ),
    "two rooms": Problem("sextet/TwoRooms-state-v0", ROOMS),
    "four rooms": Problem("sextet/FourRooms-state-v0", (*ROOMS, "world_model.rooms=4")),
}

REFERENCE = {"kind": "cem", "samples": SAMPLES, "iterations": ITERATIONS}
PLANNERS: Mapping[str, dict[str, Any]] = {
    "cem": {"kind": "cem", "samples": SAMPLES, "iterations": 15},
    "cem, held 4": {"kind": "cem", "samples": 100, "iterations": 20, "action_repeat": 4},
    "mppi, held 4": {"kind": "mppi", "samples": 100, "iterations": 20, "action_repeat": 4},
    "icem, held 4": {
        "kind": "icem",
        "samples": 150,
        "iterations": 30,
        "action_repeat": 4,
        "elite_fraction": 0.1,
        "noise_beta": 1.0,
    },
    "annealing, held 4": {"kind": "annealing", "action_repeat": 4},
    "gradient": {
        "kind": "gradient",
        "iterations": 600,
        "learning_rate": 0.03,
        "final_rate": 0.003,
        "num_restarts": 1,
    },
}
"""Settings of each planner, the same in all worlds; `gradient` only where the model has one. Those
of `cem` and `icem` were chosen in TwoRooms with seed 1.
"""


@dataclass(frozen=True)
class Plans:
    """The cost of each start's plan [B], the model calls of one plan, and CPU seconds of all."""

    costs: Tensor
    model_calls: int
    cpu_s: float


def plans_of(
    problem: Problem, planner: Mapping[str, Any], model_calls: int, starts: int, seed: int
) -> Plans:
    """What a planner makes of `starts` first states of a world."""
    player = load(
        problem.world,
        *problem.settings,
        *(f"actor.planner.{name}={value}" for name, value in planner.items()),
        "perception.width=8", "cost.critic.kind=scalar", "cost.critic.width=8",
        "configurator.kind=fixed", "configurator.mode=2", f"discount={DISCOUNT}",
        f"directive.horizon_steps={HORIZON}", f"directive.model_calls={model_calls}",
        num_envs=starts, seed=seed, plugins=("known_dynamics",),
    )  # fmt: skip
    with closing(player.world):
        began = time.process_time()
        moment = next(iter(player.live(1)))
        spent = time.process_time() - began
    return Plans(moment.plan.energy.double(), int(moment.plan.model_calls.max()), spent)


def optimum(starts: int, seed: int) -> Tensor:
    """The least cost of a plan in Rocket without limits, for each start [B]."""
    player = load(PROBLEMS["rocket"].world, num_envs=starts, seed=seed)
    with closing(player.world):
        signals, spec = player.world.reset(seed).signals.double(), player.world.spec
    columns = [spec.signals.index(f"achieved_{i}") for i in range(4)]
    ships = signals[:, columns] * torch.tensor([10.0, 10.0, 1.0, 1.0]).double()
    to_go = torch.from_numpy(riccati(HORIZON, DISCOUNT)[1][0])
    return torch.einsum("bi,ij,bj->b", ships, to_go, ships)


def measured(
    name: str, planners: Mapping[str, dict[str, Any]], starts: int, seeds: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """A row for the reference, and one for each planner and share of its model calls."""
    problem, whole = PROBLEMS[name], SAMPLES * ITERATIONS * HORIZON
    references = {seed: plans_of(problem, REFERENCE, whole, starts, seed) for seed in seeds}
    scale = torch.cat([references[seed].costs for seed in seeds])
    yield row(name, "cem 300×30", references.values(), scale)
    if name == "rocket":
        best = [Plans(optimum(starts, seed), 0, 0.0) for seed in seeds]
        yield row(name, "optimum", best, scale)
    for label, planner in planners.items():
        if planner["kind"] == "gradient" and not problem.is_smooth:
            continue
        for share in SHARES:
            plans = [plans_of(problem, planner, int(share * whole), starts, s) for s in seeds]
            yield row(name, label, plans, scale)


def row(world: str, planner: str, plans: Any, scale: Tensor) -> dict[str, Any]:
    """A row of the table, from the plans of each seed."""
    plans = list(plans)
    costs = torch.cat([one.costs for one in plans])
    ratios = mean((costs / scale).tolist())
    return {
        "world": world,
        "planner": planner,
        "model_calls": plans[0].model_calls,
        "cpu_s": round(sum(one.cpu_s for one in plans), 2),
        "cost": float(costs.mean()),
        "ratio_of_means": float(costs.mean() / scale.mean()),
        "ratio": ratios.mean,
        "low": ratios.low,
        "high": ratios.high,
    }


def main() -> None:
    """Prints the table, and with `--json` all of it as one line at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--worlds", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    planners, rows = {name: PLANNERS[name] for name in options.planners}, []
    print(f"{'world':<14}{'planner':<20}{'calls':>9}{'CPU s':>8}{'cost':>10}{'ratio':>8}")
    for world in options.worlds:
        for one in measured(world, planners, options.starts, tuple(options.seeds)):
            rows.append(one)
            print(
                f"{one['world']:<14}{one['planner']:<20}{one['model_calls']:>9}{one['cpu_s']:>8}"
                f"{one['cost']:>10.4f}{one['ratio_of_means']:>8.3f}   {one['ratio']:.3f} "
                f"[{one['low']:.3f}, {one['high']:.3f}]",
                flush=True,
            )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
