"""From a study to its runs: which there are, with which settings, and in which order."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.assembly.build import describe, known_kinds
from agent.assembly.load import RunRequest, configure
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import ResolvedConfig, Slot, resolve, settings_of, suggestion
from agent.commands.train import for_training
from agent.studies.measures import MEASURES
from agent.studies.study import Arm, Study, StudyWorld, branch, plain
from modules.cost.drives import drives_in
from modules.messages import ConfigError, WorldSpec
from worlds.make import make_world


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: an arm in a world with a seed.

    `settings` are complete, or stand above those of `agent`, a trained one.
    """

    world: str
    arm: str
    seed: int
    steps: int
    trace: bool
    settings: ConfigTree
    plugins: tuple[str, ...]
    agent: str | None = None

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{plain(self.world)}--{plain(self.arm)}--{self.seed}"

    def request(self) -> RunRequest:
        """The same as a user would ask for it."""
        return request_of(self.settings, self.plugins, self.agent)


def request_of(
    settings: ConfigTree,
    plugins: tuple[str, ...],
    agent: str | None = None,
    preset: str | None = None,
) -> RunRequest:
    """Settings, world included, as a request: over a preset's, or those of a trained agent."""
    overrides = tuple(
        f"{name}={yaml.safe_dump(value, default_flow_style=True, width=10_000)}"
        for name, value in settings.items()
    )
    return RunRequest(agent=agent, preset=preset, plugins=plugins, overrides=overrides)


def settings_of_arm(
    study: Study, world: StudyWorld, arm: Arm, given: Mapping[str, Any]
) -> ConfigTree:
    """Base, then world, then arm, then what was `given` by a match or a tutor, dotted."""
    tree = merge(branch(study.base), branch(world.settings))
    # An arm that names a kind says all of that slot; what it does not name stays as it was.
    tree = merge(merge(tree, branch(arm.settings)), branch(given))
    tree = merge(tree, {"world": {**_place(world), "num_envs": world.rows}})
    if arm.interventions:
        tree["interventions"] = list(arm.interventions)
    return tree


def _place(world: StudyWorld) -> ConfigTree:
    """Which world it is; under which rules where the study says so, else a trained agent's own."""
    rules = {} if world.protocol is None else {"protocol": world.protocol}
    return {"id": world.id, **rules}


def stages(study: Study) -> list[list[tuple[str, str]]]:
    """The arms in each world, (world, arm), in the order they must be run: matched ones last."""
    pairs = [(world.id, arm) for world in study.worlds for arm in study.arms]
    plain_arms = [pair for pair in pairs if study.arms[pair[1]].match is None]
    matched = [pair for pair in pairs if study.arms[pair[1]].match is not None]
    return [stage for stage in (plain_arms, matched) if stage]


def runs_of(
    study: Study,
    stage: Iterable[tuple[str, str]],
    given: Mapping[tuple[str, str], Mapping[str, Any]],
    folder: Path,
) -> list[PlannedRun]:
    """The runs of a stage, seed by seed, so that what is done early is paired already."""
    ready = list(stage)
    return [
        PlannedRun(
            world=world,
            arm=arm,
            seed=seed,
            steps=study.world(world).steps,
            trace=study.trace,
            settings=merge(
                settings_of_arm(
                    study, study.world(world), study.arms[arm], given.get((world, arm), {})
                ),
                {"seed": seed},
            ),
            plugins=study.plugins,
            agent=(
                study.world(world).agent
                if study.arms[arm].school is None
                else str(schooled_folder(folder, world, arm, seed))
            ),
        )
        for seed in study.seeds
        for world, arm in ready
    ]


def matched(study: Study, arm: str, found: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What an arm is given by the one it is matched with: setting → mean of its measure.

    `found` are the measures of that arm's runs in the same world.
    """
    match = study.arms[arm].match
    assert match is not None
    known = [run[match.measure] for run in found if run.get(match.measure) is not None]
    if not known:
        raise ConfigError(
            f"study {study.name}: arms.{arm}.match.measure: {match.arm!r} has no "
            f"{match.measure!r} to match; choose another measure"
        )
    return {match.setting: statistics.fmean(known)}


def check(study: Study) -> None:
    """Raises ConfigError where a run of the study could not be made; nothing is built but a
    glance at each world.
    """
    kinds = known_kinds(study.plugins)
    asked, felt = {name for _, name in study.measures_named()}, set[str]()
    for place, world in enumerate(study.worlds):
        glance: WorldSpec | None = None
        for name, arm in study.arms.items():
            given = {} if arm.match is None else {arm.match.setting: 0.5}
            settings = settings_of_arm(study, world, arm, given)
            try:
                if arm.school is None:
                    tree = configure(request_of(settings, study.plugins, world.agent))[0]
                else:
                    tree = for_training(lesson_of(study, world, name, study.seeds[0]))
                # Interventions are read alike in every world: one look is enough.
                if glance is None or (arm.interventions and place == 0):
                    describe(tree, kinds)
                if glance is None:
                    glance = _glance(tree)
                config = resolve(tree, glance, kinds)
                if arm.tutor is not None:
                    _teachable(config.slots["configurator"])
                felt |= _felt(config, glance, asked)
            except ConfigError as error:
                raise ConfigError(f"study {study.name}: arm {name!r}: {error}") from None
    for where, name in study.measures_named():
        if name not in MEASURES and name not in felt:
            raise ConfigError(
                f"study {study.name}: {where}: {name!r} is measured nowhere; it is none of "
                f"{', '.join(sorted(felt))}{suggestion(name, felt)}"
            )


def _glance(tree: ConfigTree) -> WorldSpec:
    """What the world of a configuration shows and accepts."""
    wanted = settings_of(tree).world
    made = make_world(wanted.id, protocol=wanted.protocol)
    try:
        return made.spec
    finally:
        made.close()


def _teachable(configurator: Slot) -> None:
    """Raises ConfigError where there are no weights to be given."""
    if "weights" not in type(configurator.settings).model_fields:
        raise ConfigError(
            f"config configurator.kind: {configurator.kind!r} cannot be tutored; use learned"
        )


def _felt(config: ResolvedConfig, world: WorldSpec, asked: set[str]) -> set[str]:
    """The measures of drives and signals that a run has; `asked` are those that matter."""
    wanted = getattr(config.slots["cost"].settings, "drives", None)
    # A plugin's cost that is not told its drives may have any.
    energies = asked if wanted is None else {f"energy.{d}" for d in drives_in(world, wanted)}
    return energies | {f"signal.{name}" for name in world.signals}


def lesson_of(study: Study, world: StudyWorld, arm: str, seed: int) -> RunRequest:
    """The training that an arm's agent has before it is judged with `seed`."""
    school = study.arms[arm].school
    assert school is not None
    own = settings_of_arm(study, world, study.arms[arm], {})
    training: ConfigTree = {"training": {"steps": school.steps, "evaluate_every": 0}}
    settings = merge(merge(training, branch(school.settings)), own)
    settings = merge(settings, {"seed": school.seed + seed})
    # Rows are for the judging; a training has as many as its preset says.
    settings = {**settings, "world": _place(world)}
    settings["world"] |= branch(school.settings).get("world", {})
    return request_of(settings, study.plugins, world.agent, school.preset)


def schooled_folder(folder: Path, world: str, arm: str, seed: int) -> Path:
    """Where the training of an arm's agent for one seed is kept."""
    return folder / "schooled" / f"{plain(world)}--{plain(arm)}--{seed}"


def tutored_folder(folder: Path, world: str, arm: str) -> Path:
    """Where the weights of a tutored arm are kept."""
    return folder / "tutored" / f"{plain(world)}--{plain(arm)}"
