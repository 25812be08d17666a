"""From the name of a bundled agent, a run folder or a world to an agent in its world.

>>> player = load("showpiece")
>>> observation = player.world.reset(seed=0)
>>> action = player.act(observation)
>>> observation = player.world.step(action)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import Tensor

from agent.agent import Agent
from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import ConfigTree, dotted, merge, read_yaml
from agent.assembly.resolve import BUNDLED, ResolvedConfig, preset, settings_of
from agent.assembly.trust import packages, require_named
from agent.live import live
from agent.recording import checkpoint
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.run_folder import RunFolder
from agent.recording.trace import Trace
from agent.recording.weights import load_weights, parametric_modules, require_weights, under
from modules.messages import ConfigError, Moment, Observation, TraceError
from modules.ports import World

SHOWPIECE = "showpiece"
"""The bundled agent that plays if none is named."""


@dataclass(frozen=True)
class RunRequest:
    """The arguments of a run, before any of them is resolved.

    `agent`: a bundled agent, a run or checkpoint folder, or a world. `flags`: any of seed, steps,
    episodes, num_envs, protocol, isolate. `interventions`: such as `clamp:mode=1`, around those of
    the configuration. `overrides`: `a.b=c`, with precedence over all other settings.
    """

    agent: str | None = None
    preset: str | None = None
    config: Path | None = None
    plugins: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    interventions: tuple[str, ...] = ()
    flags: Mapping[str, Any] = field(default_factory=dict)


AgentName = str | os.PathLike[str]
"""A bundled agent, a run folder, a world, or a `TrainingRun` that the API returned."""


class AgentOptions(TypedDict, total=False):
    """Options of an agent and its world; None is the same as leaving an option out.

    `num_envs`: environments side by side. `isolate`: the world in a process of its own (not Atari).
    `config`: a YAML file of settings. `plugins`: packages whose modules may be used.
    `interventions`: around the configurator, as "clamp:mode=1".
    """

    seed: int | None
    steps: int | None
    num_envs: int | None
    isolate: bool | None
    protocol: str | None
    preset: str | None
    config: Path | None
    plugins: Sequence[str]
    interventions: Sequence[str]


def request_for(
    agent: AgentName | None,
    overrides: Sequence[str] = (),
    *,
    preset: str | None = None,
    config: Path | None = None,
    plugins: Sequence[str] = (),
    interventions: Sequence[str] = (),
    **flags: int | str | None,
) -> RunRequest:
    """A request; `overrides` are settings as "world_model.kind=fair". `flags`: see AgentOptions.

    Raises ConfigError where `agent` is neither a name nor a path.
    """
    if not isinstance(agent, str | os.PathLike | None):
        raise ConfigError(
            f"agent: expected a name, a folder or the run of one seed, got "
            f"{type(agent).__name__}; of a training with several seeds take one of its `results`"
        )
    return RunRequest(
        agent=None if agent is None else os.fspath(agent),
        preset=preset,
        config=config,
        plugins=tuple(plugins),
        overrides=tuple(overrides),
        interventions=tuple(interventions),
        flags={name: value for name, value in flags.items() if value is not None},
    )


def bundled_agents() -> tuple[str, ...]:
    """The names of the agents that come with the package."""
    return tuple(sorted(path.parent.name for path in BUNDLED.glob("*/config.yaml")))


def _is_trained(place: Path) -> bool:
    """Whether a folder is a checkpoint, or that of a run which has some."""
    return (place / "manifest.json").is_file() or (place / "checkpoints").is_dir()


def _run_folder(place: Path) -> Path:
    """The run folder that a folder is, or of which it is a checkpoint."""
    if (place / "config.yaml").is_file():
        return place
    if (place / "manifest.json").is_file() and (place.parent.parent / "config.yaml").is_file():
        return place.parent.parent
    raise ConfigError(
        f"agent: '{place}' is a folder, but neither a run (config.yaml) nor one of its "
        "checkpoints (manifest.json)"
    )


def _require_no_training(folder: Path) -> None:
    """Raises ConfigError where a folder without a checkpoint is that of a training."""
    if RunFolder(folder).training.is_file():
        raise ConfigError(
            f"agent: '{folder}': expected a checkpoint of this training, got none; it writes one "
            f"when it ends, try sextet train --resume {folder}"
        )


def configure(request: RunRequest, evaluating: bool = True) -> tuple[ConfigTree, Path | None]:
    """All layers of a request merged, and the folder of its checkpoints, if any.

    `evaluating`: with the settings of `training.evaluation`; else with those that the agent learned
    with, and its weights as `init_from`. Raises ConfigError, one line.
    """
    tree, folder = _layers(request, evaluating)
    if request.interventions:
        tree = {**tree, "interventions": [*tree.get("interventions", ()), *request.interventions]}
    return tree, folder


def _layers(request: RunRequest, evaluating: bool) -> tuple[ConfigTree, Path | None]:
    """`configure` without the interventions of the request."""
    name = request.agent
    layers: list[ConfigTree] = []
    if request.preset is not None:
        layers.append(preset(request.preset))
    if request.config is not None:
        layers.append(read_yaml(request.config))
    flags: ConfigTree = {
        k: v for k, v in request.flags.items() if k in ("seed", "steps", "episodes")
    }
    of_world = ("num_envs", "protocol", "isolate")
    if world := {k: v for k, v in request.flags.items() if k in of_world}:
        flags["world"] = world
    layers.append(flags)
    if request.plugins:
        files = [plugin for layer in layers for plugin in layer.get("plugins", ())]
        layers.append({"plugins": [*files, *request.plugins]})
    layers.append(dotted(request.overrides))
    above: ConfigTree = reduce(merge, layers, {})

    if name is None:
        named = above.get("world")
        if isinstance(named, Mapping) and "id" in named:
            return above, None
        name = SHOWPIECE
    if name in bundled_agents():
        if _is_trained(Path(name)):
            raise ConfigError(
                f"agent: {name!r} is a bundled agent, and the folder '{name}' is a trained one, "
                f"too; for the folder write ./{name}, or rename it"
            )
        folder = BUNDLED / name
    elif Path(name).is_dir():
        folder = _run_folder(Path(name))
    else:
        # The argument has precedence over a file, an explicit --world.id over both.
        return merge(merge(above, {"world": {"id": name}}), layers[-1]), None
    beneath = RunFolder(folder).read_config()
    require_named(beneath, {*request.plugins, *packages(above)}, f"run {folder}")
    place = Path(name) if (Path(name) / "manifest.json").is_file() else folder
    if not evaluating:
        first = name if _is_trained(place) else None
        if first is None:
            _require_no_training(folder)
        beneath = merge(beneath, {"training": {"init_from": first}})
    elif not (folder / "trace.sqlite").is_file():
        # A recorded run is played with the settings that it was recorded with.
        beneath = merge(beneath, settings_of(beneath).training.evaluation)
    if {"steps", "episodes"} & above.keys():
        # A limit of the request replaces all limits of the earlier run.
        beneath |= {"steps": None, "episodes": None}
    plugins = [*beneath.get("plugins", ()), *above.get("plugins", ())]
    merged = reduce(merge, layers, beneath)
    if plugins:
        merged["plugins"] = list(dict.fromkeys(plugins))
    return merged, place


def resolved(request: RunRequest) -> ResolvedConfig:
    """The complete configuration of a request that can be played: its world and its agent are made,
    and closed again. Raises ConfigError or WorldError, one line.
    """
    assembly = prepared(request)
    assembly.world.close()
    return assembly.config


def prepared(request: RunRequest, on_note: Callable[[str], object] = lambda line: None) -> Assembly:
    """World and agent of a request, with trained weights if there are any.

    `on_note` gets a line for each damaged checkpoint that is passed over. Raises ConfigError or
    WorldError, one line; nothing has been written.
    """
    tree, folder = configure(request)
    assembly = assemble(tree, known_kinds(request.plugins))
    if folder is not None:
        try:
            trained = _load_trained(assembly.agent, folder, on_note)
        except BaseException:
            assembly.world.close()
            raise
        assembly = replace(assembly, trained=trained)
    return assembly


def _load_trained(agent: Agent, folder: Path, on_note: Callable[[str], object]) -> Path | None:
    """Loads the weights of a checkpoint folder, or of the newest checkpoint in a run folder; that
    checkpoint, None if there is none. Raises ConfigError if the drives differ.
    """
    drives = drive_hashes(agent)
    if (recorded := recorded_drives(folder)) is not None:
        require_same(recorded, drives, f"run {folder}")

    def fits(_: str, forms: Mapping[str, Tensor]) -> None:
        require_weights(agent.modules, forms, str(folder))

    if (trained := trained_weights(folder, fits, on_note)) is None:
        return None
    where, saved = trained
    before = saved.facts.get("drives", drives)
    require_same(before, drives, f"checkpoint {where}")
    if before.keys() != drives.keys():
        # As many heads would fit, and hold values in the units of other drives.
        raise ConfigError(
            f"config cost.drives: expected {', '.join(before)}, whose values the critic in {where} "
            f"has learned, got {', '.join(agent.modules.cost.drives)}; leave out what sets them"
        )
    load_weights(agent.modules, saved.tensors.get("weights", {}), str(where))
    return where


def trained_weights(
    folder: Path,
    fits: checkpoint.Fits = lambda group, forms: None,
    on_note: Callable[[str], object] = lambda line: None,
) -> tuple[Path, checkpoint.Checkpoint] | None:
    """The weights of a checkpoint folder, or the best or newest ones in a run folder, if any.

    `fits` as in `checkpoint.load`. `on_note` gets a line for each damaged checkpoint that is passed
    over. Raises ConfigError where all are damaged, and where a training has none: an untrained
    agent is not what was asked for.
    """
    if (folder / "manifest.json").is_file():
        return folder, checkpoint.load(folder, ("weights",), fits)
    lines: list[str] = []
    best = checkpoint.standing(folder / "checkpoints", "best")
    if best is not None:
        try:
            return best, checkpoint.load(best, ("weights",), fits)
        except ConfigError as error:
            lines.append(str(error))
    newest = checkpoint.newest(folder / "checkpoints", ("weights",), lines.append, fits)
    if newest is None and lines:
        raise ConfigError(lines[0])
    for line in lines:
        on_note(f"passed over: {line}")
    if newest is None:
        _require_no_training(folder)
    return newest


def recorded_drives(run: Path) -> dict[str, str] | None:
    """The hashes of the drives of a recorded run; None without a trace."""
    try:
        with Trace.open(run) as trace:
            return trace.drive_hashes
    except TraceError:
        return None


def init_from(agent: Agent, name: str, ports: Collection[str]) -> list[str]:
    """Loads the weights of a trained agent, bundled or in a folder, port by port, and of ports that
    differ part by part; returns the ports and parts (`cost.network`) that keep their initial
    weights.

    These have other kinds or sizes there; their ports must be among `ports`, those that learn.
    Raises ConfigError if others differ, if no port fits, or if drives differ.
    """
    where = f"config training.init_from: {name!r}"
    place = BUNDLED / name if name in bundled_agents() else Path(name)
    trained = trained_weights(place) if _is_trained(place) else None
    if trained is None:
        names = [agent for agent in bundled_agents() if _is_trained(BUNDLED / agent)]
        raise ConfigError(
            f"{where} is neither a trained run or checkpoint, nor one of {', '.join(names)}"
        )
    saved = trained[1]
    require_same(saved.facts.get("drives", {}), drive_hashes(agent), where)
    fresh, modules = list[str](), parametric_modules(agent.modules)
    for port, module in modules.items():
        own, theirs = _parts(module.state_dict()), _parts(under(saved.tensors["weights"], port))
        other = [part for part in own if _shapes(own[part]) != _shapes(theirs.get(part, {}))]
        if (other or own.keys() != theirs.keys()) and ports and port not in ports:
            raise ConfigError(
                f"{where} has another {port}, and that is not to learn; use its kinds and sizes, "
                f"or add {port} to learner.train_modules"
            )
        fits = [tensors for part, tensors in theirs.items() if part in own and part not in other]
        module.load_state_dict({n: t for part in fits for n, t in part.items()}, strict=False)
        fresh += [f"{port}.{part}" for part in other] if fits else [port]
    if fresh == list(modules):
        raise ConfigError(f"{where} has none of these modules; use its kinds and sizes")
    return fresh


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors of a module, named `part.rest` or `part`, by part."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        parts.setdefault(name.split(".")[0], {})[name] = tensor
    return parts


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


class Player:
    """An agent with its world, for use from Python.

    `world`, `agent` and `config` may be inspected and changed. `introduction`: lines on what the
    world was taken for. `moment`: the last step's messages, None before the first.
    """

    def __init__(self, assembly: Assembly) -> None:
        self.world: World = assembly.world
        self.agent: Agent = assembly.agent
        self.config: ResolvedConfig = assembly.config
        self.introduction: tuple[str, ...] = assembly.introduction
        self.moment: Moment | None = None

    def act(self, observation: Observation) -> Tensor:
        """The encoded actions [B A] for an observation of its world.

        The first call resets the agent.
        """
        if self.moment is None:
            self.agent.reset(self.world.num_envs, self.config.settings.seed)
        self.moment = self.agent.step(observation)
        return self.moment.plan.action

    def live(self, steps: int) -> Iterator[Moment]:
        """A new run of `steps` steps, moment by moment."""
        return live(self.agent, self.world, steps, self.config.settings.seed)


def load(agent: AgentName, *overrides: str, **options: Unpack[AgentOptions]) -> Player:
    """An agent by name, ready to play: a bundled one, a run or checkpoint folder, or a world.

    `overrides` are settings as on the command line, "world_model.kind=fair". Raises ConfigError or
    WorldError, one line.
    """
    return Player(prepared(request_for(agent, overrides, **options)))
