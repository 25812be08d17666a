"""From a configuration to an agent in its world: constructors called once, bottom-up.

The only place that names concrete classes. A constructor takes its settings and, by parameter
name, the facts of the house it asks for:

`world` WorldSpec · `rows` · `live_world` the World itself · `latent_size` D · `see` how perception
encodes a percept · `context_frames` it stacks before the present one · `drives`, `heads` their
names · `intrinsic_cost`, the drives in this world · `token_shape` (T, E) · `discount` ·
`horizon_max` the longest horizon a directive may ask for · `standing`, what a configurator says
unless it has a reason · and the modules of the slots
within.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import (
    Kinds,
    ResolvedConfig,
    Slot,
    resolve,
    resolve_instead,
    settings_of,
)
from agent.modules import Modules
from agent.recording.drive_guard import SHIPPED, drive_hashes, require_same
from agent.recording.recorder import RunRecorder
from agent.recording.run_folder import RunFolder
from modules.configurator import interventions
from modules.configurator.base_directive import BaseDirective, Settings
from modules.configurator.fixed import Fixed
from modules.cost.drives import DRIVES, IntrinsicCost
from modules.messages import ConfigError
from modules.ports import World
from modules.weights import subgoals
from worlds.make import make_world

KINDS: dict[str, dict[str, str]] = {
    "perception": {
        "pixels-small": "modules.perception.pixels:PixelsSmall",
        "pixels-nature": "modules.perception.pixels:PixelsNature",
        "pixels-impala": "modules.perception.pixels:PixelsImpala",
        "pixels-tiny": "modules.perception.tiny:PixelsTiny",
        "vectors": "modules.perception.vectors:Vectors",
    },
    "world_model": {
        "jepa": "modules.world_model.jepa:JEPA",
        "clairvoyant": "modules.world_model.simulator:Clairvoyant",
        "fair": "modules.world_model.simulator:Fair",
        "persistence": "modules.world_model.persistence:Persistence",
    },
    "objective": {
        "vicreg": "modules.objectives.vicreg:VICReg",
        "sigreg": "modules.objectives.sigreg:SIGReg",
        "cosine-centered": "modules.objectives.cosine_centered:CosineCentered",
        "none": "modules.objectives.none:Unregularised",
    },
    "cost": {"cost": "modules.cost.cost:Cost"},
    "drive": {name: f"{cls.__module__}:{cls.__name__}" for name, cls in DRIVES.items()},
    "critic": {
        "scalar": "modules.cost.critic:ScalarCritic",
        "actions": "modules.cost.critic:ActionCritic",
        "scalar-categorical": "modules.cost.critic:CategoricalScalarCritic",
        "actions-categorical": "modules.cost.critic:CategoricalActionCritic",
        "subgoals": "modules.cost.subgoals:SubgoalCritic",
    },
    "memory": {"ring": "modules.memory.ring:Ring"},
    "recall": {"associative": "modules.memory.associative:Associative"},
    "actor": {"actor": "modules.actor.actor:Actor"},
    "policy": {
        "categorical": "modules.actor.policy:Categorical",
        "gaussian": "modules.actor.policy:Gaussian",
        "greedy": "modules.actor.policy:Greedy",
    },
    "planner": {
        "beam": "modules.actor.beam:Beam",
        "cem": "modules.actor.cem:CEM",
        "cem-categorical": "modules.actor.cem:CategoricalCEM",
        "gradient": "modules.actor.gradient:Gradient",
        "rollout": "modules.actor.rollout:Rollout",
    },
    "configurator": {
        "fixed": "modules.configurator.fixed:Fixed",
        "scheduled": "modules.configurator.scheduled:Scheduled",
        "surprise": "modules.configurator.surprise:Surprise",
        "budgeted": "modules.configurator.budgeted:Budgeted",
        "learned": "modules.configurator.learned:Learned",
        "random-rate": "modules.configurator.random_rate:RandomRate",
        "manual": "modules.configurator.manual:Manual",
        "task": "modules.configurator.task:Task",
    },
}
"""The kinds of each slot: name → module and class, imported when first used."""


HORIZON_MAX = 16
"""Room of a plan where a configurator's settings name neither `horizon_max` nor `horizon_steps`."""


def known_kinds(plugins: tuple[str, ...] = ()) -> Kinds:
    """Our kinds, those of installed packages, and those of `plugins`, which may lie in the current
    folder.
    """
    kinds = Kinds(KINDS)
    kinds.plug_installed()
    # An installed command does not look there of itself, as `python -m` does.
    if plugins and not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())
    for package in plugins:
        kinds.plug(package)
    return kinds


@dataclass(frozen=True)
class Assembly:
    """An agent, the world it is made for, and the complete configuration of both.

    `trained`: the checkpoint whose weights it was given, None where none were.
    """

    config: ResolvedConfig
    world: World
    agent: Agent
    trained: Path | None = None

    def recorder(self, folder: RunFolder) -> RunRecorder:
        """Records a run of this agent in this world into `folder`."""
        return RunRecorder(folder, self.agent, self.world, self.config.tree(), self.trained)


def assemble(tree: ConfigTree, kinds: Kinds, training: bool = False) -> Assembly:
    """All that a merged configuration describes, ready to live.

    `training`: the world does what its protocol does in training alone, at training speed.

    Raises ConfigError or WorldError, one line, before anything has been written.
    """
    settings = settings_of(tree)
    for package in settings.plugins:
        if package not in kinds.plugged:
            raise ConfigError(
                f"config plugins: {package!r} was used here and is not imported unasked; "
                f"give --plugin {package}"
            )
    learning_device(settings.device)
    config = describe(tree, kinds)
    sensor = getattr(config.slots["perception"].settings, "sensor", None)
    wanted = config.settings.world
    # A model that imagines in the live world needs what training speed gives up: its snapshots.
    imagines = config.slots["world_model"].imagines_in_the_world
    taught = settings.learner.train_modules
    past = training and (not taught or "cost" in taught)
    for name in ("imagination_horizon", "critic_unroll_steps") if imagines and past else ():
        if steps := getattr(settings.learner, name):
            raise ConfigError(
                f"config learner.{name}: expected 0 where the world model is "
                f"'{config.slots['world_model'].kind}', which imagines in the world as it stands "
                f"and not from what memory holds, got {steps}; try world_model.kind=jepa"
            )
    world = make_world(
        wanted.id,
        num_envs=wanted.num_envs,
        protocol=wanted.protocol,
        sensor=sensor,
        training=training,
        vector=training and settings.training.vectorized_env and not imagines,
        observation_signals=config.observation_signals,
    )
    try:
        agent = build_agent(config, world)
        # Importing a plugin may have changed a drive.
        registered = {**SHIPPED, **kinds.drive_hashes}
        require_same(registered, drive_hashes(agent), "config cost.drives")
        return Assembly(config, world, agent)
    except BaseException:
        world.close()
        raise


def learning_device(name: str) -> torch.device | None:
    """Where learning happens by the setting `device`; None where the loop lives, on the CPU.

    Raises ConfigError where there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"config device: {name!r} is not a device; try cpu or cuda") from None
    if device.type == "cpu":
        return None
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ConfigError(f"config device: {name!r} is not usable here; use cpu")
    return device


def describe(tree: ConfigTree, kinds: Kinds) -> ResolvedConfig:
    """The complete configuration; defaults that depend on the world are looked up in it."""
    wanted = settings_of(tree).world
    glance = make_world(wanted.id, num_envs=1, protocol=wanted.protocol)
    try:
        # The world's own name for itself and its rules: `pong` is `ALE/Pong-v5`, under `v5`.
        known = {"id": glance.spec.id, "protocol": glance.spec.protocol}
        config = resolve(merge(tree, {"world": known}), glance.spec, kinds)
        written = [interventions.read(text) for text in config.settings.interventions]
        others = {
            w.text: resolve_instead(
                config.slots["configurator"],
                w.other,
                f"interventions {w.text!r}",
                glance.spec,
                kinds,
            )
            for w in written
            if w.kind == "swap"
        }
        return replace(config, others=others)
    finally:
        glance.close()


def build_agent(config: ResolvedConfig, world: World) -> Agent:
    """The six modules, each with the facts it asks for. Initial weights follow from the seed and
    the slot alone, so that swapping one module leaves the others as they were.
    """
    settings, slots = config.settings, config.slots
    facts: dict[str, Any] = {
        "world": world.spec,
        "rows": world.num_envs,
        "live_world": world,
        "token_shape": (settings.tokens.count, settings.tokens.width),
        "discount": settings.discount,
    }
    made: dict[str, Any] = {}

    def make(name: str) -> Any:
        made[name] = _construct(slots[name], name, facts, settings.seed)
        return made[name]

    perception = make("perception")
    facts["latent_size"] = perception.latent_size
    facts["context_frames"] = getattr(perception, "frame_stack", 1) - 1
    if hasattr(perception, "encode_frame"):
        facts["encode_frame"] = perception.encode_frame
    # The critic within the cost has a head for each drive, so these names come first.
    if config.drives:
        facts["intrinsic_cost"] = IntrinsicCost(config.drives, world.spec.signals)
        facts["drives"] = facts["heads"] = tuple(config.drives)
    cost = make("cost")
    facts["drives"], facts["heads"] = cost.drives, cost.heads
    make("memory")
    make("world_model")
    written = [interventions.read(text) for text in settings.interventions]
    directing = [slots["configurator"], *config.others.values()]
    facts["horizon_max"] = max(
        [_horizon_max(slot.settings) for slot in directing] + [w.horizon_steps for w in written]
    )
    make("actor")
    _require_actions(slots, perception, cost)
    make("configurator")
    _require_goals({"configurator": slots["configurator"], **config.others}, cost.heads)
    for one in written:
        made["configurator"] = _intervene(one, made["configurator"], config, facts)
    return Agent(
        Modules(**made),
        world.spec,
        discount=settings.discount,
        sum_critic_every_step=settings.sum_critic_every_step,
        td_lambda=settings.td_lambda,
    )


def _horizon_max(directing: Any) -> int:
    """The longest horizon that a configurator with these settings may ask for."""
    asked = getattr(directing, "horizon_steps", HORIZON_MAX)
    return int(getattr(directing, "horizon_max", asked))


def _require_actions(slots: Mapping[str, Slot], perception: Any, cost: Any) -> None:
    """Raises ConfigError where a greedy policy would act at random for ever: its critic does not
    tell actions apart.
    """
    policy = slots["actor"].inner.get("policy")
    if policy is None or policy.kind != "greedy":
        return
    if cost.energy(perception.initial(1)).critic_actions is None:
        got = slots["cost"].inner.get("critic", slots["cost"]).kind
        raise ConfigError(
            "config actor.policy.kind: 'greedy' needs a critic that knows actions, got "
            f"'{got}'; try cost.critic.kind=actions or actor.policy.kind=categorical"
        )


def _require_goals(directing: Mapping[str, Slot], heads: tuple[str, ...]) -> None:
    """Raises ConfigError where the critic has heads for several sub-goals and a configurator of
    ours never lets any of them count: what the critic learned of score would be ignored.
    `directing`: all that may direct, by what chose them.
    """
    goals = {head for head, told in zip(heads, subgoals(heads), strict=True) if told}
    for path, slot in directing.items():
        if len(goals) < 2 or slot.kind == "task" or slot.kind not in KINDS["configurator"]:
            continue
        stages = (slot.settings, *getattr(slot.settings, "schedule", ()))
        if not any(goals & {*(stage.v or ())} for stage in stages):
            where = f"{path}.kind" if path == "configurator" else f"interventions {path!r}"
            raise ConfigError(
                f"config {where}: expected 'task' where the critic has sub-goal heads, got "
                f"'{slot.kind}', which lets none count; try kind=task, or name some in v"
            )


def _intervene(
    written: interventions.Written, wrapped: Any, config: ResolvedConfig, facts: Mapping[str, Any]
) -> Any:
    """An intervention around a configurator. Raises ConfigError where it names no drive here."""
    usual = Fixed.Config.model_validate({})
    # Plans have no room for more than they were given, ablated or not.
    horizon = min(usual.horizon_steps, facts["horizon_max"])
    standing = _standing(usual.model_copy(update={"horizon_steps": horizon}), facts)
    default = Fixed(standing=standing, mode=usual.mode).initial(1)
    other = None
    if written.kind == "swap":
        path = f"interventions {written.text!r}"
        other = _construct(config.others[written.text], path, facts, config.settings.seed)
    return interventions.intervene(
        written,
        wrapped,
        drives=facts["drives"],
        heads=facts["heads"],
        default=default,
        other=other,
    )


def _standing(settings: Settings, facts: Mapping[str, Any]) -> BaseDirective:
    """What stands in a configurator's directives, by its settings."""
    own = {name: getattr(settings, name) for name in Settings.model_fields}
    names = ("drives", "heads", "token_shape", "horizon_max")
    return BaseDirective(**own, **{name: facts[name] for name in names})


def _construct(slot: Slot, path: str, facts: Mapping[str, Any], seed: int) -> Any:
    """One module, after those within it."""
    within = {
        name: _construct(inner, f"{path}.{name}", facts, seed) for name, inner in slot.inner.items()
    }
    values = {
        name: getattr(slot.settings, name)
        for name in type(slot.settings).model_fields
        if name != "kind"
    }
    given: dict[str, Any] = {**facts, **within, **values}
    parameters = slot.parameters
    if "config" in parameters:
        given["config"] = slot.settings
        values = {}
    if "standing" in parameters and isinstance(slot.settings, Settings):
        given["standing"] = _standing(slot.settings, facts)
        values = {n: value for n, value in values.items() if n not in Settings.model_fields}
    arguments = {}
    for name, parameter in parameters.items():
        if name in given:
            arguments[name] = given[name]
        elif parameter.default is parameter.empty:
            raise ConfigError(
                f"config {path}.kind: {slot.kind!r} asks for {name!r}, which is neither a setting "
                f"of it nor one of {', '.join(facts)}"
            )
    if unused := [name for name in values if name not in parameters]:
        raise ConfigError(
            f"config {path}.{unused[0]}: {slot.kind!r} declares it but its constructor does not "
            "take it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed} {path}".encode()))
        return slot.cls(**arguments)
