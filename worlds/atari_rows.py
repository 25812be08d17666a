"""Atari as rows of single emulators: exact snapshots, and a simulator to imagine in."""

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
from worlds.snapshots import seal, unseal

Frame = NDArray[np.uint8]
_NOOP = 0
_PADDLE_BYTES = 8


def atari_spec(
    game: Game,
    protocol: Protocol,
    sensor: Sensor | None,
    screen: tuple[int, int],
    actions: Sequence[Any],
    episode_steps: int | None,
) -> WorldSpec:
    """What a game shows and accepts; `screen` is its native (height, width)."""
    names = tuple(action.name for action in actions)
    return WorldSpec(
        id=game.id,
        pixels=(*screen, 3)
        if sensor is None
        else (sensor.height, sensor.width, 1 if sensor.gray else 3),
        vector=None,
        signals=SIGNALS,
        actions=ActionSpec(discrete=True, size=len(actions), names=names, factors=joystick(names)),
        protocol=protocol.name,
        frames_per_step=protocol.frame_skip,
    )


def joystick(names: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """`ActionSpec.parts` of actions named as UPRIGHTFIRE: 1 for each of up, down, right, left and
    fire that is in the name. What no action has is left out; empty where no action has two.
    """
    movements = ("UP", "DOWN", "RIGHT", "LEFT", "FIRE")
    made = [[float(movement in name) for movement in movements] for name in names]
    if max(map(sum, made), default=0) < 2:
        return ()
    used = [any(column) for column in zip(*made, strict=True)]
    return tuple(tuple(itertools.compress(each, used)) for each in made)


def console(game: Game, protocol: Protocol) -> ALEInterface:
    """An emulator with the cartridge in, silent, not yet reset.

    Its own actions never stick: `worlds.atari_rng` decides that.
    """
    ALEInterface.setLoggerMode(LoggerMode.Error)
    made = ALEInterface()
    made.setFloat("repeat_action_probability", 0.0)
    made.setInt("random_seed", 1)
    made.setInt("max_num_frames_per_episode", protocol.frames_limit)
    cartridge = get_rom_path(game.rom)
    if cartridge is None:
        raise WorldError(f"world {game.id}: ale-py has no cartridge {game.rom!r}; reinstall ale-py")
    made.loadROM(cartridge)
    return made


def put(emulator: ALEInterface, state: ALEState, acted: bool) -> None:
    """Restores a state exactly, which an ALEState alone does not.

    The console's switches are read a frame late and are in no ALEState: the first frame after a
    reset still feels the reset button. `acted`: whether the state has left that frame behind; an
    emulator it is put into must have, too, or must not.
    """
    if not acted:
        emulator.reset_game()
    emulator.restoreState(state)


def reset_frames(emulator: ALEInterface) -> int:
    """Frames of luck that one reset uses up, told by a console just made.

    Nearly always 0. Some games (Berzerk 20, Double Dunk 12) choose their mode by acting. Read off
    the emulator's generator, written as text: 624 words, then how many of them are used.
    """
    written = emulator.cloneState(include_rng=True).serialize()
    used = re.search(rb" (\d+)[^\d ]*$", written[:-_PADDLE_BYTES])
    if used is None:
        raise WorldError("ale-py: expected the state of its generator as text; use ale-py 0.12")
    return int(used[1]) % 624 // 2


class Eye:
    """How frames are taken from an emulator and shown: the sensor, carried out."""

    def __init__(self, sensor: Sensor | None, screen: tuple[int, int]) -> None:
        self._gray = sensor is not None and sensor.gray
        self.pools = sensor is not None and sensor.max_pool is not False
        self._size = None
        if sensor is not None and (sensor.height, sensor.width) != screen:
            self._size = (sensor.width, sensor.height)
        self.raw_shape = screen if self._gray else (*screen, 3)

    def take(self, emulator: ALEInterface) -> Frame:
        """The present screen in the sensor's colours, [h w] or [h w 3]."""
        frame = np.empty(self.raw_shape, np.uint8)
        (emulator.getScreenGrayscale if self._gray else emulator.getScreenRGB)(frame)
        return frame

    def show(self, raw: Frame) -> Frame:
        """A taken frame as observed, [H W C]."""
        shown = raw
        if self._size is not None:
            shown = np.asarray(cv2.resize(raw, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        return shown[:, :, None] if shown.ndim == 2 else shown


@dataclass(slots=True, eq=False)
class Handle:
    """A state of one game. Two handles are equal where everything that can follow is the same."""

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
    """One emulator and where it stands."""

    def __init__(self, emulator: ALEInterface) -> None:
        self.emulator = emulator
        self.fresh = emulator.cloneState()
        self.chapter = self.chapter_steps = self.episodes = 0
        self.frame = self.game_steps = self.last = self.lives = 0
        self.tape: Tape
        self.noops: NoOps
        self.raw: Frame
        self.screen: Frame | None = None
        self.signals: tuple[float, ...] = ()
        self.first = self.over = self.terminated = self.truncated = self.acted = False

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated


class AtariRows:
    """B games of Atari, each on an emulator of its own.

    `snapshot` holds everything, `restore` continues bit for bit. As a simulator it imagines on
    one spare emulator, so that the games themselves are undisturbed.

    Frames, rewards and ends are those of ale-py's vector environment under the same seeds, down
    to its habit of not showing the frame in which a game ends. One exception: Double Dunk walks
    through its menu before a game begins, there (not here) with actions that stick.
    """

    def __init__(
        self,
        *,
        game: Game,
        num_envs: int,
        protocol: Protocol,
        sensor: Sensor | None,
        training: bool,
        episode_steps: int | None,
        chapter_steps: int,
    ) -> None:
        self.num_envs, self._protocol = num_envs, protocol
        self._life_ends = training and protocol.life_ends
        self._episode_steps, self._chapter_steps = episode_steps, chapter_steps
        self._rows = [_Row(console(game, protocol)) for _ in range(num_envs)]
        emulator = self._rows[0].emulator
        screen = emulator.getScreenDims()
        actions = emulator.getMinimalActionSet()
        self._native = [int(action.value) for action in actions]
        self._eye = Eye(sensor, screen)
        self._reset_frames = reset_frames(emulator)
        self._game = game
        self._spare: ALEInterface | None = None
        self._spare_at: Handle | None = None
        self._seed: int | None = None
        self.spec = atari_spec(game, protocol, sensor, screen, actions, episode_steps)
        self._identity = {
            "world": "atari-rows",
            "id": game.id,
            "rows": num_envs,
            "protocol": protocol.name,
            "sensor": None if sensor is None else sensor.model_dump(),
            "training": training,
            "episode_steps": episode_steps,
            "chapter_steps": chapter_steps,
        }

    # -- living -----------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """The first observation of every row."""
        self._seed = seed
        for index, row in enumerate(self._rows):
            row.chapter = -1
            self._open_chapter(index, row)
            self._begin(row)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """What follows the encoded action [B A]; a row that had ended begins anew instead."""
        self._started()
        for index, (row, choice) in enumerate(
            zip(self._rows, self.spec.actions.decode(action).tolist(), strict=True)
        ):
            row.chapter_steps += 1
            row.screen = None
            if not row.ended:
                self._live(row, choice)
            elif row.terminated and not row.over:
                self._live_on(row)
            else:
                if not row.over:
                    # ale-py's vector environment cannot stop one row and let the others go on:
                    # a game cut off by us has gone on for a step when it is reset. Its first
                    # action is a no-op in all games but two.
                    self._emulate(row.emulator, row, self._native[0], self._luck(row))
                if row.chapter_steps > self._chapter_steps:
                    self._open_chapter(index, row)
                self._begin(row)
        return self._observe()

    def _started(self) -> int:
        if self._seed is None:
            raise WorldError(f"world {self.spec.id}: expected reset(seed) first, got none")
        return self._seed

    def _open_chapter(self, index: int, row: _Row) -> None:
        row.chapter += 1
        seed = chapter_seed(self._started(), index, row.chapter)
        row.tape = Tape(seed, self._protocol.sticky)
        row.noops = NoOps(seed, self._protocol.noop_max)
        row.chapter_steps = row.episodes = 0
        row.frame = self._reset_frames  # putting the cartridge in is a reset, too
        row.emulator.restoreState(row.fresh)

    def _begin(self, row: _Row) -> None:
        """A new game: reset and no-ops."""
        emulator = row.emulator
        row.episodes += 1
        self._reset(row)
        for _ in range(row.noops.draw()):
            emulator.act(_NOOP)
            row.frame, row.acted = row.frame + 1, True
            if emulator.game_over():
                self._reset(row)
        row.raw = self._eye.take(emulator)
        row.last, row.game_steps, row.lives = _NOOP, 0, emulator.lives()
        row.first, row.over, row.terminated, row.truncated = True, False, False, False
        row.signals = (0.0, 0.0, float(row.lives), 0.0, 0.0, 0.0)

    def _reset(self, row: _Row) -> None:
        row.emulator.reset_game()
        row.frame, row.acted = row.frame + self._reset_frames, False

    def _luck(self, row: _Row) -> Sequence[int]:
        return row.tape.sticks(row.frame, self._protocol.frame_skip)

    def _live(self, row: _Row, choice: int) -> None:
        score = self._emulate(row.emulator, row, self._native[choice], self._luck(row))
        lost = self._judge(row.emulator, row)
        row.first, row.terminated = False, row.over or (self._life_ends and lost)
        row.signals = self._felt(row, score, lost, self._native[choice])

    def _live_on(self, row: _Row) -> None:
        """The empty step after a lost life that ended an episode: the game just goes on."""
        score = self._emulate(row.emulator, row, self._native[0], self._luck(row))
        lost = self._judge(row.emulator, row)
        row.first, row.terminated = True, row.over
        row.signals = self._felt(row, score, lost, _NOOP)

    def _judge(self, emulator: ALEInterface, at: _Row) -> bool:
        """Lives, over and truncated after a step; whether a life was lost."""
        at.game_steps += 1
        lives = emulator.lives()
        lost, at.lives = lives < at.lives, lives
        at.over = emulator.game_over(with_truncation=False)
        at.truncated = not at.over and (
            emulator.game_truncated() or at.game_steps == self._episode_steps
        )
        return lost

    @staticmethod
    def _felt(row: _Row, score: float, lost: bool, native: int) -> tuple[float, ...]:
        return (
            score,
            float(lost),
            float(row.lives),
            float(row.over),
            float(native != _NOOP),
            0.0,
        )

    def _emulate(
        self, emulator: ALEInterface, at: _Row, native: int, sticks: Sequence[int]
    ) -> float:
        """One step of `emulator`; moves `at.frame`, `at.last` and `at.raw` on, gives the reward.

        A step that ends the game stops there, and its last frame is not taken.
        """
        act, over, eye = emulator.act, emulator.game_over, self._eye
        last, score, pools = at.last, 0, eye.pools
        newest = self._protocol.frame_skip - 1
        before: Frame | None = None
        for k, stick in enumerate(sticks):
            if not stick:
                last = native
            score += act(last)
            if over():
                if before is not None:
                    at.raw = np.maximum(at.raw, before)
                break
            if pools and k == newest - 1:
                before = eye.take(emulator)
        else:
            taken = eye.take(emulator)
            at.raw = taken if before is None else np.maximum(taken, before, out=taken)
        at.frame += k + 1
        at.last, at.acted = last, True
        return float(score)

    def _observe(self) -> Observation:
        rows, show = self._rows, self._eye.show
        return Observation(
            pixels=torch.from_numpy(np.stack([show(row.raw) for row in rows])),
            vector=None,
            signals=torch.tensor([row.signals for row in rows]),
            first=torch.tensor([row.first for row in rows]),
            terminated=torch.tensor([row.terminated for row in rows]),
            truncated=torch.tensor([row.truncated for row in rows]),
        )

    def render(self) -> Tensor:
        """The screens in colour, [B h w 3] uint8."""
        self._started()
        return torch.from_numpy(np.stack([self._screen(row) for row in self._rows]))

    @staticmethod
    def _screen(row: _Row) -> Frame:
        shown: Frame = row.emulator.getScreenRGB() if row.screen is None else row.screen
        return shown

    def close(self) -> None:
        """Lets the emulators go."""
        self._rows, self._spare, self._spare_at, self._seed = [], None, None, None

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole world: emulators, counters, luck, last observation."""
        seed, facts, blobs = self._started(), [], list[bytes]()
        for row in self._rows:
            facts.append([
                row.chapter, row.chapter_steps, row.episodes, row.frame, row.game_steps, row.last,
                row.lives, row.first, row.over, row.terminated, row.truncated, row.acted,
                row.signals,
            ])  # fmt: skip
            state = row.emulator.cloneState(include_rng=True).serialize()
            blobs += [state, row.raw.tobytes(), self._screen(row).tobytes()]
        return seal(self._identity, {"seed": seed, "rows": facts}, blobs)

    def restore(self, data: bytes) -> Observation:
        """Goes back to a snapshot and shows its observation again. WorldError if damaged."""
        facts, blobs = unseal(data, self._identity)
        self._seed = facts["seed"]
        for index, (row, fact) in enumerate(zip(self._rows, facts["rows"], strict=True)):
            row.chapter = fact[0] - 1
            self._open_chapter(index, row)
            (
                _, row.chapter_steps, row.episodes, row.frame, row.game_steps, row.last,
                row.lives, row.first, row.over, row.terminated, row.truncated, row.acted, signals,
            ) = fact  # fmt: skip
            row.signals = tuple(signals)
            for _ in range(row.episodes):
                row.noops.draw()
            state, raw, screen = blobs[3 * index : 3 * index + 3]
            row.emulator.reset_game()
            row.emulator.act(_NOOP)
            put(row.emulator, ALEState(state), row.acted)
            row.raw = np.frombuffer(raw, np.uint8).reshape(self._eye.raw_shape)
            row.screen = np.frombuffer(screen, np.uint8).reshape(*row.emulator.getScreenDims(), 3)
        return self._observe()

    # -- imagining --------------------------------------------------------------------------

    def save_state(self, row: int) -> Handle:
        """The present state of a row."""
        self._started()
        at = self._rows[row]
        return self._held(at.emulator, at, at.tape, at.ended)

    def simulate(self, handle: Handle, action: Any, seed: int | None) -> SimStep:
        """One step from `handle` with a native action; `ended` as the real world would say it.

        Where the episode is over nothing moves any more and nothing is felt.
        """
        if handle.ended:
            return SimStep(handle, (0.0, 0.0, float(handle.lives), 0.0, 0.0, 0.0), True)
        emulator = self._spare
        if emulator is None:
            emulator = self._spare = console(self._game, self._protocol)
            emulator.reset_game()
            emulator.act(_NOOP)
            self._at = _Row(emulator)
        at, skip = self._at, self._protocol.frame_skip
        if handle is not self._spare_at:
            put(emulator, handle.state, handle.acted)
        at.frame, at.last, at.lives = handle.frame, handle.last, handle.lives
        at.raw, at.game_steps = handle.raw, handle.game_steps
        sticks = (
            handle.tape.sticks(handle.frame, skip)
            if seed is None
            else sticks_from(seed, skip, self._protocol.sticky)
        )
        native = self._native[int(action)]
        score = self._emulate(emulator, at, native, sticks)
        lost = self._judge(emulator, at)
        ended = at.over or at.truncated or (self._life_ends and lost)
        after = self._spare_at = self._held(emulator, at, handle.tape, ended)
        return SimStep(after, self._felt(at, score, lost, native), ended)

    def _held(self, emulator: ALEInterface, at: _Row, tape: Tape, ended: bool) -> Handle:
        last = at.last if self._protocol.sticky else _NOOP
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
        """What would be observed there, [H W C] uint8."""
        return self._eye.show(handle.raw)
