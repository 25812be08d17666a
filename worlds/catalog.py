"""Ids of the available environments, and their lookup by name."""

from __future__ import annotations

import importlib
import re
from functools import cache
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

    import worlds.orchard
    import worlds.road  # noqa: F401

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


def _is_listed(id: str, spec: Any) -> bool:
    """False for Atari games, their old ids (`PongNoFrameskip-v4`) and for absent backends."""
    entry = spec.entry_point if isinstance(spec.entry_point, str) else ""
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

    Accepts `ALE/Pong-v5`, `Pong`, `pong`, `ms_pacman`, any registered id and `package:Env-v0`,
    whose package is imported.

    Raises: ConfigError in one line for an unknown id, with the most similar one.
    """
    import gymnasium

    by_name = games()
    plain = re.sub(r"-v5$", "", id.removeprefix("ALE/")).replace("_", "").lower()
    if plain in by_name and not re.search(r"-v[0-46-9]", id):
        return by_name[plain]
    if ":" in id:
        package, _, name = id.partition(":")
        try:
            importlib.import_module(package)
        except ImportError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"world {id!r}: package {package!r} cannot be imported ({reason}); install it"
            ) from None
        if name not in gymnasium.registry:
            raise ConfigError(
                f"world {id!r}: {package} registers no {name!r}"
                f"{suggestion(name, gymnasium.registry)}"
            )
        return id
    if id in gymnasium.registry:
        return id
    names = [name for game in by_name.values() for name in (game.id, game.name)]
    raise ConfigError(
        f"world: {id!r} is neither an Atari game nor a Gymnasium id"
        + (suggestion(id, [*names, *gymnasium.registry]) or "; see `sextet list worlds`")
    )
