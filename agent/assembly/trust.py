"""Packages are imported because the user names them, never because a file does.

A run folder, a trace or the folder of a study may come from elsewhere. Its plugins, and the package
of a world `package:Env-v0`, run their code when they are imported.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from modules.messages import ConfigError

INSTALLED = ("ale_py", "gymnasium")
"""Packages that this one imports by itself."""


def packages(tree: Mapping[str, Any]) -> Iterator[str]:
    """The packages that settings name, at any depth: plugins, and those of worlds by their ids."""
    for name, value in tree.items():
        last = str(name).rpartition(".")[2]
        if last == "plugins" and isinstance(value, list | tuple):
            yield from (package for package in value if isinstance(package, str))
        elif last == "id" and isinstance(value, str):
            yield from world_packages(value)
        elif isinstance(value, Mapping):
            yield from packages(value)
        elif isinstance(value, list | tuple):
            for one in value:
                if isinstance(one, Mapping):
                    yield from packages(one)


def world_packages(world: str) -> Iterator[str]:
    """The package in the id of a world, as `package:Env-v0`, if it is not imported already."""
    package, colon, _ = world.partition(":")
    if colon and package.partition(".")[0] not in INSTALLED and package not in sys.modules:
        yield package


def plugin_options(tree: Mapping[str, Any]) -> str:
    """The options that a command needs to open a run of these settings in another process, as
    ` --plugin package`; empty where it needs none.
    """
    world = tree.get("world", {}).get("id", "").partition(":")
    own = [world[0]] if world[1] and world[0].partition(".")[0] not in INSTALLED else []
    names = dict.fromkeys([*tree.get("plugins", ()), *own])
    return "".join(f" --plugin {shlex.quote(name)}" for name in names)


def require_named(tree: Mapping[str, Any], named: Collection[str], where: str) -> None:
    """Raises ConfigError for the first package of a configuration that is not among `named`, those
    of the command. `where`: the file that the configuration is of.
    """
    for package in packages(tree):
        if package not in named:
            raise ConfigError(
                f"{where}: {package!r} was used here and is not imported by itself; if you trust "
                f"it, give --plugin {package}"
            )
