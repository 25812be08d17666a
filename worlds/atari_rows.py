"""Atari with one emulator a row: exact snapshots, and the simulator of an exact world model."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from ale_py import ALEInterface, ALEState, LoggerMode
from ale_py.roms import get_rom_path
from numpy.typing import NDArray
from torch import Tensor

from modules.messages import SIGNALS, ActionSpec, Observation, WorldError, WorldSpec
from modules.ports import SimStep
from worlds.atari_rng import NoOps, Tape, chapter_seed, sticks_from
from worlds.catalog import Game
from worlds.protocols import Protocol, Sensor
from worlds.seeded import SeededWorld
from worlds.snapshots import seal, unseal

Frame = NDArray[np.uint8]
_COUNTERS = (
    "chapter", "chapter_steps", "episodes", "frame", "game_steps", "last", "lives", "first", "over",
    "terminated", "truncated", "acted", "signals",
)  # fmt: skip
"""The attributes of a row that are plain numbers, in the order of a snapshot."""

_NOOP = 0
_PADDLE_BYTES = 8


@dataclass(frozen=True)
class AtariSettings:
    """A game and how it runs, as `worlds.make.make_world` describes it."""

    game: Game
    num_envs: int
    protocol: Protocol
    sensor: Sensor | None
    training: bool
    episode_steps: int | None
    chapter_steps: int

    @property
    def life_ends(self) -> bool:
        """Whether the loss of a life terminates the episode."""
        return self.training and self.protocol.life_ends

    def identity(self, world: str) -> dict[str, Any]:
        """The settings on which a snapshot by the implementation `world` depends."""
        return {
            "world": world,
            "id": self.game.id,
            "rows": self.num_envs,
            "protocol": self.protocol.name,
            "sensor": None if self.sensor is None else self.sensor.model_dump(),
            "training": self.training,
            "episode_steps": self.episode_steps,
            "chapter_steps": self.chapter_steps,
        }

    def spec(self, emulator: ALEInterface) -> WorldSpec:
        """Shapes and actions of the game, which `emulator` has loaded."""
        names = tuple(action.name for action in emulator.getMinimalActionSet())
        screen = (*emulator.getScreenDims(), 3)
        return WorldSpec(
            id=self.game.id,
            pixels=screen if self.sensor is None else self.sensor.shape,
            vector=None,
            signals=SIGNALS,
            actions=ActionSpec(
                discrete=True, size=len(names), names=names, factors=joystick(names)
            ),
            protocol=self.protocol.name,
            frames_per_step=self.protocol.frame_skip,
        )


def joystick(names: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """`ActionSpec.factors` [A F] of actions named as UPRIGHTFIRE: 1 where the name has the factor.

    Factors are those of up, down, right, left and fire that occur. Empty if no action has two.
    """
    movements = ("UP", "DOWN", "RIGHT", "LEFT", "FIRE")
    factors = [[float(movement in name) for movement in movements] for name in names]
    if max(map(sum, factors), default=0) < 2:
        return ()
    used = [any(column) for column in zip(*factors, strict=True)]
    return tuple(tuple(itertools.compress(row, used)) for row in factors)


def load_emulator(settings: AtariSettings) -> ALEInterface:
    """A silent emulator with the game's ROM loaded, not yet reset.

    Its own sticky actions are off: `worlds.atari_rng` draws them.

    Raises: WorldError if ale-py has no such ROM.
    """
    ALEInterface.setLoggerMode(LoggerMode.Error)
    emulator = ALEInterface()
    emulator.setFloat("repeat_action_probability", 0.0)
    emulator.setInt("random_seed", 1)
    emulator.setInt("max_num_frames_per_episode", settings.protocol.frames_limit)
    game = settings.game
    rom = get_rom_path(game.rom)
    if rom is None:
        raise WorldError(f"world {game.id}: expected ROM {game.rom!r}, got none; reinstall ale-py")
    emulator.loadROM(rom)
    return emulator


def restore_exactly(emulator: ALEInterface, state: ALEState, acted: bool) -> None:
    """Restores `state` exactly, which `ALEInterface.restoreState` alone does not.

    ALE reads the console's switches one frame late and stores them in no ALEState, so the first
    frame after a reset still reads the reset switch. `acted`: the state is later than that frame.
    If True, `emulator` must have acted since its own last reset; if False, it is reset here.
    """
    if not acted:
        emulator.reset_game()
    emulator.restoreState(state)


def reset_frames(emulator: ALEInterface) -> int:
    """Frames of random numbers that one reset consumes, read from a newly constructed emulator.

    Nearly always 0; some games (Berzerk 20, Double Dunk 12) select their mode by actions. The
    serialized generator is text: 624 words, then the count of those consumed.

    Raises: WorldError if the state has another format.
    """
    state = emulator.cloneState(include_rng=True).serialize()
    consumed = re.search(rb" (\d+)[^\d ]*$", state[:-_PADDLE_BYTES])
    if consumed is None:
        raise WorldError("ale-py: expected generator state as text, got bytes; use ale-py 0.12")
    return int(consumed[1]) % 624 // 2


class FrameReader:
    """Reads frames from an emulator and converts them to the sensor's format."""

    def __init__(self, sensor: Sensor | None, screen: tuple[int, int]) -> None:
        self._gray = sensor is not None and sensor.gray
        self.pools = sensor is not None and sensor.max_pool is not False
        self._size = None
        if sensor is not None and (sensor.height, sensor.width) != screen:
            self._size = (sensor.width, sensor.height)
        self.raw_shape = screen if self._gray else (*screen, 3)

    def read(self, emulator: ALEInterface) -> Frame:
        """The current screen in the sensor's colours, [h w] or [h w 3] uint8."""
        frame = np.empty(self.raw_shape, np.uint8)
        (emulator.getScreenGrayscale if self._gray else emulator.getScreenRGB)(frame)
        return frame

    def to_pixels(self, raw: Frame) -> Frame:
        """The observation [H W C] uint8 of a frame from `read`."""
        if self._size is not None:
            raw = np.asarray(cv2.resize(raw, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        return raw[:, :, None] if raw.ndim == 2 else raw


@dataclass(slots=True, eq=False)
class Handle:
    """A state of one game. Equal handles have equal futures under the same actions."""

    state: ALEState
    raw: Frame
    last: int
    lives: int
    frame: int
    game_steps: int
    tape: Tape
    acted: bool
    ended: bool
    key: int

    def __hash__(self) -> int:
        return self.key

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Handle)
            and self.key == other.key
            and (self.last, self.lives, self.frame, self.game_steps, self.ended)
            == (other.last, other.lives, other.frame, other.game_steps, other.ended)
            and self.tape is other.tape
            and self.state.equals(other.state)
            and np.array_equal(self.raw, other.raw)
        )


class _Row:
    """One emulator, its counters and its last observation."""

    def __init__(self, emulator: ALEInterface) -> None:
        self.emulator = emulator
        self.loaded_state = emulator.cloneState()
        self.chapter = self.chapter_steps = self.episodes = 0
        self.frame = self.game_steps = self.last = self.lives = 0
        self.tape: Tape
        self.noops: NoOps
        self.raw: Frame
        self.screen: Frame | None = None
        self.signals: Sequence[float] = ()
        self.first = self.over = self.terminated = self.truncated = self.acted = False

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


class AtariRows(SeededWorld):
    """B games of Atari, each in its own emulator, with next-step autoreset.

    `restore` continues a `snapshot` bit for bit. The simulator uses a separate emulator, so that
    `simulate` leaves the games unchanged.

    Frames, rewards and episode ends equal those of ale-py's vector environment under the same
    seeds, which includes that the last frame of a game is not observed. One exception: in Double
    Dunk the actions that ale-py sends to the game's menu before a game are sticky, here not.
    """

    def __init__(self, settings: AtariSettings) -> None:
        self._settings, self.num_envs = settings, settings.num_envs
        self._rows = [_Row(load_emulator(settings)) for _ in range(self.num_envs)]
        emulator = self._rows[0].emulator
        self.spec = settings.spec(emulator)
        self._native = [int(action.value) for action in emulator.getMinimalActionSet()]
        self._reader = FrameReader(settings.sensor, emulator.getScreenDims())
        self._reset_frames = reset_frames(emulator)
        self._simulator: ALEInterface | None = None
        self._simulator_state: Handle | None = None
        self._identity = settings.identity("atari-rows")

    # -- episodes ---------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """The first observation of every row, under the run's `seed`."""
        self._seed = seed
        for index, row in enumerate(self._rows):
            row.chapter = -1
            self._start_chapter(index, row)
            self._start_episode(row)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """The observation after the encoded action [B A].

        A row whose episode ended ignores its action and starts the next episode.

        Raises: WorldError before the first `reset`.
        """
        self._require_seed()
        for index, (row, action_index) in enumerate(
            zip(self._rows, self.spec.actions.decode(action).tolist(), strict=True)
        ):
            row.chapter_steps += 1
            row.screen = None
            if not row.ended:
                self._step_row(row, self._native[action_index])
            elif row.terminated and not row.over:
                # The first step of an episode that follows a lost life in the same game: a no-op.
                self._step_row(row, self._native[0], first=True)
            else:
                if not row.over:
                    # ale-py's vector environment steps all rows together, so there a game that
                    # `episode_steps` truncates plays one more step before its reset, with
                    # the first action of its set (a no-op in all games but two).
                    self._emulate(row.emulator, row, self._native[0], self._sticks(row))
                if row.chapter_steps > self._settings.chapter_steps:
                    self._start_chapter(index, row)
                self._start_episode(row)
        return self._observe()

    def _start_chapter(self, index: int, row: _Row) -> None:
        row.chapter += 1
        seed = chapter_seed(self._require_seed(), index, row.chapter)
        row.tape = Tape(seed, self._settings.protocol.sticky)
        row.noops = NoOps(seed, self._settings.protocol.noop_max)
        row.chapter_steps = row.episodes = 0
        row.frame = self._reset_frames  # loading the ROM resets once, too
        row.emulator.restoreState(row.loaded_state)

    def _start_episode(self, row: _Row) -> None:
        """Starts a game: reset, then no-ops."""
        emulator = row.emulator
        row.episodes += 1
        self._reset(row)
        for _ in range(row.noops.draw()):
            emulator.act(_NOOP)
            row.frame, row.acted = row.frame + 1, True
            if emulator.game_over():
                self._reset(row)
        row.raw = self._reader.read(emulator)
        row.last, row.game_steps, row.lives = _NOOP, 0, emulator.lives()
        row.first, row.over, row.terminated, row.truncated = True, False, False, False
        row.signals = (0.0, 0.0, float(row.lives), 0.0, 0.0, 0.0)

    def _reset(self, row: _Row) -> None:
        row.emulator.reset_game()
        row.frame, row.acted = row.frame + self._reset_frames, False

    def _sticks(self, row: _Row) -> Sequence[int]:
        return row.tape.sticks(row.frame, self._settings.protocol.frame_skip)

    def _step_row(self, row: _Row, native: int, first: bool = False) -> None:
        score = self._emulate(row.emulator, row, native, self._sticks(row))
        lost = self._update_flags(row.emulator, row)
        row.first = first
        row.terminated = row.over or (self._settings.life_ends and lost and not first)
        row.signals = self._signals(row, score, lost, _NOOP if first else native)

    def _update_flags(self, emulator: ALEInterface, at: _Row) -> bool:
        """Updates lives, `over` and `truncated` after a step; True if a life was lost."""
        at.game_steps += 1
        lives = emulator.lives()
        lost, at.lives = lives < at.lives, lives
        at.over = emulator.game_over(with_truncation=False)
        at.truncated = not at.over and (
            emulator.game_truncated() or at.game_steps == self._settings.episode_steps
        )
        return lost

    @staticmethod
    def _signals(row: _Row, score: float, lost: bool, native: int) -> tuple[float, ...]:
        return score, float(lost), float(row.lives), float(row.over), float(native != _NOOP), 0.0

    def _emulate(
        self, emulator: ALEInterface, at: _Row, native: int, sticks: Sequence[int]
    ) -> float:
        """Runs `frame_skip` frames; updates `at.frame`, `at.last`, `at.raw`.

        Returns the unclipped reward. A game that ends stops the step, and its last frame is
        not read.
        """
        act, over, reader = emulator.act, emulator.game_over, self._reader
        last, score, pools = at.last, 0, reader.pools
        last_frame_index = self._settings.protocol.frame_skip - 1
        previous: Frame | None = None
        for k, stick in enumerate(sticks):
            if not stick:
                last = native
            score += act(last)
            if over():
                if previous is not None:
                    at.raw = np.maximum(at.raw, previous)
                break
            if pools and k == last_frame_index - 1:
                previous = reader.read(emulator)
        else:
            frame = reader.read(emulator)
            at.raw = frame if previous is None else np.maximum(frame, previous, out=frame)
        at.frame += k + 1
        at.last, at.acted = last, True
        return float(score)

    def _observe(self) -> Observation:
        rows, to_pixels = self._rows, self._reader.to_pixels
        return Observation(
            pixels=torch.from_numpy(np.stack([to_pixels(row.raw) for row in rows])),
            vector=None,
            signals=torch.tensor([row.signals for row in rows]),
            first=torch.tensor([row.first for row in rows]),
            terminated=torch.tensor([row.terminated for row in rows]),
            truncated=torch.tensor([row.truncated for row in rows]),
        )

    def render(self) -> Tensor:
        """The emulators' screens in colour, [B h w 3] uint8."""
        self._require_seed()
        return torch.from_numpy(np.stack([self._screen(row) for row in self._rows]))

    @staticmethod
    def _screen(row: _Row) -> Frame:
        screen: Frame = row.emulator.getScreenRGB() if row.screen is None else row.screen
        return screen

    def close(self) -> None:
        """Releases the emulators."""
        self._rows, self._simulator, self._simulator_state, self._seed = [], None, None, None

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All rows: emulator states, counters, random numbers, last observation."""
        seed, facts, blobs = self._require_seed(), [], list[bytes]()
        for row in self._rows:
            facts.append([getattr(row, name) for name in _COUNTERS])
            state = row.emulator.cloneState(include_rng=True).serialize()
            blobs += [state, row.raw.tobytes(), self._screen(row).tobytes()]
        return seal(self._identity, {"seed": seed, "rows": facts}, blobs)

    def restore(self, data: bytes) -> Observation:
        """Restores a snapshot and returns its observation.

        Raises: WorldError if `data` is damaged or of an environment with other settings.
        """
        facts, blobs = unseal(data, self._identity)
        self._seed = facts["seed"]
        for index, (row, counters) in enumerate(zip(self._rows, facts["rows"], strict=True)):
            row.chapter = counters[0] - 1
            self._start_chapter(index, row)
            for name, value in zip(_COUNTERS, counters, strict=True):
                setattr(row, name, value)
            for _ in range(row.episodes):
                row.noops.draw()
            state, raw, screen = blobs[3 * index : 3 * index + 3]
            row.emulator.reset_game()
            row.emulator.act(_NOOP)
            restore_exactly(row.emulator, ALEState(state), row.acted)
            row.raw = np.frombuffer(raw, np.uint8).reshape(self._reader.raw_shape)
            row.screen = np.frombuffer(screen, np.uint8).reshape(*row.emulator.getScreenDims(), 3)
        return self._observe()

    # -- simulation -------------------------------------------------------------------------

    def require_simulation(self) -> None:
        """Emulators are simulated exactly."""

    def save_state(self, row: int) -> Handle:
        """The current state of row `row`."""
        self._require_seed()
        at = self._rows[row]
        return self._to_handle(at.emulator, at, at.tape, at.ended)

    def simulate(self, handle: Handle, action: Any, seed: int | None) -> SimStep:
        """One step from `handle` with a native action (int); `ended` as the environment sets it.

        seed: of fresh random numbers (fair); None: the row's own (clairvoyant). After the end of an
        episode the state stays and all signals but `lives` are 0.
        """
        if handle.ended:
            return SimStep(handle, (0.0, 0.0, float(handle.lives), 0.0, 0.0, 0.0), True)
        emulator = self._simulator
        if emulator is None:
            emulator = self._simulator = load_emulator(self._settings)
            emulator.reset_game()
            emulator.act(_NOOP)
            self._simulator_row = _Row(emulator)
        at, skip = self._simulator_row, self._settings.protocol.frame_skip
        if handle is not self._simulator_state:
            restore_exactly(emulator, handle.state, handle.acted)
        at.frame, at.last, at.lives = handle.frame, handle.last, handle.lives
        at.raw, at.game_steps = handle.raw, handle.game_steps
        sticks = (
            handle.tape.sticks(handle.frame, skip)
            if seed is None
            else sticks_from(seed, skip, self._settings.protocol.sticky)
        )
        native = self._native[int(action)]
        score = self._emulate(emulator, at, native, sticks)
        lost = self._update_flags(emulator, at)
        ended = at.over or at.truncated or (self._settings.life_ends and lost)
        after = self._simulator_state = self._to_handle(emulator, at, handle.tape, ended)
        return SimStep(after, self._signals(at, score, lost, native), ended)

    def _to_handle(self, emulator: ALEInterface, at: _Row, tape: Tape, ended: bool) -> Handle:
        last = at.last if self._settings.protocol.sticky else _NOOP
        return Handle(
            state=emulator.cloneState(),
            raw=at.raw,
            last=last,
            lives=at.lives,
            frame=at.frame,
            game_steps=at.game_steps,
            tape=tape,
            acted=at.acted,
            ended=ended,
            key=hash((emulator.getRAM().tobytes(), last, at.frame)),
        )

    def render_observation(self, handle: Handle) -> Frame:
        """The observation in a state, [H W C] uint8."""
        return self._reader.to_pixels(handle.raw)
