"""Planners at equal model calls, in worlds whose dynamics are known.

Plain CEM with 300 samples and 30 iterations is the reference. Each other planner plans from the
same starts, from scratch, with a share of the reference's model calls. The models are exact
(`known_dynamics.py`): Rocket without and with limits, where a plan costs what the world charges;
TwoRooms and FourRooms with a fixed layout, where each step costs the squared distance from the
goal. In Rocket without limits the exact optimum is another row. `sextet bench plan` compares them
at a quarter of the calls in two worlds; `examples/benchmarks/planners.py` elsewhere too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agent import load
from agent.engines.threads import one_thread
from agent.learning.statistics import mean
from worlds.rocket import riccati

KNOWN = "agent.bench.support.known_dynamics"
"""The plugin with the exact models."""

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


BENCH_WORLDS = ("two rooms", "rocket")
BENCH_SHARE = SHARES[-1]
BENCH_STARTS = 8
"""Of `sextet bench plan`, with seed 0."""


@dataclass(frozen=True)
class Plans:
    """The cost of each start's plan [B], the model calls of one plan, and CPU seconds of all."""

    costs: Tensor
    model_calls: int
    cpu_s: float


@one_thread()
def run(starts: int = BENCH_STARTS, worlds: Sequence[str] = BENCH_WORLDS) -> dict[str, float]:
    """Of each world and planner, as `two_rooms_icem_held_4`: model calls of a plan (`…_calls`), CPU
    seconds of one start's (`…_s`), mean cost (`…_cost`), mean over starts of the cost by the
    reference's (`…_ratio`).
    """
    figures: dict[str, float] = {}
    for world in worlds:
        for one in measured(world, PLANNERS, starts, (0,), (BENCH_SHARE,)):
            words = f"{world}_{one['planner']}".replace("×", "x").replace(",", "")
            name = words.replace(" ", "_")
            figures[f"{name}_calls"] = one["model_calls"]
            figures[f"{name}_s"] = round(one["cpu_s"] / starts, 3)
            figures[f"{name}_cost"] = one["cost"]
            figures[f"{name}_ratio"] = one["ratio"]
    return figures


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
        num_envs=starts, seed=seed, plugins=(KNOWN,),
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
    name: str,
    planners: Mapping[str, dict[str, Any]],
    starts: int,
    seeds: Sequence[int],
    shares: Sequence[float] = SHARES,
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
        for share in shares:
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
