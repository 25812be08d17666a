"""Objectives against collapse: what each keeps of a road and of Pong, and what foretells it.

    python examples/objectives.py --json
    python examples/objectives.py --quick

Each objective, none, and a front end made by hand (histograms of oriented gradients) trains the
same small world model on the experience of a random policy (`examples/objectives.yaml`), on
`sextet/Road-v0` and on Pong. A table has effective rank and other measures that need no truth,
linear read-outs of the present and of a prediction, and on the road what plans in the model reach.
A second one has the rank correlation of each measure with read-outs and plans over all runs.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import road as study
from command_line import options_of, print_results, table
from driving import planned
from modules.measures.spread import effective_rank, largest_correlation, variances
from probing import (
    Held,
    Rows,
    latents_of,
    prediction_error,
    read_out,
    table_of,
    trained,
)
from worlds import road
from worlds.make import make_world

SETTINGS = Path(__file__).parent / "objectives.yaml"
PONG = "ALE/Pong-v5"
PONG_SENSOR = {"height": 84, "width": 84, "gray": True}

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "vicreg": (),
    "sigreg": ("world_model.objective={kind: sigreg, weight: 250}",),
    "barlow": ("world_model.objective={kind: barlow, weight: 1.25}",),
    "infonce": ("world_model.objective={kind: infonce, weight: 25}",),
    "inverse-dynamics": ("world_model.objective={kind: inverse-dynamics, weight: 25}",),
    **{
        f"vicreg + {part}": (
            "world_model.objective={kind: sum, parts: [{kind: vicreg, std_coeff: 25, "
            f"cov_coeff: 1}}, {{kind: {part}, weight: 25}}]}}",
        )
        for part in ("inverse-dynamics", "smoothness", "straightening")
    },
    "none": ("world_model.objective={kind: none}",),
    "none, slow target": (
        "world_model.objective={kind: none}",
        "world_model.target_grad_scale=0",
    ),
    "none, fast target": (
        "world_model.objective={kind: none}",
        "world_model.target_grad_scale=0",
        "learner.ema_rate=1",
    ),
    "hog": (
        "world_model.objective={kind: none}",
        "world_model.target_grad_scale=0",
        "learner.train_modules=[world_model]",
        "learner.online_steps=1",
        "learner.ema_rate=1",
    ),
}
"""What a training changes in `examples/objectives.yaml`, by the name of a row."""

DRIVES = (
    'cost={drives: [pain, "signal:collision", "signal:-progress"]}',
    'directive.u={pain: 0, "signal:collision": 35}',
)
"""The drives of `examples/road.yaml`."""

COLLISION_COST = 35.0
"""What a collision takes from progress in `driving`, as the drives of `examples/road.yaml` weigh
it.
"""

CAUTIOUS = 'directive.u={pain: 0, "signal:collision": 300}'
"""The weight of collisions in plans. So short a training foresees few of them: of 35, 100 and 300
the last is the first at which plans of `vicreg` brake at all (other episodes, seed 100).
"""

MEASURES = ("rank", "least deviation", "correlation", "error")
"""Figures that need no truth."""


class Size(NamedTuple):
    """Seeds, steps and updates of a training; episodes of probes and of plans; steps of Pong's."""

    seeds: int = 2
    steps: int = 3000
    updates: int = 100
    probes: int = 16
    episodes: int = 8
    pong_steps: int = 300
    objectives: tuple[str, ...] = tuple(OBJECTIVES)


QUICK = Size(1, 400, 4, 4, 1, 40, ("vicreg", "none, fast target"))


# -- Pong, with its truth ----------------------------------------------------------------------

FIELD = slice(34, 194)
"""The rows of the screen between the walls."""

PONG_COLOURS = {"ball": (236, 236, 236), "left": (213, 130, 74), "right": (92, 186, 92)}
"""Colours of the ball and the paddles on the screen of the Atari 2600."""


def located(screen: NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    """The middle, row and column, of ball and paddles on a screen [210 160 3]; NaN where one is not
    there, as the ball after a point.
    """
    field = screen[FIELD]
    places = {}
    for name, colour in PONG_COLOURS.items():
        rows, columns = np.nonzero((field == colour).all(-1))
        places[name] = (rows.mean(), columns.mean()) if len(rows) else (np.nan, np.nan)
    return places


def pong_held_out(steps: int, rows: int = 8, seed: int = 2_000_000) -> Held:
    """The first steps of `rows` games of random actions."""
    world = make_world(PONG, num_envs=rows, sensor=PONG_SENSOR)
    count, generator = world.spec.actions.size, torch.Generator().manual_seed(seed)
    actions = torch.randint(count, (rows, steps), generator=generator)
    observation, frames, truths = world.reset(seed), [], []
    for t in range(steps):
        frames.append(observation.pixels)
        truths.append([located(screen.numpy()) for screen in world.render()])
        hot = torch.nn.functional.one_hot(actions[:, t], count).float()
        observation = world.step(hot)
    world.close()
    every = [[one[row] for one in truths] for row in range(rows)]
    truth = {
        "ball": torch.tensor([[at["ball"] for at in row] for row in every]),
        "paddles": torch.tensor([[(at["left"][0], at["right"][0]) for at in row] for row in every]),
    }
    return Held(torch.stack([frame for frame in frames if frame is not None], 1), actions, truth)


# -- runs --------------------------------------------------------------------------------------


def settings_of(world: str, objective: str, size: Size) -> tuple[str, ...]:
    """What a training changes in `examples/objectives.yaml`."""
    warmup = size.steps // 3
    settings = (
        f"training.steps={size.steps}",
        f"memory.capacity={size.steps}",
        f"learner.warmup_steps={warmup}",
        f"learner.replay_ratio={size.updates / (size.steps - warmup)}",
        *OBJECTIVES[objective],
        *(() if world == PONG else DRIVES),
    )
    if objective == "hog":
        frames = "84, grayscale: true" if world == PONG else "0, grayscale: false"
        return *settings, f"perception={{kind: hog, frame_size: {frames}}}"
    if world == PONG:
        return *settings, "perception.frame_size=84", "perception.grayscale=true"
    return settings


def run_of(
    runs: Path, world: str, objective: str, seed: int, size: Size
) -> tuple[Path, dict[str, Any]]:
    """The folder and the result of a training."""
    name = f"{world.rpartition('/')[2]}-{objective.replace(' ', '')}"
    place = runs / f"{name}-{size.steps}-{size.updates}-{seed}"
    settings = settings_of(world, objective, size)
    return place, trained(place, world, *settings, config=SETTINGS, seed=seed)


def figures_of(run: Path, result: dict[str, Any], held: Held) -> dict[str, float]:
    """R² of each truth now and later; measures of the representation; 1 where the run warns that it
    collapsed.
    """
    latents = latents_of(run, held)
    figures = {}
    for name, truth in held.truth.items():
        read = read_out(latents, truth)
        figures[name] = read.now
        if name in ("cars", "ball"):
            figures[f"{name} later"] = read.later
    flat = latents.encoded.flatten(0, 1)
    collapsed = [line for line in result["warnings"] if "representation collapsed" in line]
    return figures | {
        "rank": effective_rank(flat),
        "least deviation": float(variances(flat).min().sqrt()),
        "correlation": largest_correlation(flat),
        "error": prediction_error(latents),
        "collapsed": float(bool(collapsed)),
    }


def compared(runs: Path, size: Size) -> dict[str, Rows]:
    """The rows of both worlds."""
    tables: dict[str, Rows] = {"road": {}, "pong": {}}
    held = study.held_out(study.WORLDS["strong"], size.probes)
    for objective in size.objectives:
        for seed in range(size.seeds):
            run, result = run_of(runs, road.ID, objective, seed, size)
            figures = figures_of(run, result, held)
            drive = planned(run, seed, size.episodes, CAUTIOUS)
            earned = drive["progress"] - COLLISION_COST * drive["collisions"]
            figures |= drive | {"driving": earned}
            tables["road"].setdefault(objective, []).append(figures)
    held = pong_held_out(size.pong_steps)
    for objective in size.objectives:
        for seed in range(size.seeds):
            run, result = run_of(runs, PONG, objective, seed, size)
            tables["pong"].setdefault(objective, []).append(figures_of(run, result, held))
    return tables


# -- correlations ------------------------------------------------------------------------------


class RankCorrelation(NamedTuple):
    """Spearman's ρ over all runs, with the 95 % interval over resampled objectives."""

    rho: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.rho:.2f} [{self.low:.2f}, {self.high:.2f}]"


def rank_correlation(
    first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], draws: int = 2000
) -> RankCorrelation:
    """Of two figures of the runs of each objective. Whole objectives are resampled, since seeds of
    one are alike; runs in which a figure is not finite are left out.
    """
    from scipy.stats import rankdata

    def rho(groups: NDArray[np.int64]) -> float:
        pairs = [np.concatenate([of[group] for group in groups]) for of in (first, second)]
        finite = np.isfinite(pairs).all(0)
        ranks = [rankdata(values[finite]) for values in pairs]
        if finite.sum() < 3 or min(np.ptp(of) for of in ranks) == 0:
            return np.nan
        return float(np.corrcoef(*ranks)[0, 1])

    count, rng = len(first), np.random.default_rng(0)
    drawn = [rho(rng.integers(count, size=count)) for _ in range(draws)]
    known = [value for value in drawn if np.isfinite(value)] or [np.nan]
    low, high = np.percentile(known, (2.5, 97.5))
    return RankCorrelation(rho(np.arange(count)), float(low), float(high))


def correlations(rows: Rows, outcomes: Sequence[str]) -> dict[str, dict[str, RankCorrelation]]:
    """Of each measure, and of each outcome, with each outcome that follows it."""

    def of(name: str) -> list[NDArray[np.float64]]:
        return [np.array([run[name] for run in runs]) for runs in rows.values()]

    return {
        name: {
            outcome: rank_correlation(of(name), of(outcome))
            for outcome in outcomes[outcomes.index(name) + 1 if name in outcomes else 0 :]
        }
        for name in (*MEASURES, *outcomes[:-1])
    }


OUTCOMES = {"road": ("cars", "cars later", "driving"), "pong": ("ball", "ball later")}


def bars_of(tables: dict[str, Rows]) -> dict[str, bool]:
    """What must hold in every run, and whether it does."""
    return {
        f"{world}: none with a fast target collapses, and the run says so": all(
            run["collapsed"] for run in rows["none, fast target"]
        )
        for world, rows in tables.items()
    }


def correlation_table(
    related: dict[str, dict[str, RankCorrelation]], outcomes: Sequence[str]
) -> str:
    """A Markdown table: a row a measure, a column an outcome."""
    lines = []
    for name, row in related.items():
        lines.append([name, *(str(row[one]) if one in row else "" for one in outcomes)])
    return table(["Spearman's ρ with", *outcomes], lines)


def main() -> None:
    """Trains what is missing and prints the tables."""
    options = options_of(__doc__, quick="small trainings, under a minute", runs="objectives")
    size = QUICK if options.quick else Size()
    if "hog" in size.objectives and importlib.util.find_spec("skimage") is None:
        print("hog is left out: pip install 'sextet[hog]'", file=sys.stderr)
        size = size._replace(objectives=tuple(o for o in size.objectives if o != "hog"))
    tables = compared(options.runs, size)
    related = {world: correlations(rows, OUTCOMES[world]) for world, rows in tables.items()}
    bars = bars_of(tables)
    texts = [
        f"{world}\n\n{table_of(rows)}\n{correlation_table(related[world], OUTCOMES[world])}"
        for world, rows in tables.items()
    ]
    figures = {**size._asdict(), "tables": tables, "spearman": related} if options.json else None
    print_results(texts, bars, figures)


if __name__ == "__main__":
    main()
