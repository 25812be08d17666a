"""A rocket learns its dynamics from random thrusts, and then plans its way to a station.

    python examples/rocket.py --out docs/figures/rocket.png
    python examples/rocket.py --quick --json

LeCun's example of what planning comes from: thrusts improved by gradients carried backward through
a model and a cost (Kelley 1960, Bryson 1962). In `sextet/Rocket-v0` the least cost is exact: by the
Riccati solution, and with limited thrusts by bounded least squares. So each figure is a cost
divided by the least one from the same start. World models are learned from random thrusts, by
`examples/rocket.yaml`: linear dynamics, and costs that are quadratic. Three tables: plans in the
true and in the learned model, and flights by these; planners at equal model calls where thrust is
limited; and what happens where fuel weighs more at the moment of acting, to plans and to a policy
that has cloned them.
"""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

from agent import load, play
from agent.bench.plan import KNOWN, PLANNERS, REFERENCE
from agent.learning.statistics import mean
from command_line import options_of, print_results, save_picture
from modules.messages import Moment
from probing import Rows, column, table_of, trained
from worlds.rocket import STATE_ID, STEPS, THRUST, WEAK_THRUST, costs, dynamics, riccati

SETTINGS = Path(__file__).parent / "rocket.yaml"

PLAN_SEED = 4_000_000
"""Added to the seed of a training for its flights, whose starts no training has seen."""

TRAININGS: dict[str, tuple[str, ...]] = {
    "learned": (),
    "predictor mlp": (
        "world_model.predictor.kind=mlp", "world_model.width=128", "learner.learning_rate=0.003",
    ),
    "signal head mlp": (
        "world_model.signal_head.kind=mlp", "world_model.width=128", "learner.learning_rate=0.003",
    ),
    "limits": ("world.settings.limits=true", "actor.policy.noise=1"),
}  # fmt: skip
"""World models, of which the second and third each lack one part of the mechanism."""

TRUE = ("world_model={kind: known-rocket}", "world.settings.goal_form=state",
        "directive.u={goal: 0}")  # fmt: skip
PLAIN = "plain cem, 30 times the calls"
LIMITS = ("world.settings.limits=true", "directive.horizon_steps=30")
REFERENCE_SHARE = 30
"""How many times the model calls of a plan with limits the reference, plain CEM, has."""

LIMITED_PLANNERS: dict[str, dict[str, Any]] = {
    "gradient": {**PLANNERS["gradient"], "learning_rate": 0.3},
    **{name: PLANNERS[name] for name in ("cem, held 4", "icem, held 4", "mppi, held 4")},
    PLAIN: REFERENCE,
}
"""The rate of the gradient was chosen with another seed, 10; the rest as in
`agent/bench/plan.py`.
"""

FUEL_WEIGHT = 10.0
"""What fuel weighs in the last table; in trainings and for the policy it is 1."""

PUPIL = (
    "world.settings.goal_form=none", "perception={kind: vectors, features: 0, scale: 10}",
    "learner.train_modules=[actor]", "training.evaluate_every=0", "training.evaluate_episodes=1",
    "training.checkpoint_every=0",
)  # fmt: skip


class Size(NamedTuple):
    """Seeds, steps and updates of a training, episodes, iterations of the gradient planner in a
    flight, model calls of a plan with limits, updates of the policy.
    """

    seeds: int = 3
    steps: int = 20_000
    updates: int = 1200
    episodes: int = 20
    iterations: int = 300
    calls: int = 9000
    clone_updates: int = 1500


QUICK = Size(
    seeds=1, steps=4000, updates=150, episodes=2, iterations=12, calls=360, clone_updates=40
)


# -- what is best ------------------------------------------------------------------------------


def least_cost(starts: Tensor, steps: int, fuel_weight: float = 1.0) -> Tensor:
    """The least cost of `steps` from starts [E 4], where nothing limits the thrust, [E]."""
    to_go = torch.from_numpy(riccati(steps, fuel_weight=fuel_weight)[1][0])
    return torch.einsum("ei,ij,ej->e", starts, to_go, starts)


def least_cost_with_limits(starts: Tensor, steps: int) -> Tensor:
    """The least cost of `steps` from starts [E 4] with thrusts up to `WEAK_THRUST`, [E]: a bounded
    least-squares problem, since states are linear in thrusts and costs are squares.
    """
    (a, b), (q, r) = dynamics(), costs()
    free = [np.linalg.matrix_power(a, t + 1) for t in range(steps)]
    reach = np.zeros((steps, 4, steps, 2))
    for t in range(steps):
        for s in range(t + 1):
            reach[t, :, s] = np.linalg.matrix_power(a, t - s) @ b
    root_q, root_r = np.sqrt(np.diag(q)), np.sqrt(np.diag(r))
    states = (reach * root_q[None, :, None, None]).reshape(4 * steps, 2 * steps)
    matrix = np.concatenate([states, np.diag(np.tile(root_r, steps))])
    least = []
    for start in starts.numpy():
        goal = np.concatenate([-(free @ start * root_q).ravel(), np.zeros(2 * steps)])
        best = lsq_linear(matrix, goal, (-WEAK_THRUST, WEAK_THRUST), tol=1e-12)
        least.append(2 * best.cost)
    return torch.tensor(least, dtype=torch.float64)


def cost_of(starts: Tensor, thrusts: Tensor) -> Tensor:
    """What the world charges for thrusts [E H 2] from starts [E 4], [E]."""
    a, b, q, r = map(torch.from_numpy, (*dynamics(), *costs()))
    ship, cost = starts, torch.zeros(len(starts), dtype=torch.float64)
    for thrust in thrusts.unbind(1):
        ship = ship @ a.T + thrust @ b.T
        cost = cost + (ship @ q * ship).sum(1) + (thrust @ r * thrust).sum(1)
    return cost


def costate_error(episodes: int = 8) -> float:
    """The greatest difference, over the greatest costate, of the costates by gradients through the
    true model, at the best thrusts, from the Riccati solution's 2 P_t s_t.
    """
    feedback, to_go = map(torch.from_numpy, riccati(STEPS))
    player = load(
        STATE_ID, *TRUE, config=SETTINGS, plugins=(KNOWN,), num_envs=episodes,
        seed=PLAN_SEED,
    )  # fmt: skip
    with closing(player.world):
        moment = next(iter(player.live(1)))
        model, names = player.agent.modules.world_model, player.world.spec.signals
    state, ships = moment.state.replace(hidden=start_of(moment)), list[Tensor]()
    cost = torch.zeros((), dtype=torch.float64)
    for gain in feedback:
        ships.append(state.hidden.clone().requires_grad_())
        ships[-1].retain_grad()
        thrust = -ships[-1].detach() @ gain.T
        state = model.step(
            state.unchecked(**{**state.__dict__, "hidden": ships[-1]}), thrust / THRUST
        )
        cost = cost + state.signals[:, [names.index("error"), names.index("fuel")]].sum()
    cost.backward()  # type: ignore[no-untyped-call]
    exact = [2 * ship.detach() @ to_go[t] for t, ship in enumerate(ships)]
    off = max(float((ship.grad - one).abs().max()) for ship, one in zip(ships, exact, strict=True))
    return off / max(float(one.abs().max()) for one in exact)


# -- trainings, plans, flights -----------------------------------------------------------------


def run_of(runs: Path, name: str, seed: int, size: Size) -> Path:
    """The folder of a training on random thrusts."""
    place = runs / f"{name.replace(' ', '-')}-{size.steps}-{size.updates}-{seed}"
    begin = size.steps // 10
    trained(
        place, STATE_ID, f"training.steps={size.steps}", f"memory.capacity={size.steps}",
        f"learner.warmup_steps={begin}",
        f"learner.replay_ratio={size.updates / (size.steps - begin)}",
        f"learner.decay_updates={size.updates}", *TRAININGS[name], config=SETTINGS, seed=seed,
    )  # fmt: skip
    return place


def start_of(moment: Moment) -> Tensor:
    """Place and speed in the first moment of episodes, [E 4] float64."""
    vector = moment.observation.vector
    assert vector is not None  # the worlds of this example show numbers
    return vector[:, :4].double() * torch.tensor([10.0, 10.0, 1.0, 1.0], dtype=torch.float64)


def planned(
    agent: str | Path, seed: int, size: Size, *overrides: str, greatest: float = THRUST,
    **options: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The starts [E 4] of episodes and the thrusts [E H 2] of a plan from each."""
    player = load(
        agent, "configurator.mode=2", *overrides, num_envs=size.episodes, seed=PLAN_SEED + seed,
        **options,
    )  # fmt: skip
    with closing(player.world):
        moment = next(iter(player.live(1)))
    return start_of(moment), thrusts_of(moment, greatest)


def thrusts_of(moment: Moment, greatest: float) -> Tensor:
    """The thrusts [E H 2] of the plans of a moment."""
    return moment.plan.actions[:, : int(moment.plan.steps.min())].double() * greatest


class Flight(NamedTuple):
    """Of E episodes of 60 steps the starts [E 4], the sums of `error` and of `fuel` [E], the ways
    [E T 4], and the first plan's thrusts [E H 2].
    """

    starts: Tensor
    error: Tensor
    fuel: Tensor
    ways: Tensor
    thrusts: Tensor

    def cost(self, fuel_weight: float = 1.0) -> Tensor:
        """What each flight cost, divided by the least cost, [E]."""
        paid = self.error + fuel_weight * self.fuel
        return paid / least_cost(self.starts, STEPS, fuel_weight)


def flown(place: Path, agent: Path, seed: int, size: Size, *overrides: str) -> Flight:
    """Flights of an agent, side by side, recorded in the folder `place`; read where it is there."""
    file = place / "flight.npz"
    if not file.is_file():
        shutil.rmtree(place, ignore_errors=True)
        moments, names = list[Moment](), list[str]()
        play(
            agent, f"world.episode_steps={STEPS}", *overrides, num_envs=size.episodes,
            steps=(STEPS + 1) * size.episodes, run=place, seed=PLAN_SEED + seed,
            on_moment=moments.append,
            on_start=lambda player, _: names.extend(player.world.spec.signals),
        )  # fmt: skip
        paid = torch.stack([moment.observation.signals for moment in moments]).double().sum(0)
        flight = Flight(
            starts=start_of(moments[0]),
            error=paid[:, names.index("error")],
            fuel=paid[:, names.index("fuel")],
            ways=torch.stack([start_of(moment) for moment in moments], 1),
            thrusts=thrusts_of(moments[0], THRUST),
        )
        np.savez(file, **{name: part.numpy() for name, part in flight._asdict().items()})
    with np.load(file) as parts:
        return Flight(**{name: torch.from_numpy(parts[name]) for name in Flight._fields})


def in_the_open(runs: Path, size: Size) -> tuple[Rows, Flight]:
    """Without limits: costs of plans, carried out as planned, and of flights; the first flight."""
    gradient = (f"actor.planner.iterations={3 * size.iterations}", "directive.model_calls=30000")
    plan = planned(STATE_ID, 0, size, *TRUE, *gradient, config=SETTINGS, plugins=(KNOWN,))
    rows: Rows = {"true model": [{"plan": of_the_least(*plan)}]}
    flights = []
    for seed in range(size.seeds):
        run = run_of(runs, "learned", seed, size)
        flights.append(flown_by_plans(runs, run, seed, size))
        rows.setdefault("learned", []).append(
            {
                "plan": of_the_least(flights[-1].starts, flights[-1].thrusts),
                "flight": float(flights[-1].cost().mean()),
                "worst flight": float(flights[-1].cost().max()),
                "training, CPU min": cpu_seconds(run) / 60,
            }
        )
    for name in ("predictor mlp", "signal head mlp"):
        run = run_of(runs, name, 0, size)
        plan = planned(run, 0, size, *iterations_of(size))
        rows[f"learned, {name}"] = [
            {"plan": of_the_least(*plan), "training, CPU min": cpu_seconds(run) / 60}
        ]
    return rows, flights[0]


def of_the_least(starts: Tensor, thrusts: Tensor) -> float:
    """The mean over starts of the cost of a plan, carried out as planned, by the least cost."""
    return float((cost_of(starts, thrusts) / least_cost(starts, thrusts.shape[1])).mean())


def cpu_seconds(run: Path) -> float:
    """CPU seconds of a training."""
    return float(json.loads((run / "result.json").read_text())["cpu_seconds"])


def iterations_of(size: Size) -> tuple[str, ...]:
    """Settings of the gradient planner in flights."""
    return (f"actor.planner.iterations={size.iterations}",)


def flown_by_plans(
    runs: Path, run: Path, seed: int, size: Size, fuel_weight: float = 1.0
) -> Flight:
    """The flights of an agent that plans in the model of `run`."""
    place = runs / f"flight-{fuel_weight:g}-{size.episodes}-{size.iterations}-{run.name}"
    weights = f'directive.u={{"signal:fuel": {fuel_weight}}}'
    return flown(place, run, seed, size, "configurator.mode=2", weights, *iterations_of(size))


def with_limits(runs: Path, size: Size) -> Rows:
    """With weak thrust: each planner at equal model calls, in the true and in the learned model."""

    def cost(agent: str | Path, name: str, seed: int, *own: str, **options: Any) -> float:
        calls = size.calls * (REFERENCE_SHARE if name == PLAIN else 1)
        starts, thrusts = planned(
            agent, seed, size, *own, *LIMITS, f"directive.model_calls={calls}",
            f"actor.planner={json.dumps(LIMITED_PLANNERS[name])}", greatest=WEAK_THRUST, **options,
        )  # fmt: skip
        least = least_cost_with_limits(starts, thrusts.shape[1])
        return float((cost_of(starts, thrusts) / least).mean())

    known = (STATE_ID, *TRUE, "world_model.limits=true")
    rows: Rows = {}
    for name in LIMITED_PLANNERS:
        exact = cost(known[0], name, 0, *known[1:], config=SETTINGS, plugins=(KNOWN,))
        rows[f"true model, {name}"] = [{"plan": exact}]
    for seed in range(size.seeds):
        run = run_of(runs, "limits", seed, size)
        for name in LIMITED_PLANNERS:
            if name != PLAIN:
                rows.setdefault(f"learned, {name}", []).append({"plan": cost(run, name, seed)})
    return rows


def with_new_weights(runs: Path, size: Size) -> Rows:
    """Flights where fuel weighs as in training, and where it weighs more: of plans, and of a policy
    cloned from plans of the first kind.
    """
    rows: Rows = {}
    for seed in range(size.seeds):
        run = run_of(runs, "learned", seed, size)
        shown = flown_by_plans(runs, run, seed, size)
        frugal = flown_by_plans(runs, run, seed, size, FUEL_WEIGHT)
        recording = runs / f"flight-1-{size.episodes}-{size.iterations}-{run.name}"
        pupil = runs / f"pupil-{size.clone_updates}-{recording.name}"
        trained(pupil, STATE_ID, *PUPIL, steps=size.clone_updates, seed=seed, experts=[recording])
        reacted = flown(
            runs / f"flight-{pupil.name}", pupil, seed, size, "configurator.mode=1",
            "actor.policy.noise=0",
        )  # fmt: skip
        gain = reacted.cost(FUEL_WEIGHT) - frugal.cost(FUEL_WEIGHT)
        rows.setdefault("Mode-1, cloned", []).append(
            {"weight 1": float(reacted.cost().mean()),
             f"weight {FUEL_WEIGHT:g}": float(reacted.cost(FUEL_WEIGHT).mean())}
        )  # fmt: skip
        rows.setdefault("Mode-2", []).append(
            {"weight 1": float(shown.cost().mean()),
             f"weight {FUEL_WEIGHT:g}": float(frugal.cost(FUEL_WEIGHT).mean())}
        )  # fmt: skip
        rows.setdefault("Mode-1 less Mode-2, paired", []).append(
            {"weight 1": float((reacted.cost() - shown.cost()).mean()),
             f"weight {FUEL_WEIGHT:g}": float(gain.mean()), "least of a start": float(gain.min())}
        )  # fmt: skip
    return rows


# -- output ------------------------------------------------------------------------------------


def bars_of(costates: float, in_open: Rows, limited: Rows, weights: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def of(rows: Rows, row: str, name: str) -> float:
        return float(column(rows, row, name).mean())

    paired = mean(column(weights, "Mode-1 less Mode-2, paired", f"weight {FUEL_WEIGHT:g}"))
    return {
        "costates are the Riccati solution's to 1e-4": costates <= 1e-4,
        "true model: a plan within 1 % of the least cost": of(in_open, "true model", "plan")
        <= 1.01,
        "learned: flights within 10 % of the least cost": of(in_open, "learned", "flight") <= 1.1,
        "limits: the best at a thirtieth of plain CEM's calls costs no more": min(
            of(limited, f"true model, {name}", "plan") for name in LIMITED_PLANNERS if name != PLAIN
        )
        <= of(limited, f"true model, {PLAIN}", "plan"),
        "new weight: Mode-2 ahead of Mode-1, interval clear of 0": paired.low > 0,
    }


def draw(flight: Flight, place: Path, episodes: int = 8) -> None:
    """A PNG: ways to the station, beside those of the least cost (dashed)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axes = figure.subplots()
    feedback, _ = map(torch.from_numpy, riccati(STEPS))
    a, b = map(torch.from_numpy, dynamics())
    best = [flight.starts]
    for gain in feedback:
        best.append(best[-1] @ (a - b @ gain).T)
    for way, exact in zip(flight.ways[:episodes], torch.stack(best, 1), strict=False):
        (line,) = axes.plot(*way[:, :2].T, lw=1.4)
        axes.plot(*exact[:, :2].T, "k--", lw=0.8)
        axes.plot(*way[0, :2], "s", ms=5, color=line.get_color())
    axes.plot(0, 0, "o", ms=13, mfc="none", mew=1.5, color="black")
    axes.set(xlabel="away from the planet", ylabel="along the orbit", aspect="equal")
    axes.set_title("planned in the learned model; dashed: the least cost", fontsize=9)
    axes.tick_params(labelsize=8)
    save_picture(figure, place, dpi=110)


def main() -> None:
    """Trains what is missing, plans, flies, prints the tables and draws the picture."""
    options = options_of(
        __doc__, quick="small trainings, under a minute", picture="rocket", runs="rocket"
    )
    size = QUICK if options.quick else Size()
    costates = costate_error()
    in_open, flight = in_the_open(options.runs, size)
    limited, weights = with_limits(options.runs, size), with_new_weights(options.runs, size)
    draw(flight, options.out)
    rows = {"in the open": in_open, "limits": limited, "new weights": weights}
    figures = {**size._asdict(), "costates": costates, "rows": rows} if options.json else None
    tables = [table_of(one) for one in rows.values()]
    print_results(
        [f"costates: {costates:.2g} off", *tables],
        bars_of(costates, in_open, limited, weights),
        figures,
    )


if __name__ == "__main__":
    main()
