"""From a study to its runs: their settings and their order."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent.api.training import training_config
from agent.assembly.build import describe, known_kinds, spec_of
from agent.assembly.load import RunRequest, configure
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import ResolvedConfig, Slot, reading_of, resolve
from agent.studies.measures import MEASURES
from agent.studies.study import OLD_FOLDERS, Study, StudyWorld, branch, plain
from agent.tuning.evolution import Tuning
from modules.messages import ConfigError, WorldSpec
from modules.suggest import suggestion
from worlds.protocols import Reading


def run_name(world: str, arm: str, seed: int) -> str:
    """The name of the folder of a run."""
    return f"{plain(world)}--{plain(arm)}--{seed}"


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
        return run_name(self.world, self.arm, self.seed)

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
    study: Study, world: StudyWorld, arm: str, last: Mapping[str, Any]
) -> ConfigTree:
    """Settings of base, world and arm merged, then `last`, dotted: of a match or a tuning."""
    own = study.arms[arm]
    tree = merge(branch(study.base), branch(world.settings))
    # An arm that names a kind replaces that slot; the other slots stay.
    tree = merge(merge(tree, branch(own.settings)), branch(last))
    tree = merge(tree, {"world": {**_place(world), "num_envs": world.num_envs}})
    if own.interventions:
        tree["interventions"] = list(own.interventions)
    return tree


def _place(world: StudyWorld) -> ConfigTree:
    """The world, and its protocol where the study sets one; else a trained agent has its own."""
    rules = {} if world.protocol is None else {"protocol": world.protocol}
    return {"id": world.id, **rules}


def stages(study: Study) -> list[list[tuple[str, str]]]:
    """Pairs (world, arm) in the order they must be run: matched arms last."""
    stages: list[list[tuple[str, str]]] = [[], []]
    for world, arm in study.pairs():
        stages[study.arms[arm].match is not None].append((world.id, arm))
    return stages


def runs_of(
    study: Study,
    stage: Iterable[tuple[str, str]],
    matches: Mapping[tuple[str, str], Mapping[str, Any]],
    folder: Path,
) -> list[PlannedRun]:
    """The runs of a stage, seed by seed, so that an unfinished study already has pairs.

    `matches`: the setting that a match adds to (world, arm). Tuned and trained arms take weights
    and agents from `folder`.
    """
    runs = []
    for seed, (name, arm) in itertools.product(study.seeds, stage):
        world, agent = study.world(name), study.world(name).agent
        last = dict(matches.get((name, arm), {}))
        if study.arms[arm].tune is not None:
            last["configurator.weights"] = str(tuned_folder(folder, name, arm))
        if (trainer := study.trainer(arm)) is not None:
            agent = str(trained_folder(folder, name, trainer, seed))
        settings = merge(settings_of_arm(study, world, arm, last), {"seed": seed})
        runs.append(
            PlannedRun(name, arm, seed, world.steps, study.trace, settings, study.plugins, agent)
        )
    return runs


def matched(
    study: Study, world: str, arm: str, results: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The setting that a matched arm takes from the other: its path → mean of the measure.

    Of the other arm's runs in the same world among `results`.
    """
    match = study.arms[arm].match
    assert match is not None
    values = [
        run["measures"].get(match.measure)
        for run in results
        if (run["world"], run["arm"]) == (world, match.arm) and run["seed"] in study.seeds
    ]
    known = [value for value in values if value is not None]
    if not known:
        raise ConfigError(
            f"study {study.name}: arms.{arm}.match.measure: {match.arm!r} has no "
            f"{match.measure!r} to match; choose another measure"
        )
    return {match.setting: statistics.fmean(known)}


def check(study: Study) -> None:
    """Raises ConfigError where a run of the study cannot be made or a measure does not exist.

    Opens each world once for each reading of its observations, and builds no agent.
    """
    kinds = known_kinds(study.plugins)
    requested, known = {name for _, name in study.measures_named()}, set[str]()
    for place, world in enumerate(study.worlds):
        specs = dict[Reading | None, WorldSpec]()
        for name in (arm for at, arm in study.pairs() if at is world):
            arm = study.arms[name]
            last = {} if arm.match is None else {arm.match.setting: 0.5}
            settings = settings_of_arm(study, world, name, last)
            try:
                if (trainer := study.trainer(name)) is None:
                    tree = configure(request_of(settings, study.plugins, world.agent))[0]
                else:
                    tree = training_config(training_of(study, world, trainer, study.seeds[0]))
                    tree = merge(tree, settings if trainer != name else {})
                # Interventions mean the same in every world: one check is enough.
                reading = reading_of(tree, kinds)
                if reading not in specs or (arm.interventions and place == 0):
                    describe(tree, kinds)
                if reading not in specs:
                    specs[reading] = spec_of(tree, kinds)
                spec = specs[reading]
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


def training_of(study: Study, world: StudyWorld, arm: str, seed: int) -> RunRequest:
    """The training that an arm's agent has before its run with `seed`."""
    train = study.arms[arm].train
    assert train is not None
    training: ConfigTree = {"training": {"steps": train.steps, "evaluate_every": 0}}
    settings = merge(training, branch(train.settings))
    settings = merge(settings, settings_of_arm(study, world, arm, {}))
    settings = merge(settings, {"seed": train.seed + seed})
    # The number of environments is that of its runs; a training has that of its preset.
    settings = {**settings, "world": _place(world)}
    settings["world"] |= branch(train.settings).get("world", {})
    return request_of(settings, study.plugins, world.agent, train.preset)


def tuning_of(study: Study, world: StudyWorld, arm: str) -> tuple[RunRequest, Tuning]:
    """The tuning that an arm's configurator has before its runs in a world."""
    tuning = study.arms[arm].tune
    assert tuning is not None
    if world.price is not None:
        tuning = tuning.model_copy(update={"price": world.price})
    return request_of(settings_of_arm(study, world, arm, {}), study.plugins, world.agent), tuning


def trained_folder(folder: Path, world: str, arm: str, seed: int) -> Path:
    """`trained/WORLD--ARM--SEED` in the folder of a study: the training of an arm's agent; SEED is
    the run's.
    """
    return _present(folder, "trained") / run_name(world, arm, seed)


def tuned_folder(folder: Path, world: str, arm: str) -> Path:
    """The folder of the weights of a tuned arm."""
    return _present(folder, "tuned") / f"{plain(world)}--{plain(arm)}"


def _present(folder: Path, name: str) -> Path:
    """A folder of the study, under its name of version 0.1 where there is one."""
    old = folder / OLD_FOLDERS[name]
    return old if old.is_dir() else folder / name
