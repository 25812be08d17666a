"""The configuration of a run: settings merged as plain dictionaries, validated once.

Defaults < preset < YAML file < dotted overrides. Where a later layer names another `kind` for a
slot, the settings of the earlier kind are dropped, those of nested slots included. What all
configurators share stands apart, in the block `directive:`, so another configurator keeps it. Each
slot is validated once, by the `Config` of the class that its kind names. The result,
`ResolvedConfig`, is the content of `config.yaml` in a run folder; with the seed it gives the same
run again.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml
from pydantic import BaseModel

from agent.assembly.merge import ConfigTree, merge, merge_list, one_line, read_yaml
from agent.assembly.settings import RunSettings
from agent.recording.renames import KINDS, SETTINGS
from modules.configurator.base_directive import DirectiveSettings
from modules.cost.drives import Drive, drives_in, observation_signals, register, signal_drive
from modules.messages import ConfigError, WorldSpec
from modules.suggest import not_one_of, suggestion
from modules.validation import validated
from worlds.protocols import Reading

SLOTS: dict[str, tuple[str, ...]] = {
    "perception": (),
    "world_model": ("objective", "predictor", "signal_head", "latent"),
    "cost": ("critic",),
    "memory": ("recall",),
    "actor": ("policy", "planner"),
    "configurator": (),
}
"""The slots of an agent, and the slots a module there may have within (if its class asks)."""

NESTED: dict[str, dict[str, str]] = {"planner": {"upper": "planner", "lower": "planner"}}
"""The slots that a module of an inner slot may have within, and the slot whose kinds each takes."""

LISTS: dict[str, dict[str, str]] = {"objective": {"parts": "objective"}}
"""The lists of slots that a module may have within (if its class asks), and the slot of each."""

SLOT_NAMES: tuple[str, ...] = (
    *SLOTS,
    *(name for inner in SLOTS.values() for name in inner),
    "drive",
)

ENTRY_POINTS = "sextet.modules"
"""Installed packages offer modules under this entry-point group."""


@dataclass(frozen=True)
class Slot:
    """A slot with its class, validated settings, inner slots and lists of slots."""

    name: str
    kind: str
    cls: type
    settings: BaseModel
    inner: dict[str, Slot]
    lists: dict[str, tuple[Slot, ...]] = field(default_factory=dict)

    def everything(self) -> Iterator[Slot]:
        """The slot itself and all within it."""
        yield self
        for within in (self.inner.values(), *self.lists.values()):
            for slot in within:
                yield from slot.everything()

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of the constructor by name: settings, inner slots, facts."""
        return inspect.signature(self.cls).parameters

    @property
    def simulates(self) -> bool:
        """Whether this is a world model that imagines in the live world itself."""
        return "live_world" in self.parameters

    @property
    def reads(self) -> Reading | None:
        """What this perception reads, by the attribute `reads` of its class; None: what the space
        of the world suggests.
        """
        return _reads(self.cls)

    def tree(self) -> ConfigTree:
        """The settings as a plain dictionary, `kind` first."""
        own = self.settings.model_dump(mode="json")
        inner = {name: slot.tree() for name, slot in self.inner.items()}
        lists = {name: [slot.tree() for slot in slots] for name, slots in self.lists.items()}
        return {"kind": self.kind, **own, **inner, **lists}


@dataclass(frozen=True)
class ResolvedConfig:
    """A complete configuration. `others`: the configurators that interventions swap in and their
    directives, by the text of the intervention.
    """

    settings: RunSettings
    slots: dict[str, Slot]
    others: dict[str, tuple[Slot, DirectiveSettings]] = field(default_factory=dict)
    drives: Mapping[str, Drive] = field(default_factory=dict)
    """The drives that `cost.drives` names, and `goal` where the world sets one."""
    observation_signals: tuple[int, ...] = ()
    """The entries of the observed vector that drives take: signals of the world."""

    def tree(self) -> ConfigTree:
        """The configuration as a plain dictionary, as in `config.yaml`."""
        return {
            **self.settings.model_dump(mode="json"),
            **{name: slot.tree() for name, slot in self.slots.items()},
        }

    def yaml(self) -> str:
        """The configuration as YAML."""
        return yaml.safe_dump(self.tree(), sort_keys=False, width=100)


# -- kinds ----------------------------------------------------------------------------------


class Kinds:
    """The kinds of each slot: the shipped ones, imported when first used, and those of plugins."""

    def __init__(self, own: Mapping[str, Mapping[str, str]]) -> None:
        self._classes: dict[str, dict[str, type | str]] = {
            slot: dict(own.get(slot, {})) for slot in SLOT_NAMES
        }
        self._from: dict[tuple[str, str], str] = {}
        self.plugged: set[str] = set()
        self.drive_hashes: dict[str, str] = {}

    def names(self, slot: str) -> tuple[str, ...]:
        """The kinds of a slot."""
        return tuple(self._classes[slot])

    def find(self, slot: str, kind: str) -> type:
        """The class of a kind that exists."""
        cls = self._classes[slot][kind]
        if isinstance(cls, str):
            module, _, name = cls.partition(":")
            cls = self._classes[slot][kind] = getattr(importlib.import_module(module), name)
        assert isinstance(cls, type)
        return cls

    def origin(self, slot: str, kind: str) -> str | None:
        """The plugin that a kind came with, None for a shipped kind."""
        return self._from.get((slot, kind))

    def plug(self, package: str) -> None:
        """Adds the modules of an importable package. Raises ConfigError, one line."""
        try:
            module = importlib.import_module(package)
        except Exception as error:
            raise ConfigError(
                f"config plugins: {package!r} cannot be imported ({one_line(error)}); give the "
                "name of an installed package or module that holds MODULES"
            ) from None
        if not hasattr(module, "MODULES") and _registers_worlds(package):
            self.plugged.add(package)
        else:
            self.add(package, module)

    def plug_installed(self) -> None:
        """Adds what installed packages offer under the entry-point group."""
        for point in metadata.entry_points(group=ENTRY_POINTS):
            package = point.value.partition(":")[0]
            try:
                offered = point.load()
            except Exception as error:
                raise ConfigError(
                    f"config plugins: installed plugin {point.name!r} cannot be imported "
                    f"({one_line(error)}); repair or uninstall it"
                ) from None
            self.add(package, offered)

    def add(self, package: str, offered: ModuleType | Mapping[str, Mapping[str, type]]) -> None:
        """Adds `MODULES` of a plugin: {slot: {kind: class}}."""
        modules = getattr(offered, "MODULES", None) if isinstance(offered, ModuleType) else offered
        if not isinstance(modules, Mapping):
            raise ConfigError(
                f"config plugins: {package!r} has no MODULES; expected "
                'MODULES = {"perception": {"mine": MyPerception}}'
            )
        self.plugged.add(package)
        for slot, classes in modules.items():
            if slot not in self._classes:
                raise ConfigError(
                    f"config plugins: {package!r} offers modules for a slot that does not exist: "
                    f"{not_one_of(slot, SLOT_NAMES)}"
                )
            for kind, cls in classes.items():
                here = f"config plugins: {package!r} {slot} kind {kind!r}"
                if self._classes[slot].get(kind, cls) is not cls:
                    raise ConfigError(f"{here} exists already; name it differently")
                model = getattr(cls, "Config", None)
                if slot == "drive":
                    self.drive_hashes[kind] = register(kind, cast(type, cls))
                elif not (
                    isinstance(cls, type)
                    and isinstance(model, type)
                    and issubclass(model, BaseModel)
                ):
                    raise ConfigError(f"{here}: expected a class with a nested pydantic Config")
                self._classes[slot][kind] = cls
                self._from[slot, kind] = package


def _registers_worlds(package: str) -> bool:
    """Whether an imported package has registered environments with Gymnasium."""
    from gymnasium import registry

    makers = (spec.entry_point for spec in registry.values())
    modules = (m.partition(":")[0] if isinstance(m, str) else m.__module__ for m in makers if m)
    return any(f"{module}.".startswith(f"{package}.") for module in modules)


def inner_slots(slot: str, cls: type) -> dict[str, str]:
    """The inner slots of a class, parameters of its constructor named like one, and the slot whose
    kinds each takes.
    """
    parameters = inspect.signature(cls).parameters
    within = {name: name for name in SLOTS.get(slot, ())} | NESTED.get(slot, {})
    return {name: of for name, of in within.items() if name in parameters}


def _lists_within(slot: str, cls: type) -> dict[str, str]:
    """The lists of slots of a class, and the slot of each: parameters named like one."""
    parameters = inspect.signature(cls).parameters
    return {name: of for name, of in LISTS.get(slot, {}).items() if name in parameters}


def _reads(perception: type) -> Reading | None:
    return cast(Reading | None, getattr(perception, "reads", None))


def reading_of(tree: Mapping[str, Any], kinds: Kinds) -> Reading | None:
    """What the perception that a merged tree names reads; None where it names none, or one that
    reads what there is.
    """
    kind = _branch("perception", tree).get("kind")
    known = kinds.names("perception")
    return _reads(kinds.find("perception", kind)) if kind in known else None


def default_kind(slot: str, world: WorldSpec) -> str:
    """The kind of a slot that no setting names, in this world."""
    discrete = world.actions.discrete
    return {
        "perception": "vectors" if world.pixels is None else "pixels-small",
        "world_model": "jepa",
        "objective": "none" if world.pixels is None else "vicreg",
        "latent": "categorical",
        "predictor": "mlp",
        "signal_head": "mlp",
        "cost": "cost",
        "critic": "actions" if discrete else "scalar",
        "memory": "ring",
        "recall": "associative",
        "actor": "actor",
        "policy": "categorical" if discrete else "gaussian",
        "planner": "beam" if discrete else "cem",
        "upper": "cem",
        "lower": "beam" if discrete else "cem",
        "configurator": "surprise",
    }[slot]


# -- presets --------------------------------------------------------------------------------

PRESETS = Path(__file__).parent / "presets"
BUNDLED = Path(__file__).parent / "bundled"


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def preset(name: str) -> ConfigTree:
    """The settings of a preset. Raises ConfigError for an unknown name."""
    if name not in presets():
        raise ConfigError(f"config preset: {not_one_of(name, presets())}")
    return read_yaml(PRESETS / f"{name}.yaml")


def about(name: str) -> str:
    """The purpose of a preset: the comment that its file begins with, on one line."""
    lines = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line[1:].strip() for line in takewhile(lambda line: line[:1] == "#", lines))


# -- validation -----------------------------------------------------------------------------


def settings_of(tree: Mapping[str, Any]) -> RunSettings:
    """The settings of a merged tree that belong to no module. Raises ConfigError, one line."""
    known = (*RunSettings.model_fields, *SLOTS)
    for name in tree:
        if name not in known and name in SETTINGS:
            raise ConfigError(f"config {name}: is called {SETTINGS[name]} now; write that")
        if name not in known:
            raise ConfigError(
                f"config {name}: no such setting; it is none of {', '.join(known)}"
                f"{suggestion(name, known)}"
            )
    own = {name: value for name, value in tree.items() if name in RunSettings.model_fields}
    return validated(RunSettings, own, "config ", renamed=SETTINGS)


def resolve(tree: Mapping[str, Any], world: WorldSpec, kinds: Kinds) -> ResolvedConfig:
    """The complete configuration that a merged tree gives in this world.

    Raises ConfigError, one line naming field, value and what is allowed.
    """
    settings = settings_of(tree)
    slots = {
        name: _slot(name, name, _with_kind(name, tree, "", world), world, kinds) for name in SLOTS
    }
    drives = dict[str, Drive]()
    if (names := getattr(slots["cost"].settings, "drives", None)) is not None:
        in_world = drives_in(world, names, kinds.names("drive"))
        drives = {name: signal_drive(name) or kinds.find("drive", name)() for name in in_world}
    chosen = [(one.name, one.kind) for slot in slots.values() for one in slot.everything()]
    chosen += [("drive", name) for name in drives]
    used = {origin for one in chosen if (origin := kinds.origin(*one)) is not None}
    plugins = tuple(dict.fromkeys((*settings.plugins, *sorted(used))))
    return ResolvedConfig(
        settings.model_copy(update={"plugins": plugins}),
        slots,
        drives=drives,
        observation_signals=observation_signals(drives, world),
    )


def resolve_swapped(
    config: ResolvedConfig, value: object, path: str, world: WorldSpec, kinds: Kinds
) -> tuple[Slot, DirectiveSettings]:
    """The configurator that an intervention swaps in, and its directive.

    `value`: a kind or a mapping of its settings; those under `directive` change the configuration's
    block of that name. Raises ConfigError, one line.
    """
    own = dict(_branch("configurator", {"configurator": value}))
    changes = _branch("directive", own, "configurator.")
    own.pop("directive", None)
    directive = merge(config.settings.directive.model_dump(), changes)
    return (
        _slot("configurator", path, own, world, kinds),
        validated(DirectiveSettings, directive, f"config {path}: directive"),
    )


def _renamed(path: str) -> dict[str, str]:
    """Settings of a slot in version 0.1 → their full paths now."""
    return {
        old.removeprefix(f"{path}."): new
        for old, new in SETTINGS.items()
        if old.startswith(f"{path}.")
    }


def _branch(name: str, tree: Mapping[str, Any], path: str = "") -> Mapping[str, Any]:
    """The settings of a slot; `perception: vectors` is short for `perception: {kind: vectors}`."""
    value = tree.get(name, {})
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"config {path}{name}: {value!r} is not a kind or a set of settings; write "
            f"{path}{name}.kind=… or {path}{name}.SETTING=…"
        )
    return value


def _slot(slot: str, path: str, tree: Mapping[str, Any], world: WorldSpec, kinds: Kinds) -> Slot:
    kind = tree["kind"]
    if kind not in kinds.names(slot):
        allowed = kinds.names(slot)
        if new := KINDS.get(path, {}).get(str(kind)):
            raise ConfigError(f"config {path}.kind: {kind!r} is called {new!r} now; write that")
        raise ConfigError(f"config {path}.kind: {not_one_of(kind, allowed)}")
    cls = kinds.find(slot, kind)
    within, lists = inner_slots(slot, cls), _lists_within(slot, cls)
    model: type[BaseModel] = cls.Config  # type: ignore[attr-defined]
    others = (*within, *lists, *({"kind"} - model.model_fields.keys()))
    own = {name: value for name, value in tree.items() if name not in others}
    settings = validated(
        model, own, f"config {path}", others=others,
        # A configurator that is swapped in has another path.
        renamed=_renamed("configurator" if slot == "configurator" else path),
    )  # fmt: skip
    inner = {
        name: _slot(of, f"{path}.{name}", _with_kind(name, tree, f"{path}.", world), world, kinds)
        for name, of in within.items()
    }
    several = {
        name: _slots(of, f"{path}.{name}", tree.get(name, {}), world, kinds)
        for name, of in lists.items()
    }
    return Slot(slot, kind, cls, settings, inner, several)


def _slots(slot: str, path: str, value: object, world: WorldSpec, kinds: Kinds) -> tuple[Slot, ...]:
    """The slots of a list of kinds or settings. A mapping by number changes or extends the default,
    one slot of the default kind.
    """
    if isinstance(value, Mapping):
        default = [{"kind": default_kind(slot, world)}]
        value = merge_list(default, value, path)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(
            f"config {path}: expected a list of at least one kind or set of settings, got "
            f"{value!r:.80}; try {path}=[{default_kind(slot, world)}]"
        )
    trees = {str(number): one for number, one in enumerate(value)}
    for number in trees:
        if "kind" not in _branch(number, trees, f"{path}."):
            raise ConfigError(
                f"config {path}.{number}.kind: is missing; it is one of "
                f"{', '.join(kinds.names(slot))}"
            )
    return tuple(
        _slot(slot, f"{path}.{number}", _branch(number, trees, f"{path}."), world, kinds)
        for number in trees
    )


def _with_kind(name: str, tree: Mapping[str, Any], path: str, world: WorldSpec) -> ConfigTree:
    """The settings of a slot, with its default kind where they name none."""
    return merge({"kind": default_kind(name, world)}, _branch(name, tree, path))
