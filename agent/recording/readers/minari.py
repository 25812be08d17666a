"""Minari datasets as recordings (extra `[minari]`): the public format of offline episodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agent.recording.readers.recording import (
    Episode,
    Form,
    OfEpisodes,
    encoded_actions,
    signals_of,
)
from modules.messages import (
    SIGNALS,
    ActionSpec,
    ConfigError,
    SextetError,
    TraceError,
    WorldSpec,
)
from worlds.spaces import ActionCodec, ObservationCodec

SCHEME = "minari:"
"""`minari:ID` names a dataset in Minari's own folder."""

METADATA = "metadata.json"


_NO_WORLD = WorldSpec(
    id="unnamed",
    pixels=None,
    vector=None,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=1),
)
"""In place of the world of a dataset that names none."""


def local_path(name: str) -> Path:
    """The folder of the dataset `ID` in Minari's store: `$MINARI_DATASETS_PATH`, else
    `~/.minari/datasets`.
    """
    store = os.environ.get("MINARI_DATASETS_PATH", str(Path.home() / ".minari" / "datasets"))
    return Path(store) / name


def _data_folder(path: Path) -> Path:
    return path / "data" if (path / "data" / METADATA).is_file() else path


def is_dataset(path: Path) -> bool:
    """Whether a folder is a Minari dataset, or the `data` of one."""
    return (_data_folder(path) / METADATA).is_file()


def require_minari(what: str) -> None:
    """Raises ConfigError, one line, where the extra is not installed."""
    try:
        import h5py  # noqa: F401
        import minari  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"{what}: expected minari and h5py, which are not installed; pip install "
            "'sextet[minari]'"
        ) from None


class MinariRecording(OfEpisodes):
    """The episodes of a dataset: observations, actions, rewards and ends."""

    lacks: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        require_minari(f"recording {path}")
        from minari import MinariDataset

        self.path = path
        with self._reading():
            self.dataset = MinariDataset(_data_folder(path).absolute())
            self.episodes = int(self.dataset.total_episodes)
            # An episode of N steps has N + 1 observations.
            self.steps = int(self.dataset.total_steps) + self.episodes
            spec = self.dataset.env_spec
        self.world: tuple[str, str | None] | None = None if spec is None else (str(spec.id), None)
        if not self.episodes:
            raise TraceError(f"recording {path}: expected episodes, got a dataset without any")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises TraceError, one line, where the block fails to read the dataset."""
        try:
            yield
        except SextetError:
            raise
        except Exception as error:  # of h5py and Minari, which have no root in common
            line = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise TraceError(
                f"recording {self.path}: expected a Minari dataset, got {line}"
            ) from None

    def _codecs(self, form: Form) -> tuple[ObservationCodec, ActionCodec]:
        name = f"recording {self.path}"
        return (
            ObservationCodec(name, self.dataset.observation_space, form.sensor, form.reading),
            ActionCodec(name, self.dataset.action_space),
        )

    def own_form(self) -> Form:
        """The form of its own spaces, in a world of the name that it gives."""
        seen, acted = self._codecs(Form(_NO_WORLD))
        world = WorldSpec(
            id=_NO_WORLD.id if self.world is None else self.world[0],
            pixels=seen.pixels,
            vector=seen.vector,
            signals=SIGNALS,
            actions=acted.spec,
            goal=seen.goal,
        )
        return Form(world, shown=seen.pixels)

    def require(self, form: Form) -> None:
        """Raises TraceError, one line, where spaces differ or an episode cannot be read."""
        try:
            seen, acted = self._codecs(form)
        except ConfigError as error:
            raise TraceError(str(error)) from None
        world, spec = form.world, acted.spec
        pairs: tuple[tuple[str, Any, Any], ...] = (
            ("pixels", world.pixels, seen.pixels),
            ("vector", world.vector, seen.vector),
            ("goal", world.goal, seen.goal),
            ("actions, discrete", world.actions.discrete, spec.discrete),
            ("actions, size", world.actions.size, spec.size),
            ("actions, low", world.actions.low, spec.low),
            ("actions, high", world.actions.high, spec.high),
        )
        for name, expected, got in pairs:
            if expected != got:
                raise TraceError(
                    f"recording {self.path}: {name}: expected {expected} as in {world.id}, got "
                    f"{got}"
                )
        for episode in self.episodes_in(form):
            for _ in episode.observations:
                pass

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """The episodes in the order of the dataset."""
        seen, acted = self._codecs(form)
        for number in range(self.episodes):
            with self._reading():
                data = self.dataset[number]
                steps = len(data.rewards) + 1
                elements = [_at(data.actions, t) for t in range(steps - 1)]
                native = np.array([acted.from_env(one) for one in elements])
                percepts = [seen.encode(_at(data.observations, t)) for t in range(steps)]
            where = f"{self.path}: episode {number}"
            actions = encoded_actions(native, form.world.actions, where)
            rewards = torch.from_numpy(np.asarray(data.rewards, np.float64))
            terminated = bool(data.terminations[-1])
            signals, known = signals_of(form.world, steps, rewards, actions, terminated)
            for column, name in enumerate(form.world.signals):
                kind, _, place = name.rpartition("_")
                if kind == "achieved" and percepts[0].achieved:
                    values = [one.achieved[int(place)] for one in percepts]
                elif kind == "observation" and place.isdecimal() and seen.vector is not None:
                    values = [float(one.array[int(place)]) for one in percepts]
                else:
                    continue
                signals[:, column], known[column] = torch.tensor(values), True
            goals = [one.goal for one in percepts if one.goal is not None]
            yield Episode(
                observations=[one.array for one in percepts],
                steps=steps,
                signals=signals,
                known=known,
                actions=actions,
                terminated=terminated,
                truncated=bool(data.truncations[-1]) and not terminated,
                goals=torch.from_numpy(np.stack(goals)) if goals else None,
            )


def _at(values: Any, t: int) -> Any:
    """Step `t` of what Minari stores of an episode: an array, or a dict or tuple of arrays."""
    if isinstance(values, dict):
        return {key: _at(part, t) for key, part in values.items()}
    if isinstance(values, tuple):
        return tuple(_at(part, t) for part in values)
    return values[t]
