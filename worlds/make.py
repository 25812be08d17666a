"""`make_world` builds an environment from its id and settings, `world_spec` its spec alone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from functools import cache
from typing import Any

from modules.messages import ConfigError, WorldSpec
from modules.ports import World
from modules.validation import validated
from worlds.catalog import Game, find, list_games, list_worlds
from worlds.protocols import Reading, Sensor, protocol_named

__all__ = ["list_games", "list_worlds", "make_world", "world_spec"]


def make_world(
    id: str,
    num_envs: int = 1,
    protocol: str | None = None,
    sensor: Sensor | Mapping[str, Any] | None = None,
    vector: bool = False,
    training: bool = False,
    episode_steps: int | None = None,
    chapter_steps: int | None = None,
    observation_signals: tuple[int, ...] = (),
    reading: Reading | None = None,
) -> World:
    """B = `num_envs` copies of an environment, stepped side by side.

    id: an Atari game or a Gymnasium id, see `worlds.catalog.find`. protocol: `v5` (default) or
    `100k`, Atari only. training: applies the protocol's rules for training. sensor: the format of
    frames; None: the environment's own. vector: Atari in threads, with the same observations
    but without a simulator. episode_steps: truncates episodes after this many steps.
    chapter_steps: see `worlds.atari_rng`; 0 gives each episode its own seed. observation_signals:
    indices of entries of a vector observation that are also signals, named `observation_0` etc.;
    not in Atari. reading: whether observations are read as `pixels` or `vectors`; None: as the
    space suggests. Atari shows pixels.

    Raises: ConfigError in one line for an invalid setting, WorldError if the environment cannot be
    constructed.
    """
    bounds = (
        ("num_envs", num_envs, 1),
        ("episode_steps", episode_steps, 1),
        ("chapter_steps", chapter_steps, 0),
    )
    for name, value, minimum in bounds:
        if value is not None and value < minimum:
            raise ConfigError(f"world {name}: expected {minimum} or more, got {value}")
    rules = protocol_named(protocol)
    if isinstance(sensor, Mapping):
        sensor = validated(Sensor, sensor, "sensor ")
    target = find(id)
    if isinstance(target, Game):
        from worlds.atari_rng import CHAPTER_STEPS
        from worlds.atari_rows import AtariRows, AtariSettings
        from worlds.atari_vector import AtariVector

        settings = AtariSettings(
            game=target,
            num_envs=num_envs,
            protocol=rules,
            sensor=sensor,
            training=training,
            episode_steps=episode_steps,
            chapter_steps=CHAPTER_STEPS if chapter_steps is None else chapter_steps,
        )
        world: World = AtariVector(settings) if vector else AtariRows(settings)
    elif protocol is not None:
        raise ConfigError(
            f"protocol: expected none in {id}, which is no Atari game, got "
            f"{protocol!r}; leave it out"
        )
    else:
        from worlds.gymnasium_rows import GymnasiumRows

        world = GymnasiumRows(
            id=target,
            num_envs=num_envs,
            sensor=sensor,
            episode_steps=episode_steps,
            observation_signals=observation_signals,
            reading=reading,
        )
    size = world.spec.vector or 0
    for entry in observation_signals:
        if not 0 <= entry < size:
            world.close()
            raise ConfigError(
                f"world {world.spec.id}: observation_signals: expected entries of the observed "
                f"vector of {size} numbers, got {entry}; "
                + (f"try 0 to {size - 1}" if size else "leave them out")
            )
    return world


def world_spec(id: str, protocol: str | None = None, reading: Reading | None = None) -> WorldSpec:
    """The spec of `make_world(id, protocol=protocol, reading=reading)`.

    That of an Atari game is computed once a process, since loading a ROM takes .1 s; another id may
    be registered anew.
    """
    if isinstance(find(id), Game):
        return _atari_spec(id, protocol)
    return _spec(id, protocol, reading)


def _spec(id: str, protocol: str | None, reading: Reading | None = None) -> WorldSpec:
    with closing(make_world(id, protocol=protocol, reading=reading)) as world:
        return world.spec


_atari_spec = cache(_spec)
