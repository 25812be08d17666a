"""Layers of settings: plain dictionaries from files and overrides, one laid over the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from modules.messages import ConfigError

ConfigTree = dict[str, Any]

BEFORE = "(before)"
"""Where a branch whose kind changed holds the settings of the earlier kinds: some may outlive it
(`config.resolve` decides). No override can be named so by chance.
"""


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> ConfigTree:
    """`base` with `overlay` over it; a branch whose `kind` changes begins anew, and so does what
    an evaluation sets otherwise there. `evaluation: {}` clears all of that. A kind alone is short
    for a branch of that kind.
    """
    for path in _other_kinds(base, overlay):
        base = _without(base, ("training", "evaluation", *path))
    return _over(base, overlay)


def _over(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> ConfigTree:
    merged = dict(base)
    for name, value in overlay.items():
        below = merged.get(name)
        value = _whole(below, value)
        if not isinstance(value, Mapping):
            merged[name] = value
        elif not isinstance(below, Mapping):
            merged[name] = _over({}, value)
        elif _changed(below, value):
            own = {key: kept for key, kept in below.items() if key not in ("kind", BEFORE)}
            earlier = _over(_over(below.get(BEFORE, {}), own), value.get(BEFORE, {}))
            merged[name] = _over({}, value) | ({BEFORE: earlier} if earlier else {})
        else:
            merged[name] = {} if name == "evaluation" and not value else _over(below, value)
    return merged


def _whole(below: object, value: object) -> object:
    """What is laid over a branch: of a mere kind the branch that it is short for."""
    if isinstance(value, str) and isinstance(below, Mapping) and "kind" in below:
        return {"kind": value}
    return value


def _changed(below: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether a branch comes to be of another kind, or was of one between the two."""
    if "kind" not in value or "kind" not in below:
        return False
    return value["kind"] != below["kind"] or BEFORE in value


def _other_kinds(
    base: Mapping[str, Any], overlay: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Where the branches are that come to be of another kind."""
    for name, value in overlay.items():
        below = base.get(name)
        value = _whole(below, value)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if _changed(below, value):
                yield (*path, name)
            else:
                yield from _other_kinds(below, value, (*path, name))


def _without(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """A tree that has nothing at a path."""
    name, *rest = path
    below = tree.get(name)
    if rest and isinstance(below, Mapping):
        return {**tree, name: _without(below, tuple(rest))}
    return {key: value for key, value in tree.items() if rest or key != name}


def dotted(overrides: Iterable[str]) -> ConfigTree:
    """The tree that overrides `a.b=c` make; values are read as YAML, later ones win.

    Raises ConfigError where one has no `=` or no name.
    """
    tree: ConfigTree = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise ConfigError(
                f"config {override!r}: expected an override like actor.planner.kind=cem"
            )
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError:
            value = text
        for name in reversed(names):
            value = {name: value}
        tree = merge(tree, value)
    return tree


def read_yaml(path: Path) -> ConfigTree:
    """The dictionary in a YAML file. Raises ConfigError, one line."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: is not UTF-8 text; expected YAML") from None
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        what = getattr(error, "problem", None) or "nested too deeply"
        raise ConfigError(f"config {path}{where}: is not YAML ({one_line(what)})") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise ConfigError(
            f"config {path}: expected settings like 'seed: 3', got {type(tree).__name__}"
        )
    return tree


def one_line(error: object) -> str:
    """What an error says, without line breaks."""
    return " ".join(str(error).split())
