"""`make_world` builds an environment from its id and settings, `world_spec` its spec alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from typing import Any

from modules.messages import ConfigError, WorldSpec
from modules.ports import World
from modules.validation import validated
from worlds.catalog import Game, find, is_game, list_games, list_worlds
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
    step_seconds: float | None = None,
    isolate: bool = False,
    reading: Reading | None = None,
    settings: Mapping[str, Any] | None = None,
) -> World:
    """B = `num_envs` copies of an environment, stepped side by side.

    id: an Atari game or a Gymnasium id, see `worlds.catalog.find`. protocol: `v5` (default) or
    `100k`, Atari only. training: applies the protocol's rules for training. sensor: the format of
    frames; None: the environment's own. vector: Atari in threads, with the same observations
    but without a simulator. episode_steps: truncates episodes after this many steps; None: by the
    environment's own limit, else after `gymnasium_rows.EPISODE_STEPS`.
    chapter_steps: see `worlds.atari_rng`; 0 gives each episode its own seed. observation_signals:
    indices of entries of a vector observation that are also signals, named `observation_0` etc.;
    not in Atari. step_seconds: the longest that one call of an environment may take, not in Atari.
    isolate: environments other than Atari in a process of their own, see `worlds.isolated`.
    reading: whether observations are read as `pixels` or `vectors`; None: as the space suggests.
    Atari shows pixels. settings: arguments of the environment's constructor by name, not in Atari.

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
    if settings and is_game(id):
        raise ConfigError(
            f"config world.settings: expected none in {id}, an Atari game, got "
            f"{', '.join(settings)}; try world.protocol or world.episode_steps"
        )
    if isolate and not is_game(id):
        from worlds.isolated import IsolatedWorld

        if protocol is not None:
            raise _no_protocol(id, protocol)
        return IsolatedWorld(
            id=id,
            num_envs=num_envs,
            sensor=None if sensor is None else sensor.model_dump(),
            episode_steps=episode_steps,
            observation_signals=observation_signals,
            step_seconds=step_seconds,
            reading=reading,
            settings=dict(settings or {}),
        )
    target = find(id)
    if isinstance(target, Game):
        from worlds.atari_rng import CHAPTER_STEPS
        from worlds.atari_rows import AtariRows, AtariSettings
        from worlds.atari_vector import AtariVector

        of_game = AtariSettings(
            game=target,
            num_envs=num_envs,
            protocol=rules,
            sensor=sensor,
            training=training,
            episode_steps=episode_steps,
            chapter_steps=CHAPTER_STEPS if chapter_steps is None else chapter_steps,
        )
        world: World = AtariVector(of_game) if vector else AtariRows(of_game)
    elif protocol is not None:
        raise _no_protocol(id, protocol)
    else:
        from worlds.gymnasium_rows import GymnasiumRows

        world = GymnasiumRows(
            id=target,
            num_envs=num_envs,
            sensor=sensor,
            episode_steps=episode_steps,
            observation_signals=observation_signals,
            step_seconds=step_seconds,
            reading=reading,
            settings=settings,
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


def _no_protocol(id: str, protocol: str) -> ConfigError:
    return ConfigError(
        f"protocol: expected none in {id}, which is no Atari game, got {protocol!r}; leave it out"
    )


def world_spec(
    id: str,
    protocol: str | None = None,
    isolate: bool = False,
    reading: Reading | None = None,
    settings: Mapping[str, Any] | None = None,
) -> WorldSpec:
    """The spec of `make_world` with these arguments.

    That of an Atari game is computed once a process, since loading a ROM takes .1 s, and that of an
    isolated world, since a process takes seconds; another id may be registered anew.
    """
    spec = _cached_spec if isolate or is_game(id) else _spec
    return spec(id, protocol, isolate, reading, json.dumps(dict(settings or {})))


def _spec(
    id: str, protocol: str | None, isolate: bool, reading: Reading | None, settings: str
) -> WorldSpec:
    with closing(
        make_world(
            id, protocol=protocol, isolate=isolate, reading=reading, settings=json.loads(settings)
        )
    ) as world:
        return world.spec


_cached_spec = cache(_spec)
