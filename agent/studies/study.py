"""A study as a small typed file: worlds × arms × seeds, what is measured, what is compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.assembly.merge import ConfigTree, merge, read_yaml
from agent.assembly.resolve import suggestion
from agent.studies.measures import MEASURES
from agent.tuning.evolution import HELD_OUT, JUDGED_IN
from modules.messages import ConfigError
from modules.validation import validated

STUDIES = Path(__file__).parent / "catalog"
"""The studies that come with the package."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyWorld(_Part):
    """A world of a study. `steps` cuts every episode; `settings` hold in this world alone.

    `agent`: a trained agent that plays there, a bundled one or a run folder; None: a fresh one.
    `price`: what a model call costs in this world's points where an arm is tutored; None: as the
    arm says.
    """

    id: str
    agent: str | None = None
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    protocol: str | None = None
    rows: int = Field(default=1, ge=1, le=256)
    steps: int = Field(default=500, ge=1, le=1_000_000)
    settings: dict[str, Any] = Field(default_factory=dict)


class Matching(_Part):
    """The arm is given what another did: the mean of its `measure` in the same world.

    `setting` is where that number goes, a dotted path. The arm runs after the other.
    """

    arm: str
    measure: str
    setting: str


class Tutoring(_Part):
    """The arm's configurator is trained first, in each world (`agent.tuning.evolution`).

    `price`: return given up per model call. `population`: even, candidates come in mirrored pairs.
    `seed`: where the seeds of its episodes begin.
    """

    price: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    generations: int = Field(default=8, ge=1)
    population: int = Field(default=8, ge=2, multiple_of=2)
    episodes: int = Field(default=2, ge=1)
    steps: int = Field(default=200, ge=2)
    seed: int = Field(default=1_000_000, ge=0, lt=2**31)

    def sees(self, seed: int) -> bool:
        """Whether a seed teaches, as one does in each generation, or judges what it was taught."""
        since = seed - self.seed
        return 1 <= since <= self.generations or HELD_OUT <= since < HELD_OUT + JUDGED_IN


class Schooling(_Part):
    """The arm's agent learns first, a whole training for each seed in each world.

    With the arm's own settings over `preset` (None: the usual one for such a world) and
    `settings`. Its seed is `seed` plus that of the run, so that no training sees the luck that
    the arm is judged by.
    """

    steps: int = Field(ge=1)
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=1_000_000, ge=0, lt=2**30)


class Arm(_Part):
    """One way of doing it: settings over those of the study and the world.

    `interventions` are laid around the configurator, as with `--intervene`.
    """

    about: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    interventions: tuple[str, ...] = ()
    match: Matching | None = None
    tutor: Tutoring | None = None
    school: Schooling | None = None


class Contrast(_Part):
    """Arms each against another, in pairs of the same seed, world by world and over worlds.

    `expect`: the bar, an interval of the difference wholly above or below zero.
    """

    arms: tuple[str, ...] = Field(min_length=1)
    against: str
    measure: str = "return"
    expect: Literal["above", "below"] | None = None


class Gap(_Part):
    """How much of the way from one arm to another the others keep, and for how many model calls.

    Counts the worlds where `high` is above `low` significantly. `arms` maps each arm asked about
    to its control. The bar: some arm keeps at least `keep` with at most `calls` of `high`'s model
    calls and beats its control, on at least `worlds` worlds; None: no bar.
    """

    low: str
    high: str
    measure: str = "return"
    arms: dict[str, str]
    keep: float | None = None
    calls: float = 1.0
    worlds: int = 1


class Trend(_Part):
    """A measure that is to rise or fall from arm to arm, in this order."""

    measure: str
    arms: tuple[str, ...] = Field(min_length=2)
    direction: Literal["rises", "falls"]


class Quick(_Part):
    """What is smaller when there is little time; says how it works, not what is true."""

    worlds: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    steps: int = Field(default=20, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    tutor: dict[str, Any] = Field(default_factory=dict)
    school: dict[str, Any] = Field(default_factory=dict)


class Study(_Part):
    """What is asked, of whom, how often, and what would answer it.

    `base` are the settings of every run; `arms` the ways compared; each runs in each world with
    each seed, and the same seed means the same luck of the world in every arm. `measures` are
    shown in the report, all are kept. `curves`: arms whose probability of Mode-2 is drawn against
    surprise, disagreement and energy. `energies`: arms whose energies are drawn over time.
    `distances`: pairs of arms whose behaviour is held against each other. `trace`: whole traces
    are kept, to look at and fork from. `trend_worlds`: the bar, on how many worlds each trend must
    hold; None: no bar.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    question: str
    method: str = ""
    worlds: tuple[StudyWorld, ...] = Field(min_length=1)
    base: dict[str, Any] = Field(default_factory=dict)
    arms: dict[str, Arm] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    measures: tuple[str, ...] = ("return", "model_calls", "mode2_share")
    comparisons: tuple[Contrast, ...] = ()
    gap: Gap | None = None
    trends: tuple[Trend, ...] = ()
    trend_worlds: int | None = Field(default=1, ge=1)
    distances: tuple[tuple[str, str], ...] = ()
    curves: tuple[str, ...] = ()
    energies: tuple[str, ...] = ()
    trace: bool = False
    plugins: tuple[str, ...] = ()
    quick: Quick = Quick()

    @model_validator(mode="after")
    def _agree(self) -> Study:
        for where, name in self._arms_named():
            if name not in self.arms:
                raise ValueError(
                    f"{where}: {name!r} is not one of the arms {', '.join(self.arms)}"
                    f"{suggestion(name, self.arms)}"
                )
        for where, name in self.measures_named():
            if name not in MEASURES and not name.startswith(("energy.", "signal.")):
                raise ValueError(
                    f"{where}: {name!r} is not one of {', '.join(MEASURES)}, energy.DRIVE, "
                    f"signal.NAME{suggestion(name, MEASURES)}"
                )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is there twice; each makes one pair")
        ids = [world.id for world in self.worlds]
        if len(set(ids)) < len(ids):
            raise ValueError("worlds: one is there twice; name each once")
        _tell_apart("worlds", ids)
        _tell_apart("arms", self.arms)
        for name, arm in self.arms.items():
            if arm.tutor is not None and arm.school is not None:
                raise ValueError(
                    f"arms.{name}: has tutor and school, and would be tutored before it is "
                    "schooled; leave one out"
                )
            if arm.match is not None and self.arms[arm.match.arm].match is not None:
                raise ValueError(
                    f"arms.{name}.match.arm: {arm.match.arm!r} is matched itself; name a plain arm"
                )
            if arm.tutor is not None and (seen := [*filter(arm.tutor.sees, self.seeds)]):
                raise ValueError(
                    f"arms.{name}.tutor.seed: from {arm.tutor.seed} on it sees seed {seen[0]}, "
                    "which the arms are judged by; begin elsewhere"
                )
            if arm.school is not None and arm.school.seed <= max(self.seeds) - min(self.seeds):
                raise ValueError(
                    f"arms.{name}.school.seed: from {arm.school.seed} on it would see seeds the "
                    "arms are judged by; begin elsewhere"
                )
        return self

    def _arms_named(self) -> Iterator[tuple[str, str]]:
        for i, contrast in enumerate(self.comparisons):
            for name in (*contrast.arms, contrast.against):
                yield f"comparisons.{i}", name
        if self.gap is not None:
            for name in (self.gap.low, self.gap.high, *self.gap.arms, *self.gap.arms.values()):
                yield "gap", name
        for i, trend in enumerate(self.trends):
            for name in trend.arms:
                yield f"trends.{i}.arms", name
        for i, pair in enumerate(self.distances):
            for name in pair:
                yield f"distances.{i}", name
        for field in ("curves", "energies"):
            for name in getattr(self, field):
                yield field, name
        for name, arm in self.arms.items():
            if arm.match is not None:
                yield f"arms.{name}.match.arm", arm.match.arm

    def measures_named(self) -> Iterator[tuple[str, str]]:
        """Every measure that is asked for: where, and its name."""
        for name in self.measures:
            yield "measures", name
        for i, contrast in enumerate(self.comparisons):
            yield f"comparisons.{i}.measure", contrast.measure
        if self.gap is not None:
            yield "gap.measure", self.gap.measure
        for i, trend in enumerate(self.trends):
            yield f"trends.{i}.measure", trend.measure
        for name, arm in self.arms.items():
            if arm.match is not None:
                yield f"arms.{name}.match.measure", arm.match.measure

    def world(self, name: str) -> StudyWorld:
        """The world of that id."""
        return next(world for world in self.worlds if world.id == name)


def plain(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower()


def _tell_apart(where: str, names: Iterable[str]) -> None:
    """Raises ValueError where two names, or one, would not do as the names of folders."""
    known: dict[str, str] = {}
    for name in names:
        if not plain(name):
            raise ValueError(
                f"{where}: {name!r} has nothing of a-z, 0-9 for a folder's name; add it"
            )
        if (other := known.setdefault(plain(name), name)) != name:
            raise ValueError(
                f"{where}: {other!r} and {name!r} would share the folder {plain(name)!r}; "
                "rename one"
            )


def shipped() -> tuple[str, ...]:
    """The names of the studies that come with the package."""
    return tuple(sorted(path.stem for path in STUDIES.glob("*.yaml")))


def read_study(name: str | Path) -> Study:
    """The study of a shipped name or in a file. Raises ConfigError, one line."""
    path = Path(name)
    if str(name) in shipped():
        path = STUDIES / f"{name}.yaml"
    elif not path.is_file():
        raise ConfigError(
            f"study: {str(name)!r} is neither a file nor one of {', '.join(shipped())}"
            f"{suggestion(name, shipped())}"
        )
    return study_of(read_yaml(path), str(name))


def study_of(tree: Mapping[str, Any], where: str) -> Study:
    """The study a tree describes. Raises ConfigError: where, what is wrong, what was meant."""
    return validated(Study, tree, f"study {where}: ")


def branch(settings: Mapping[str, Any]) -> ConfigTree:
    """Settings whose keys may be dotted, as a tree: `{configurator.mode: 1}` is nested."""
    tree: ConfigTree = {}
    for path, value in settings.items():
        names = path.split(".")
        made: Any = branch(value) if isinstance(value, Mapping) else value
        for name in reversed(names):
            made = {name: made}
        tree = merge(tree, made)
    return tree


def quick(study: Study) -> Study:
    """The study made small: fewer worlds and seeds, short episodes, cheap settings.

    Raises ConfigError where `quick` of the study says what its parts do not know.
    """
    small = study.quick
    chosen = small.worlds or (study.worlds[0].id,)
    for name in chosen:
        if name not in [world.id for world in study.worlds]:
            raise ConfigError(
                f"study {study.name}: quick.worlds: {name!r} is not one of its worlds"
                f"{suggestion(name, [world.id for world in study.worlds])}"
            )
    worlds = tuple(
        study.world(name).model_copy(update={"steps": min(small.steps, study.world(name).steps)})
        for name in chosen
    )
    made = study.model_copy(
        update={
            "worlds": worlds,
            "seeds": small.seeds,
            "base": merge(branch(study.base), branch(small.settings)),
            "method": f"Made small: shows how the study works, not what is true. {study.method}",
            # So little can neither meet a bar nor miss it.
            "gap": None if study.gap is None else study.gap.model_copy(update={"keep": None}),
            "trend_worlds": None,
            "comparisons": tuple(
                contrast.model_copy(update={"expect": None}) for contrast in study.comparisons
            ),
        }
    )
    tree = made.model_dump(mode="json")
    for arm in tree["arms"].values():
        for part, less in (("tutor", small.tutor), ("school", small.school)):
            if arm[part] is not None:
                arm[part] = merge(arm[part], branch(less))
    return study_of(tree, f"{study.name} made quick")


def chosen(study: Study, seeds: tuple[int, ...] | None, worlds: tuple[str, ...] | None) -> Study:
    """The study with other seeds, or in other worlds; one it does not know has the first's cap.

    What is chosen stays where the study is then made `quick`. Raises ConfigError where its parts
    no longer agree.
    """
    changes: dict[str, Any] = {}
    small = study.quick
    if seeds is not None:
        changes["seeds"] = seeds
        small = small.model_copy(update={"seeds": seeds})
    if worlds is not None:
        known = {world.id: world for world in study.worlds}
        changes["worlds"] = tuple(
            known.get(name) or StudyWorld(id=name, steps=study.worlds[0].steps) for name in worlds
        )
        small = small.model_copy(update={"worlds": worlds})
    if not changes:
        return study
    tree = study.model_copy(update={**changes, "quick": small}).model_dump(mode="json")
    return study_of(tree, study.name)
