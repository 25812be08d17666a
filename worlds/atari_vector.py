"""Atari in threads, for training: ale-py's vector environment under the port `World`."""

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
from worlds.atari_rows import AtariSettings, load_emulator
from worlds.seeded import SeededWorld
from worlds.snapshots import seal, unseal

_SCORE, _LIFE_LOST, _LIVES, _END, _EFFORT = (
    SIGNALS.index(name) for name in ("reward", "life_lost", "lives", "end", "effort")
)
_DEFAULT_ACTION = 0
"""The action index sent on ignored steps: a no-op in all games but Backgammon and Video Checkers.

ale-py's threads block forever on an index outside the game's action set.
"""
_LIMIT_RESET, _EMPTY = 255, 254
"""Entries of a row's action log in place of an action index.

_LIMIT_RESET: this class, not ale-py, reset a game that `episode_steps` truncated. _EMPTY: any other
step whose action was ignored.
"""

Flags = NDArray[np.bool_]


class AtariVector(SeededWorld):
    """B games of Atari in ale-py's threads, with next-step autoreset.

    Observations equal those of `AtariRows` with the same arguments and seed. ale-py gives no
    access to these emulators, so a row's snapshot is the seed of its chapter (`worlds.atari_rng`)
    and the actions since. `restore` replays them, about as fast as they were first played.
    """

    def __init__(self, settings: AtariSettings) -> None:
        self._settings, self.num_envs = settings, settings.num_envs
        self._identity = settings.identity("atari-vector")
        emulator, protocol, sensor = load_emulator(settings), settings.protocol, settings.sensor
        self.spec = settings.spec(emulator)
        assert self.spec.pixels is not None
        height, width, channels = self.spec.pixels
        self._shape = (self.num_envs, height, width, channels)
        actions = emulator.getMinimalActionSet()
        self._effort = np.array([float(action.value != 0) for action in actions], np.float32)
        self._envs = AtariVectorEnv(
            settings.game.rom,
            self.num_envs,
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
        self._no_rows: Flags = np.zeros(self.num_envs, np.bool_)
        self._no_rows_tensor = torch.from_numpy(self._no_rows)
        self._ended = self._alive = self._no_rows
        self._any_ended = False
        self._lives: NDArray[np.int32]
        self._game_steps: NDArray[np.int64]

    # -- episodes ---------------------------------------------------------------------------

    def reset(self, seed: int) -> Observation:
        """The first observation of every row, under the run's `seed`."""
        self._seed = seed
        self._start_chapters([0] * self.num_envs)
        return self._observe()

    def step(self, action: Tensor) -> Observation:
        """The observation after the encoded action [B A].

        A row whose episode ended ignores its action and starts the next episode.

        Raises: WorldError before the first `reset`.
        """
        self._require_seed()
        indices = action.numpy().argmax(-1)
        new_game = self._ended & ~self._alive if self._any_ended else None
        if new_game is not None:
            indices = np.where(self._ended, _DEFAULT_ACTION, indices)
        ended = self._ended
        self._envs.send(indices)  # the emulators run during the bookkeeping
        for log, index, over in zip(self._logs, indices.tolist(), ended.tolist(), strict=True):
            log.append(_EMPTY if over else index)
        self._advance(indices, new_game, ended)
        self._first = ended if self._any_ended else self._no_rows
        self._update_flags()
        return self._observe()

    def _advance(self, indices: NDArray[np.int64], new_game: Flags | None, empty: Flags) -> None:
        """Receives the result of the action indices [B] sent last.

        Rows of `new_game` show a new game instead; rows of `empty` have no effort.
        """
        signals = np.zeros((self.num_envs, len(SIGNALS)), np.float32)
        signals[:, _EFFORT] = self._effort[indices] * ~empty
        self._game_steps = self._game_steps + 1
        pixels, rewards, over, truncated, info = self._envs.recv()
        lives = info["lives"]
        signals[:, _SCORE] = rewards
        signals[:, _LIFE_LOST] = lives < self._lives
        if new_game is not None and new_game.any():
            pixels, lives, over = self._start_games(new_game, pixels, lives, over)
            truncated = truncated & ~new_game
            signals[new_game] = 0.0
            self._game_steps[new_game] = 0
        signals[:, _LIVES] = lives
        signals[:, _END] = over
        self._pixels, self._signals, self._lives = pixels, signals, lives
        self._over, self._ale_truncated = over, truncated

    def _start_games(
        self, new_game: Flags, pixels: NDArray[np.uint8], lives: NDArray[np.int32], over: Flags
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], Flags]:
        """Resets the `new_game` rows that ale-py has not reset, and starts chapters where due."""
        chapter_over = (
            np.array([len(log) > self._settings.chapter_steps for log in self._logs]) & new_game
        )
        limit_reset = new_game & ~self._ale_resets & ~chapter_over
        for row in np.flatnonzero(limit_reset).tolist():
            self._logs[row][-1] = _LIMIT_RESET
        if chapter_over.any():
            for row in np.flatnonzero(chapter_over).tolist():
                self._chapters[row] += 1
                self._logs[row] = bytearray()
        for mask, seeds in ((limit_reset, None), (chapter_over, self._seeds(chapter_over))):
            if mask.any():
                fresh, info = self._reset(mask, seeds)
                pixels[mask], lives[mask] = fresh[mask], info["lives"][mask]
        return pixels, lives, over & ~new_game

    def _update_flags(self) -> None:
        """Updates the episode flags after a step."""
        lost = self._signals[:, _LIFE_LOST] > 0
        limit = self._game_steps == self._settings.episode_steps
        if not (self._over | self._ale_truncated | limit | (lost & self._settings.life_ends)).any():
            # The common case: all flags are False and share one array, so that none is allocated.
            self._terminated = self._truncated = self._ended = self._ale_resets = self._no_rows
            self._alive, self._any_ended = ~self._no_rows, False
            return
        terminated = self._over
        if self._settings.life_ends and lost.any():
            terminated = terminated | (lost & ~self._first)
        truncated = self._ale_truncated & ~self._over
        self._ale_resets = self._over | truncated
        truncated = truncated | (~self._over & limit)
        self._terminated, self._truncated = terminated, truncated
        self._ended = terminated | truncated
        self._any_ended = bool(self._ended.any())
        self._alive = ~(self._over | truncated)

    def _start_chapters(self, chapters: list[int]) -> None:
        """Sets every row to the first observation of a chapter."""
        self._chapters = list(chapters)
        self._logs = [bytearray() for _ in chapters]
        pixels, info = self._reset(~self._no_rows, self._seeds(~self._no_rows))
        self._pixels, self._lives = pixels, info["lives"]
        self._signals = np.zeros((self.num_envs, len(SIGNALS)), np.float32)
        self._signals[:, _LIVES] = self._lives
        self._game_steps = np.zeros(self.num_envs, np.int64)
        self._over, self._ale_truncated = self._no_rows.copy(), self._no_rows.copy()
        self._first = ~self._no_rows
        self._update_flags()

    def _seeds(self, mask: Flags) -> NDArray[np.int64]:
        rows, seed = np.flatnonzero(mask).tolist(), self._require_seed()
        return np.array([chapter_seed(seed, r, self._chapters[r]) for r in rows], np.int64)

    def _reset(self, mask: Flags, seeds: NDArray[np.int64] | None) -> tuple[Any, dict[str, Any]]:
        """Resets the rows of `mask`; returns pixels and info of all rows."""
        options = None if mask.all() else {"reset_mask": mask}
        result: tuple[Any, dict[str, Any]] = self._envs.reset(seed=seeds, options=options)
        return result

    def _observe(self) -> Observation:
        """The last observation.

        Steps without a new episode are not validated: their shapes and types equal the first's.
        """
        build = Observation if self._first is not self._no_rows else Observation.unchecked
        return build(
            pixels=torch.from_numpy(self._pixels.reshape(self._shape)),
            vector=None,
            signals=torch.from_numpy(self._signals),
            goal=None,
            first=self._flags(self._first),
            terminated=self._flags(self._terminated),
            truncated=self._flags(self._truncated),
        )

    def _flags(self, flags: Flags) -> Tensor:
        return self._no_rows_tensor if flags is self._no_rows else torch.from_numpy(flags)

    def render(self) -> Tensor:
        """The last observation in three channels, [B H W 3] uint8; ale-py exposes no screens."""
        self._require_seed()
        pixels = torch.from_numpy(self._pixels.reshape(self._shape))
        return pixels.expand(-1, -1, -1, 3).clone()

    def close(self) -> None:
        """Releases the emulators."""
        self._seed = None
        self._envs.close()

    # -- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The seed; of each row its chapter (`worlds.atari_rng`) and the actions since it began; a
        digest of the last observation. `restore` replays the chapter.

        Raises: WorldError before the first `reset`.
        """
        facts = {
            "seed": self._require_seed(),
            "chapters": self._chapters,
            "game_steps": self._game_steps.tolist(),
            "first": self._first.tolist(),
            "seen": self._digest(),
        }
        return seal(self._identity, facts, [bytes(log) for log in self._logs])

    def _digest(self) -> str:
        parts = [self._pixels.tobytes(), self._signals.tobytes(), self._game_steps.tobytes()]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def restore(self, data: bytes) -> Observation:
        """Restores a snapshot by replay and returns its observation.

        All rows are replayed together, shorter logs from a later step, so that they end together.

        Raises: WorldError if `data` is damaged, of an environment with other settings, or if the
        replay ends in another observation.
        """
        facts, logs = unseal(data, self._identity)
        self._seed = facts["seed"]
        self._start_chapters(facts["chapters"])
        num_steps = max(len(log) for log in logs)
        starts = np.array([num_steps - len(log) for log in logs])
        for at in range(num_steps):
            self._start_replay(starts, at)
            entries = [
                log[at - start] if at >= start else _EMPTY
                for log, start in zip(logs, starts.tolist(), strict=True)
            ]
            self._replay(np.array(entries, np.int64))
        self._start_replay(starts, num_steps)
        self._logs = [bytearray(log) for log in logs]
        self._game_steps = np.array(facts["game_steps"], np.int64)
        self._first = np.array(facts["first"], np.bool_)
        self._update_flags()
        if self._digest() != facts["seen"]:
            raise WorldError(
                f"snapshot of {self.spec.id}: expected the recorded observation, got another after "
                "the replay; install the version of ale-py that it was taken with"
            )
        return self._observe()

    def _start_replay(self, starts: NDArray[np.int64], at: int) -> None:
        """Resets the rows whose replay starts at step `at`; their earlier steps are discarded."""
        starting = starts == at
        if at and starting.any():
            pixels, info = self._reset(starting, self._seeds(starting))
            lives = info["lives"]
            self._pixels, self._lives = pixels, lives
            self._signals[starting] = 0.0
            self._signals[starting, _LIVES] = lives[starting]
            self._over[starting] = self._ale_truncated[starting] = False

    def _replay(self, entries: NDArray[np.int64]) -> None:
        """Replays one log entry of each row, with the resets of ale-py and of this class."""
        limit_reset = entries == _LIMIT_RESET
        new_game = self._over | self._ale_truncated | limit_reset
        self._ale_resets = self._over | self._ale_truncated
        empty = entries >= _EMPTY
        indices = np.where(empty, _DEFAULT_ACTION, entries)
        self._envs.send(indices)
        self._advance(indices, None, empty)
        if new_game.any():
            if limit_reset.any():
                fresh, info = self._reset(limit_reset, None)
                self._pixels[limit_reset] = fresh[limit_reset]
                self._lives[limit_reset] = info["lives"][limit_reset]
            self._signals[new_game] = 0.0
            self._signals[new_game, _LIVES] = self._lives[new_game]
            self._over = self._over & ~new_game
            self._ale_truncated = self._ale_truncated & ~new_game
