"""Any Gymnasium environment other than Atari, one instance a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules import chance
from modules.messages import SIGNALS, Observation, SextetError, WorldError, WorldSpec
from modules.ports import SimStep
from worlds import rehearsal
from worlds.edge import EnvStep, GuardedEnv, note
from worlds.pictures import Pictures
from worlds.protocols import Reading, Sensor
from worlds.seeded import SeededWorld
from worlds.snapshots import seal, unseal
from worlds.spaces import ActionCodec, ObservationCodec, Percept

EPISODE_STEPS = 10_000
"""The episode limit, steps, of an environment that has no time limit of its own."""


@dataclass(slots=True, eq=False)
class Handle:
    """A state of one row: a copy of its environment that is never stepped."""

    env: GuardedEnv
    obs: Percept
    ended: bool


@dataclass(slots=True)
class _Row:
    """One environment, its last observation and, in `actions`, the actions of this episode."""

    env: GuardedEnv
    obs: Percept
    episode: int = 0
    actions: list[Any] = field(default_factory=list)
    signals: tuple[float, ...] = ()
    first: bool = True
    terminated: bool = False
    truncated: bool = False


class GymnasiumRows(SeededWorld):
    """B environments of one Gymnasium id with next-step autoreset, one seed an episode.

    `worlds.spaces` reads the spaces; `reading` is what the perception asks for. A snapshot is each
    row's seed and the actions since, restored by replay: exact if the environment is deterministic
    under its seed (`rehearse`). The simulator steps copies of environments. Every call of an
    environment is guarded (`worlds.edge`).

    `episode_steps`: the length at which an episode is truncated; None: the environment's own limit,
    else EPISODE_STEPS. `step_seconds`, `settings`: see `GuardedEnv`.

    Raises: ConfigError for unsupported spaces and unknown settings, WorldError if the environment
    cannot be constructed.
    """

    def __init__(
        self,
        *,
        id: str,
        num_envs: int,
        sensor: Sensor | None,
        episode_steps: int | None,
        observation_signals: tuple[int, ...],
        step_seconds: float | None,
        reading: Reading | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings = dict(settings or {})
        self._observation_signals = observation_signals
        self.num_envs, self._step_seconds = num_envs, step_seconds
        empty = Percept(np.zeros(0), None)
        first = GuardedEnv(id, "row 0", step_seconds, self._settings)
        self._rows = [_Row(first, empty)]
        try:
            self._actions = ActionCodec(id, first.action_space)
            self._observations = ObservationCodec(id, first.observation_space, sensor, reading)
            for row in range(1, num_envs):
                env = GuardedEnv(id, f"row {row}", step_seconds, self._settings)
                self._rows.append(_Row(env, empty))
        except SextetError:
            self.close()
            raise
        self._is_limited = episode_steps is not None or first.time_limit is not None
        self._limit = episode_steps if self._is_limited else EPISODE_STEPS
        self._film = Pictures()
        self._rehearsed = False
        self._replay_fault: str | None = None
        self.spec = WorldSpec(
            id=id,
            pixels=self._observations.pixels,
            vector=self._observations.vector,
            signals=(
                *SIGNALS,
                *first.signals,
                *(f"observation_{entry}" for entry in observation_signals),
                *self._observations.goal_signals,
            ),
            actions=self._actions.spec,
            goal=self._observations.goal,
            goal_pixels=self._observations.shows_goal,
            readings=(self._observations.description, self._actions.description),
        )
        self._identity = {
            "world": "gymnasium-rows",
            "id": id,
            "rows": num_envs,
            "sensor": None if sensor is None else sensor.model_dump(),
            "episode_steps": episode_steps,
        }
        # Absent where there are none, as in snapshots from before there were any.
        if self._settings:
            self._identity["settings"] = self._settings

    # -- episodes ---------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """The first observation of every row, under the run's `seed`.

        Raises: WorldError with the environment's own error.
        """
        self._seed = seed
        if not self._is_limited:
            note(
                f"world {self.spec.id}: has no time limit; its episodes are truncated after "
                f"{EPISODE_STEPS} steps (world.episode_steps)"
            )
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
        step = row.env.reset(key)
        row.obs, row.actions = self._observations.encode(step.observation), []
        row.signals = (*(0.0,) * len(SIGNALS), *self._appended(step, row.obs))
        row.first, row.terminated, row.truncated = True, False, False

    def _step_row(self, row: _Row, native: Any) -> None:
        row.actions.append(native)
        row.obs, row.signals, row.terminated, row.truncated = self._step_env(row.env, native)
        row.first = False

    def _step_env(
        self, env: GuardedEnv, native: Any
    ) -> tuple[Percept, tuple[float, ...], bool, bool]:
        step = env.step(self._actions.to_env(native))
        obs, end = self._observations.encode(step.observation), float(step.terminated)
        effort = self._actions.effort(native)
        signals = (step.reward, 0.0, 0.0, end, effort, 0.0, *self._appended(step, obs))
        truncated = not step.terminated and (step.truncated or env.steps == self._limit)
        return obs, signals, step.terminated, truncated

    def _appended(self, step: EnvStep, obs: Percept) -> tuple[float, ...]:
        """The signals after `SIGNALS`: those that the environment declares, entries of the vector,
        then the achieved goal.
        """
        entries = (float(obs.array[entry]) for entry in self._observation_signals)
        return (*step.signals.values(), *entries, *obs.achieved)

    def _observe(self) -> Observation:
        rows = self._rows
        values = torch.from_numpy(np.stack([row.obs.array for row in rows]))
        goals = [row.obs.goal for row in rows if row.obs.goal is not None]
        shown = [row.obs.goal_pixels for row in rows if row.obs.goal_pixels is not None]
        return Observation(
            pixels=values if self.spec.pixels is not None else None,
            vector=values if self.spec.vector is not None else None,
            goal=torch.from_numpy(np.stack(goals)) if goals else None,
            goal_pixels=torch.from_numpy(np.stack(shown)) if shown else None,
            signals=torch.tensor([row.signals for row in rows]),
            first=torch.tensor([row.first for row in rows]),
            terminated=torch.tensor([row.terminated for row in rows]),
            truncated=torch.tensor([row.truncated for row in rows]),
        )

    def render(self) -> Tensor:
        """Pictures [B H W 3] uint8 of one size: the environment's own, else the observed frame,
        else bars, which show the numbers of a vector observation through tanh.
        """
        self._require_seed()
        pictures = [self._film.picture(row.env.render(), row.obs.array) for row in self._rows]
        return torch.from_numpy(np.stack(pictures))

    def close(self) -> None:
        """Closes the environments."""
        for row in self._rows:
            row.env.close()
        self._rows, self._seed = [], None

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Each row's episode number, the actions since its reset, last observation and signals."""
        seed, facts, blobs = self._require_seed(), [], list[bytes]()
        for row in self._rows:
            actions = np.array(row.actions, self._actions.dtype)
            facts.append([row.episode, len(actions), row.first, row.terminated, row.truncated])
            blobs += [actions.tobytes(), np.array(row.signals).tobytes(), row.obs.array.tobytes()]
        return seal(self._identity, {"seed": seed, "rows": facts}, blobs)

    def restore(self, data: bytes) -> Observation:
        """Restores a snapshot by replay of each row's episode and returns its observation.

        Raises: WorldError if `data` is damaged, of an environment with other settings, or if the
        replay ends in another observation or other signals: it is not deterministic under its seed.
        """
        facts, blobs = unseal(data, self._identity)
        self._seed = facts["seed"]
        for index, (row, progress) in enumerate(zip(self._rows, facts["rows"], strict=True)):
            row.episode = progress[0]
            packed, signals, values = blobs[3 * index : 3 * index + 3]
            actions = np.frombuffer(packed, self._actions.dtype).reshape(-1, *self._actions.shape)
            self._start_episode(index, row)
            recorded = np.frombuffer(signals)
            for native in actions:
                row.actions.append(native)
                row.obs, row.signals, *_ = self._step_env(row.env, native)
            same = row.obs.array.tobytes() == values
            if not same or not np.array_equal(row.signals, recorded):
                raise WorldError(
                    f"snapshot of {self.spec.id}: expected the recorded "
                    f"{'signals' if same else 'observation'}, got another after the replay of row "
                    f"{index}: not deterministic under its seed; reset instead"
                )
            row.signals = tuple(recorded.tolist())
            row.first, row.terminated, row.truncated = progress[2:]
        return self._observe()

    def rehearse(self) -> str | None:
        """Why a replay does not restore this world, tested once; None where it does.

        It is tested in environments of its own where more can be opened. Needs `reset` afterwards.
        """
        if not self._rehearsed:
            self._rehearsed = True
            self._replay_fault = rehearsal.replay_fault(self._open, self._rows[0].env)
        return self._replay_fault

    def _open(self) -> GuardedEnv:
        return GuardedEnv(self.spec.id, "rehearsal", self._step_seconds, self._settings)

    # -- simulation -------------------------------------------------------------------------

    def save_state(self, row: int) -> Handle:
        """The current state of row `row`.

        Raises: WorldError if the environment cannot be copied.
        """
        self._require_seed()
        at = self._rows[row]
        ended = at.terminated or at.truncated
        return Handle(at.env.copy(None, f"row {row}, imagined"), at.obs, ended)

    def simulate(self, handle: Handle, action: Any, seed: int | None) -> SimStep:
        """One step of a copy, from `handle` with a native action (int or array [A]).

        seed: of fresh random numbers (fair); None: the row's own (clairvoyant). After the end of an
        episode the state stays and all signals are 0.
        """
        if handle.ended:
            return SimStep(handle, (0.0,) * len(self.spec.signals), True)
        env = handle.env.copy(seed, handle.env.where)
        obs, signals, terminated, truncated = self._step_env(env, action)
        ended = terminated or truncated
        return SimStep(Handle(env, obs, ended), signals, ended)

    def require_simulation(self) -> None:
        """Raises WorldError where copies of the environment do not follow its rules and leave it
        as it is: no such copy can be made, or its random numbers cannot be seeded.
        """
        fault = rehearsal.simulation_fault(self._open, self._rows[0].env)
        if fault is not None:
            raise WorldError(
                f"world {self.spec.id}: expected a world that can be imagined from, got one that "
                f"cannot: {fault}; choose world_model.kind=jepa"
            )

    def render_observation(self, handle: Handle) -> NDArray[Any]:
        """The observation of a handle, not a copy: pixels [H W C] in the sensor's format (in
        the environment's own without a sensor), or a vector [N] float32.
        """
        return handle.obs.array
