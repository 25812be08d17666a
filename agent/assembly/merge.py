"""Layers of settings: plain dictionaries from files and overrides, merged one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modules.messages import ConfigError
from modules.plain_yaml import MOST_CHARACTERS, plain_yaml
from modules.strange_files import read_file

ConfigTree = dict[str, Any]


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> ConfigTree:
    """`base` with the settings of `overlay` in place of its own, branch by branch.

    A branch whose `kind` changes loses its other settings, and those in `training.evaluation`
    for that branch. A string in place of a branch that has a kind is short for that kind.
    `evaluation: {}` removes all settings of the evaluation. Over a list, a branch of numbers, as
    `parts.0.weight` gives, changes the elements at these places (`merge_list`).
    """
    for path in _changed_kinds(base, overlay):
        base = _without(base, ("training", "evaluation", *path))
    return _merged(base, overlay)


def merge_list(below: Sequence[Any], overlay: Mapping[str, Any], path: str) -> list[Any]:
    """The list `below` with the elements of `overlay`, by number from 0, merged into its own; the
    number after its last adds an element.

    Raises ConfigError, beginning with `path`, for a name that is no such number.
    """
    merged = list(below)
    for name, value in overlay.items():
        # A number that YAML has read is an integer.
        digits = str(name)
        number = int(digits) if digits.isdecimal() and len(digits) < 10 else -1
        if not 0 <= number <= len(merged):
            raise ConfigError(
                f"config {path}.{name}: no such element; expected a number from 0 to {len(merged)}"
            )
        if number == len(merged):
            merged.append(None)
        element = merged[number]
        if isinstance(value, Mapping) and isinstance(element, str):
            element = {"kind": element}
        merged[number] = _merged({name: element}, {name: value}, f"{path}.")[name]
    return merged


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any], path: str = "") -> ConfigTree:
    merged = dict(base)
    for name, value in overlay.items():
        below = merged.get(name)
        value = _branch(below, value)
        if isinstance(value, Mapping) and isinstance(below, list | tuple) and _numbered(value):
            value = merge_list(below, value, f"{path}{name}")
        elif isinstance(value, Mapping):
            fresh = not isinstance(below, Mapping) or _changes_kind(below, value)
            if fresh or (name == "evaluation" and not value):
                below = {}
            value = _merged(below or {}, value, f"{path}{name}.")
        merged[name] = value
    return merged


def _branch(below: object, value: object) -> object:
    """`value`, or the branch `{kind: value}` for which it is short."""
    if isinstance(value, str) and isinstance(below, Mapping) and "kind" in below:
        return {"kind": value}
    return value


def _numbered(tree: Mapping[str, Any]) -> bool:
    """Whether all names of a branch are numbers, as in `parts.0.weight=2`."""
    return bool(tree) and all(str(name).isdecimal() for name in tree)


def _changes_kind(below: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    return "kind" in below and value.get("kind", below["kind"]) != below["kind"]


def _changed_kinds(
    base: Mapping[str, Any], overlay: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The paths of the branches whose kind changes."""
    for name, value in overlay.items():
        below = base.get(name)
        value = _branch(below, value)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            if _changes_kind(below, value):
                yield (*path, name)
            else:
                yield from _changed_kinds(below, value, (*path, name))


def _without(tree: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """A tree without what it has at a path."""
    name, *rest = path
    below = tree.get(name)
    if rest and isinstance(below, Mapping):
        return {**tree, name: _without(below, tuple(rest))}
    return {key: value for key, value in tree.items() if rest or key != name}


def dotted(overrides: Iterable[str]) -> ConfigTree:
    """The tree that overrides `a.b=c` make; values are read as YAML, later ones win.

    Raises ConfigError for an override without `=` or without a name.
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
            value: Any = plain_yaml(text)
        except ValueError:
            value = text
        for name in reversed(names):
            value = {name: value}
        tree = merge(tree, value)
    return tree


def read_yaml(path: Path) -> ConfigTree:
    """The dictionary in a YAML file. Raises ConfigError, one line."""
    try:
        tree = plain_yaml(read_file(path, 4 * MOST_CHARACTERS, links=True).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config {path}: is not UTF-8 text; expected YAML") from None
    except ValueError as error:
        raise ConfigError(f"config {path}: expected YAML, got {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise ConfigError(
            f"config {path}: expected settings like 'seed: 3', got {type(tree).__name__}"
        )
    return tree


def one_line(error: object) -> str:
    """The text of an error without line breaks."""
    return " ".join(str(error).split())
