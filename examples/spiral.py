"""Decorrelation is blind to a spiral: its coordinates determine each other and do not correlate.

    python examples/spiral.py --out docs/figures/spiral.png
    python examples/spiral.py --quick --json

LeCun's example against decorrelation as a measure of information. Points lie nearly uniformly along
an Archimedean spiral: radius √u, u uniform on [0, 1], angle 2π · turns · √u. They are turned to the
principal axes of the spiral and scaled to variance 1, both estimated from a separate draw of
100,000 points: there the correlation is 0, while one number determines both coordinates. Noise is
Gaussian, in units of a coordinate's standard deviation.

First table: the share of draws in which a permutation test rejects the independence of the
coordinates at α = .05, by the correlation, by HSIC and by the mutual information after Kraskov et
al. (KSG); and the same after a permutation of one coordinate, which leaves no dependence.

Second table: the regularisers of joint-embedding objectives, evaluated on the spiral as an
embedding, minus the same on a standard normal (the same covariance) and on the spiral with one
coordinate permuted (the same marginals). Where an objective needs two views of a sample, the second
is the embedding with independent Gaussian noise of deviation .1 added.
"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from command_line import Share, options_of, print_results, save_picture, table
from modules import chance
from modules.measures.dependence import (
    hsic_p_value,
    mutual_information,
    mutual_information_p_value,
    pearson_p_value,
)
from modules.objectives.barlow import BarlowTwins
from modules.objectives.infonce import InfoNCE
from modules.objectives.objective import Encodings, Objective
from modules.objectives.sigreg import SIGReg
from modules.objectives.vicreg import VICReg

Numbers = NDArray[np.float64]

ALPHA = 0.05
TURNS = (1, 2, 3)
NOISE = (0.0, 0.1, 0.2)
TESTS = {"Pearson": pearson_p_value, "HSIC": hsic_p_value, "KSG": mutual_information_p_value}
VIEW_NOISE = 0.1
"""Deviation of the noise that makes the second view of an embedding."""

MOST, LEAST = 0.08, 0.9
"""Bars: the share of rejections that a blind or a valid test stays below, and that HSIC reaches."""

KINDS = ("rejected", "permuted")
REFERENCES = ("Gaussian", "permuted")
COLOURS = ("#0b7285", "#e8590c")


class Size(NamedTuple):
    """Points of a draw, draws of a cell, permutations of a test, draws of a regulariser."""

    points: int = 1000
    draws: int = 20
    permutations: int = 199
    embeddings: int = 100


QUICK = Size(points=500, draws=5, permutations=99, embeddings=20)


class Spiral:
    """A spiral in its principal axes, with variance 1 along each."""

    def __init__(self, turns: int, rng: np.random.Generator, points: int = 100_000) -> None:
        self.turns = turns
        draw = self._plain(points, rng)
        values, vectors = np.linalg.eigh(np.cov(draw.T))
        self._mean, self._axes = draw.mean(0), vectors / np.sqrt(values)

    def draw(self, points: int, noise: float, rng: np.random.Generator) -> Numbers:
        """Points [N 2] with Gaussian noise of deviation `noise` on each coordinate."""
        clean = (self._plain(points, rng) - self._mean) @ self._axes
        return clean + noise * rng.standard_normal(clean.shape)

    def _plain(self, points: int, rng: np.random.Generator) -> Numbers:
        radius = np.sqrt(rng.random(points))
        angle = 2 * np.pi * self.turns * radius
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def permuted(points: Numbers, rng: np.random.Generator) -> Numbers:
    """`points` [N 2] with the second coordinate permuted: the same marginals, independent."""
    return np.stack([points[:, 0], rng.permutation(points[:, 1])], 1)


# -- dependence --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What the draws of one spiral with one noise give.

    information: the mean estimate of the mutual information, nats. rejected, permuted: for each of
    TESTS the share of draws whose independence is rejected, as drawn and permuted.
    """

    turns: int
    noise: float
    information: float
    rejected: dict[str, Share]
    permuted: dict[str, Share]


def cells_of(seed: int, size: Size) -> list[Cell]:
    """The first table, a cell for each of TURNS and NOISE."""
    cells = []
    for turns in TURNS:
        spiral = Spiral(turns, np.random.default_rng([seed, turns]))
        for number, noise in enumerate(NOISE):
            information, counts = 0.0, {kind: dict.fromkeys(TESTS, 0) for kind in KINDS}
            for draw in range(size.draws):
                rng = np.random.default_rng([seed, turns, number, draw])
                points = spiral.draw(size.points, noise, rng)
                information += mutual_information(*points.T) / size.draws
                for kind, drawn in zip(KINDS, (points, permuted(points, rng)), strict=True):
                    chosen = int(rng.integers(2**31))
                    for name, p_value in TESTS.items():
                        p = p_value(*drawn.T, chosen, size.permutations)
                        counts[kind][name] += p <= ALPHA
            shares = {
                kind: {name: Share.of_draws(count, size.draws) for name, count in named.items()}
                for kind, named in counts.items()
            }
            cells.append(Cell(turns, noise, information, **shares))
            print(f"turns {turns}, noise {noise}: done", file=sys.stderr, flush=True)
    return cells


def over_all(cells: list[Cell], kind: str) -> dict[str, Share]:
    """The shares of all cells together, by test; `kind`: `rejected` or `permuted`."""
    of = sum(cell.rejected["HSIC"].of for cell in cells)
    counts = {name: sum(getattr(cell, kind)[name].count for cell in cells) for name in TESTS}
    return {name: Share.of_draws(count, of) for name, count in counts.items()}


# -- regularisers ------------------------------------------------------------------------------


OBJECTIVES: dict[str, Objective] = {
    "VICReg": VICReg(config=VICReg.Config()),
    # In two dimensions there are as many pairs of different ones as dimensions: λ = 1.
    "Barlow Twins": BarlowTwins(config=BarlowTwins.Config(redundancy_weight=1.0)),
    "SIGReg": SIGReg(config=SIGReg.Config()),
    "InfoNCE": InfoNCE(config=InfoNCE.Config()),
}


def penalties(embedding: Numbers, other_view: Numbers, key: Tensor) -> dict[str, float]:
    """Each penalty of OBJECTIVES on an embedding [N D] and a second view of it [N D]."""
    latents, other = (torch.from_numpy(one).float() for one in (embedding, other_view))
    encodings = Encodings(
        latents=latents,
        windows=latents.unsqueeze(1),
        mask=torch.ones(len(latents), 1, dtype=torch.bool),
        actions=torch.zeros(len(latents), 0, 1),
        action_mask=torch.zeros(len(latents), 0, dtype=torch.bool),
        other_view=other,
    )
    values = {}
    for name, objective in OBJECTIVES.items():
        named = objective.penalties(encodings, key)
        for penalty, value in named.items():
            values[name if len(named) == 1 else f"{name}, {penalty}"] = float(value)
    return values


@dataclass(frozen=True)
class Contrast:
    """A regulariser on the spiral minus the same on a reference, in each of n draws.

    effect: the mean difference over the standard deviation of the difference; low, high: its
    approximate 95 % interval, of error √(1/n + effect²/2n) (Hedges & Olkin 1985).
    """

    effect: float
    low: float
    high: float

    @staticmethod
    def of_draws(values: Numbers, reference: Numbers) -> Contrast:
        """Of values [n]; relative differences below 1e-4 are rounding of float32: 0."""
        equal = np.isclose(values, reference, rtol=1e-4, atol=0)
        differences = np.where(equal, 0, values - reference)
        if not differences.any():
            return Contrast(0.0, 0.0, 0.0)
        effect = float(differences.mean() / differences.std(ddof=1))
        error = 1.96 * math.sqrt((1 + effect**2 / 2) / len(values))
        return Contrast(effect, effect - error, effect + error)

    def __str__(self) -> str:
        return f"{self.effect:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class Regulariser:
    """A row of the second table: means by embedding, contrasts by reference."""

    name: str
    turns: int
    means: dict[str, float]
    contrasts: dict[str, Contrast]


def regularisers_of(seed: int, size: Size) -> list[Regulariser]:
    """The second table, a row for each penalty and each of TURNS, without noise."""
    rows = []
    for turns in TURNS:
        spiral = Spiral(turns, np.random.default_rng([seed, turns]))
        values: dict[str, dict[str, list[float]]] = {}
        for draw in range(size.embeddings):
            rng = np.random.default_rng([seed, turns, len(NOISE), draw])
            points = spiral.draw(size.points, 0.0, rng)
            others = (rng.standard_normal(points.shape), permuted(points, rng))
            for place, embedding in zip(("spiral", *REFERENCES), (points, *others), strict=True):
                view = embedding + VIEW_NOISE * rng.standard_normal(points.shape)
                for name, value in penalties(embedding, view, chance.keys(seed, 1, draw)).items():
                    values.setdefault(name, {}).setdefault(place, []).append(value)
        for name, lists in values.items():
            drawn = {place: np.array(one) for place, one in lists.items()}
            contrasts = {one: Contrast.of_draws(drawn["spiral"], drawn[one]) for one in REFERENCES}
            means = {place: float(one.mean()) for place, one in drawn.items()}
            rows.append(Regulariser(name, turns, means, contrasts))
    return sorted(rows, key=lambda row: row.name)


# -- output ------------------------------------------------------------------------------------


def bars_of(cells: list[Cell]) -> dict[str, bool]:
    """What the first table must show, and whether it does."""
    most = f"in at most {MOST:.0%} of all draws"
    pearson, control = over_all(cells, "rejected")["Pearson"], over_all(cells, "permuted")["HSIC"]
    least = min(cell.rejected["HSIC"].count / cell.rejected["HSIC"].of for cell in cells)
    return {
        f"Pearson rejects independence {most}": pearson.count <= MOST * pearson.of,
        f"HSIC rejects it in at least {LEAST:.0%} of the draws of each cell": least >= LEAST,
        f"with one axis permuted HSIC rejects it {most}": control.count <= MOST * control.of,
    }


def tables_of(cells: list[Cell], rows: list[Regulariser]) -> list[str]:
    """Both tables."""
    first = [
        [str(cell.turns), str(cell.noise), *map(str, cell.rejected.values()),
         f"{cell.information:.2f}", *map(str, cell.permuted.values())]
        for cell in cells
    ]  # fmt: skip
    drawn, control = (map(str, over_all(cells, kind).values()) for kind in KINDS)
    second = [
        [row.name, str(row.turns), *(f"{one:.3g}" for one in row.means.values()),
         *map(str, row.contrasts.values())]
        for row in rows
    ]  # fmt: skip
    head = ["turns", "noise", *TESTS, "information, nats", *(f"{t}, permuted" for t in TESTS)]
    other_head = ["penalty", "turns", "spiral", *REFERENCES, *(f"less {r}" for r in REFERENCES)]
    return [
        table(head, [*first, ["all", "", *drawn, "", *control]]),
        table(other_head, second),
    ]


def draw(cells: list[Cell], rows: list[Regulariser], seed: int, size: Size, place: Path) -> None:
    """A PNG: a panel for each cell with its shares of rejections, and all contrasts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.25, 1), wspace=0.03)
    panels = left.subplots(len(TURNS), len(NOISE), sharex=True, sharey=True)
    for cell, panel in zip(cells, panels.flat, strict=True):
        spiral = Spiral(cell.turns, np.random.default_rng([seed, cell.turns]))
        points = spiral.draw(size.points, cell.noise, np.random.default_rng(seed))
        panel.scatter(*points.T, s=2, color=COLOURS[0], lw=0)
        words = "   ".join(f"{test} {s.count}/{s.of}" for test, s in cell.rejected.items())
        panel.text(0.5, 0.97, words, transform=panel.transAxes, ha="center", va="top", fontsize=7)
        panel.set(xlim=(-3.6, 3.6), ylim=(-2.4, 3.0), aspect="equal")
        panel.set_title(f"turns {cell.turns}, noise {cell.noise}", fontsize=8)
        panel.tick_params(labelsize=7)
    left.supxlabel("first coordinate [standard deviations]", fontsize=8)
    left.supylabel("second coordinate [standard deviations]", fontsize=8)
    left.suptitle(f"Draws of {size.points} points whose independence is rejected", fontsize=10)
    axes, names = right.subplots(), list(dict.fromkeys(row.name for row in rows))
    for number, reference in enumerate(REFERENCES):
        for marker, turns in zip("osD", TURNS, strict=True):
            shown = [row.contrasts[reference] for row in rows if row.turns == turns]
            axes.errorbar(
                [one.effect for one in shown],
                np.arange(len(names)) + 0.3 * (number - 0.5) + 0.08 * (turns - 2),
                xerr=np.transpose([(c.effect - c.low, c.high - c.effect) for c in shown]),
                fmt=marker, ms=4, lw=1, color=COLOURS[number],
                label=f"less {reference}, turns {turns}",
            )  # fmt: skip
    axes.axvline(0, color="#7b8794", lw=0.8)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks((-10, -3, -1, 0, 1, 3, 10, 30), (-10, -3, -1, 0, 1, 3, 10, 30))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(True, axis="x", color="#d5dbe1", lw=0.6)
    axes.set_xlabel("difference [its standard deviations over draws]", fontsize=8)
    right.suptitle("Penalty on the spiral, less that on a reference", fontsize=10)
    right.legend(loc="outside lower center", ncols=len(REFERENCES), fontsize=7, frameon=False)
    save_picture(figure, place, dpi=130)


# -- command -----------------------------------------------------------------------------------


def figures_of(cells: list[Cell], rows: list[Regulariser]) -> dict[str, Any]:
    """Both tables, for JSON."""
    return {
        "cells": [asdict(cell) for cell in cells],
        "all": {
            kind: {name: asdict(share) for name, share in over_all(cells, kind).items()}
            for kind in KINDS
        },
        "regularisers": [asdict(row) for row in rows],
    }


def main() -> None:
    """Prints the tables and draws the picture."""
    options = options_of(
        __doc__, quick=f"{QUICK.draws} draws of a cell", picture="spiral", seed=True
    )
    seed, size = options.seed, QUICK if options.quick else Size()
    cells, rows = cells_of(seed, size), regularisers_of(seed, size)
    draw(cells, rows, seed, size, options.out)
    settings = {"seed": seed, **size._asdict(), "picture": str(options.out)}
    figures = {**settings, **figures_of(cells, rows)} if options.json else None
    print_results(tables_of(cells, rows), bars_of(cells), figures)


if __name__ == "__main__":
    main()
