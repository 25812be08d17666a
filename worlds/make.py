"""The door to every world: `make_world`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modules.messages import ConfigError
from modules.ports import World
from modules.validation import validated
from worlds.catalog import Game, find, list_games, list_worlds
from worlds.protocols import Sensor, protocol_named

__all__ = ["list_games", "list_worlds", "make_world"]


def make_world(
    id: str,
    num_envs: int = 1,
    protocol: str | None = None,
    sensor: Sensor | Mapping[str, Any] | None = None,
    vector: bool = False,
    training: bool = False,
    episode_steps: int | None = None,
    chapter_steps: int | None = None,
) -> World:
    """B = `rows` copies of a world, lived in side by side.

    `id`: see `worlds.catalog.find`. `protocol`: `v5` (default) or `100k`, Atari only; `training`
    switches on what the protocol does in training alone. `sensor`: what the agent's eye asks
    for; None: the world's own frames. `vector`: Atari at training speed, which shows and does
    exactly the same but cannot be imagined from. `episode_steps`: cut episodes off after so many
    steps. `chapter_steps`: see `worlds.atari_rng`, 0 gives every episode a seed of its own.

    Raises ConfigError in one line, WorldError where the world cannot be started.
    """
    asked = (
        ("num_envs", num_envs, 1),
        ("episode_steps", episode_steps, 1),
        ("chapter_steps", chapter_steps, 0),
    )
    for name, value, least in asked:
        if value is not None and value < least:
            raise ConfigError(f"world {name}: expected {least} or more, got {value}")
    rules = protocol_named(protocol)
    eye = validated(Sensor, sensor, "sensor ") if isinstance(sensor, Mapping) else sensor
    found = find(id)
    if isinstance(found, Game):
        from worlds.atari_rng import CHAPTER_STEPS
        from worlds.atari_rows import AtariRows
        from worlds.atari_vector import AtariVector

        made = AtariVector if vector else AtariRows
        return made(
            game=found,
            num_envs=num_envs,
            protocol=rules,
            sensor=eye,
            training=training,
            episode_steps=episode_steps,
            chapter_steps=CHAPTER_STEPS if chapter_steps is None else chapter_steps,
        )
    if protocol is not None:
        raise ConfigError(
            f"protocol: expected none in {id}, which is no Atari game, got "
            f"{protocol!r}; leave it out"
        )
    from worlds.gymnasium_rows import GymnasiumRows

    return GymnasiumRows(id=found, num_envs=num_envs, sensor=eye, episode_steps=episode_steps)
