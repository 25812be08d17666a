"""What a JEPA learns of a road: cars, and not the leaves, which cannot be predicted.

    python examples/road.py --out docs/figures/road.png
    python examples/road.py --only driving --json
    python examples/road.py --quick

LeCun's argument for predicting representations and not pixels: a video of a road is full of leaves
and ripples that cannot be predicted and do not matter; an encoder that is trained to be predictable
leaves them out, one that has to reconstruct the frame cannot. `sextet/Road-v0` knows both, so a
linear probe can ask a representation for each. Trainings are those of `sextet train` with
`examples/road.yaml`, on the experience of a random policy, a run folder each; one that is there
already is read and not trained again.

Parts: `prediction` (strong wind, slow wind, no leaves; the JEPA beside a model of the same encoder
that reconstructs) and `driving` (plans in the learned model, no policy).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agent import load, train
from agent.learning.statistics import Estimate, mean
from agent.recording.atomic import new_file
from modules.measures.probes import fit_linear, r_squared, read_linear
from modules.measures.spread import effective_rank
from modules.messages import State
from worlds import road

SETTINGS = Path(__file__).parent / "road.yaml"
AHEAD_STEPS = 5
"""Steps after which a prediction is compared with what happened."""

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

MODELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "JEPA": (("strong", "slow", "none"), ()),
    "generative": (("strong", "none"), GENERATIVE),
}
"""The worlds in which a model is trained, and its settings."""

COLOURS = [f"C{number}" for number in range(10)]
OFF = -road.CAR_LENGTH
"""The top edge that a lane without a car in view is coded with: just above the frame."""

SLOW, FAST = 3, 5


class Size(NamedTuple):
    """Seeds, steps and updates of a training, episodes of probes and of driving, risks of plans."""

    seeds: int = 3
    steps: int = 8000
    updates: int = 200
    probes: int = 24
    episodes: int = 8
    risks: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)


QUICK = Size(seeds=1, steps=800, updates=4, probes=4, episodes=2, risks=(0.0, 2.0))


# -- the road, with its truth ------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """Episodes of random actions that no training has seen, E of them, T steps.

    frames [E T 64 64 3] uint8; actions [E T], of which the one at t leads to t+1; truth: by name
    what a probe reads, [E T n]: `cars` (in each lane the top edge of the nearest car in view, OFF
    without one), `leaves` and `ripples` (sine and cosine of the phases).
    """

    frames: Tensor
    actions: Tensor
    truth: dict[str, Tensor]


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


def overrides_of(world: dict[str, Any], size: Size) -> tuple[str, ...]:
    """The settings of a training that depend on the road and the size."""
    warmup = size.steps // 4
    return (
        f"world.settings={json.dumps(world)}",
        f"training.steps={size.steps}",
        f"memory.capacity={size.steps}",
        f"learner.warmup_steps={warmup}",
        f"learner.replay_ratio={size.updates / (size.steps - warmup)}",
    )


def trained(
    runs: Path, name: str, world: str, seed: int, size: Size, *overrides: str
) -> tuple[Path, dict[str, Any]]:
    """The folder and the result of a training, read where it is there already."""
    place = runs / f"{name}-{world}-{size.steps}-{size.updates}-{seed}"
    if not (place / "result.json").is_file():
        print(f"{place}: training", file=sys.stderr, flush=True)
        settings = (*overrides_of(WORLDS[world], size), *overrides)
        train(road.ID, *settings, config=SETTINGS, seed=seed, run=place)
    return place, json.loads((place / "result.json").read_text())


class Latents(NamedTuple):
    """Of held-out episodes the encoded latents [E T D], those [E T-5 D] that the model predicts
    AHEAD_STEPS later from them and the actions taken, and, where the model draws what it predicts,
    the frames [E T-5 64 64 3] of those.
    """

    encoded: Tensor
    predicted: Tensor
    frames: Tensor | None


@torch.no_grad()
def latents_of(run: Path, held: Held) -> Latents:
    """What perception and world model of a run make of held-out episodes."""
    player = load(run)
    with closing(player.world):
        modules = player.agent.modules
    perception: Any = modules.perception
    stack = perception.frame_stack
    first = held.frames[:, :1].expand(-1, stack - 1, -1, -1, -1)
    stacks = torch.cat([first, held.frames], 1).unfold(1, stack, 1).movedim(-1, 2)
    encoded = torch.stack([perception.encode(one.contiguous()) for one in stacks])
    start = encoded[:, :-AHEAD_STEPS].flatten(0, 1)
    tokens = modules.configurator.initial(1).tokens.flatten(1)
    state = State.unchecked(
        latent=start,
        hidden=tokens.expand(len(start), -1),
        signals=torch.zeros(len(start), len(player.world.spec.signals)),
        ended=torch.zeros(len(start)),
        uncertainty=torch.zeros(len(start)),
        goal=None,
    )
    hot = torch.nn.functional.one_hot(held.actions, 9).float()
    for t in range(AHEAD_STEPS):
        state = modules.world_model.step(state, hot[:, t : t - AHEAD_STEPS].flatten(0, 1))
    predicted = state.latent.view(*encoded[:, AHEAD_STEPS:].shape)
    decode = getattr(modules.world_model, "decode", None)
    frames = None if decode is None else decode(state).view(*held.frames[:, AHEAD_STEPS:].shape)
    return Latents(encoded, predicted, frames)


def leafy() -> Tensor:
    """The pixels that leaves or ripples move, [64 64] bool."""
    still, moved = (road.Road(leaves=leaves) for leaves in (0.0, 1.0))
    plain, first = (env.reset(seed=0)[0] for env in (still, moved))
    frames = [first, *(moved.step(np.int64(4))[0] for _ in range(20))]
    changed: NDArray[np.bool_] = (np.stack(frames) != plain).any((0, -1))
    changed[:, road.LEFT : road.LEFT + road.LANES * road.LANE_WIDTH] = False
    return torch.from_numpy(changed)


def read_out(latents: Latents, truth: Tensor) -> tuple[float, float]:
    """Mean R² of one linear read-out of `truth` [E T n] in the last quarter of the episodes, from
    encoded and from predicted latents; it is fitted to the encoded ones of the others.
    """
    cut = len(truth) - max(1, len(truth) // 4)
    weights = fit_linear(latents.encoded[:cut].flatten(0, 1), truth[:cut].flatten(0, 1))
    late = truth[cut:, AHEAD_STEPS:].flatten(0, 1)
    now = read_linear(weights, latents.encoded[cut:].flatten(0, 1))
    later = read_linear(weights, latents.predicted[cut:].flatten(0, 1))
    scores = r_squared(now, truth[cut:].flatten(0, 1)), r_squared(later, late)
    return float(scores[0].mean()), float(scores[1].mean())


def figures_of(run: Path, held: Held) -> dict[str, float]:
    """R² of each truth, now and AHEAD_STEPS later; effective rank; the error of the predicted
    latents as a share of the variance of latents; and where the model draws frames, their root mean
    square error (0 to 255), and the share of its square in the pixels of leaves and ripples.
    """
    latents = latents_of(run, held)
    figures = {}
    for name, truth in held.truth.items():
        figures[name], figures[f"{name} later"] = read_out(latents, truth)
    if latents.frames is not None:
        errors = (latents.frames.float() - held.frames[:, AHEAD_STEPS:].float()).square()
        figures["pixel error"] = float(errors.mean().sqrt())
        figures["leaves' share"] = float(errors[:, :, leafy()].sum() / errors.sum())
    error = latents.predicted - latents.encoded[:, AHEAD_STEPS:]
    spread = latents.encoded.flatten(0, 1).var(0).mean()
    figures["error"] = float(error.square().mean() / spread)
    figures["rank"] = effective_rank(latents.encoded.flatten(0, 1))
    return figures


# -- parts -------------------------------------------------------------------------------------

Rows = dict[str, list[dict[str, float]]]
"""By the name of a row its figures, a dictionary a seed."""


def prediction(runs: Path, size: Size) -> Rows:
    """What each model represents in each of its worlds."""
    rows: Rows = {}
    for model, (worlds, settings) in MODELS.items():
        for world in worlds:
            held = held_out(WORLDS[world], size.probes)
            for seed in range(size.seeds):
                run, result = trained(runs, model, world, seed, size, *settings)
                figures = figures_of(run, held) | {"CPU": result["cpu_seconds"]}
                rows.setdefault(f"{model}, {world}", []).append(figures)
    return rows


def figures_of_drives(progress: Sequence[float], collisions: Sequence[float]) -> dict[str, float]:
    """Means over episodes of 200 steps."""
    return {"progress": float(np.mean(progress)), "collisions": float(np.mean(collisions))}


def constant(action: int | None, seed: int, episodes: int) -> dict[str, float]:
    """Episodes of one action, or of random ones (None), in the strong wind."""
    env, drives = gymnasium.make(road.ID, **WORLDS["strong"]), []
    rng = np.random.default_rng(seed)
    for episode in range(episodes):
        env.reset(seed=4_000_000 + 1000 * seed + episode)
        actions = rng.integers(9, size=road.STEPS) if action is None else [action] * road.STEPS
        steps = [env.step(np.int64(one))[4] for one in actions]
        drives.append([sum(info[name] for info in steps) for name in ("progress", "collision")])
    return figures_of_drives(*np.transpose(drives))


def planned(run: Path, seed: int, episodes: int, *overrides: str) -> dict[str, float]:
    """Episodes, side by side, of an agent that plans every step in the model of `run`."""
    plans = ("configurator.mode=2", f"world.num_envs={episodes}", *overrides)
    player = load(run, *plans, seed=4_000_000 + seed)
    names = player.world.spec.signals
    with closing(player.world):
        # The first observation of an episode has signals of 0.
        moments = player.live((road.STEPS + 1) * episodes)
        signals = torch.stack([moment.state.signals for moment in moments]).sum(0)
    read = [signals[:, names.index(name)].tolist() for name in ("progress", "collision")]
    return figures_of_drives(*read)


def driving(runs: Path, size: Size) -> Rows:
    """Progress and collisions of baselines, and of plans in the JEPA of each seed."""
    rows: Rows = {}
    for seed in range(size.seeds):
        for name, action in {"random": None, "slow": SLOW, "fast": FAST}.items():
            rows.setdefault(name, []).append(constant(action, seed, 4 * size.episodes))
        for world in ("strong", "none"):
            run, _ = trained(runs, "JEPA", world, seed, size)
            for risk in size.risks if world == "strong" else (0.0,):
                figures = planned(run, seed, size.episodes, f"directive.risk={risk}")
                rows.setdefault(f"plans, {world}, risk {risk:g}", []).append(figures)
    return rows


PARTS: dict[str, Callable[[Path, Size], Rows]] = {
    "prediction": prediction,
    "driving": driving,
}


# -- output ------------------------------------------------------------------------------------


def column(rows: Rows, row: str, name: str) -> NDArray[np.float64]:
    """A figure of each seed of a row, [S]."""
    return np.array([figures[name] for figures in rows[row]])


def bars_of_prediction(rows: Rows) -> dict[str, bool]:
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
    for name in ("cars", "cars later"):
        ahead = seeds("JEPA, strong", name) > seeds("generative, strong", name)
        bars[f"strong: {name}, the JEPA ahead of the generative model"] = ahead.all()
    return {name: bool(met) for name, met in bars.items()}


def bars_of_driving(rows: Rows) -> dict[str, bool]:
    """What must hold of means over seeds, and whether it does."""

    def means(row: str) -> tuple[float, float]:
        return tuple(column(rows, row, name).mean() for name in ("progress", "collisions"))

    plans, calm = means("plans, strong, risk 0"), means("plans, none, risk 0")
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
    return {name: bool(met) for name, met in bars.items()}


def trends_of_risk(rows: Rows) -> dict[str, float]:
    """One-sided p that a figure falls with risk by chance, over runs at each risk."""
    from scipy.stats import kendalltau

    of_risk = {row: row.rpartition("strong, risk ")[2] for row in rows if "strong, risk" in row}
    runs = [(float(risk), one) for row, risk in of_risk.items() for one in rows[row]]
    risks = [risk for risk, _ in runs]
    return {
        name: float(kendalltau(risks, [one[name] for _, one in runs], alternative="less").pvalue)
        for name in ("progress", "collisions")
    }


BARS = {"prediction": bars_of_prediction, "driving": bars_of_driving}


def report(part: str, rows: Rows) -> str:
    """A Markdown table of means with their 95 % intervals over seeds, and the bars."""
    names = list(dict.fromkeys(name for one in rows.values() for name in one[0]))
    lines = [["", *names], ["---"] * (len(names) + 1)]
    for row, seeds in rows.items():
        cells = [mean(column(rows, row, name)) if name in seeds[0] else None for name in names]
        lines.append([row, *("" if cell is None else shown(cell) for cell in cells)])
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    return text + "".join(
        f"{'met' if met else 'falls short'}: {bar}\n" for bar, met in BARS[part](rows).items()
    )


def shown(value: Estimate) -> str:
    """A mean with its interval, in three digits."""
    ends = "" if math.isnan(value.low) else f" [{value.low:.3g}, {value.high:.3g}]"
    return f"{value.mean:.3g}{ends}"


def draw(parts: dict[str, Rows], place: Path) -> None:
    """A PNG: a frame of the road, what is read from representations, and how plans drive."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    frame, probes, drives = figure.subplots(1, 3, width_ratios=(0.8, 1.3, 1.1))
    env = road.Road()
    env.reset(seed=3)
    for _ in range(30):
        picture = env.step(np.int64(4))[0]
    frame.imshow(picture)
    frame.set_axis_off()
    frame.set_title("a frame", fontsize=9)
    rows = parts.get("prediction", {})
    names = ("cars", "cars later", "leaves", "ripples")
    for number, row in enumerate(rows):
        for place_of, name in enumerate(names):
            values = column(rows, row, name).clip(-0.1)
            spots = np.full(len(values), place_of + 0.15 * (number - (len(rows) - 1) / 2))
            label = row if name == names[0] else None
            probes.plot(spots, values, "o", ms=5, color=COLOURS[number], label=label)
    probes.set_xticks(range(len(names)), ["cars", f"cars, {AHEAD_STEPS} steps on", *names[2:]])
    probes.axhline(0, color="#7b8794", lw=0.8)
    probes.set_title("R² of a linear probe (-.1: or less)", fontsize=9)
    rows = parts.get("driving", {})
    for number, row in enumerate(rows):
        progress, collisions = (column(rows, row, name) for name in ("progress", "collisions"))
        drives.plot(progress, collisions, "o", ms=5, color=COLOURS[number], label=row)
    drives.set(xlabel="progress [steps at full speed]", ylabel="collisions an episode")
    drives.set_title("episodes of 200 steps, a dot a seed", fontsize=9)
    for axes, part in ((probes, "prediction"), (drives, "driving")):
        axes.tick_params(labelsize=8)
        axes.grid(True, color="#e4e7eb", lw=0.6)
        if parts.get(part):
            axes.legend(fontsize=7, frameon=False)
    with new_file(place) as out:
        figure.savefig(out, format="png", dpi=130)


# -- command -----------------------------------------------------------------------------------


def main() -> None:
    """Trains what is missing, prints the tables and draws the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--quick", action="store_true", help="one small training a row")
    parser.add_argument("--runs", type=Path, default=Path("runs/road"), help="trainings")
    parser.add_argument("--out", type=Path, default=Path("runs/road.png"), help="the picture")
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    options = parser.parse_args()
    if options.out.is_dir():
        parser.error(f"--out: expected the path of a PNG, got the folder {str(options.out)!r}")
    torch.set_num_threads(1)
    size = QUICK if options.quick else Size()
    names = [options.only] if options.only else list(PARTS)
    parts = {name: PARTS[name](options.runs, size) for name in names}
    for name, rows in parts.items():
        print(report(name, rows))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    draw(parts, options.out)
    if options.json:
        bars = {name: BARS[name](rows) for name, rows in parts.items()}
        print(json.dumps({**size._asdict(), "parts": parts, "bars": bars}, allow_nan=False))


if __name__ == "__main__":
    main()
