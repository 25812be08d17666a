"""Statistics of a study's finished runs: estimates, contrasts, gap, trends, distances, verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.learning import statistics as stats
from agent.learning.statistics import CurvePoint, Estimate, Numbers
from agent.studies.grid import run_name
from agent.studies.measures import Series
from agent.studies.study import Contrast, Gap, Study, Trend
from agent.studies.worker import SERIES

SIGNIFICANT = 0.05
EVERYWHERE = "all worlds"
FEATURES = ("surprise", "disagreement", "energy")
"""The variables of the response curves of Mode-2."""

_STRETCHES = 20
"""Parts of an episode whose mean energies are drawn."""


@dataclass(frozen=True)
class Contrasted:
    """One arm less another on the same seeds, in one world or over all.

    Over all worlds `difference` is in units of each world's standard deviation (of both arms'
    values together). `p` is of a sign-flip test, `p_corrected` after Holm over all contrasts of
    the study. `effect`: Cohen's d_z. `better`: share of pairs above zero. `expect`: the bar of the
    study, above or below zero; None: no bar.
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
    expect: str | None


@dataclass(frozen=True)
class GapShare:
    """The share of the gap that an arm keeps and its share of the model calls, those of its
    control, and `over_control`, the share of the gap between the two.
    """

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

    `apart`: between the two arms. `usual`: between two seeds of one arm, the effect of chance alone
    in so few steps. `beyond`: their difference.
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

    def paired(self, world: str, measure: str, *arms: str) -> Numbers:
        """A measure of arms, [arms N], on the seeds where all have it."""
        values = [
            [self.by[world, arm, seed]["measures"].get(measure) for arm in arms]
            for seed in self.seeds(world, *arms)
        ]
        table: Numbers = np.array(values, dtype=float).reshape(-1, len(arms)).T
        return table[:, np.isfinite(table).all(0)]

    def series(self, world: str, arm: str, seeds: Iterable[int]) -> list[Series]:
        """The moments of an arm's runs."""
        runs = self.folder / "runs"
        return [Series.load(runs / run_name(world, arm, seed) / SERIES) for seed in seeds]


def find(study: Study, runs: Sequence[Mapping[str, Any]], folder: Path) -> Findings:
    """The statistics of the finished `runs` in `folder` that a study asks for."""
    worlds = [world.id for world in study.worlds]
    planned = [(world.id, arm, seed) for world, arm in study.pairs() for seed in study.seeds]
    own = [dict(one) for one in runs if (one["world"], one["arm"], one["seed"]) in planned]
    finished = _Runs(study, own, folder)
    measures = dict.fromkeys((*study.measures, "return", "model_calls", "length"))
    contrasts = _contrasts(study, finished)
    gap = None if study.gap is None else _gap(study, study.gap, finished)
    trends = [_trend(trend, world, finished) for trend in study.trends for world in worlds]
    return Findings(
        runs=own,
        missing=[
            f"{arm} · {world} · seed {seed}"
            for world, arm, seed in planned
            if (world, arm, seed) not in finished.by
        ],
        table={
            (world, arm, measure): stats.mean(finished.paired(world, measure, arm)[0])
            for world, arm, measure in itertools.product(worlds, study.arms, measures)
        },
        contrasts=contrasts,
        gap=gap,
        trends=trends,
        distances=[
            distance
            for world, pair in itertools.product(worlds, study.distances)
            for distance in _distances(world, pair, finished)
        ],
        curves={arm: _curves(arm, finished, thought=False) for arm in study.curves},
        thoughts={arm: _curves(arm, finished, thought=True) for arm in study.curves},
        energies={
            (world, arm): _energies(world, arm, finished)
            for world, arm in itertools.product(worlds, study.energies)
        },
        verdicts=[
            *_contrast_verdicts(study, contrasts),
            *_gap_verdicts(study, gap),
            *_trend_verdicts(study, trends),
        ],
    )


def _contrasts(study: Study, runs: _Runs) -> list[Contrasted]:
    differences: list[tuple[str, str, Contrast, Numbers]] = []
    for contrast, arm in ((c, arm) for c in study.comparisons for arm in c.arms):
        scaled: list[Numbers] = []
        worlds = [one for one in study.worlds if study.runs_in(one.id, arm, contrast.against)]
        for world in worlds:
            pairs = runs.paired(world.id, contrast.measure, arm, contrast.against)
            difference = pairs[0] - pairs[1]
            spread = float(pairs.std()) if pairs.size else 0.0
            scaled.append(difference / spread if spread > 0 else difference * 0)
            differences.append((world.id, arm, contrast, difference))
        if len(worlds) > 1:
            differences.append((EVERYWHERE, arm, contrast, np.concatenate(scaled)))
    p_values = [stats.sign_flip(difference) for *_, difference in differences]
    return [
        Contrasted(
            world=world,
            arm=arm,
            against=contrast.against,
            measure=contrast.measure,
            difference=stats.mean(difference),
            p=p,
            p_corrected=corrected,
            effect=stats.effect_size(difference),
            better=stats.share_better(difference),
            expect=contrast.expect,
        )
        for (world, arm, contrast, difference), p, corrected in zip(
            differences, p_values, stats.holm(p_values), strict=True
        )
    ]


def _gap(study: Study, gap: Gap, runs: _Runs) -> GapResult:
    gains = {}
    for world in study.worlds:
        high, low = runs.paired(world.id, gap.measure, gap.high, gap.low)
        gains[world.id] = high - low
    corrected = stats.holm([stats.sign_flip(gain) for gain in gains.values()])
    differences = {
        world: (stats.mean(gain), p)
        for (world, gain), p in zip(gains.items(), corrected, strict=True)
    }
    worlds = tuple(
        world for world, (gain, p) in differences.items() if gain.mean > 0 and p < SIGNIFICANT
    )
    shares = []
    for arm, control in gap.arms.items():
        values = [runs.paired(w, gap.measure, gap.low, gap.high, arm, control) for w in worlds]
        calls = [runs.paired(w, "model_calls", arm, control, gap.high) for w in worlds]
        calls = [spent for spent, value in zip(calls, values, strict=True) if value.size]
        values = [value for value in values if value.size]
        shares.append(
            GapShare(
                arm=arm,
                control=control,
                share=stats.gap_kept([(low, high, mine) for low, high, mine, _ in values]),
                calls=stats.ratio([(mine, most) for mine, _, most in calls]),
                control_share=stats.gap_kept(
                    [(low, high, other) for low, high, _, other in values]
                ),
                control_calls=stats.ratio([(other, most) for _, other, most in calls]),
                over_control=stats.gap_kept(
                    [(low, high, low + mine - other) for low, high, mine, other in values]
                ),
            )
        )
    return GapResult(worlds, differences, tuple(shares))


def _trend(trend: Trend, world: str, runs: _Runs) -> Trended:
    columns = runs.paired(world, trend.measure, *trend.arms)
    sign = 1.0 if trend.direction == "rises" else -1.0
    steps = tuple(stats.mean(step) for step in np.diff(columns, axis=0))
    whole = stats.mean(columns[-1] - columns[0])
    taus = [sign * stats.rank_trend(seed) for seed in columns.T]
    tau = stats.mean(taus)
    monotone = all(sign * step.mean >= 0 for step in steps)
    return Trended(
        world=world,
        measure=trend.measure,
        direction=trend.direction,
        arms=trend.arms,
        means=tuple(stats.mean(column) for column in columns),
        steps=steps,
        whole=whole,
        tau=tau,
        p=stats.sign_flip(taus),
        monotone=monotone,
        # In order, and both the whole way and the trend within seeds beyond chance.
        holds=monotone and _beyond_zero(whole, trend.direction == "rises") and tau.low > 0,
    )


def _beyond_zero(estimate: Estimate, above: bool) -> bool:
    """Whether the whole interval is above zero, or below it."""
    return estimate.low > 0 if above else estimate.high < 0


def _distances(world: str, pair: tuple[str, str], runs: _Runs) -> list[Distance]:
    seeds = runs.seeds(world, *pair)
    if not seeds:
        return []
    series = [runs.series(world, arm, seeds) for arm in pair]
    sketches = [[one.sketch[one.counts] for one in arm] for arm in series]
    middle = np.median(np.concatenate([*sketches[0], *sketches[1]]), axis=0)
    bits = 2 ** np.arange(len(middle))
    codes = {
        "actions": [[one.actions[one.acting] for one in arm] for arm in series],
        "places": [[(values > middle) @ bits for values in arm] for arm in sketches],
    }
    result = []
    for what, arms in codes.items():
        size = 1 + max(int(values.max(initial=0)) for arm in arms for values in arm)
        counts = np.array([[np.bincount(values, minlength=size) for values in arm] for arm in arms])
        apart = stats.total_variation(*counts)
        # Of each run from the other seeds of its arm, [arm seed seed]; 0 from itself.
        within = stats.total_variation(counts[:, :, None], counts[:, None])
        with np.errstate(invalid="ignore"):
            usual = within.sum((0, 2)) / (2 * len(seeds) - 2)
        result.append(
            Distance(
                world=world,
                arms=pair,
                what=what,
                apart=stats.mean(apart),
                usual=float(usual.mean()),
                beyond=stats.mean(apart - usual),
            )
        )
    return result


def _curves(arm: str, runs: _Runs, thought: bool) -> dict[str, list[CurvePoint]]:
    """How often an arm is in Mode-2 (or imagines something) at each level of each feature."""
    episodes = [
        one
        for world in runs.study.worlds
        for one in runs.series(world.id, arm, runs.seeds(world.id, arm))
    ]
    if not episodes:
        return {}
    answers = [
        ((one.calls > 0) if thought else (one.mode == 2))[one.acting].astype(float)
        for one in episodes
    ]
    return {
        feature: stats.response_curve(
            [getattr(one, feature)[one.acting].astype(float) for one in episodes], answers
        )
        for feature in FEATURES
    }


def _energies(world: str, arm: str, runs: _Runs) -> dict[str, list[Estimate]]:
    """The energy of each drive over the episode, means of stretches of it with intervals."""
    seeds = runs.seeds(world, arm)
    if not seeds:
        return {}
    episodes = runs.series(world, arm, seeds)
    drives = runs.by[world, arm, seeds[0]]["drives"]
    cap = max(len(one.counts) for one in episodes)
    edges = np.linspace(0, cap, min(_STRETCHES, cap) + 1).astype(int).tolist()
    return {
        drive: [
            stats.mean(
                [
                    float(part.mean(dtype=float))
                    for one in episodes
                    if (part := one.energies[begin:end, :, place][one.counts[begin:end]]).size
                ]
            )
            for begin, end in itertools.pairwise(edges)
        ]
        for place, drive in enumerate(drives)
    }


def _contrast_verdicts(study: Study, contrasts: Sequence[Contrasted]) -> list[Verdict]:
    """Whether contrasts with an expectation meet it, over all worlds or in the only one."""
    where = EVERYWHERE if len(study.worlds) > 1 else study.worlds[0].id
    return [
        Verdict(
            f"{one.measure} of {one.arm} less that of {one.against}, {where}: "
            f"{one.difference.mean:.3g} [{one.difference.low:.3g}, {one.difference.high:.3g}] "
            f"(bar: interval {one.expect} 0)",
            _beyond_zero(one.difference, one.expect == "above"),
        )
        for one in contrasts
        if one.expect is not None and one.world == where
    ]


def _gap_verdicts(study: Study, gap: GapResult | None) -> list[Verdict]:
    bar = study.gap
    if bar is None or gap is None or bar.keep is None:
        return []
    verdicts = [
        Verdict(
            f"{bar.high} is above {bar.low} significantly on {len(gap.worlds)} of "
            f"{len(study.worlds)} worlds (bar: {bar.worlds})",
            len(gap.worlds) >= bar.worlds,
        )
    ]
    verdicts += [
        Verdict(
            f"{one.arm} keeps {_percent(one.share)} of the gap (bar: {100 * bar.keep:.0f} %) "
            f"with {_percent(one.calls)} of the model calls (bar: {100 * bar.calls:.0f} %) and "
            f"is {_percent(one.over_control)} of the gap above {one.control} (bar: interval above "
            "0)",
            one.share.mean >= bar.keep and one.calls.mean <= bar.calls and one.over_control.low > 0,
        )
        for one in (gap.shares if gap.worlds else ())
    ]
    return verdicts


def _trend_verdicts(study: Study, trends: Sequence[Trended]) -> list[Verdict]:
    verdicts = []
    worlds = len(study.worlds)
    for i, trend in enumerate(study.trends if study.trend_worlds is not None else ()):
        holding = [one.world for one in trends[i * worlds : (i + 1) * worlds] if one.holds]
        verdicts.append(
            Verdict(
                f"{trend.measure} {trend.direction} monotonically over {', '.join(trend.arms)}, "
                f"with intervals, on {len(holding)} of {worlds} worlds "
                f"(bar: {study.trend_worlds}){': ' * bool(holding)}{', '.join(holding)}",
                len(holding) >= (study.trend_worlds or 0),
            )
        )
    return verdicts


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.mean:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
