"""From a study to its runs: their settings and their order."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.api.training import training_config
from agent.assembly.build import describe, known_kinds
from agent.assembly.load import RunRequest, configure
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import ResolvedConfig, Slot, resolve, settings_of, suggestion
from agent.studies.measures import MEASURES
from agent.studies.study import OLD_FOLDERS, Arm, Study, StudyWorld, branch, plain
from modules.messages import ConfigError, WorldSpec
from worlds.make import world_spec


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: an arm in a world with a seed.

    `settings` are complete, or are merged over those of `agent`, a trained one.
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
        """The same as a user would request it."""
        return request_of(self.settings, self.plugins, self.agent)


def request_of(
    settings: ConfigTree,
    plugins: tuple[str, ...],
    agent: str | None = None,
    preset: str | None = None,
) -> RunRequest:
    """Settings with their world as a request: over a preset, or over a trained agent."""
    overrides = tuple(
        f"{name}={yaml.safe_dump(value, default_flow_style=True, width=10_000)}"
        for name, value in settings.items()
    )
    return RunRequest(agent=agent, preset=preset, plugins=plugins, overrides=overrides)


def settings_of_arm(
    study: Study, world: StudyWorld, arm: Arm, last: Mapping[str, Any]
) -> ConfigTree:
    """Settings of base, world and arm merged, then `last`, dotted: of a match or a tuning."""
    tree = merge(branch(study.base), branch(world.settings))
    # An arm that names a kind replaces that slot; the other slots stay.
    tree = merge(merge(tree, branch(arm.settings)), branch(last))
    tree = merge(tree, {"world": {**_place(world), "num_envs": world.num_envs}})
    if arm.interventions:
        tree["interventions"] = list(arm.interventions)
    return tree


def _place(world: StudyWorld) -> ConfigTree:
    """The world, and its protocol where the study sets one; else a trained agent has its own."""
    rules = {} if world.protocol is None else {"protocol": world.protocol}
    return {"id": world.id, **rules}


def stages(study: Study) -> list[list[tuple[str, str]]]:
    """Pairs (world, arm) in the order they must be run: matched arms last."""
    pairs = [(world.id, arm) for world in study.worlds for arm in study.arms]
    plain_arms = [pair for pair in pairs if study.arms[pair[1]].match is None]
    matched = [pair for pair in pairs if study.arms[pair[1]].match is not None]
    return [stage for stage in (plain_arms, matched) if stage]


def runs_of(
    study: Study,
    stage: Iterable[tuple[str, str]],
    settings: Mapping[tuple[str, str], Mapping[str, Any]],
    folder: Path,
) -> list[PlannedRun]:
    """The runs of a stage, seed by seed, so that an unfinished study already has pairs.

    `settings`: what matches and tunings add to (world, arm), dotted.
    """
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
                    study, study.world(world), study.arms[arm], settings.get((world, arm), {})
                ),
                {"seed": seed},
            ),
            plugins=study.plugins,
            agent=(
                study.world(world).agent
                if study.arms[arm].train is None
                else str(trained_folder(folder, world, arm, seed))
            ),
        )
        for seed in study.seeds
        for world, arm in ready
    ]


def matched(study: Study, arm: str, measures: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The setting that a matched arm takes from the other: its path → mean of the measure.

    `measures` are those of the other arm's runs in the same world.
    """
    match = study.arms[arm].match
    assert match is not None
    known = [run[match.measure] for run in measures if run.get(match.measure) is not None]
    if not known:
        raise ConfigError(
            f"study {study.name}: arms.{arm}.match.measure: {match.arm!r} has no "
            f"{match.measure!r} to match; choose another measure"
        )
    return {match.setting: statistics.fmean(known)}


def check(study: Study) -> None:
    """Raises ConfigError where a run of the study cannot be made or a measure does not exist.

    Opens each world once and builds no agent.
    """
    kinds = known_kinds(study.plugins)
    requested, known = {name for _, name in study.measures_named()}, set[str]()
    for place, world in enumerate(study.worlds):
        spec: WorldSpec | None = None
        for name, arm in study.arms.items():
            last = {} if arm.match is None else {arm.match.setting: 0.5}
            settings = settings_of_arm(study, world, arm, last)
            try:
                if arm.train is None:
                    tree = configure(request_of(settings, study.plugins, world.agent))[0]
                else:
                    tree = training_config(lesson_of(study, world, name, study.seeds[0]))
                # Interventions mean the same in every world: one check is enough.
                if spec is None or (arm.interventions and place == 0):
                    describe(tree, kinds)
                if spec is None:
                    spec = _spec_of(tree)
                config = resolve(tree, spec, kinds)
                if arm.tune is not None:
                    _require_weights(config.slots["configurator"])
                known |= _measures(config, spec, requested)
            except ConfigError as error:
                raise ConfigError(f"study {study.name}: arm {name!r}: {error}") from None
    for where, name in study.measures_named():
        if name not in MEASURES and name not in known:
            raise ConfigError(
                f"study {study.name}: {where}: {name!r} is measured nowhere; it is none of "
                f"{', '.join(sorted(known))}{suggestion(name, known)}"
            )


def _spec_of(tree: ConfigTree) -> WorldSpec:
    """The spec of the world of a configuration."""
    settings = settings_of(tree).world
    return world_spec(settings.id, settings.protocol)


def _require_weights(configurator: Slot) -> None:
    """Raises ConfigError where a configurator has no setting for tuned weights."""
    if "weights" not in type(configurator.settings).model_fields:
        raise ConfigError(
            f"config configurator.kind: {configurator.kind!r} cannot be tuned; use learned"
        )


def _measures(config: ResolvedConfig, world: WorldSpec, requested: set[str]) -> set[str]:
    """The measures of drives and signals that a run has, as far as they are `requested`."""
    # A plugin's cost without a setting for drives may have any.
    energies = {f"energy.{drive}" for drive in config.drives} or requested
    return energies | {f"signal.{name}" for name in world.signals}


def lesson_of(study: Study, world: StudyWorld, arm: str, seed: int) -> RunRequest:
    """The training that an arm's agent has before its run with `seed`."""
    lesson = study.arms[arm].train
    assert lesson is not None
    own = settings_of_arm(study, world, study.arms[arm], {})
    training: ConfigTree = {"training": {"steps": lesson.steps, "evaluate_every": 0}}
    settings = merge(merge(training, branch(lesson.settings)), own)
    settings = merge(settings, {"seed": lesson.seed + seed})
    # The number of environments is that of its runs; a training has that of its preset.
    settings = {**settings, "world": _place(world)}
    settings["world"] |= branch(lesson.settings).get("world", {})
    return request_of(settings, study.plugins, world.agent, lesson.preset)


def trained_folder(folder: Path, world: str, arm: str, seed: int) -> Path:
    """The folder of the training of an arm's agent for one seed."""
    return _lessons_in(folder, "trained") / f"{plain(world)}--{plain(arm)}--{seed}"


def tuned_folder(folder: Path, world: str, arm: str) -> Path:
    """The folder of the weights of a tuned arm."""
    return _lessons_in(folder, "tuned") / f"{plain(world)}--{plain(arm)}"


def _lessons_in(folder: Path, name: str) -> Path:
    old = folder / OLD_FOLDERS[name]
    return old if old.is_dir() else folder / name
