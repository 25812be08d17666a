"""Any other Gymnasium environment, as rows of single environments."""

from __future__ import annotations

import copy
import copyreg
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from modules import chance
from modules.messages import SIGNALS, ActionSpec, ConfigError, Observation, WorldError, WorldSpec
from modules.ports import SimStep
from worlds.protocols import Sensor
from worlds.snapshots import seal, unseal

_CHANNELS = (1, 3, 4)
_SMALLEST_FRAME = 8
_GOAL_KEYS = {"observation", "desired_goal", "achieved_goal"}


@contextmanager
def _quiet() -> Iterator[None]:
    """Environments' warnings concern their authors; what went wrong is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class _Doing:
    """Native actions: how the environment's own are written and numbered."""

    def __init__(self, id: str, space: spaces.Space[Any]) -> None:
        self.start = 0
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype[Any] = np.dtype(np.int64)
        if isinstance(space, spaces.Discrete):
            self.spec = ActionSpec(discrete=True, size=int(space.n))
            self.start = int(space.start)
        elif isinstance(space, spaces.Box) and space.is_bounded() and space.low.size:
            if not bool((space.low < space.high).all()):
                raise ConfigError(f"world {id}: action bounds must differ, got {space}")
            self.shape, self.dtype = space.shape, space.dtype
            low, high = (bound.astype(np.float64).ravel() for bound in (space.low, space.high))
            self.spec = ActionSpec(
                discrete=False, size=low.size, low=tuple(low.tolist()), high=tuple(high.tolist())
            )
        else:
            raise ConfigError(
                f"world {id}: actions must be Discrete or a Box with finite bounds, got {space}"
            )

    def own(self, native: Any) -> Any:
        """The environment's form of a native action, an int or an array [A]."""
        if self.spec.discrete:
            return int(native) + self.start
        values = np.asarray(native, np.float64)
        if self.dtype.kind in "iu":
            values = values.round()
        return values.astype(self.dtype).reshape(self.shape)

    def effort(self, native: Any) -> float:
        """Share of full effort: 0 for the first choice, else 1; mean square where continuous."""
        if self.spec.discrete:
            return float(int(native) != 0)
        low, high = np.array(self.spec.low), np.array(self.spec.high)
        scaled = (np.asarray(native, np.float64) - low) / (high - low) * 2 - 1
        return float(np.clip(np.square(scaled).mean(), 0.0, 1.0))


class _Seen(NamedTuple):
    """One percept of one row: what is shown, the goal where there is one, and what was achieved
    of it where that is felt.
    """

    shown: NDArray[Any]
    goal: NDArray[np.float32] | None
    achieved: tuple[float, ...] = ()


class _Seeing:
    """How observations become frames [H W C] or vectors [N]."""

    def __init__(self, id: str, space: spaces.Space[Any], sensor: Sensor | None) -> None:
        self.pixels: tuple[int, int, int] | None = None
        self.vector = self.goal = None
        self._layout, self._sensor, self._one_hot = "", None, None
        self._goal = isinstance(space, spaces.Dict) and set(space.keys()) == _GOAL_KEYS
        main = space
        if isinstance(space, spaces.Dict) and self._goal:
            main = space["observation"]
            for key in ("desired_goal", "achieved_goal"):
                if not isinstance(space[key], spaces.Box):
                    raise ConfigError(f"world {id}: {key} must be a Box, got {space[key]}")
            self.goal = int(np.prod(space["desired_goal"].shape or (1,)))
        if isinstance(main, spaces.Discrete):
            self._one_hot, self.vector = (int(main.start), int(main.n)), int(main.n)
        elif isinstance(main, spaces.Box) and _layout(main):
            self._layout, self._sensor = _layout(main), sensor
            height, width, channels = self._ordered(np.zeros(main.shape, main.dtype)).shape
            if sensor is not None:
                height, width = sensor.height, sensor.width
                channels = 1 if sensor.gray else 3
            self.pixels = (height, width, channels)
        elif isinstance(main, spaces.Box) and main.dtype.kind in "fiub":
            self.vector = max(1, int(np.prod(main.shape)))
        else:
            raise ConfigError(
                f"world {id}: observations must be a Box, Discrete, or a Dict with the keys "
                f"{', '.join(sorted(_GOAL_KEYS))} of those, got {space}; wrap the environment, "
                "for instance in gymnasium.wrappers.FlattenObservation"
            )
        self.felt: tuple[str, ...] = ()
        if self._goal and isinstance(space, spaces.Dict):
            achieved = int(np.prod(space["achieved_goal"].shape or (1,)))
            self.felt = tuple(f"achieved_{number}" for number in range(achieved))
            if self.vector is not None:
                self.vector += achieved

    def see(self, observation: Any) -> _Seen:
        """One percept. With goals, what has been achieved is felt, and stands at the end of a
        vector.
        """
        goal, achieved = None, np.zeros(0, np.float32)
        if self._goal:
            goal = np.asarray(observation["desired_goal"], np.float32).ravel()
            achieved = np.asarray(observation["achieved_goal"], np.float32).ravel()
            observation = observation["observation"]
        felt = tuple(achieved.tolist())
        if self._one_hot is not None:
            start, size = self._one_hot
            shown = np.zeros(size, np.float32)
            shown[int(observation) - start] = 1.0
        elif self._layout:
            return _Seen(self._frame(np.asarray(observation)), goal, felt)
        else:
            shown = np.asarray(observation, np.float32).ravel()
        return _Seen(np.concatenate([shown, achieved]), goal, felt)

    def _ordered(self, frame: NDArray[Any]) -> NDArray[Any]:
        """A frame in the order [H W C]."""
        if self._layout == "HW":
            return frame[:, :, None]
        return frame.transpose(1, 2, 0) if self._layout == "CHW" else frame

    def _frame(self, observed: NDArray[Any]) -> NDArray[Any]:
        frame = np.ascontiguousarray(self._ordered(observed))
        sensor = self._sensor
        if sensor is None:
            return frame.copy()
        if frame.dtype.kind == "f":
            frame = (frame.clip(0, 1) * 255).round()
        frame = frame.astype(np.uint8)[:, :, :3]
        if sensor.gray and frame.shape[2] == 3:
            frame = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        elif not sensor.gray and frame.shape[2] == 1:
            frame = frame.repeat(3, axis=2)
        if frame.shape[:2] != (sensor.height, sensor.width):
            frame = cv2.resize(frame, (sensor.width, sensor.height), interpolation=cv2.INTER_AREA)
        return frame if frame.ndim == 3 else frame[:, :, None]


def _layout(space: spaces.Box) -> str:
    """`HWC`, `CHW`, `HW` where a Box holds frames; else nothing.

    Frames are bytes, or floats from 0 to 1, at least 8 by 8, with 1, 3 or 4 channels.
    """
    shape, kind = space.shape, space.dtype.kind
    unit = kind == "f" and float(space.low.min(initial=0)) == 0 and float(space.high.max()) == 1
    if not (unit or space.dtype == np.uint8) or len(shape) not in (2, 3):
        return ""
    if len(shape) == 2:
        return "HW" if min(shape) >= _SMALLEST_FRAME else ""
    if shape[2] in _CHANNELS and min(shape[:2]) >= _SMALLEST_FRAME:
        return "HWC"
    if shape[0] in _CHANNELS and min(shape[1:]) >= _SMALLEST_FRAME:
        return "CHW"
    return ""


@dataclass(slots=True, eq=False)
class Handle:
    """A state of one environment: a copy of it that is never stepped itself."""

    env: Any
    seen: _Seen
    steps: int
    ended: bool


@dataclass(slots=True)
class _Row:
    """One environment and where it stands; `actions` are the native ones of this episode."""

    env: Any
    seen: _Seen
    episode: int = 0
    actions: list[Any] | None = None
    signals: tuple[float, ...] = ()
    first: bool = True
    terminated: bool = False
    truncated: bool = False


class GymnasiumRows:
    """B environments of one Gymnasium id, each episode with a seed of its own.

    Discrete or bounded Box actions; frames, vectors, Discrete observations, and those with goals.
    A snapshot is each row's seed and its actions since, restored by replay, and so exact for
    every environment that its seed determines. Imagined in by copying environments.
    """

    def __init__(
        self,
        *,
        id: str,
        num_envs: int,
        sensor: Sensor | None,
        episode_steps: int | None,
        observation_signals: tuple[int, ...],
    ) -> None:
        self._observation_signals = observation_signals
        self.num_envs, self._id, self._episode_steps = num_envs, id, episode_steps
        self._seed: int | None = None
        self._rows: list[_Row] = []
        first = self._made()
        try:
            self._doing = _Doing(id, first.action_space)
            self._seeing = _Seeing(id, first.observation_space, sensor)
        except ConfigError:
            first.close()
            raise
        nothing = _Seen(np.zeros(0), None)
        self._rows = [_Row(env=first, seen=nothing)]
        self._rows += [_Row(env=self._made(), seen=nothing) for _ in range(num_envs - 1)]
        self.spec = WorldSpec(
            id=id,
            pixels=self._seeing.pixels,
            vector=self._seeing.vector,
            signals=(
                *SIGNALS,
                *(f"observation_{entry}" for entry in observation_signals),
                *self._seeing.felt,
            ),
            actions=self._doing.spec,
            goal=self._seeing.goal,
        )
        self._identity = {
            "world": "gymnasium-rows",
            "id": id,
            "rows": num_envs,
            "sensor": None if sensor is None else sensor.model_dump(),
            "episode_steps": episode_steps,
        }

    def _made(self) -> Any:
        try:
            with _quiet():
                # The package before the colon has been imported when the id was looked up.
                spec = gymnasium.spec(self._id.rpartition(":")[2])
                modes = _render_modes(spec)
                mode = "rgb_array" if "rgb_array" in modes else None
                return gymnasium.make(spec, render_mode=mode, disable_env_checker=True)
        except Exception as error:  # whatever an environment's constructor may raise
            raise WorldError(f"world {self._id}: cannot be made ({_line(error)})") from None

    # -- living -----------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """The first observation of every row."""
        self._seed = seed
        for index, row in enumerate(self._rows):
            row.episode = 0
            self._begin(index, row)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """What follows the encoded action [B A]; a row that had ended begins anew instead."""
        self._started()
        native = self.spec.actions.decode(action.double()).numpy()
        for index, (row, chosen) in enumerate(zip(self._rows, native, strict=True)):
            if row.terminated or row.truncated:
                row.episode += 1
                self._begin(index, row)
            else:
                self._live(row, chosen)
        return self._observe()

    def _started(self) -> int:
        if self._seed is None:
            raise WorldError(f"world {self._id}: expected reset(seed) first, got none")
        return self._seed

    def _begin(self, index: int, row: _Row) -> None:
        key = int(chance.keys(self._started(), index + 1, row.episode)[index])
        with _quiet():
            try:
                shown, _ = row.env.reset(seed=key % 2**31)
            except Exception as error:  # an environment's own
                raise WorldError(f"world {self._id}: reset failed ({_line(error)})") from error
        row.seen, row.actions = self._seeing.see(shown), []
        row.signals = (*(0.0,) * len(SIGNALS), *self._appended(row.seen))
        row.first, row.terminated, row.truncated = True, False, False

    def _live(self, row: _Row, native: Any) -> None:
        own = self._doing.own(native)
        assert row.actions is not None
        row.actions.append(own)
        row.seen, row.signals, row.terminated, row.truncated = self._stepped(
            row.env, own, self._doing.effort(native), len(row.actions)
        )
        row.first = False

    def _stepped(
        self, env: Any, own: Any, effort: float, steps: int
    ) -> tuple[_Seen, tuple[float, ...], bool, bool]:
        with _quiet():
            try:
                shown, reward, terminated, truncated, _ = env.step(own)
            except Exception as error:  # an environment's own
                raise WorldError(f"world {self._id}: step failed ({_line(error)})") from error
        seen = self._seeing.see(shown)
        signals = (float(reward), 0.0, 0.0, float(terminated), effort, 0.0, *self._appended(seen))
        cut = not terminated and (bool(truncated) or steps == self._episode_steps)
        return seen, signals, bool(terminated), cut

    def _appended(self, seen: _Seen) -> tuple[float, ...]:
        """The signals behind the standard ones: observed entries, then what is achieved."""
        observed = (float(seen.shown[entry]) for entry in self._observation_signals)
        return (*observed, *seen.achieved)

    def _observe(self) -> Observation:
        rows = self._rows
        shown = torch.from_numpy(np.stack([row.seen.shown for row in rows]))
        goals = [row.seen.goal for row in rows if row.seen.goal is not None]
        return Observation(
            pixels=shown if self.spec.pixels is not None else None,
            vector=shown if self.spec.vector is not None else None,
            goal=torch.from_numpy(np.stack(goals)) if goals else None,
            signals=torch.tensor([row.signals for row in rows]),
            first=torch.tensor([row.first for row in rows]),
            terminated=torch.tensor([row.terminated for row in rows]),
            truncated=torch.tensor([row.truncated for row in rows]),
        )

    def render(self) -> Tensor:
        """What a person would see, [B H W 3] uint8: the environment's own picture, else the
        frame observed, else the numbers observed as bars.
        """
        self._started()
        pictures = []
        for row in self._rows:
            picture = None
            if row.env.render_mode == "rgb_array":
                with _quiet():
                    try:
                        picture = np.asarray(row.env.render())
                    except Exception:  # a renderer that is not installed
                        picture = None
            usable = picture is not None and picture.ndim == 3 and picture.dtype == np.uint8
            pictures.append(picture if picture is not None and usable else _drawn(row.seen.shown))
        return torch.from_numpy(np.stack(pictures))

    def close(self) -> None:
        """Closes the environments."""
        for row in self._rows:
            row.env.close()
        self._rows, self._seed = [], None

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Each row's episode and the actions since it began."""
        seed, facts, blobs = self._started(), [], list[bytes]()
        for row in self._rows:
            actions = np.array(row.actions, self._doing.dtype)
            facts.append([row.episode, len(actions), row.first, row.terminated, row.truncated])
            blobs += [actions.tobytes(), np.array(row.signals).tobytes(), row.seen.shown.tobytes()]
        return seal(self._identity, {"seed": seed, "rows": facts}, blobs)

    def restore(self, data: bytes) -> Observation:
        """Replays each row's episode and shows the observation again.

        WorldError where the snapshot is damaged, or where the environment does not follow from
        its seed, so that the replay arrives elsewhere.
        """
        facts, blobs = unseal(data, self._identity)
        self._seed = facts["seed"]
        for index, (row, fact) in enumerate(zip(self._rows, facts["rows"], strict=True)):
            row.episode = fact[0]
            packed, felt, shown = blobs[3 * index : 3 * index + 3]
            actions = np.frombuffer(packed, self._doing.dtype).reshape(-1, *self._doing.shape)
            self._begin(index, row)
            for own in actions:
                again = int(own) if self._doing.spec.discrete else own.copy()
                assert row.actions is not None
                row.actions.append(again)
                row.seen = self._stepped(row.env, again, 0.0, len(row.actions))[0]
            if row.seen.shown.tobytes() != shown:
                raise WorldError(
                    f"snapshot of {self._id}: the replay of row {index} arrives elsewhere; "
                    "the environment does not follow from its seed, begin anew instead"
                )
            row.signals = tuple(np.frombuffer(felt).tolist())
            row.first, row.terminated, row.truncated = fact[2:]
        return self._observe()

    # -- imagining --------------------------------------------------------------------------

    def save_state(self, row: int) -> Handle:
        """The present state of a row."""
        self._started()
        _share_pictures()
        at = self._rows[row]
        steps = len(at.actions or ())
        return Handle(self._copy(at.env), at.seen, steps, at.terminated or at.truncated)

    def _copy(self, env: Any) -> Any:
        try:
            with _quiet():
                return copy.deepcopy(env)
        except Exception as error:  # whatever an environment holds that cannot be copied
            raise WorldError(
                f"world {self._id}: cannot be imagined from, as it cannot be copied "
                f"({_line(error)}); choose world_model.kind=jepa"
            ) from None

    def simulate(self, handle: Handle, action: Any, seed: int | None) -> SimStep:
        """One step of a copy; with `seed`, of one whose random numbers are drawn anew."""
        if handle.ended:
            return SimStep(handle, (0.0,) * len(self.spec.signals), True)
        env = self._copy(handle.env)
        if seed is not None:
            env.unwrapped.np_random = np.random.default_rng(seed % 2**63)
        seen, signals, terminated, truncated = self._stepped(
            env, self._doing.own(action), self._doing.effort(action), handle.steps + 1
        )
        ended = terminated or truncated
        return SimStep(Handle(env, seen, handle.steps + 1, ended), signals, ended)

    def render_observation(self, handle: Handle) -> NDArray[Any]:
        """What would be observed there: [H W C], or [N] float32."""
        return handle.seen.shown


def _share_pictures() -> None:
    """Lets copies of environments that have drawn share what they draw with, which pygame cannot
    copy: only the one that is lived in draws, and all of it anew.
    """
    if (pygame := sys.modules.get("pygame")) is not None:
        for kind in (pygame.Surface, pygame.time.Clock, pygame.font.Font):
            copyreg.pickle(kind, lambda thing: (lambda: thing, ()))


def _render_modes(spec: Any) -> tuple[str, ...]:
    """The render modes an environment's class declares."""
    entry = spec.entry_point
    maker = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
    metadata = getattr(maker, "metadata", None)
    return tuple(metadata.get("render_modes", ())) if isinstance(metadata, dict) else ()


def _drawn(shown: NDArray[Any]) -> NDArray[np.uint8]:
    """A frame as observed in three channels, or a vector as bars, [H W 3]."""
    if shown.ndim == 3:
        frame = shown if shown.dtype.kind != "f" else (shown.clip(0, 1) * 255).round()
        frame = frame.astype(np.uint8)[:, :, :3]
        return frame if frame.shape[2] == 3 else frame[:, :, :1].repeat(3, axis=2)
    height, bar = 64, 12
    picture = np.zeros((height, bar * shown.size, 3), np.uint8)
    for index, value in enumerate(np.tanh(shown).tolist()):
        reach = round(value * (height // 2 - 1))
        top, bottom = sorted((height // 2, height // 2 - reach))
        picture[top : bottom + 1, bar * index + 1 : bar * (index + 1) - 1] = (90, 170, 250)
    return picture
