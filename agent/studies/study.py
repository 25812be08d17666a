"""A study as a typed YAML file: worlds × arms × seeds, measures, comparisons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.assembly.merge import ConfigTree, merge, read_yaml
from agent.recording.renames import SETTINGS, current_settings
from agent.studies.measures import MEASURES
from agent.tuning.evolution import Tuning
from modules.messages import ConfigError
from modules.suggest import not_one_of, suggestion
from modules.validation import validated

STUDIES = Path(__file__).parent / "catalog"
"""The studies of the package."""

OLD_KEYS = {"school": "train", "tutor": "tune", "rows": "num_envs"}
"""Keys of version 0.1 and their present names: refused in a study file, read in a study folder."""

OLD_FOLDERS = {"trained": "schooled", "tuned": "tutored"}
"""Folders of version 0.1, which a study begun by it goes on using."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyWorld(_Part):
    """A world of a study. `steps` cuts every episode; `settings` hold in this world alone.

    `agent`: a trained agent that plays there, a bundled one or a run folder; None: a fresh one.
    `price`: return subtracted for each model call where an arm is tuned; None: that of the arm.
    """

    id: str
    agent: str | None = None
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    protocol: str | None = None
    num_envs: int = Field(default=1, ge=1, le=256)
    steps: int = Field(default=500, ge=1, le=1_000_000)
    settings: dict[str, Any] = Field(default_factory=dict)


class Matching(_Part):
    """Sets `setting`, a dotted path, to the mean `measure` of another arm in the same world.

    The matched arm runs after the other.
    """

    arm: str
    measure: str
    setting: str


class ArmTuning(Tuning):
    """The arm's learned configurator is tuned first, in each world."""

    generations: int = Field(default=8, ge=1)


class ArmTraining(_Part):
    """The arm's agent is trained first, anew for each seed in each world.

    With the arm's own settings over `preset` (None: the usual one for such a world) and
    `settings`. Its seed is `seed` plus that of the run, so that no training shares an episode with
    a run.
    """

    steps: int = Field(ge=1)
    preset: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=1_000_000, ge=0, lt=2**30)


class Arm(_Part):
    """Settings over those of the study and the world; `interventions` as with `--intervene`.

    `worlds`: those in which the arm runs; empty: all. `agent_of`: an arm whose agent, trained for
    the same seed, plays here; settings and interventions of this arm did not hold in its training.
    """

    about: str = ""
    worlds: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    interventions: tuple[str, ...] = ()
    match: Matching | None = None
    tune: ArmTuning | None = None
    train: ArmTraining | None = None
    agent_of: str | None = None


class Contrast(_Part):
    """Each of `arms` less `against`, paired by seed, in each world and over all worlds.

    `expect`: the bar, an interval of the difference wholly above or below zero.
    """

    arms: tuple[str, ...] = Field(min_length=1)
    against: str
    measure: str = "return"
    expect: Literal["above", "below"] | None = None


class Gap(_Part):
    """The fraction of the difference `high` − `low` that each other arm reaches, and the fraction
    of `high`'s model calls that it takes.

    Counts the worlds where `high` is significantly above `low`. `arms` maps each arm to its
    control. The bar: some arm keeps at least `keep` with at most `calls` of `high`'s model calls
    and beats its control, on at least `worlds` worlds; None: no bar.
    """

    low: str
    high: str
    measure: str = "return"
    arms: dict[str, str]
    keep: float | None = None
    calls: float = 1.0
    worlds: int = 1


class Trend(_Part):
    """A measure that is expected to rise or fall from arm to arm, in this order."""

    measure: str
    arms: tuple[str, ...] = Field(min_length=2)
    direction: Literal["rises", "falls"]


class Quick(_Part):
    """Smaller settings, with which a study shows how it works and not what is true."""

    worlds: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    steps: int = Field(default=20, ge=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    tune: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)


class Study(_Part):
    """A question, and the experiment that answers it.

    `base` are the settings of every run. Each of `arms` runs in each world with each seed; a seed
    draws the same random numbers of the world in every arm. `measures` are those of the report;
    results hold all. `curves`: arms whose probability of Mode-2 is drawn against surprise,
    disagreement and energy. `energies`: arms whose energies are drawn over time. `distances`: pairs
    of arms whose behaviour is compared. `trace`: records whole traces, to view and fork.
    `trend_worlds`: the bar, on how many worlds each trend must hold; None: no bar.
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
        _tell_apart("worlds", [world.id for world in self.worlds])
        _tell_apart("arms", self.arms)
        for name, arm in self.arms.items():
            if arm.tune is not None and arm.train is not None:
                raise ValueError(
                    f"arms.{name}: has tune and train, and would be tuned before it is trained; "
                    "leave one out"
                )
            if arm.agent_of is not None and (arm.tune is not None or arm.train is not None):
                raise ValueError(f"arms.{name}: has agent_of, and tune or train; leave one out")
            if arm.agent_of is not None and self.arms[arm.agent_of].train is None:
                raise ValueError(
                    f"arms.{name}.agent_of: {arm.agent_of!r} has no training; name one with train"
                )
            if arm.match is not None and self.arms[arm.match.arm].match is not None:
                raise ValueError(
                    f"arms.{name}.match.arm: {arm.match.arm!r} is matched itself; name a plain arm"
                )
            if arm.tune is not None and (shared := [*filter(arm.tune.uses, self.seeds)]):
                raise ValueError(
                    f"arms.{name}.tune.seed: from {arm.tune.seed} on it uses seed {shared[0]}, "
                    "which is a seed of the study; begin elsewhere"
                )
            if arm.train is not None and arm.train.seed <= max(self.seeds) - min(self.seeds):
                raise ValueError(
                    f"arms.{name}.train.seed: from {arm.train.seed} on it uses seeds of the study; "
                    "begin elsewhere"
                )
        return self

    def _arms_named(self) -> Iterator[tuple[str, str]]:
        gap, matches = self.gap, self._matches()
        named: list[tuple[str, Iterable[str]]] = [
            *((f"comparisons.{i}", (*c.arms, c.against)) for i, c in enumerate(self.comparisons)),
            ("gap", () if gap is None else (gap.low, gap.high, *gap.arms, *gap.arms.values())),
            *((f"trends.{i}.arms", trend.arms) for i, trend in enumerate(self.trends)),
            *((f"distances.{i}", pair) for i, pair in enumerate(self.distances)),
            ("curves", self.curves),
            ("energies", self.energies),
            *((f"{where}.arm", (match.arm,)) for where, match in matches),
            *(
                (f"arms.{name}.agent_of", (arm.agent_of,))
                for name, arm in self.arms.items()
                if arm.agent_of is not None
            ),
        ]
        yield from ((where, arm) for where, arms in named for arm in arms)

    def _matches(self) -> list[tuple[str, Matching]]:
        arms = self.arms.items()
        return [(f"arms.{name}.match", arm.match) for name, arm in arms if arm.match is not None]

    def measures_named(self) -> Iterator[tuple[str, str]]:
        """Each measure that the study names: where, and its name."""
        yield from (("measures", name) for name in self.measures)
        yield from ((f"comparisons.{i}.measure", c.measure) for i, c in enumerate(self.comparisons))
        yield from (("gap.measure", gap.measure) for gap in (self.gap,) if gap is not None)
        yield from ((f"trends.{i}.measure", t.measure) for i, t in enumerate(self.trends))
        yield from ((f"{where}.measure", match.measure) for where, match in self._matches())

    def runs_in(self, world: str, *arms: str) -> bool:
        """Whether all of these arms run in the world."""
        return all(not self.arms[arm].worlds or world in self.arms[arm].worlds for arm in arms)

    def trainer(self, arm: str) -> str | None:
        """The arm whose training an arm's agent has: itself, `agent_of`, or None."""
        return arm if self.arms[arm].train is not None else self.arms[arm].agent_of

    def pairs(self) -> list[tuple[StudyWorld, str]]:
        """Each world with each arm that runs in it."""
        return [(w, arm) for w in self.worlds for arm in self.arms if self.runs_in(w.id, arm)]

    def world(self, name: str) -> StudyWorld:
        """The world of that id. Raises ConfigError where there is none."""
        known = {world.id: world for world in self.worlds}
        if name not in known:
            raise ConfigError(
                f"study {self.name}: world {name!r} is not one of {', '.join(known)}"
                f"{suggestion(name, known)}"
            )
        return known[name]


def plain(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower()


def _tell_apart(where: str, names: Iterable[str]) -> None:
    """Raises ValueError where a name has no folder name of its own."""
    known: dict[str, str] = {}
    for name in names:
        if not plain(name):
            raise ValueError(
                f"{where}: {name!r} has nothing of a-z, 0-9 for a folder's name; add it"
            )
        if other := known.get(plain(name)):
            raise ValueError(
                f"{where}: {other!r} and {name!r} would share the folder {plain(name)!r}; "
                "rename one or leave it out"
            )
        known[plain(name)] = name


def shipped() -> tuple[str, ...]:
    """The names of the studies of the package."""
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
    study = study_of(read_yaml(path), str(name))
    for arm, settings in study.arms.items():
        for world in settings.worlds:
            if world not in (known := [one.id for one in study.worlds]):
                raise ConfigError(f"study {name}: arms.{arm}.worlds: {not_one_of(world, known)}")
    for at, arm in study.pairs():
        if (trainer := study.trainer(arm)) is not None and not study.runs_in(at.id, trainer):
            raise ConfigError(
                f"study {name}: arms.{arm}.agent_of: {trainer!r} is not trained in {at.id}; set "
                f"arms.{arm}.worlds"
            )
    return study


def study_of(tree: Mapping[str, Any], where: str) -> Study:
    """The study of a tree. Raises ConfigError: where, what is wrong, what to try."""
    renamed = {f"*.{old}": new for old, new in OLD_KEYS.items()}
    return validated(Study, tree, f"study {where}: ", renamed=renamed)


def present_names(part: Any) -> Any:
    """A study's tree, or a part of it, with the keys and settings of version 0.1 renamed."""
    if isinstance(part, list):
        return [present_names(item) for item in part]
    if not isinstance(part, Mapping):
        return part
    present = {}
    for key, value in part.items():
        if key == "arms" and isinstance(value, Mapping):  # their names are no keys of ours
            value = {name: present_names(arm) for name, arm in value.items()}
        elif key in ("settings", "base") and isinstance(value, Mapping):
            tree = branch(value)
            value = value if (now := current_settings(tree)) == tree else now
        elif key == "setting":
            value = SETTINGS.get(str(value), value)
        else:
            value = present_names(value)
        present[OLD_KEYS.get(key, key)] = value
    return present


def branch(settings: Mapping[str, Any]) -> ConfigTree:
    """Settings whose keys may be dotted, as a tree: `{configurator.mode: 1}` is nested."""
    tree: ConfigTree = {}
    for path, value in settings.items():
        names = path.split(".")
        part: Any = branch(value) if isinstance(value, Mapping) else value
        for name in reversed(names):
            part = {name: part}
        tree = merge(tree, part)
    return tree


def quick(study: Study) -> Study:
    """The study made small: fewer worlds and seeds, short episodes, cheap settings.

    Raises ConfigError where `quick` of the study names a world or a key that is not known.
    """
    small, tree = study.quick, study.model_dump(mode="json")
    worlds = [study.world(name) for name in small.worlds] or study.worlds[:1]
    tree |= {
        "worlds": [{**dict(world), "steps": min(small.steps, world.steps)} for world in worlds],
        "seeds": small.seeds,
        "base": merge(branch(study.base), branch(small.settings)),
        "method": f"Made small: shows how the study works, not what is true. {study.method}",
        "trend_worlds": None,
    }
    # So few runs can neither meet a bar nor miss it.
    for contrast in tree["comparisons"]:
        contrast["expect"] = None
    if tree["gap"] is not None:
        tree["gap"]["keep"] = None
    for arm in tree["arms"].values():
        for part, less in (("tune", small.tune), ("train", small.train)):
            if arm[part] is not None:
                arm[part] = merge(arm[part], branch(less))
    return study_of(tree, f"{study.name} made quick")


def chosen(study: Study, seeds: tuple[int, ...] | None, worlds: tuple[str, ...] | None) -> Study:
    """The study with other seeds, or in other worlds; a new world has the first world's cap.

    `quick` keeps both. Raises ConfigError where the parts of the study no longer agree.
    """
    tree = study.model_dump(mode="json")
    if seeds is not None:
        tree["seeds"] = tree["quick"]["seeds"] = seeds
    if worlds is not None:
        known = {world["id"]: world for world in tree["worlds"]}
        steps = study.worlds[0].steps
        tree["worlds"] = [known.get(name, {"id": name, "steps": steps}) for name in worlds]
        tree["quick"]["worlds"] = worlds
    return study_of(tree, study.name)
