"""Writes recordings as Minari datasets (extra `[minari]`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from agent.recording.atomic import new_folder
from agent.recording.readers.minari import require_minari
from agent.recording.readers.recording import Episode, Form, RecordedEpisodes
from modules.messages import SIGNALS, ConfigError, WorldSpec

_REWARD = SIGNALS.index("reward")


def export(recording: RecordedEpisodes, form: Form, place: Path) -> dict[str, int]:
    """Writes a recording as a Minari dataset into the new folder `place`; episodes and steps.

    Observations are those that the recording has in `form`, actions the world's own. Pictures are
    stored without loss. Raises ConfigError, one line, where the folder exists, the extra is not
    installed, or the recording lacks actions, rewards or ends.
    """
    require_minari(f"export {place}")
    from minari.dataset.minari_storage import MinariStorage

    if recording.lacks:
        raise ConfigError(
            f"export {recording.path}: expected actions, rewards and ends, which a Minari dataset "
            f"has, got a recording without {', '.join(recording.lacks)}"
        )
    if place.exists():
        raise ConfigError(f"export: expected a new folder, got '{place}', which exists")
    with new_folder(place) as partial:
        # Minari looks for files of a relative path twice within it.
        data = (partial / "data").absolute()
        data.mkdir()
        observation, action = spaces_of(form.world)
        storage: Any = MinariStorage.new(
            data,
            observation_space=observation,
            action_space=action,
            env_spec=_registered(form.world.id),
            jpeg_encoding=False,
        )
        written = list[int]()

        def buffers() -> Iterator[Any]:
            for episode in recording.episodes_in(form):
                if episode.steps > 1:
                    written.append(episode.steps - 1)
                    yield _buffer(episode, form.world, len(written) - 1)

        storage.update_episodes(buffers())
        import minari

        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in place.name) or "recording"
        version = "" if name.rpartition("-v")[2].isdecimal() else "-v0"
        storage.update_metadata(
            {"dataset_id": f"sextet/{name}{version}", "minari_version": minari.__version__}
        )
    return {"episodes": len(written), "steps": sum(written)}


def spaces_of(world: WorldSpec) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """The spaces of observations and actions as recordings of `world` hold them."""
    observation: spaces.Space[Any]
    if world.pixels is not None:
        observation = spaces.Box(0, 255, world.pixels, np.uint8)
    else:
        observation = spaces.Box(-np.inf, np.inf, (world.vector or 0,), np.float32)
    actions = world.actions
    if actions.discrete:
        return observation, spaces.Discrete(actions.size)
    low, high = np.array(actions.low, np.float32), np.array(actions.high, np.float32)
    return observation, spaces.Box(low, high, dtype=np.float32)


def _registered(id: str) -> Any:
    """The specification of an environment; None where Gymnasium does not know it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gymnasium.spec(id)
    except gymnasium.error.Error:
        return None


def _buffer(episode: Episode, world: WorldSpec, number: int) -> Any:
    from minari.data_collector import EpisodeBuffer

    assert episode.actions is not None  # a recording that lacks none
    native = world.actions.decode(episode.actions.double()).numpy()
    if not world.actions.discrete:
        native = native.astype(np.float32)
    steps = episode.steps - 1
    ends = {"terminations": episode.terminated, "truncations": episode.truncated}
    return EpisodeBuffer(
        id=number,
        observations=list(episode.observations),
        actions=list(native),
        rewards=episode.signals[1:, _REWARD].double().tolist(),
        **{name: [False] * (steps - 1) + [bool(ended)] for name, ended in ends.items()},
    )
