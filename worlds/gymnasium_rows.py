"""Any Gymnasium environment other than Atari, one instance a row."""

from __future__ import annotations

import copy
import copyreg
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules import chance
from modules.messages import SIGNALS, ConfigError, Observation, WorldError, WorldSpec
from modules.ports import SimStep
from worlds.protocols import Reading, Sensor
from worlds.seeded import SeededWorld
from worlds.snapshots import seal, unseal
from worlds.spaces import ActionCodec, ObservationCodec, Percept


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Suppresses warnings, which address authors of environments; errors still propagate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _calling(id: str, call: str, hint: str = "") -> Iterator[None]:
    """Runs an environment's own code, which may raise any error: it becomes a WorldError."""
    try:
        with _no_warnings():
            yield
    except Exception as error:
        brief = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise WorldError(f"world {id}: {call} failed ({brief}){hint}") from error


@dataclass(slots=True, eq=False)
class Handle:
    """A state of one row: a copy of its environment that is never stepped."""

    env: Any
    obs: Percept
    steps: int
    ended: bool


@dataclass(slots=True)
class _Row:
    """One environment, its last observation and, in `actions`, the actions of this episode."""

    env: Any
    obs: Percept
    episode: int = 0
    actions: list[Any] = field(default_factory=list)
    signals: tuple[float, ...] = ()
    first: bool = True
    terminated: bool = False
    truncated: bool = False


def _construct(id: str) -> Any:
    """An environment of a Gymnasium id, whose package `catalog.find` has imported."""
    with _calling(id, "construction"):
        spec = gymnasium.spec(id.rpartition(":")[2])
        mode = "rgb_array" if "rgb_array" in _render_modes(spec) else None
        return gymnasium.make(spec, render_mode=mode, disable_env_checker=True)


class GymnasiumRows(SeededWorld):
    """B environments of one Gymnasium id with next-step autoreset, one seed an episode.

    `worlds.spaces` reads the spaces; `reading` is what the perception asks for. A snapshot is each
    row's seed and the actions since, restored by replay: exact if the environment is deterministic
    under its seed. The simulator steps copies of environments.

    Raises: ConfigError for unsupported spaces, WorldError if the environment cannot be constructed.
    """

    def __init__(
        self,
        *,
        id: str,
        num_envs: int,
        sensor: Sensor | None,
        episode_steps: int | None,
        observation_signals: tuple[int, ...],
        reading: Reading | None = None,
    ) -> None:
        self._observation_signals = observation_signals
        self.num_envs, self._episode_steps = num_envs, episode_steps
        first = _construct(id)
        try:
            self._actions = ActionCodec(id, first.action_space)
            self._observations = ObservationCodec(id, first.observation_space, sensor, reading)
        except ConfigError:
            first.close()
            raise
        empty = Percept(np.zeros(0), None)
        self._rows = [_Row(env=first, obs=empty)]
        self._rows += [_Row(env=_construct(id), obs=empty) for _ in range(num_envs - 1)]
        self.spec = WorldSpec(
            id=id,
            pixels=self._observations.pixels,
            vector=self._observations.vector,
            signals=(
                *SIGNALS,
                *(f"observation_{entry}" for entry in observation_signals),
                *self._observations.goal_signals,
            ),
            actions=self._actions.spec,
            goal=self._observations.goal,
            readings=(self._observations.description, self._actions.description),
        )
        self._identity = {
            "world": "gymnasium-rows",
            "id": id,
            "rows": num_envs,
            "sensor": None if sensor is None else sensor.model_dump(),
            "episode_steps": episode_steps,
        }

    # -- episodes ---------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """The first observation of every row, under the run's `seed`.

        Raises: WorldError with the environment's own error.
        """
        self._seed = seed
        for index, row in enumerate(self._rows):
            row.episode = 0
            self._start_episode(index, row)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """The observation after the encoded action [B A].

        A row whose episode ended ignores its action and starts the next episode.

        Raises: WorldError before the first `reset`, or with the environment's own error.
        """
        self._require_seed()
        native = self.spec.actions.decode(action.double()).numpy()
        for index, (row, chosen) in enumerate(zip(self._rows, native, strict=True)):
            if row.terminated or row.truncated:
                row.episode += 1
                self._start_episode(index, row)
            else:
                self._step_row(row, chosen)
        return self._observe()

    def _start_episode(self, index: int, row: _Row) -> None:
        key = int(chance.keys(self._require_seed(), index + 1, row.episode)[index])
        with _calling(self.spec.id, "reset"):
            observation, _ = row.env.reset(seed=key % 2**31)
        row.obs, row.actions = self._observations.encode(observation), []
        row.signals = (*(0.0,) * len(SIGNALS), *self._appended(row.obs))
        row.first, row.terminated, row.truncated = True, False, False

    def _step_row(self, row: _Row, native: Any) -> None:
        row.actions.append(native)
        row.obs, row.signals, row.terminated, row.truncated = self._step_env(
            row.env, native, len(row.actions)
        )
        row.first = False

    def _step_env(
        self, env: Any, native: Any, steps: int
    ) -> tuple[Percept, tuple[float, ...], bool, bool]:
        element, effort = self._actions.to_env(native), self._actions.effort(native)
        with _calling(self.spec.id, "step"):
            observation, reward, terminated, truncated, _ = env.step(element)
        obs = self._observations.encode(observation)
        signals = (float(reward), 0.0, 0.0, float(terminated), effort, 0.0, *self._appended(obs))
        truncated = not terminated and (bool(truncated) or steps == self._episode_steps)
        return obs, signals, bool(terminated), truncated

    def _appended(self, obs: Percept) -> tuple[float, ...]:
        """The signals after `SIGNALS`: entries of the vector, then the achieved goal."""
        entries = (float(obs.array[entry]) for entry in self._observation_signals)
        return (*entries, *obs.achieved)

    def _observe(self) -> Observation:
        rows = self._rows
        values = torch.from_numpy(np.stack([row.obs.array for row in rows]))
        goals = [row.obs.goal for row in rows if row.obs.goal is not None]
        return Observation(
            pixels=values if self.spec.pixels is not None else None,
            vector=values if self.spec.vector is not None else None,
            goal=torch.from_numpy(np.stack(goals)) if goals else None,
            signals=torch.tensor([row.signals for row in rows]),
            first=torch.tensor([row.first for row in rows]),
            terminated=torch.tensor([row.terminated for row in rows]),
            truncated=torch.tensor([row.truncated for row in rows]),
        )

    def render(self) -> Tensor:
        """Pictures [B H W 3] uint8: the environment's own, else the observed frame, else bars.

        Bars show the numbers of a vector observation, through tanh.
        """
        self._require_seed()
        pictures = []
        for row in self._rows:
            picture = np.zeros(0)
            # An error: a renderer that is not installed.
            if row.env.render_mode == "rgb_array":
                with suppress(Exception), _no_warnings():
                    picture = np.asarray(row.env.render())
            usable = picture.ndim == 3 and picture.dtype == np.uint8
            pictures.append(picture if usable else _picture(row.obs.array))
        return torch.from_numpy(np.stack(pictures))

    def close(self) -> None:
        """Closes the environments."""
        for row in self._rows:
            row.env.close()
        self._rows, self._seed = [], None

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Each row's episode number, its actions since the reset, and the last observation."""
        seed, facts, blobs = self._require_seed(), [], list[bytes]()
        for row in self._rows:
            actions = np.array(row.actions, self._actions.dtype)
            facts.append([row.episode, len(actions), row.first, row.terminated, row.truncated])
            blobs += [actions.tobytes(), np.array(row.signals).tobytes(), row.obs.array.tobytes()]
        return seal(self._identity, {"seed": seed, "rows": facts}, blobs)

    def restore(self, data: bytes) -> Observation:
        """Restores a snapshot by replay of each row's episode and returns its observation.

        Raises: WorldError if `data` is damaged, of an environment with other settings, or if the
        replay ends in another observation: the environment is not deterministic under its seed.
        """
        facts, blobs = unseal(data, self._identity)
        self._seed = facts["seed"]
        for index, (row, progress) in enumerate(zip(self._rows, facts["rows"], strict=True)):
            row.episode = progress[0]
            packed, signals, values = blobs[3 * index : 3 * index + 3]
            actions = np.frombuffer(packed, self._actions.dtype).reshape(-1, *self._actions.shape)
            self._start_episode(index, row)
            for native in actions:
                row.actions.append(native)
                row.obs = self._step_env(row.env, native, len(row.actions))[0]
            if row.obs.array.tobytes() != values:
                raise WorldError(
                    f"snapshot of {self.spec.id}: expected the recorded observation, got another "
                    f"after the replay of row {index}: not deterministic under its seed; reset "
                    "instead"
                )
            row.signals = tuple(np.frombuffer(signals).tolist())
            row.first, row.terminated, row.truncated = progress[2:]
        return self._observe()

    # -- simulation -------------------------------------------------------------------------

    def save_state(self, row: int) -> Handle:
        """The current state of row `row`.

        Raises: WorldError if the environment cannot be copied.
        """
        self._require_seed()
        _share_pygame_objects()
        at = self._rows[row]
        ended = at.terminated or at.truncated
        return Handle(self._copy(at.env), at.obs, len(at.actions), ended)

    def _copy(self, env: Any) -> Any:
        # An environment may hold objects that cannot be copied.
        with _calling(self.spec.id, "copy", "; choose world_model.kind=jepa"):
            return copy.deepcopy(env)

    def simulate(self, handle: Handle, action: Any, seed: int | None) -> SimStep:
        """One step of a copy, from `handle` with a native action (int or array [A]).

        seed: of fresh random numbers (fair); None: the row's own (clairvoyant). After the end of an
        episode the state stays and all signals are 0.
        """
        if handle.ended:
            return SimStep(handle, (0.0,) * len(self.spec.signals), True)
        env = self._copy(handle.env)
        if seed is not None:
            env.unwrapped.np_random = np.random.default_rng(seed % 2**63)
        obs, signals, terminated, truncated = self._step_env(env, action, handle.steps + 1)
        ended = terminated or truncated
        return SimStep(Handle(env, obs, handle.steps + 1, ended), signals, ended)

    def render_observation(self, handle: Handle) -> NDArray[Any]:
        """The observation of a handle, not a copy: pixels [H W C] in the sensor's format (in
        the environment's own without a sensor), or a vector [N] float32.
        """
        return handle.obs.array


def _share_pygame_objects() -> None:
    """Makes copies of environments share pygame's surfaces, clocks and fonts.

    pygame cannot copy them. Sharing is safe: only the original renders, and redraws everything.
    """
    if (pygame := sys.modules.get("pygame")) is not None:
        for kind in (pygame.Surface, pygame.time.Clock, pygame.font.Font):
            copyreg.pickle(kind, lambda shared: (lambda: shared, ()))


def _render_modes(spec: Any) -> tuple[str, ...]:
    """The render modes an environment's class declares."""
    entry = spec.entry_point
    maker = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    metadata = getattr(maker, "metadata", None)
    return tuple(metadata.get("render_modes", ())) if isinstance(metadata, dict) else ()


def _picture(observed: NDArray[Any]) -> NDArray[np.uint8]:
    """[H W 3]: an observed frame in three channels, or an observed vector as bars."""
    if observed.ndim == 3:
        frame = observed if observed.dtype.kind != "f" else (observed.clip(0, 1) * 255).round()
        frame = frame.astype(np.uint8)[:, :, :3]
        return frame if frame.shape[2] == 3 else frame[:, :, :1].repeat(3, axis=2)
    height, bar = 64, 12
    picture = np.zeros((height, bar * observed.size, 3), np.uint8)
    for index, value in enumerate(np.tanh(observed).tolist()):
        reach = round(value * (height // 2 - 1))
        top, bottom = sorted((height // 2, height // 2 - reach))
        picture[top : bottom + 1, bar * index + 1 : bar * (index + 1) - 1] = (90, 170, 250)
    return picture
