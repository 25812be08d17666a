"""Ids of the available environments, and their lookup by name."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple

from modules.messages import ConfigError
from modules.suggest import suggestion


class Game(NamedTuple):
    """An Atari game: its Gymnasium name, `MsPacman`, and its ROM, `ms_pacman`."""

    name: str
    rom: str

    @property
    def id(self) -> str:
        """The Gymnasium id, `ALE/MsPacman-v5`."""
        return f"ALE/{self.name}-v5"


@cache
def games() -> dict[str, Game]:
    """All single-player games, by name in lower case without underscores.

    Registers them with Gymnasium, and the environments of this package, `sextet/…-v0`.
    """
    import ale_py
    import gymnasium

    import worlds.fork
    import worlds.orchard
    import worlds.point_rooms
    import worlds.road
    import worlds.rocket
    import worlds.rooms  # noqa: F401

    gymnasium.register_envs(ale_py)
    by_name = {}
    for id, spec in gymnasium.registry.items():
        match = re.fullmatch(r"ALE/(\w+)-v5", id)
        if match and spec.kwargs.get("obs_type", "rgb") == "rgb":
            by_name[match[1].lower()] = Game(match[1], spec.kwargs["game"])
    return by_name


def list_games() -> list[str]:
    """Gymnasium ids of all Atari games, sorted."""
    return sorted(game.id for game in games().values())


def list_worlds() -> list[str]:
    """Registered Gymnasium ids: Atari games first, then other environments."""
    import gymnasium

    atari = list_games()
    return atari + sorted(id for id, spec in gymnasium.registry.items() if _is_listed(id, spec))


def _entry(spec: Any) -> str:
    """The class or function that makes an environment, by name; empty where it has none."""
    return spec.entry_point if isinstance(spec.entry_point, str) else ""


def _is_listed(id: str, spec: Any) -> bool:
    """False for Atari games, their old ids (`PongNoFrameskip-v4`) and for absent backends."""
    entry = _entry(spec)
    return (
        not entry.startswith(("ale_py", "shimmy"))
        and not id.startswith(("ALE/", "phys2d/", "tabular/", "GymV"))
        and "mujoco" not in entry
    )


def is_game(id: str) -> bool:
    """Whether `find` takes an id for an Atari game; imports no package that the id names."""
    return (":" not in id or id.startswith("ale_py:")) and isinstance(find(id), Game)


def find(id: str) -> Game | str:
    """The Atari game named by `id`, else the registered Gymnasium id itself.

    Accepts `ALE/Pong-v5`, `Pong`, `pong`, `ms_pacman`, any registered id, ids of installed packages
    that offer environments under the entry point `gymnasium.envs`, and `module:Env-v0`, whose
    module is imported, from the current folder too.

    Raises: ConfigError in one line for an unknown id, with the most similar one.
    """
    import gymnasium

    by_name = games()
    name = id.removeprefix("ale_py:")
    plain = re.sub(r"-v5$", "", name.removeprefix("ALE/")).replace("_", "").lower()
    if plain in by_name and not re.search(r"-v[0-46-9]", name):
        return by_name[plain]
    if (spec := gymnasium.registry.get(name)) is None or _entry(spec).startswith("ale_py"):
        _require_no_old_game(name, by_name)
    if ":" in name:
        module, _, name = id.partition(":")
        _import(id, module)
        if name not in gymnasium.registry:
            raise ConfigError(
                f"world {id!r}: {module} registers no {name!r}"
                f"{suggestion(name, gymnasium.registry)}"
            )
        return id
    if name in gymnasium.registry or _is_offered(name):
        return name
    names = [name for game in by_name.values() for name in (game.id, game.name)]
    raise ConfigError(
        f"world: {id!r} is neither an Atari game nor a Gymnasium id"
        + (
            suggestion(id, [*names, *gymnasium.registry])
            or "; see `sextet list worlds`, or write package:Env-v0"
        )
    )


_OLD = re.compile(r"(?:ALE/)?(\w+?)(-ram)?(Deterministic|NoFrameskip)?-v(\d+)")


def _require_no_old_game(id: str, by_name: dict[str, Game]) -> None:
    """Raises ConfigError for an Atari id of another version, with what it stood for."""
    old = _OLD.fullmatch(id)
    if old is None or (game := by_name.get(old[1].replace("_", "").lower())) is None:
        return
    frames = {"Deterministic": "4 frames a step", "NoFrameskip": "1 frame a step"}
    stood_for = [frames.get(old[3], "4 frames a step" if old[4] == "5" else "2 to 5 frames a step")]
    if old[4] in "04":
        stood_for.append("no sticky actions" if old[4] == "4" else "sticky actions")
    if old[2]:
        stood_for.append("the 128 bytes of memory in place of pixels")
    raise ConfigError(
        f"world {id!r}: an id that stood for {', '.join(stood_for)}, which is not offered. Did you "
        f"mean {game.id!r}? It has pixels, 4 frames a step and sticky actions; with --protocol "
        "100k it has none"
    )


def search_current_folder() -> None:
    """Lets modules in the current folder be imported: an installed command does not by itself, as
    `python -m` does.
    """
    if not {"", os.getcwd()} & {*sys.path}:
        sys.path.append(os.getcwd())


def _import(id: str, module: str) -> None:
    """Imports the module that an id names. Raises ConfigError that says what failed, and why."""
    search_current_folder()
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(f"world {id!r}: {_import_fault(module, error)}") from None


def _import_fault(module: str, error: BaseException) -> str:
    """Why a module could not be imported, and what to do."""
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent is not None and not f"{module}.".startswith(f"{absent}."):
        return f"package {module!r} needs {absent!r}, which is not installed; install {absent!r}"
    if absent is not None:
        return (
            f"package {module!r} cannot be imported: it is neither installed nor in the current "
            "folder; install it, or run where it lies"
        )
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"package {module!r} cannot be imported ({reason}); repair it"


def _is_offered(id: str) -> bool:
    """Whether an installed package offers the id under the entry point `gymnasium.envs`, which
    Gymnasium itself no longer loads.
    """
    import gymnasium

    _load_offered()
    return id in gymnasium.registry


_OFFERS = ("gymnasium.envs", "gymnasium.envs.__root__")
"""Groups of entry points: one's name is the namespace of its ids; in the second one there is none.
"""


@cache
def _load_offered() -> None:
    """Loads the entry points. One that raises is named in a note and passed over."""
    from gymnasium.envs import registration

    from worlds.edge import note

    points = [point for group in _OFFERS for point in metadata.entry_points(group=group)]
    for point in points:
        inside = point.group == _OFFERS[0] and not point.name.startswith("__")
        # Gymnasium's own `namespace` is not left where an entry point raises.
        registration.current_namespace = point.name if inside else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                register = point.load()
                if callable(register):
                    register()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            fault = _import_fault(point.value.partition(":")[0], error)
            note(f"worlds of the installed package {point.name!r} are passed over: {fault}")
        finally:
            registration.current_namespace = None
