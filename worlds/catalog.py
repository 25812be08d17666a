"""Which worlds there are, and what a name means."""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import NamedTuple

from modules.messages import ConfigError
from worlds.protocols import guess


class Game(NamedTuple):
    """An Atari game: its Gymnasium name `MsPacman` and its cartridge `ms_pacman`."""

    name: str
    rom: str

    @property
    def id(self) -> str:
        """Its full id, `ALE/MsPacman-v5`."""
        return f"ALE/{self.name}-v5"


@cache
def games() -> dict[str, Game]:
    """Every game one player can play, by its name in lower case without underscores."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    found = {}
    for id, spec in gymnasium.registry.items():
        match = re.fullmatch(r"ALE/(\w+)-v5", id)
        if match and spec.kwargs.get("obs_type", "rgb") == "rgb":
            found[match[1].lower()] = Game(match[1], spec.kwargs["game"])
    return found


def list_games() -> list[str]:
    """Ids of all Atari games."""
    return sorted(game.id for game in games().values())


def _register_ours() -> None:
    """Makes Gymnasium know the worlds of this package, `sextet/…-v0`."""
    import worlds.orchard  # noqa: F401


def list_worlds() -> list[str]:
    """Ids of everything that is registered: Atari games, then other Gymnasium environments."""
    import gymnasium

    _register_ours()
    atari = list_games()
    others = sorted(id for id in gymnasium.registry if not id.startswith("ALE/"))
    return atari + [id for id in others if _is_worth_listing(id)]


def _is_worth_listing(id: str) -> bool:
    """Old names of Atari games (`PongNoFrameskip-v4`) and backends not here are left out."""
    import gymnasium

    spec = gymnasium.registry[id]
    entry = spec.entry_point if isinstance(spec.entry_point, str) else ""
    return (
        not entry.startswith(("ale_py", "shimmy"))
        and not id.startswith(("phys2d/", "tabular/", "GymV2", "GymV"))
        and "mujoco" not in entry
    )


def find(id: str) -> Game | str:
    """The game, or the Gymnasium id, that `id` names.

    `ALE/Pong-v5`, `Pong`, `pong`, `ms_pacman`, any registered id, `package:Env-v0`. Raises
    ConfigError in one line where there is none, with the most similar name.
    """
    import gymnasium

    _register_ours()
    known = games()
    plain = re.sub(r"-v5$", "", id.removeprefix("ALE/")).replace("_", "").lower()
    if plain in known and not re.search(r"-v[0-46-9]", id):
        return known[plain]
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
                f"world {id!r}: {package} registers no {name!r}{guess(name, gymnasium.registry)}"
            )
        return id
    if id in gymnasium.registry:
        return id
    names = [game.id for game in known.values()] + [game.name for game in known.values()]
    raise ConfigError(
        f"world: {id!r} is neither an Atari game nor a Gymnasium id"
        + (guess(id, [*names, *gymnasium.registry]) or "; see `sextet list worlds`")
    )
