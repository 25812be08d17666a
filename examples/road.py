"""What a JEPA learns of a road: cars, and not the leaves, which cannot be predicted.

    python examples/road.py --out docs/figures/road.png
    python examples/road.py --quick --json

LeCun's argument for predicting representations and not pixels: a video of a road is full of leaves
and ripples that cannot be predicted and do not matter; an encoder that is trained to be predictable
leaves them out, one that has to reconstruct the frame cannot. `sextet/Road-v0` knows both, so a
linear probe can ask a representation for each: of a JEPA in a strong wind, in a slow one, and
without leaves, and of a model of the same encoder that reconstructs, after as many updates and
after as much CPU time. Trainings are those of `sextet train` with `examples/road.yaml`, on the
experience of a random policy. `examples/driving.py` plans in what was learned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from command_line import options_of, print_results, save_picture
from modules.measures.spread import effective_rank
from probing import (
    AHEAD_STEPS,
    Held,
    Latents,
    Rows,
    column,
    latents_of,
    prediction_error,
    read_out,
    table_of,
    trained,
)
from worlds import road

SETTINGS = Path(__file__).parent / "road.yaml"

WORLDS: dict[str, dict[str, Any]] = {
    "strong": {"wind": 1.5, "leaves": 1.0},
    "slow": {"wind": 0.3, "leaves": 1.0},
    "none": {"wind": 1.5, "leaves": 0.0},
}
"""The wind in the leaves: strong, slow, and no leaves."""

GENERATIVE = (
    "world_model={kind: generative, width: 256, blocks: 1, unroll_steps: 5, invariance_weight: 0, "
    "batch_fraction: 1, encoder_grad_scale: 1}",
    "learner.online_steps=1",
)
"""The same encoder and predictor under a reconstruction of the frame instead of an objective."""

EQUAL_CPU = 0.4
"""Updates of the generative model that cost as much CPU time as one of the JEPA, which draws no
frame.
"""

COLOURS = [f"C{number}" for number in range(10)]
OFF = -road.CAR_LENGTH
"""The top edge that a lane without a car in view is coded with: just above the frame."""


class Size(NamedTuple):
    """Seeds, steps and updates of a training, episodes of probes."""

    seeds: int = 3
    steps: int = 8000
    updates: int = 200
    probes: int = 24


QUICK = Size(seeds=1, steps=800, updates=4, probes=4)


class Training(NamedTuple):
    """A row of the table: a model, its world and settings, and its updates as a share of all."""

    model: str
    world: str
    settings: tuple[str, ...] = ()
    updates: float = 1.0


TRAININGS = {
    "JEPA, strong": Training("JEPA", "strong"),
    "JEPA, slow": Training("JEPA", "slow"),
    "JEPA, none": Training("JEPA", "none"),
    "generative, strong": Training("generative", "strong", GENERATIVE),
    "generative, strong, equal CPU": Training("generative", "strong", GENERATIVE, EQUAL_CPU),
    "generative, none": Training("generative", "none", GENERATIVE),
}


# -- the road, with its truth ------------------------------------------------------------------


def truth_of(env: road.Road) -> dict[str, NDArray[np.float64]]:
    """What there is to read in the present frame, see `Held`."""
    cars = np.full(road.LANES, float(OFF))
    for lane in range(road.LANES):
        near = np.abs(env.car_left - env._left_of(lane)) < road.LANE_WIDTH / 2
        in_view = env.car_top[near & (env.car_top > OFF) & (env.car_top < road.OWN_TOP)]
        cars[lane] = in_view.max(initial=OFF)
    phases = {"leaves": env.leaf_phases.ravel(), "ripples": env.ripple_phases}
    return {"cars": cars} | {n: np.concatenate([np.sin(p), np.cos(p)]) for n, p in phases.items()}


def held_out(world: dict[str, Any], episodes: int, seed: int = 2_000_000) -> Held:
    """Held-out episodes of a road with the settings `world`."""
    env = gymnasium.make(road.ID, **world)
    bare, rng = env.unwrapped, np.random.default_rng(seed)
    assert isinstance(bare, road.Road)
    frames, actions, truths = [], [], []
    for episode in range(episodes):
        frame, _ = env.reset(seed=seed + episode)
        for _ in range(road.STEPS):
            frames.append(frame)
            truths.append(truth_of(bare))
            actions.append(int(rng.integers(9)))
            frame = env.step(np.int64(actions[-1]))[0]
    shape = (episodes, road.STEPS)
    truth = {
        name: torch.from_numpy(np.stack([one[name] for one in truths])).view(*shape, -1)
        for name in truths[0]
    }
    return Held(
        torch.from_numpy(np.stack(frames)).view(*shape, *frames[0].shape),
        torch.tensor(actions).view(shape),
        truth,
    )


# -- models ------------------------------------------------------------------------------------


def overrides_of(world: dict[str, Any], steps: int, updates: int) -> tuple[str, ...]:
    """The settings of a training that depend on the road and the size."""
    warmup = steps // 4
    return (
        f"world.settings={json.dumps(world)}",
        f"training.steps={steps}",
        f"memory.capacity={steps}",
        f"learner.warmup_steps={warmup}",
        f"learner.replay_ratio={updates / (steps - warmup)}",
    )


def run_of(runs: Path, training: Training, seed: int, size: Size) -> tuple[Path, dict[str, Any]]:
    """The folder and the result of a training."""
    updates = max(1, round(training.updates * size.updates))
    place = runs / f"{training.model}-{training.world}-{size.steps}-{updates}-{seed}"
    settings = overrides_of(WORLDS[training.world], size.steps, updates)
    overrides = (*settings, *training.settings)
    return place, trained(place, road.ID, *overrides, config=SETTINGS, seed=seed)


def leafy() -> Tensor:
    """The pixels that leaves or ripples move, [64 64] bool."""
    still, moved = (road.Road(leaves=leaves) for leaves in (0.0, 1.0))
    plain, first = (env.reset(seed=0)[0] for env in (still, moved))
    frames = [first, *(moved.step(np.int64(4))[0] for _ in range(20))]
    changed: NDArray[np.bool_] = (np.stack(frames) != plain).any((0, -1))
    changed[:, road.LEFT : road.LEFT + road.LANES * road.LANE_WIDTH] = False
    return torch.from_numpy(changed)


def figures_of(latents: Latents, held: Held) -> dict[str, float]:
    """R² of each truth, of cars also AHEAD_STEPS later; effective rank; the error of predicted
    latents as a share of the variance of latents; and where the model draws frames, the root mean
    square error (0 to 255) of those AHEAD_STEPS ahead, and of the squared error of those and of the
    redrawn present ones the share in the pixels of leaves and ripples.
    """
    read = {name: read_out(latents, truth) for name, truth in held.truth.items()}
    figures = {
        "cars": read["cars"].now,
        "cars later": read["cars"].later,
        "cars later, own": read["cars"].later_own,
        "leaves": read["leaves"].now,
        "ripples": read["ripples"].now,
        "error": prediction_error(latents),
        "rank": effective_rank(latents.encoded.flatten(0, 1)),
    }
    if latents.drawn is not None and latents.redrawn is not None:
        leaves = leafy()
        errors = (latents.drawn.float() - held.frames[:, AHEAD_STEPS:].float()).square()
        figures["pixel error"] = float(errors.mean().sqrt())
        figures["leaves' share"] = float(errors[:, :, leaves].sum() / errors.sum())
        errors = (latents.redrawn.float() - held.frames.float()).square()
        figures["redrawn, leaves' share"] = float(errors[:, :, leaves].sum() / errors.sum())
    return figures


def prediction(runs: Path, size: Size) -> Rows:
    """What each model represents in its world."""
    rows: Rows = {}
    for name, training in TRAININGS.items():
        held = held_out(WORLDS[training.world], size.probes)
        for seed in range(size.seeds):
            run, result = run_of(runs, training, seed, size)
            figures = figures_of(latents_of(run, held), held) | {"CPU": result["cpu_seconds"]}
            rows.setdefault(name, []).append(figures)
    return rows


# -- output ------------------------------------------------------------------------------------


def bars_of(rows: Rows) -> dict[str, bool]:
    """What must hold in every seed, and whether it does."""

    def seeds(row: str, name: str) -> NDArray[np.float64]:
        return column(rows, row, name)

    nature = {name: seeds("JEPA, strong", name) for name in ("leaves", "ripples")}
    errors = {world: seeds(f"JEPA, {world}", "error").mean() for world in ("strong", "none")}
    bars = {
        "JEPA, strong: cars at R² .9 or more": (seeds("JEPA, strong", "cars") >= 0.9).all(),
        "JEPA, strong: leaves and ripples at R² .15 or less": all(
            (values <= 0.15).all() for values in nature.values()
        ),
        "JEPA: its error grows by at most 10 % from no leaves to strong ones": errors["strong"]
        <= 1.1 * errors["none"],
    }
    for other in ("generative, strong", "generative, strong, equal CPU"):
        for name in ("cars", "cars later"):
            ahead = seeds("JEPA, strong", name) > seeds(other, name)
            bars[f"{name}: the JEPA ahead of {other}"] = ahead.all()
    return {name: bool(met) for name, met in bars.items()}


def draw(rows: Rows, place: Path) -> None:
    """A PNG: a frame of the road, and what is read from representations of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.8), layout="constrained")
    frame, probes = figure.subplots(1, 2, width_ratios=(0.8, 1.9))
    env = road.Road()
    env.reset(seed=3)
    for _ in range(30):
        picture = env.step(np.int64(4))[0]
    frame.imshow(picture)
    frame.set_axis_off()
    frame.set_title("a frame", fontsize=9)
    names = ("cars", "cars later", "cars later, own", "leaves", "ripples")
    for number, row in enumerate(rows):
        for spot, name in enumerate(names):
            values = column(rows, row, name).clip(-0.1)
            spots = np.full(len(values), spot + 0.13 * (number - (len(rows) - 1) / 2))
            label = row if name == names[0] else None
            probes.plot(spots, values, "o", ms=5, color=COLOURS[number], label=label)
    words = ["cars", f"cars, {AHEAD_STEPS} steps on", "the same,\nits own read-out", *names[3:]]
    probes.set_xticks(range(len(names)), words)
    probes.axhline(0, color="#7b8794", lw=0.8)
    probes.set_title("R² of a linear read-out, a dot a seed (-.1: or less)", fontsize=9)
    probes.tick_params(labelsize=8)
    probes.grid(True, color="#e4e7eb", lw=0.6)
    probes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    save_picture(figure, place, dpi=110)


def main() -> None:
    """Trains what is missing, prints the table and draws the picture."""
    options = options_of(
        __doc__, quick="small trainings, under a minute", picture="road", runs="road"
    )
    size = QUICK if options.quick else Size()
    rows = prediction(options.runs, size)
    bars = bars_of(rows)
    draw(rows, options.out)
    figures = {**size._asdict(), "rows": rows} if options.json else None
    print_results([table_of(rows)], bars, figures)


if __name__ == "__main__":
    main()
