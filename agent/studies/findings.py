"""Statistics of a study's finished runs: estimates, contrasts, gap, trends, distances, verdicts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.learning import statistics as stats
from agent.learning.statistics import CurvePoint, Estimate, Numbers
from agent.studies.grid import PlannedRun
from agent.studies.measures import Series
from agent.studies.study import Contrast, Gap, Study, Trend
from agent.studies.worker import SERIES

SIGNIFICANT = 0.05
EVERYWHERE = "all worlds"
FEATURES = ("surprise", "disagreement", "energy")
"""The variables of the response curves of Mode-2."""

_CODES = 2**6


@dataclass(frozen=True)
class Contrasted:
    """One arm less another on the same seeds, in one world or over all.

    Over all worlds `difference` is in units of each world's standard deviation (of both arms'
    values together). `p` is of a sign-flip test, `p_corrected` after Holm over all contrasts of
    the study.
    """

    world: str
    arm: str
    against: str
    measure: str
    difference: Estimate
    p: float
    p_corrected: float
    effect: float
    better: float


@dataclass(frozen=True)
class GapShare:
    """The share of the gap that an arm keeps, its share of the model calls, and its control's."""

    arm: str
    control: str
    share: Estimate
    calls: Estimate
    control_share: Estimate
    control_calls: Estimate
    over_control: Estimate


@dataclass(frozen=True)
class GapResult:
    """The worlds with a gap, difference and corrected p of each world, the share of each arm."""

    worlds: tuple[str, ...]
    differences: dict[str, tuple[Estimate, float]]
    shares: tuple[GapShare, ...]


@dataclass(frozen=True)
class Trended:
    """A measure from arm to arm in one world.

    `steps` are the paired differences from each arm to the next, `whole` that from first to last,
    `tau` the rank trend within each seed, averaged.
    """

    world: str
    measure: str
    direction: str
    arms: tuple[str, ...]
    means: tuple[Estimate, ...]
    steps: tuple[Estimate, ...]
    whole: Estimate
    tau: Estimate
    p: float
    monotone: bool
    holds: bool


@dataclass(frozen=True)
class Distance:
    """The distance of two arms' behaviour on the same seeds, total variation 0 to 1.

    `usual` is that of two seeds of one arm: the effect of chance alone in so few steps.
    """

    world: str
    arms: tuple[str, str]
    what: str
    apart: Estimate
    usual: float
    beyond: Estimate


@dataclass(frozen=True)
class Verdict:
    """A bar, the result, and whether it meets the bar."""

    text: str
    met: bool


@dataclass(frozen=True)
class Findings:
    """All statistics of a study's finished runs; `missing` are the other runs."""

    runs: list[dict[str, Any]]
    missing: list[str]
    table: dict[tuple[str, str, str], Estimate]
    contrasts: list[Contrasted]
    gap: GapResult | None
    trends: list[Trended]
    distances: list[Distance]
    curves: dict[str, dict[str, list[CurvePoint]]]
    thoughts: dict[str, dict[str, list[CurvePoint]]]
    energies: dict[tuple[str, str], dict[str, list[Estimate]]]
    verdicts: list[Verdict]


class _Runs:
    """The finished runs of a study by world, arm and seed."""

    def __init__(self, study: Study, runs: Sequence[Mapping[str, Any]], folder: Path) -> None:
        self.study, self.folder = study, folder
        self.by = {(one["world"], one["arm"], one["seed"]): one for one in runs}

    def seeds(self, world: str, *arms: str) -> list[int]:
        """The seeds that all these arms have finished."""
        return [s for s in self.study.seeds if all((world, arm, s) in self.by for arm in arms)]

    def values(self, world: str, arm: str, measure: str, seeds: Iterable[int]) -> Numbers:
        """A measure, one a seed; NaN where it is undefined."""
        values = [self.by[world, arm, seed]["measures"].get(measure) for seed in seeds]
        return np.array([math.nan if value is None else value for value in values], dtype=float)

    def paired(self, world: str, measure: str, *arms: str) -> list[Numbers]:
        """A measure of several arms on the seeds where all have it."""
        columns = [self.values(world, arm, measure, self.seeds(world, *arms)) for arm in arms]
        known = np.isfinite(np.stack(columns)).all(0)
        return [column[known] for column in columns]

    def series(self, world: str, arm: str, seed: int) -> Series:
        """The moments of one run."""
        run = PlannedRun(world, arm, seed, 0, False, {}, ())
        return Series.load(self.folder / "runs" / run.name / SERIES)


def find(study: Study, runs: Sequence[Mapping[str, Any]], folder: Path) -> Findings:
    """The statistics of the finished `runs` in `folder` that a study asks for."""
    own = [dict(one) for one in runs if _belongs(study, one)]
    finished = _Runs(study, own, folder)
    measures = list(dict.fromkeys((*study.measures, "return", "model_calls", "length")))
    table = {
        (world.id, arm, measure): stats.mean(
            finished.values(world.id, arm, measure, finished.seeds(world.id, arm))
        )
        for world in study.worlds
        for arm in study.arms
        for measure in measures
    }
    missing = [
        f"{arm} · {world.id} · seed {seed}"
        for world in study.worlds
        for arm in study.arms
        for seed in study.seeds
        if (world.id, arm, seed) not in finished.by
    ]
    contrasts = _contrasts(study, finished)
    gap = None if study.gap is None else _gap(study, study.gap, finished)
    trends = [_trend(trend, world.id, finished) for trend in study.trends for world in study.worlds]
    return Findings(
        runs=own,
        missing=missing,
        table=table,
        contrasts=contrasts,
        gap=gap,
        trends=trends,
        distances=[
            distance
            for world in study.worlds
            for pair in study.distances
            for distance in _distances(world.id, pair, finished)
        ],
        curves={arm: _curves(arm, finished, thought=False) for arm in study.curves},
        thoughts={arm: _curves(arm, finished, thought=True) for arm in study.curves},
        energies={
            (world.id, arm): _energies(world.id, arm, finished)
            for world in study.worlds
            for arm in study.energies
        },
        verdicts=[*_of_contrasts(study, contrasts), *_verdicts(study, gap, trends)],
    )


def _belongs(study: Study, run: Mapping[str, Any]) -> bool:
    return (
        run["arm"] in study.arms
        and run["seed"] in study.seeds
        and run["world"] in [world.id for world in study.worlds]
    )


def _contrasts(study: Study, runs: _Runs) -> list[Contrasted]:
    differences: list[tuple[str, str, Contrast, Numbers]] = []
    for contrast in study.comparisons:
        for arm in contrast.arms:
            scaled: list[Numbers] = []
            for world in study.worlds:
                mine, theirs = runs.paired(world.id, contrast.measure, arm, contrast.against)
                difference = mine - theirs
                spread = float(np.concatenate([mine, theirs]).std()) if len(mine) else 0.0
                scaled.append(difference / spread if spread > 0 else difference * 0)
                differences.append((world.id, arm, contrast, difference))
            if len(study.worlds) > 1:
                differences.append((EVERYWHERE, arm, contrast, np.concatenate(scaled)))
    p_values = [stats.sign_flip(difference) for *_, difference in differences]
    return [
        Contrasted(
            world=world, arm=arm, against=contrast.against, measure=contrast.measure,
            difference=stats.mean(difference), p=p, p_corrected=corrected,
            effect=stats.effect_size(difference), better=stats.share_better(difference),
        )
        for (world, arm, contrast, difference), p, corrected in zip(
            differences, p_values, stats.holm(p_values), strict=True
        )
    ]  # fmt: skip


def _gap(study: Study, gap: Gap, runs: _Runs) -> GapResult:
    differences, p_values = dict[str, Numbers](), list[float]()
    for world in study.worlds:
        high, low = runs.paired(world.id, gap.measure, gap.high, gap.low)
        differences[world.id] = high - low
        p_values.append(stats.sign_flip(high - low))
    estimates = {
        name: (stats.mean(values), p)
        for (name, values), p in zip(differences.items(), stats.holm(p_values), strict=True)
    }
    worlds = tuple(
        name for name, (gain, p) in estimates.items() if gain.mean > 0 and p < SIGNIFICANT
    )
    shares = []
    for arm, control in gap.arms.items():
        both, alone, other, calls, theirs_spent = [], [], [], [], []
        for there in worlds:
            low, high, mine, theirs = runs.paired(
                there, gap.measure, gap.low, gap.high, arm, control
            )
            if not len(mine):
                continue
            alone.append(stats.Stratum(low, high, mine))
            other.append(stats.Stratum(low, high, theirs))
            both.append(stats.Stratum(low, high, low + mine - theirs))
            spent, also, most = runs.paired(there, "model_calls", arm, control, gap.high)
            calls.append((spent, most))
            theirs_spent.append((also, most))
        shares.append(
            GapShare(
                arm=arm,
                control=control,
                share=stats.gap_kept(alone),
                calls=stats.ratio(calls),
                control_share=stats.gap_kept(other),
                control_calls=stats.ratio(theirs_spent),
                over_control=stats.gap_kept(both),
            )
        )
    return GapResult(worlds, estimates, tuple(shares))


def _trend(trend: Trend, world: str, runs: _Runs) -> Trended:
    columns = runs.paired(world, trend.measure, *trend.arms)
    sign = 1.0 if trend.direction == "rises" else -1.0
    means = [stats.mean(column) for column in columns]
    steps = [stats.mean(columns[i + 1] - columns[i]) for i in range(len(columns) - 1)]
    taus = [sign * stats.rank_trend(row) for row in np.stack(columns, 1)]
    tau = stats.mean(taus)
    monotone = all(sign * step.mean >= 0 for step in steps)
    whole = stats.mean(columns[-1] - columns[0])
    away = whole.low > 0 if sign > 0 else whole.high < 0
    return Trended(
        world=world,
        measure=trend.measure,
        direction=trend.direction,
        arms=trend.arms,
        means=tuple(means),
        steps=tuple(steps),
        whole=whole,
        tau=tau,
        p=stats.sign_flip(taus),
        monotone=monotone,
        # In order, and both the whole way and the trend within seeds beyond chance.
        holds=monotone and away and tau.low > 0,
    )


def _distances(world: str, pair: tuple[str, str], runs: _Runs) -> list[Distance]:
    seeds = runs.seeds(world, *pair)
    if not seeds:
        return []
    series = {(arm, seed): runs.series(world, arm, seed) for arm in pair for seed in seeds}
    actions = {key: one.actions[one.acting] for key, one in series.items()}
    size = 1 + max(int(codes.max(initial=0)) for codes in actions.values())
    sketches = {key: one.sketch[one.counts] for key, one in series.items()}
    middle = np.median(np.concatenate(list(sketches.values())), axis=0)
    places = 2 ** np.arange(len(middle))
    cells = {key: (values > middle) @ places for key, values in sketches.items()}
    result = []
    for what, codes, several in (("actions", actions, size), ("places", cells, _CODES)):
        shares = {
            key: np.bincount(values, minlength=several).astype(float)
            for key, values in codes.items()
        }
        first, second = pair
        apart = np.array([stats.total_variation(shares[first, s], shares[second, s])
                          for s in seeds])  # fmt: skip
        usual = np.array([
            np.mean([stats.total_variation(shares[arm, s], shares[arm, other])
                     for arm in pair for other in seeds if other != s] or [math.nan])
            for s in seeds
        ])  # fmt: skip
        result.append(
            Distance(
                world=world,
                arms=pair,
                what=what,
                apart=stats.mean(apart),
                usual=float(np.mean(usual)),
                beyond=stats.mean(apart - usual),
            )
        )
    return result


def _curves(arm: str, runs: _Runs, thought: bool) -> dict[str, list[CurvePoint]]:
    """How often an arm is in Mode-2 (or imagines something) at each level of each feature."""
    lives = [
        runs.series(world.id, arm, seed)
        for world in runs.study.worlds
        for seed in runs.seeds(world.id, arm)
    ]
    if not lives:
        return {}
    answers = [
        ((one.calls > 0) if thought else (one.mode == 2))[one.acting].astype(float) for one in lives
    ]
    return {
        feature: stats.response_curve(
            [getattr(one, feature)[one.acting].astype(float) for one in lives], answers
        )
        for feature in FEATURES
    }


def _energies(world: str, arm: str, runs: _Runs, stretches: int = 20) -> dict[str, list[Estimate]]:
    """The energy of each drive over the episode, means of stretches of it with intervals."""
    seeds = runs.seeds(world, arm)
    if not seeds:
        return {}
    lives = [runs.series(world, arm, seed) for seed in seeds]
    drives = runs.by[world, arm, seeds[0]]["drives"]
    cap = max(len(one.counts) for one in lives)
    edges = np.linspace(0, cap, min(stretches, cap) + 1).astype(int)
    energies: dict[str, list[Estimate]] = {}
    for place, drive in enumerate(drives):
        energies[drive] = []
        for begin, end in itertools.pairwise(edges.tolist()):
            part = [
                one.energies[begin:end, :, place][one.counts[begin:end]].astype(float)
                for one in lives
            ]
            energies[drive].append(stats.mean([float(p.mean()) for p in part if p.size]))
    return energies


def _of_contrasts(study: Study, contrasts: Sequence[Contrasted]) -> list[Verdict]:
    """Whether contrasts with an expectation meet it, over all worlds or in the only one."""
    where = EVERYWHERE if len(study.worlds) > 1 else study.worlds[0].id
    verdicts = []
    for contrast in study.comparisons:
        if contrast.expect is None:
            continue
        for arm in contrast.arms:
            one = next(
                c
                for c in contrasts
                if (c.world, c.arm, c.against, c.measure)
                == (where, arm, contrast.against, contrast.measure)
            )
            difference = one.difference
            verdicts.append(
                Verdict(
                    f"{one.measure} of {arm} less that of {one.against}, {where}: "
                    f"{difference.mean:.3g} [{difference.low:.3g}, {difference.high:.3g}] "
                    f"(bar: interval {contrast.expect} 0)",
                    difference.low > 0 if contrast.expect == "above" else difference.high < 0,
                )
            )
    return verdicts


def _verdicts(study: Study, gap: GapResult | None, trends: Sequence[Trended]) -> list[Verdict]:
    verdicts = []
    if study.gap is not None and study.gap.keep is not None and gap is not None:
        bar = study.gap
        verdicts.append(
            Verdict(
                f"{bar.high} is above {bar.low} significantly on {len(gap.worlds)} of "
                f"{len(study.worlds)} worlds (bar: {bar.worlds})",
                len(gap.worlds) >= bar.worlds,
            )
        )
        for one in gap.shares if gap.worlds else ():
            met = (
                one.share.mean >= (bar.keep or 0)
                and one.calls.mean <= bar.calls
                and one.over_control.low > 0
            )
            verdicts.append(
                Verdict(
                    f"{one.arm} keeps {_percent(one.share)} of the gap (bar: "
                    f"{100 * (bar.keep or 0):.0f} %) with {_percent(one.calls)} of the model calls "
                    f"(bar: {100 * bar.calls:.0f} %) and is {_percent(one.over_control)} of the "
                    f"gap above {one.control} (bar: interval above 0)",
                    met,
                )
            )
    for measure, direction, arms in dict.fromkeys(
        (t.measure, t.direction, t.arms) for t in trends if study.trend_worlds is not None
    ):
        those = [
            t for t in trends if (t.measure, t.direction, t.arms) == (measure, direction, arms)
        ]
        holding = [t.world for t in those if t.holds]
        verdicts.append(
            Verdict(
                f"{measure} {direction} monotonically over {', '.join(arms)}, with intervals, on "
                f"{len(holding)} of {len(those)} worlds (bar: {study.trend_worlds})"
                + (f": {', '.join(holding)}" if holding else ""),
                len(holding) >= (study.trend_worlds or 0),
            )
        )
    return verdicts


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
