"""What a run is made of: settings merged as plain dictionaries, validated once.

Defaults < preset < YAML file < dotted overrides. Where a later layer names another `kind` for a
slot, the settings of the earlier kind are dropped, nested slots included; but what every
configurator has in common (`Config.shared`: what drives weigh, how plans are made) stays, so that
another configurator is another in that alone. Then each slot is validated once, by the `Config` of
the class its kind names. The result, `ResolvedConfig`, is what `config.yaml` in a run folder holds;
reading it back gives the same run.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import yaml
from pydantic import BaseModel, ValidationError

from agent.assembly.merge import BEFORE, ConfigTree, merge, one_line, read_yaml
from agent.assembly.settings import RunSettings
from agent.recording.renames import KINDS, SETTINGS
from modules.cost.drives import Drive, drives_in, observation_signals, register
from modules.messages import ConfigError, WorldSpec
from modules.suggest import suggestion as suggestion

SLOTS: dict[str, tuple[str, ...]] = {
    "perception": (),
    "world_model": ("objective",),
    "cost": ("critic",),
    "memory": ("recall",),
    "actor": ("policy", "planner"),
    "configurator": (),
}
"""The slots of an agent, and the slots a module there may have within (if its class asks)."""

SLOT_NAMES: tuple[str, ...] = (
    *SLOTS,
    *(name for inner in SLOTS.values() for name in inner),
    "drive",
)

ENTRY_POINTS = "sextet.modules"
"""Installed packages offer modules under this entry-point group."""


@dataclass(frozen=True)
class Slot:
    """One slot, decided: the class, its validated settings, the slots within."""

    name: str
    kind: str
    cls: type
    settings: BaseModel
    inner: dict[str, Slot]

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What the class is constructed from, by name: settings, slots within, facts."""
        return inspect.signature(self.cls).parameters

    @property
    def imagines_in_the_world(self) -> bool:
        """Whether this is a world model that asks for the live world: a simulator."""
        return "live_world" in self.parameters

    def tree(self) -> ConfigTree:
        """Itself as a plain dictionary, `kind` first."""
        own = self.settings.model_dump(mode="json")
        return {"kind": self.kind, **own, **{n: s.tree() for n, s in self.inner.items()}}


@dataclass(frozen=True)
class ResolvedConfig:
    """A complete configuration."""

    settings: RunSettings
    slots: dict[str, Slot]
    others: dict[str, Slot] = field(default_factory=dict)
    """Configurators that interventions swap in, by the text of the intervention."""
    drives: Mapping[str, Drive] = field(default_factory=dict)
    """The drives that `cost.drives` names, and `goal` where the world sets one."""
    observation_signals: tuple[int, ...] = ()
    """The entries of the observed vector that drives take: signals of the world."""

    def tree(self) -> ConfigTree:
        """Itself as a plain dictionary: what `config.yaml` holds."""
        return {
            **self.settings.model_dump(mode="json"),
            **{name: slot.tree() for name, slot in self.slots.items()},
        }

    def yaml(self) -> str:
        """Itself as YAML."""
        return yaml.safe_dump(self.tree(), sort_keys=False, width=100)


# -- kinds ----------------------------------------------------------------------------------


class Kinds:
    """The kinds of each slot: ours by name, imported when first used, and those of plugins."""

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
        found = self._classes[slot][kind]
        if isinstance(found, str):
            module, _, name = found.partition(":")
            found = self._classes[slot][kind] = getattr(importlib.import_module(module), name)
        assert isinstance(found, type)
        return found

    def origin(self, slot: str, kind: str) -> str | None:
        """The plugin a kind came with, None for ours."""
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
        found = getattr(offered, "MODULES", None) if isinstance(offered, ModuleType) else offered
        if not isinstance(found, Mapping):
            raise ConfigError(
                f"config plugins: {package!r} has no MODULES; expected "
                'MODULES = {"perception": {"mine": MyPerception}}'
            )
        self.plugged.add(package)
        for slot, classes in found.items():
            if slot not in self._classes:
                raise ConfigError(
                    f"config plugins: {package!r} offers modules for {slot!r}, which is not one "
                    f"of {', '.join(SLOT_NAMES)}{suggestion(slot, SLOT_NAMES)}"
                )
            for kind, cls in classes.items():
                here = f"config plugins: {package!r} {slot} kind {kind!r}"
                if self._classes[slot].get(kind, cls) is not cls:
                    raise ConfigError(f"{here} exists already; name it differently")
                if slot == "drive":
                    self.drive_hashes[kind] = register(kind, cast(type, cls))
                elif not isinstance(cls, type) or not _is_model(getattr(cls, "Config", None)):
                    raise ConfigError(f"{here}: expected a class with a nested pydantic Config")
                self._classes[slot][kind] = cls
                self._from[slot, kind] = package


def inner_slots(slot: str, cls: type) -> tuple[str, ...]:
    """The slots within that a class asks for: parameters of its constructor named like one."""
    wanted = inspect.signature(cls).parameters
    return tuple(name for name in SLOTS.get(slot, ()) if name in wanted)


def default_kind(slot: str, world: WorldSpec) -> str:
    """The kind a slot has where nothing was said, for this world. The one place for such."""
    discrete = world.actions.discrete
    return {
        "perception": "vectors" if world.pixels is None else "pixels-small",
        "world_model": "jepa",
        "objective": "none" if world.pixels is None else "vicreg",
        "cost": "cost",
        "critic": "actions" if discrete else "scalar",
        "memory": "ring",
        "recall": "associative",
        "actor": "actor",
        "policy": "categorical" if discrete else "gaussian",
        "planner": "beam" if discrete else "cem",
        "configurator": "surprise",
    }[slot]


# -- presets --------------------------------------------------------------------------------

PRESETS = Path(__file__).parent / "presets"
BUNDLED = Path(__file__).parent / "bundled"


def presets() -> tuple[str, ...]:
    """The names of the presets."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def preset(name: str) -> ConfigTree:
    """The settings a preset makes. Raises ConfigError where there is none of that name."""
    if name not in presets():
        raise ConfigError(
            f"config preset: {name!r} is not one of {', '.join(presets())}"
            f"{suggestion(name, presets())}"
        )
    return read_yaml(PRESETS / f"{name}.yaml")


def about(name: str) -> str:
    """What a preset is for: the comment its file begins with, on one line."""
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
    made = _validated("", RunSettings, own)
    assert isinstance(made, RunSettings)
    return made


def resolve(tree: Mapping[str, Any], world: WorldSpec, kinds: Kinds) -> ResolvedConfig:
    """The complete configuration that a merged tree gives in this world.

    Raises ConfigError, one line naming field, value and what is allowed.
    """
    settings = settings_of(tree)
    slots = {
        name: _slot(
            name,
            name,
            merge({"kind": default_kind(name, world)}, _branch(name, tree)),
            world,
            kinds,
        )
        for name in SLOTS
    }
    drives = dict[str, Drive]()
    if (names := getattr(slots["cost"].settings, "drives", None)) is not None:
        in_world = drives_in(world, names, kinds.names("drive"))
        drives = {name: kinds.find("drive", name)() for name in in_world}
    chosen = [
        (one.name, one.kind) for slot in slots.values() for one in (slot, *slot.inner.values())
    ]
    chosen += [("drive", name) for name in drives]
    used = {origin for one in chosen if (origin := kinds.origin(*one)) is not None}
    plugins = tuple(dict.fromkeys((*settings.plugins, *sorted(used))))
    return ResolvedConfig(
        settings.model_copy(update={"plugins": plugins}),
        slots,
        drives=drives,
        observation_signals=observation_signals(drives, world),
    )


def resolve_instead(slot: Slot, value: object, path: str, world: WorldSpec, kinds: Kinds) -> Slot:
    """What stands in a slot's place, decided as `resolve` would: `value` is a kind or a mapping of
    settings, and what outlives another kind outlives this too. Raises ConfigError, one line.
    """
    branch = merge({"kind": default_kind(slot.name, world)}, _branch(slot.name, {slot.name: value}))
    return _slot(slot.name, path, {**branch, BEFORE: slot.tree()}, world, kinds)


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
        raise ConfigError(
            f"config {path}.kind: {kind!r} is not one of {', '.join(allowed)}"
            f"{suggestion(kind, allowed)}"
        )
    cls = kinds.find(slot, kind)
    within = inner_slots(slot, cls)
    own = {name: value for name, value in tree.items() if name not in (*within, BEFORE)}
    if (shared := getattr(cls.Config, "shared", None)) is not None:  # type: ignore[attr-defined]
        own = merge({k: v for k, v in tree.get(BEFORE, {}).items() if k in shared()}, own)
    settings = _validated(path, cls.Config, own, extra=within)  # type: ignore[attr-defined]
    inner = {}
    for name in within:
        branch = merge(
            {"kind": default_kind(name, world)}, {name: _branch(name, tree, f"{path}.")}[name]
        )
        inner[name] = _slot(name, f"{path}.{name}", branch, world, kinds)
    return Slot(slot, kind, cls, settings, inner)


def _validated(
    path: str, model: type[BaseModel], values: Mapping[str, Any], extra: Sequence[str] = ()
) -> BaseModel:
    """`values` as a `model`, or ConfigError naming the first setting that is wrong."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    where = ".".join(part for part in (path, *location) if part)
    if first["type"] == "extra_forbidden":
        holder = _holder(model, location[:-1])
        allowed = (*holder.model_fields, *(extra if holder is model else ()))
        if where in SETTINGS:
            raise ConfigError(f"config {where}: is called {SETTINGS[where]} now; write that")
        raise ConfigError(
            f"config {where}: no such setting; it is none of {', '.join(allowed)}"
            f"{suggestion(location[-1], allowed)}"
        )
    if first["type"] == "missing":
        raise ConfigError(f"config {where}: is missing; give it a value")
    wanted = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    shown = f"{first['input']!r:.80}"
    field = _holder(model, location[:-1]).model_fields.get(location[-1]) if location else None
    limits = "" if field is None else _limits(field.metadata)
    guess = ""
    if first["type"] in ("literal_error", "enum"):
        expected = str(first.get("ctx", {}).get("expected", ""))
        allowed = tuple(part.strip("' ") for part in expected.replace(" or ", ",").split(","))
        guess = suggestion(first["input"], allowed)
    raise ConfigError(f"config {where}: {shown} is not {one_line(wanted)}{limits}{guess}")


def _holder(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The model that has the setting at a path, as far as it can be followed."""
    for name in path:
        field = model.model_fields.get(name)
        if field is None or not _is_model(field.annotation):
            break
        model = field.annotation  # type: ignore[assignment]
    return model


def _is_model(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _limits(constraints: Sequence[Any]) -> str:
    """The range of a setting in brackets, from its annotated constraints."""
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [
        f"{words} {getattr(constraint, sign)}"
        for constraint in constraints
        for sign, words in signs.items()
        if getattr(constraint, sign, None) is not None
    ]
    return f" (allowed: {', '.join(parts)})" if parts else ""
