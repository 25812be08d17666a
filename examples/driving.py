"""Driving by plans in what a JEPA learned of a road, without a policy, and what risk changes.

    python examples/driving.py --out docs/figures/driving.png
    python examples/driving.py --quick --json

Every step is planned in the learned model: two drives, collisions and progress, weighed by
`examples/road.yaml`. The trainings are those of `examples/road.py`, and for the risk of several
futures a world model with a latent variable z, trained on the latents of the same encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
import torch

import road as study
from agent import load
from command_line import options_of, print_results, save_picture
from probing import Rows, column, table_of, trained
from worlds import road

SLOW, FAST = 3, 5
"""The constant actions straight and slower, straight and faster."""

PLANS = ("configurator.mode=2",)

LATENT = (
    "world_model={kind: latent-jepa, width: 256, blocks: 1, ensemble_size: 1, unroll_steps: 5, "
    "prediction_weight: 25, signals_weight: 50, invariance_weight: 0, target_grad_scale: 0, "
    "objective: {kind: none}, latent: {kind: categorical, codes: 8, anneal_updates: 100}}",
    "learner.train_modules=[world_model]",
    "learner.online_steps=1",
    "learner.ema_rate=1",
)
"""A world model with z on latents that no longer learn."""

FUTURES = (
    "directive.futures=4",
    "directive.model_calls=1152",
    "actor.planner.samples=16",
    'directive.u={pain: 0, "signal:collision": 15}',
)
"""Four futures of each of fewer candidates, and a collision that weighs less than half as much, so
that a risk-neutral plan takes risks.
"""


class Size(NamedTuple):
    """Seeds, steps and updates of a training; episodes of plans, and of those at each risk."""

    seeds: int = 3
    steps: int = 8000
    updates: int = 200
    episodes: int = 8
    risk_episodes: int = 8
    risks: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)


QUICK = Size(seeds=1, steps=800, updates=4, episodes=2, risk_episodes=1, risks=(0.0, 2.0))


# -- drives ------------------------------------------------------------------------------------


def figures_of(progress: Sequence[float], collisions: Sequence[float]) -> dict[str, float]:
    """Means over episodes of 200 steps."""
    return {"progress": float(np.mean(progress)), "collisions": float(np.mean(collisions))}


def constant(action: int | None, seed: int, episodes: int) -> dict[str, float]:
    """Episodes of one action, or of random ones (None), in the strong wind."""
    env, drives = gymnasium.make(road.ID, **study.WORLDS["strong"]), []
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        env.reset(seed=4_000_000 + 1000 * seed + episode)
        actions = rng.integers(9, size=road.STEPS) if action is None else [action] * road.STEPS
        steps = [env.step(np.int64(one))[4] for one in actions]
        drives.append([sum(info[name] for info in steps) for name in ("progress", "collision")])
    return figures_of(*np.transpose(drives))


def planned(run: Path, seed: int, episodes: int, *overrides: str) -> dict[str, float]:
    """Episodes, side by side, of an agent that plans every step in the model of `run`."""
    settings = (*PLANS, f"world.num_envs={episodes}", *overrides)
    player = load(run, *settings, seed=4_000_000 + seed)
    names = player.world.spec.signals
    with closing(player.world):
        # The first observation of an episode has signals of 0.
        moments = player.live((road.STEPS + 1) * episodes)
        signals = torch.stack([moment.state.signals for moment in moments]).sum(0)
    read = [signals[:, names.index(name)].tolist() for name in ("progress", "collision")]
    return figures_of(*read)


def with_latent(runs: Path, seed: int, size: Size) -> Path:
    """The folder of a world model with z, trained on the encoder of the JEPA of this seed."""
    encoder, _ = study.run_of(runs, study.TRAININGS["JEPA, strong"], seed, as_trained(size))
    place = runs / f"latent-strong-{size.steps}-{size.updates}-{seed}"
    settings = study.overrides_of(study.WORLDS["strong"], size.steps, size.updates)
    first = f"training.init_from={encoder}"
    trained(place, road.ID, *settings, *LATENT, first, config=study.SETTINGS, seed=seed)
    return place


def as_trained(size: Size) -> study.Size:
    """The size of the trainings of `examples/road.py`."""
    return study.Size(seeds=size.seeds, steps=size.steps, updates=size.updates)


def driving(runs: Path, size: Size) -> Rows:
    """Progress and collisions of baselines, of plans in the JEPA of each seed, and of plans with
    futures at each risk.
    """
    rows: Rows = {}
    for seed in range(size.seeds):
        for name, action in {"random": None, "slow": SLOW, "fast": FAST}.items():
            rows.setdefault(name, []).append(constant(action, seed, 4 * size.episodes))
        for world in ("strong", "none"):
            training = study.TRAININGS[f"JEPA, {world}"]
            run, _ = study.run_of(runs, training, seed, as_trained(size))
            rows.setdefault(f"plans, {world}", []).append(planned(run, seed, size.episodes))
        run = with_latent(runs, seed, size)
        for risk in size.risks:
            own = (*FUTURES, f"directive.risk={risk}")
            figures = planned(run, seed, size.risk_episodes, *own)
            rows.setdefault(f"futures, risk {risk:g}", []).append(figures)
    return rows


# -- output ------------------------------------------------------------------------------------


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def means(row: str) -> tuple[float, float]:
        progress, collisions = (column(rows, row, name) for name in ("progress", "collisions"))
        return float(progress.mean()), float(collisions.mean())

    plans, calm = means("plans, strong"), means("plans, none")
    random, slow, fast = (means(name) for name in ("random", "slow", "fast"))
    bars = {
        "plans: at most a tenth of random's collisions": plans[1] <= random[1] / 10,
        "plans: at most half of the collisions of the fast constant": plans[1] <= fast[1] / 2,
        "plans: progress at least 1.2 of the slow constant": plans[0] >= 1.2 * slow[0],
        "strong leaves: progress at least 90 % of that without": plans[0] >= 0.9 * calm[0],
        "strong leaves: collisions at most 1.2 of those without": plans[1] <= 1.2 * calm[1],
    }
    for name, p in trends_of_risk(rows).items():
        bars[f"{name} fall with risk, p < .05 (Kendall, p = {p:.3f})"] = p < 0.05
    return bars


def trends_of_risk(rows: Rows) -> dict[str, float]:
    """One-sided p that a figure falls with risk by chance, over runs at each risk."""
    from scipy.stats import kendalltau

    of_risk = {row: row.rpartition("risk ")[2] for row in rows if "risk" in row}
    runs = [(float(risk), one) for row, risk in of_risk.items() for one in rows[row]]
    risks = [risk for risk, _ in runs]
    return {
        name: float(kendalltau(risks, [one[name] for _, one in runs], alternative="less").pvalue)
        for name in ("progress", "collisions")
    }


def draw(rows: Rows, place: Path) -> None:
    """A PNG: progress and collisions of each row, a dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(rows):
        progress, collisions = (column(rows, row, name) for name in ("progress", "collisions"))
        colour = study.COLOURS[number % len(study.COLOURS)]
        axes.plot(progress, collisions, "o", ms=5, color=colour, label=row)
    axes.set(xlabel="progress [steps at full speed]", ylabel="collisions an episode")
    axes.set_title("episodes of 200 steps, a dot a seed", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(True, color="#e4e7eb", lw=0.6)
    axes.legend(fontsize=7, frameon=False)
    save_picture(figure, place, dpi=110)


def main() -> None:
    """Trains what is missing, drives, prints the table and draws the picture."""
    options = options_of(
        __doc__, quick="small trainings, under a minute", picture="driving", runs="road"
    )
    size = QUICK if options.quick else Size()
    rows = driving(options.runs, size)
    bars = bars_of(rows)
    draw(rows, options.out)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows)], bars, figures)


if __name__ == "__main__":
    main()
