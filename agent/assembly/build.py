"""From a configuration to an agent in its world: constructors called once, bottom-up.

The only place that names concrete classes. A constructor has a parameter `config`, the settings of
its module, and is passed by name what it has further parameters for:

`world` WorldSpec · `rows` · `live_world` the World itself · `latent_size` D · `encode_frame` of
perception · `context_frames` that it stacks before the present one · `drives`, `heads` their
names · `intrinsic_cost`, the drives in this world · `token_shape` (T, E) · `discount` ·
`readout_size` U of what memory returns · `horizon_max` the longest plan, steps · `levels_above`
the macro-actions of the levels of the world model · `base` the BaseDirective of a configurator ·
and the modules of its inner slots, of a list of slots a list.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.assembly.memory_use import require_read, require_used_memory
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.objective import require_trainable_objective
from agent.assembly.parameters import bounded_parameters
from agent.assembly.replay_memory import ReplayMemory, replay_memory
from agent.assembly.resolve import (
    Kinds,
    ResolvedConfig,
    Slot,
    reading_of,
    resolve,
    resolve_swapped,
    settings_of,
)
from agent.assembly.trust import require_named
from agent.imagination import PlanCost
from agent.modules import Modules
from agent.recording.drive_guard import SHIPPED, drive_hashes, require_same
from agent.recording.recorder import RunRecorder
from agent.recording.run_folder import RunFolder
from modules.configurator import interventions
from modules.configurator.base_directive import OF_LATENT, BaseDirective, DirectiveSettings
from modules.configurator.fixed import Fixed
from modules.cost.drives import DRIVES, IntrinsicCost
from modules.memory import interventions as of_memory
from modules.messages import ActionSpec, ConfigError, WorldSpec
from modules.ports import World
from modules.weights import subgoals
from worlds.catalog import search_current_folder
from worlds.make import make_world, world_spec

KINDS: dict[str, dict[str, str]] = {
    "perception": {
        "pixels-small": "modules.perception.pixels:PixelsSmall",
        "pixels-nature": "modules.perception.pixels:PixelsNature",
        "pixels-impala": "modules.perception.pixels:PixelsImpala",
        "pixels-tiny": "modules.perception.tiny:PixelsTiny",
        "hog": "modules.perception.hog:HOG",
        "pixels-compact": "modules.perception.compact:PixelsCompact",
        "vectors": "modules.perception.vectors:Vectors",
    },
    "world_model": {
        "jepa": "modules.world_model.jepa:JEPA",
        "latent-jepa": "modules.world_model.latent_jepa:LatentJEPA",
        "latent-action-jepa": "modules.world_model.latent_action_jepa:LatentActionJEPA",
        "hierarchical-jepa": "modules.world_model.hierarchical:HierarchicalJEPA",
        "generative": "modules.world_model.generative:Generative",
        "clairvoyant": "modules.world_model.simulator:Clairvoyant",
        "fair": "modules.world_model.simulator:Fair",
        "persistence": "modules.world_model.persistence:Persistence",
    },
    "objective": {
        "vicreg": "modules.objectives.vicreg:VICReg",
        "sigreg": "modules.objectives.sigreg:SIGReg",
        "cosine-centered": "modules.objectives.cosine_centered:CosineCentered",
        "barlow": "modules.objectives.barlow:BarlowTwins",
        "infonce": "modules.objectives.infonce:InfoNCE",
        "inverse-dynamics": "modules.objectives.inverse_dynamics:InverseDynamics",
        "smoothness": "modules.objectives.smoothness:Smoothness",
        "straightening": "modules.objectives.straightening:Straightening",
        "reconstruction": "modules.objectives.reconstruction:Reconstruction",
        "sum": "modules.objectives.sum:ObjectiveSum",
        "none": "modules.objectives.none:Unregularised",
    },
    "latent": {
        "categorical": "modules.world_model.latents.categorical:CategoricalLatent",
        "gaussian": "modules.world_model.latents.continuous:GaussianLatent",
        "sparse": "modules.world_model.latents.continuous:SparseLatent",
    },
    "predictor": {
        "mlp": "modules.world_model.predictors.mlp:MLPPredictor",
        "gru": "modules.world_model.predictors.gru:GRUPredictor",
        "conv": "modules.world_model.predictors.conv:ConvPredictor",
        "transformer": "modules.world_model.predictors.transformer:TransformerPredictor",
        "linear": "modules.world_model.predictors.linear:LinearPredictor",
    },
    "signal_head": {
        "mlp": "modules.world_model.signal_heads.mlp:MLPSignals",
        "quadratic": "modules.world_model.signal_heads.quadratic:QuadraticSignals",
    },
    "cost": {"cost": "modules.cost.cost:Cost", "inferred": "modules.cost.inferred:InferredCost"},
    "drive": {name: f"{cls.__module__}:{cls.__name__}" for name, cls in DRIVES.items()},
    "critic": {
        "scalar": "modules.cost.critic:ScalarCritic",
        "actions": "modules.cost.critic:ActionCritic",
        "scalar-categorical": "modules.cost.critic:CategoricalScalarCritic",
        "actions-categorical": "modules.cost.critic:CategoricalActionCritic",
        "goal-distance": "modules.cost.goal_critic:GoalDistance",
        "time-to-goal": "modules.cost.goal_critic:TimeToGoal",
        "subgoals": "modules.cost.subgoals:SubgoalCritic",
    },
    "memory": {
        "ring": "modules.memory.ring:Ring",
        "world-state": "modules.memory.world_state:WorldStateMemory",
    },
    "recall": {"associative": "modules.memory.associative:Associative"},
    "actor": {"actor": "modules.actor.actor:Actor"},
    "policy": {
        "categorical": "modules.actor.policy:Categorical",
        "gaussian": "modules.actor.policy:Gaussian",
        "greedy": "modules.actor.policy:Greedy",
    },
    "planner": {
        "annealing": "modules.actor.annealing:Annealing",
        "beam": "modules.actor.beam:Beam",
        "cem": "modules.actor.cem:CEM",
        "cem-categorical": "modules.actor.cem:CategoricalCEM",
        "gradient": "modules.actor.gradient:Gradient",
        "hierarchical": "modules.actor.hierarchical:HierarchicalPlanner",
        "icem": "modules.actor.icem:ICEM",
        "mppi": "modules.actor.mppi:MPPI",
        "rollout": "modules.actor.rollout:Rollout",
        "tree": "modules.actor.tree:Tree",
    },
    "configurator": {
        "fixed": "modules.configurator.fixed:Fixed",
        "scheduled": "modules.configurator.scheduled:Scheduled",
        "surprise": "modules.configurator.surprise:Surprise",
        "budgeted": "modules.configurator.budgeted:Budgeted",
        "learned": "modules.configurator.learned:Learned",
        "hold-subgoal": "modules.configurator.hold_subgoal:HoldSubgoal",
        "random-rate": "modules.configurator.random_rate:RandomRate",
        "manual": "modules.configurator.manual:Manual",
        "task": "modules.configurator.task:Task",
    },
}
"""The kinds of each slot: name → module and class, imported when first used."""


def known_kinds(plugins: tuple[str, ...] = ()) -> Kinds:
    """The shipped kinds, those of installed packages and those of `plugins`, which may be in the
    current folder.
    """
    kinds = Kinds(KINDS)
    kinds.plug_installed()
    if plugins:
        search_current_folder()
    for package in plugins:
        kinds.plug(package)
    return kinds


@dataclass(frozen=True)
class Assembly:
    """An agent, its world, and the complete configuration of both.

    `trained`: the checkpoint whose weights it has, None without one. `replay`: the main memory that
    its experience will take, None where that is not known.
    """

    config: ResolvedConfig
    world: World
    agent: Agent
    trained: Path | None = None
    replay: ReplayMemory | None = None

    @property
    def introduction(self) -> tuple[str, ...]:
        """What a user should know before a run: what the spaces of the world were taken for, and
        what the replay will take. Lines of a title and a text.
        """
        titles = ("observes", "acts")
        lines = [
            f"{title:<9} {text}"
            for title, text in zip(titles, self.world.spec.readings, strict=False)
        ]
        return (*lines, f"{'replay':<9} {self.replay}") if self.replay else tuple(lines)

    def facts(self) -> dict[str, Any]:
        """The world as it was read, and the replay: the content of `world.json` in a run folder."""
        replay = None if self.replay is None else {**vars(self.replay), "bytes": self.replay.bytes}
        return {**self.world.spec.model_dump(mode="json"), "replay": replay}

    def recorder(self, folder: RunFolder) -> RunRecorder:
        """Records a run of this agent in this world into `folder`."""
        return RunRecorder(folder, self.agent, self.world, self.config.tree(), self.trained)


def assemble(tree: ConfigTree, kinds: Kinds, training: bool = False) -> Assembly:
    """The agent and the world of a merged configuration.

    `training`: the world follows the rules of training in its protocol, at training speed.

    Raises ConfigError or WorldError, one line, before anything has been written.
    """
    settings = settings_of(tree)
    require_named({"plugins": settings.plugins}, kinds.plugged, "config plugins")
    learning_device(settings.device)
    config = describe(tree, kinds)
    sensor = getattr(config.slots["perception"].settings, "sensor", None)
    where = config.settings.world
    # A simulator needs snapshots of the live world, which a world at training speed does not make.
    simulates = config.slots["world_model"].simulates
    modules = settings.learner.train_modules
    trains_cost = training and (not modules or "cost" in modules)
    for name in ("imagination_horizon", "critic_unroll_steps") if simulates and trains_cost else ():
        if steps := getattr(settings.learner, name):
            raise ConfigError(
                f"config learner.{name}: expected 0 where the world model is "
                f"'{config.slots['world_model'].kind}', which imagines in the world as it stands "
                f"and not from what memory holds, got {steps}; try world_model.kind=jepa"
            )
    world = make_world(
        where.id,
        num_envs=where.num_envs,
        protocol=where.protocol,
        sensor=sensor,
        training=training,
        vector=training and settings.training.vectorized_env and not simulates,
        episode_steps=where.episode_steps,
        step_seconds=where.step_seconds,
        isolate=where.isolate,
        observation_signals=config.observation_signals,
        reading=config.slots["perception"].reads,
        settings=where.settings,
    )
    try:
        with bounded_parameters():
            agent = build_agent(config, world)
        replay = replay_memory(config, agent.modules, world.spec, training)
        if training:
            require_trainable_objective(config, agent.modules.world_model)
        # Importing a plugin may have changed a drive.
        registered = {**SHIPPED, **kinds.drive_hashes}
        require_same(registered, drive_hashes(agent), "config cost.drives")
        return Assembly(config, world, agent, replay=replay)
    except BaseException:
        world.close()
        raise


def learning_device(name: str) -> torch.device | None:
    """The device on which modules learn, by the setting `device`; None for the CPU.

    Raises ConfigError for a device that this machine does not have.
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


def spec_of(tree: ConfigTree, kinds: Kinds) -> WorldSpec:
    """The spec of the world of a merged tree, its observations as the perception reads them."""
    where = settings_of(tree).world
    reading = reading_of(tree, kinds)
    return world_spec(where.id, where.protocol, where.isolate, reading, where.settings)


def describe(tree: ConfigTree, kinds: Kinds) -> ResolvedConfig:
    """The complete configuration, with the defaults that depend on the world."""
    spec = spec_of(tree, kinds)
    # The world's own name for itself and its rules: `pong` is `ALE/Pong-v5`, under `v5`.
    known = {"id": spec.id, "protocol": spec.protocol}
    config = resolve(merge(tree, {"world": known}), spec, kinds)
    others = {
        one.text: resolve_swapped(config, one.other, f"interventions {one.text!r}", spec, kinds)
        for one in map(interventions.read, config.settings.interventions)
        if one.kind == "swap"
    }
    return replace(config, others=others)


def build_agent(config: ResolvedConfig, world: World) -> Agent:
    """The six modules, each with the facts that it has parameters for. Initial weights follow from
    the seed and the slot alone: swapping one module leaves those of the others unchanged.
    """
    settings, slots = config.settings, config.slots
    facts: dict[str, Any] = {
        "world": world.spec,
        "rows": world.num_envs,
        "live_world": world,
        "token_shape": (settings.tokens.count, settings.tokens.width),
        "discount": settings.discount,
    }
    modules: dict[str, Any] = {}

    def construct(name: str) -> Any:
        modules[name] = _construct(slots[name], name, facts, settings.seed)
        return modules[name]

    perception = construct("perception")
    facts["latent_size"] = perception.latent_size
    facts["context_frames"] = getattr(perception, "frame_stack", 1) - 1
    if hasattr(perception, "encode_frame"):
        facts["encode_frame"] = perception.encode_frame
    # The critic within the cost has a head for each drive, so these names come first.
    if config.drives:
        facts["intrinsic_cost"] = IntrinsicCost(config.drives, world.spec.signals)
        facts["drives"] = facts["heads"] = tuple(config.drives)
    readout = construct("memory").initial(1).readout
    facts["readout_size"] = readout.shape[1]
    cost = construct("cost")
    facts["drives"], facts["heads"] = cost.drives, cost.heads
    tokens = facts["token_shape"]
    if getattr(slots["world_model"].settings, "reads_memory", False):
        # What memory returns stands behind the directive's tokens and modulates as they do.
        facts["token_shape"] = (1, tokens[0] * tokens[1] + facts["readout_size"])
    facts["has_latent"] = construct("world_model").latent is not None
    facts["levels_above"] = _macro_actions(modules["world_model"])
    facts["token_shape"] = tokens
    written = [interventions.read(text) for text in settings.interventions]
    directing = [(slots["configurator"], settings.directive), *config.others.values()]
    facts["horizon_max"] = max(
        [max(d.horizon_steps, getattr(s.settings, "horizon_max", 0)) for s, d in directing]
        + [one.horizon_steps for one in written]
    )
    levels = getattr(construct("actor"), "subgoal_shape", None)
    facts["subgoal_size"] = 0 if levels is None else levels[1]
    _require_actions(slots, perception, cost)
    require_used_memory(slots, modules)
    facts["base"] = _base_directive(settings.directive, facts)
    construct("configurator")
    _require_goals({"configurator": directing[0], **config.others}, cost.heads)
    for one in written:
        if one.path is not None and one.path.message == "recollection":
            require_read(modules, one.path.where)
            modules["memory"] = of_memory.intervene(
                one.kind, one.path, one.value, modules["memory"], world.num_envs, settings.seed
            )
        else:
            modules["configurator"] = _intervene(one, modules["configurator"], config, facts)
    return Agent(
        Modules(**modules),
        world.spec,
        PlanCost(
            discount=settings.discount,
            sum_critic_every_step=settings.sum_critic_every_step,
            td_lambda=settings.td_lambda,
            branch_steps=settings.branch_steps,
        ),
    )


def _macro_actions(world_model: Any) -> tuple[ActionSpec, ...]:
    """The macro-actions of each level of a world model above the lowest."""
    above = getattr(world_model, "coarser", None)
    return () if above is None else (above.macro_actions, *_macro_actions(above))


def _base_directive(settings: DirectiveSettings, facts: Mapping[str, Any]) -> BaseDirective:
    names = ("drives", "heads", "token_shape", "horizon_max", "has_latent", "subgoal_size")
    return BaseDirective(settings, **{name: facts[name] for name in names})


def _require_actions(slots: Mapping[str, Slot], perception: Any, cost: Any) -> None:
    """Raises ConfigError for a greedy policy whose critic has no action values: it would act at
    random.
    """
    policy = slots["actor"].inner.get("policy")
    if policy is None or policy.kind != "greedy":
        return
    if cost.energy(perception.initial(1)).critic_actions is None:
        critic = slots["cost"].inner.get("critic", slots["cost"]).kind
        raise ConfigError(
            "config actor.policy.kind: 'greedy' needs a critic that knows actions, got "
            f"'{critic}'; try cost.critic.kind=actions or actor.policy.kind=categorical"
        )


def _require_goals(
    directing: Mapping[str, tuple[Slot, DirectiveSettings]], heads: tuple[str, ...]
) -> None:
    """Raises ConfigError if the critic has heads of several sub-goals and a shipped configurator
    gives weight to none of them: the critic's values of score would be ignored.
    """
    goals = {head for head, is_goal in zip(heads, subgoals(heads), strict=True) if is_goal}
    for path, (slot, directive) in directing.items():
        if len(goals) < 2 or slot.kind == "task" or slot.kind not in KINDS["configurator"]:
            continue
        stages = (directive, *getattr(slot.settings, "schedule", ()))
        if not any(goals & {*(stage.v or ())} for stage in stages):
            where = f"{path}.kind" if path == "configurator" else f"interventions {path!r}"
            raise ConfigError(
                f"config {where}: expected 'task' where the critic has sub-goal heads, got "
                f"'{slot.kind}', which gives them no weight; try kind=task, or name some in "
                "directive.v"
            )


def _intervene(
    written: interventions.Written, wrapped: Any, config: ResolvedConfig, facts: Mapping[str, Any]
) -> Any:
    """An intervention around a configurator. Raises ConfigError for an unknown drive or head."""
    default = Fixed(config=Fixed.Config(), base=facts["base"]).initial(1)
    other = None
    if written.path is not None and written.path.field in OF_LATENT and not facts["has_latent"]:
        raise ConfigError(
            f"config interventions {written.text!r}: expected a world model with a latent "
            f"variable, got {config.slots['world_model'].kind!r}; try world_model.kind=latent-jepa"
        )
    if written.kind == "swap":
        slot, directive = config.others[written.text]
        own = {**facts, "base": _base_directive(directive, facts)}
        other = _construct(slot, f"interventions {written.text!r}", own, config.settings.seed)
    return interventions.intervene(
        written,
        wrapped,
        drives=facts["drives"],
        heads=facts["heads"],
        default=default,
        other=other,
    )


def _facts_above(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a planner one level above: the actions of its world are macro-actions."""
    macros, *further = facts["levels_above"]
    world = facts["world"].model_copy(update={"actions": macros})
    return {**facts, "world": world, "levels_above": tuple(further)}


def _construct(slot: Slot, path: str, facts: Mapping[str, Any], seed: int) -> Any:
    """One module, after its inner modules. Raises ConfigError where it asks for another level than
    the world model has.
    """
    if "levels_above" in slot.parameters and not facts["levels_above"]:
        raise ConfigError(
            f"config {path}.kind: expected a world model with a level above for {slot.kind!r}, got "
            "none; try world_model.kind=hierarchical-jepa, or more world_model.levels"
        )
    within = {
        name: _construct(
            inner, f"{path}.{name}", _facts_above(facts) if name == "upper" else facts, seed
        )
        for name, inner in slot.inner.items()
    }
    lists = {
        name: [_construct(one, f"{path}.{name}.{i}", facts, seed) for i, one in enumerate(several)]
        for name, several in slot.lists.items()
    }
    available: dict[str, Any] = {**facts, **within, **lists, "config": slot.settings}
    arguments = {}
    for name, parameter in slot.parameters.items():
        if name in available:
            arguments[name] = available[name]
        elif parameter.default is parameter.empty:
            raise ConfigError(
                f"config {path}.kind: {slot.kind!r} has a parameter {name!r}, which is none of "
                f"{', '.join(available)}; settings are passed as one, `config`"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed} {path}".encode()))
        return slot.cls(**arguments)
