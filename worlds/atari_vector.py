"""Atari at training speed: ale-py's vector environment under the same contract."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from modules.messages import SIGNALS, Observation, WorldError
from worlds.atari_rng import chapter_seed
from worlds.atari_rows import atari_spec, console
from worlds.catalog import Game
from worlds.protocols import Protocol, Sensor
from worlds.snapshots import seal, unseal

_SCORE, _LIFE_LOST, _LIVES, _END, _EFFORT = (
    SIGNALS.index(name) for name in ("reward", "life_lost", "lives", "end", "effort")
)
_NOTHING = 0
"""The choice sent on empty steps: a no-op in all games but two, Backgammon and Video Checkers.

An action that the game does not have would hang ale-py's threads for good.
"""
_CUT_OFF, _EMPTY = 255, 254
"""What stands in a row's log for the step at which we, not the environment, began a new game, and
for any other step whose action was ignored."""

Flags = NDArray[np.bool_]


class AtariVector:
    """B games of Atari in ale-py's threads.

    It shows and does what `AtariRows` does, given the same arguments and seed. The emulators are
    out of reach, so a row's state is the seed of its chapter (`worlds.atari_rng`) and the actions
    since: `restore` replays them, about as fast as they were lived.
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
        self.num_envs = num_envs
        self._life_ends = training and protocol.life_ends
        self._episode_steps, self._chapter_steps = episode_steps, chapter_steps
        emulator = console(game, protocol)
        screen, actions = emulator.getScreenDims(), emulator.getMinimalActionSet()
        self.spec = atari_spec(game, protocol, sensor, screen, actions, episode_steps)
        height, width, channels = self.spec.pixels or (*screen, 3)
        self._shape = (num_envs, height, width, channels)
        self._effort = np.array([float(action.value != 0) for action in actions], np.float32)
        self._envs = AtariVectorEnv(
            game.rom,
            num_envs,
            max_num_frames_per_episode=protocol.frames_limit,
            repeat_action_probability=protocol.sticky,
            img_height=height,
            img_width=width,
            grayscale=channels == 1,
            stack_num=1,
            frameskip=protocol.frame_skip,
            maxpool=sensor is not None and sensor.max_pool is not False,
            noop_max=protocol.noop_max,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self._seed: int | None = None
        self._pixels: NDArray[np.uint8]
        self._signals: NDArray[np.float32]
        self._lives: NDArray[np.int32]
        self._game_steps: NDArray[np.int64]
        self._none: Flags
        self._first: Flags
        self._over: Flags
        self._cut: Flags
        self._resets_itself: Flags
        self._alive: Flags
        self._terminated: Flags
        self._truncated: Flags
        self._ended: Flags
        self._any_ended: bool
        self._logs: list[bytearray]
        self._chapters: list[int]
        self._identity = {
            "world": "atari-vector",
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
        self._begin_logs([0] * self.num_envs)
        everyone = np.ones(self.num_envs, np.bool_)
        pixels, info = self._reset(everyone, self._seeds(everyone))
        self._stand(pixels, info["lives"])
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """What follows the encoded action [B A]; a row that had ended begins anew instead."""
        self._started()
        choices = action.numpy().argmax(-1)
        anew = self._ended & ~self._alive if self._any_ended else None
        if anew is not None:
            choices = np.where(self._ended, _NOTHING, choices)
        ended = self._ended
        self._envs.send(choices)  # the emulators run while we do the accounts
        for log, choice, over in zip(self._logs, choices.tolist(), ended.tolist(), strict=True):
            log.append(_EMPTY if over else choice)
        self._advance(choices, anew, ended)
        self._first = ended if self._any_ended else self._none
        self._judge()
        return self._observe()

    def _advance(self, choices: NDArray[np.int64], anew: Flags | None, empty: Flags) -> None:
        """What comes of `choices` just sent; new games, where `anew`, in place of it. Where the
        step is `empty` nobody made an effort.
        """
        signals = np.zeros((self.num_envs, len(SIGNALS)), np.float32)
        signals[:, _EFFORT] = self._effort[choices] * ~empty
        self._game_steps = self._game_steps + 1
        pixels, rewards, over, truncated, info = self._envs.recv()
        lives = info["lives"]
        signals[:, _SCORE] = rewards
        signals[:, _LIFE_LOST] = lives < self._lives
        if anew is not None and anew.any():
            pixels, lives, over = self._begin_again(anew, pixels, lives, over)
            truncated = truncated & ~anew
            signals[anew] = 0.0
            self._game_steps[anew] = 0
        signals[:, _LIVES] = lives
        signals[:, _END] = over
        self._pixels, self._signals, self._lives = pixels, signals, lives
        self._over, self._cut = over, truncated

    def _begin_again(
        self, anew: Flags, pixels: NDArray[np.uint8], lives: NDArray[np.int32], over: Flags
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], Flags]:
        """Resets what the environment has not reset itself, and opens chapters where due."""
        chapter_over = np.array([len(log) > self._chapter_steps for log in self._logs]) & anew
        cut_off = anew & ~self._resets_itself & ~chapter_over
        for row in np.flatnonzero(cut_off).tolist():
            self._logs[row][-1] = _CUT_OFF
        if chapter_over.any():
            for row in np.flatnonzero(chapter_over).tolist():
                self._chapters[row] += 1
                self._logs[row] = bytearray()
        for mask, seeds in ((cut_off, None), (chapter_over, self._seeds(chapter_over))):
            if mask.any():
                fresh, info = self._reset(mask, seeds)
                pixels[mask], lives[mask] = fresh[mask], info["lives"][mask]
        return pixels, lives, over & ~anew

    def _judge(self) -> None:
        """What the last step means for the episodes."""
        lost = self._signals[:, _LIFE_LOST] > 0
        limit = self._game_steps == self._episode_steps
        if not (self._over | self._cut | limit | (lost & self._life_ends)).any():
            # Nearly every step. What was true of nobody before is true of nobody now.
            self._terminated = self._truncated = self._ended = self._resets_itself = self._none
            self._alive, self._any_ended = ~self._none, False
            return
        terminated = self._over
        if self._life_ends and lost.any():
            terminated = terminated | (lost & ~self._first)
        truncated = self._cut & ~self._over
        self._resets_itself = self._over | truncated
        truncated = truncated | (~self._over & limit)
        self._terminated, self._truncated = terminated, truncated
        self._ended = terminated | truncated
        self._any_ended = bool(self._ended.any())
        self._alive = ~(self._over | truncated)

    def _started(self) -> int:
        if self._seed is None:
            raise WorldError(f"world {self.spec.id}: expected reset(seed) first, got none")
        return self._seed

    def _begin_logs(self, chapters: list[int]) -> None:
        self._chapters = list(chapters)
        self._logs = [bytearray() for _ in chapters]

    def _seeds(self, mask: Flags) -> NDArray[np.int64]:
        rows, seed = np.flatnonzero(mask).tolist(), self._started()
        return np.array([chapter_seed(seed, r, self._chapters[r]) for r in rows], np.int64)

    def _reset(self, mask: Flags, seeds: NDArray[np.int64] | None) -> tuple[Any, dict[str, Any]]:
        """Resets the rows of `mask`; shows all rows."""
        options = None if mask.all() else {"reset_mask": mask}
        shown: tuple[Any, dict[str, Any]] = self._envs.reset(seed=seeds, options=options)
        return shown

    def _stand(self, pixels: NDArray[np.uint8], lives: NDArray[np.int32]) -> None:
        """Every row at the first observation of a game."""
        self._none = np.zeros(self.num_envs, np.bool_)
        self._nobody = torch.from_numpy(self._none)
        self._pixels, self._lives = pixels, lives
        self._signals = np.zeros((self.num_envs, len(SIGNALS)), np.float32)
        self._signals[:, _LIVES] = lives
        self._game_steps = np.zeros(self.num_envs, np.int64)
        self._over, self._cut = self._none.copy(), self._none.copy()
        self._first = ~self._none
        self._judge()

    def _observe(self) -> Observation:
        """The last step. Unchecked, but for the first: the axes of the rest follow from it."""
        made = Observation if self._first is not self._none else Observation.unchecked
        return made(
            pixels=torch.from_numpy(self._pixels.reshape(self._shape)),
            vector=None,
            signals=torch.from_numpy(self._signals),
            goal=None,
            first=self._flags(self._first),
            terminated=self._flags(self._terminated),
            truncated=self._flags(self._truncated),
        )

    def _flags(self, flags: Flags) -> Tensor:
        return self._nobody if flags is self._none else torch.from_numpy(flags)

    def render(self) -> Tensor:
        """The last observation in colour, [B H W 3] uint8; the screens are out of reach."""
        self._started()
        pixels = torch.from_numpy(self._pixels.reshape(self._shape))
        return pixels.expand(-1, -1, -1, 3).clone()

    def close(self) -> None:
        """Lets the emulators go."""
        if self._seed is not None:
            self._seed = None
        self._envs.close()

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Chapters and actions since; the last observation's flags and a check of its frames."""
        facts = {
            "seed": self._started(),
            "chapters": self._chapters,
            "game_steps": self._game_steps.tolist(),
            "first": self._first.tolist(),
            "seen": self._seen(),
        }
        return seal(self._identity, facts, [bytes(log) for log in self._logs])

    def _seen(self) -> str:
        shown = [self._pixels.tobytes(), self._signals.tobytes(), self._game_steps.tobytes()]
        return hashlib.sha256(b"".join(shown)).hexdigest()

    def restore(self, data: bytes) -> Observation:
        """Replays the rows side by side, each begun so late that all arrive together.

        WorldError where the snapshot is damaged or the replay arrives elsewhere.
        """
        facts, logs = unseal(data, self._identity)
        self._seed = facts["seed"]
        self._begin_logs(facts["chapters"])
        everyone = np.ones(self.num_envs, np.bool_)
        pixels, info = self._reset(everyone, self._seeds(everyone))
        self._stand(pixels, info["lives"])
        longest = max(len(log) for log in logs)
        begins = np.array([longest - len(log) for log in logs])
        for at in range(longest):
            self._start_late(begins, at)
            past = [
                log[at - begin] if at >= begin else _EMPTY
                for log, begin in zip(logs, begins.tolist(), strict=True)
            ]
            self._replay(np.array(past, np.int64))
        self._start_late(begins, longest)
        self._logs = [bytearray(log) for log in logs]
        self._game_steps = np.array(facts["game_steps"], np.int64)
        self._first = np.array(facts["first"], np.bool_)
        self._judge()
        if self._seen() != facts["seen"]:
            raise WorldError(
                f"snapshot of {self.spec.id}: the replay arrives elsewhere; "
                "expected the version of ale-py it was taken with"
            )
        return self._observe()

    def _start_late(self, begins: NDArray[np.int64], at: int) -> None:
        """Begins the rows whose replay starts `at`; what they did until then does not count."""
        starting = begins == at
        if at and starting.any():
            pixels, info = self._reset(starting, self._seeds(starting))
            lives = info["lives"]
            self._pixels, self._lives = pixels, lives
            self._signals[starting] = 0.0
            self._signals[starting, _LIVES] = lives[starting]
            self._over[starting] = self._cut[starting] = False

    def _replay(self, past: NDArray[np.int64]) -> None:
        """One step of the logs: what the environment resets itself, and what we reset in it."""
        cut_off = past == _CUT_OFF
        anew = self._over | self._cut | cut_off
        self._resets_itself = self._over | self._cut
        empty = past >= _EMPTY
        choices = np.where(empty, _NOTHING, past)
        self._envs.send(choices)
        self._advance(choices, None, empty)
        if anew.any():
            if cut_off.any():
                fresh, info = self._reset(cut_off, None)
                self._pixels[cut_off] = fresh[cut_off]
                self._lives[cut_off] = info["lives"][cut_off]
            self._signals[anew] = 0.0
            self._signals[anew, _LIVES] = self._lives[anew]
            self._over = self._over & ~anew
            self._cut = self._cut & ~anew
