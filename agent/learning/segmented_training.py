"""Training whose environments are stepped by workers, segment by segment, while it learns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from agent.learning.training import Training
from agent.recording import checkpoint
from agent.recording.weights import named_weights, parametric_modules
from modules.messages import ConfigError, Moment


@dataclass(frozen=True)
class Segment:
    """What the blocks of environments did in one segment.

    `moments`: of each block, those of its turns, as bytes. `states`: of each block, what the next
    segment continues from.
    """

    moments: list[list[bytes]]
    states: list[bytes]


Live = Callable[[int, list[bytes], bytes], Segment]
"""Carries out a segment, given its number, the states of the blocks (empty: an episode begins) and
the weights that act.
"""


def to_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Tensors by name, as safetensors."""
    return save({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()})


def from_bytes(data: bytes) -> dict[str, Tensor]:
    """What `to_bytes` was given."""
    return dict(load(data))


def as_tensor(data: bytes) -> Tensor:
    """Bytes as a tensor [N] (uint8)."""
    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


class _Ahead:
    """A segment that is being carried out while the caller does something else."""

    def __init__(self, live: Live, index: int, states: list[bytes], weights: bytes) -> None:
        self._segment: Segment | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(live, index, states, weights), daemon=True
        )
        self._thread.start()

    def _run(self, live: Live, index: int, states: list[bytes], weights: bytes) -> None:
        try:
            self._segment = live(index, states, weights)
        except BaseException as error:
            self._error = error

    def result(self) -> Segment:
        """Waits for the segment. Raises what it raised."""
        while self._thread.is_alive():
            self._thread.join(0.2)  # without a timeout a signal would wait, too
        if self._error is not None:
            raise self._error
        assert self._segment is not None
        return self._segment


class SegmentedTraining(Training):
    """Training on moments that workers make: segment n + 1 is carried out while n is learned from.

    `live` carries out a segment of `segment_steps` turns of all `blocks`. Segment n acts with the
    weights after the updates on segment n - 2 (the initial ones for n < 2), for any number of
    workers and their pace. The learner adds the moments of all blocks turn by turn, blocks in
    order, and makes the updates due after each turn, as `Training` does. So the result is a
    function of the configuration alone.

    A checkpoint holds the states and weights with which the present segment began: a resumed
    training carries that segment out again and skips the turns that were learned from.
    """

    def __init__(self, *parts: Any, live: Live, blocks: int, **named: Any) -> None:
        super().__init__(*parts, **named)
        self.live, self.blocks = live, blocks
        self._present: tuple[int, list[bytes], tuple[bytes, bytes]] | None = None

    def _turns(self, resume: checkpoint.Checkpoint | None) -> Iterator[None]:
        self.agent.reset(self.world.num_envs, self.seed)
        done = 0
        if resume is None:
            weights = self._weights()
            self._present = 0, [b""] * self.blocks, (weights, weights)
        else:
            packed = resume.blobs.pop("segments", None)
            if packed is None:
                raise ConfigError(
                    "checkpoint: expected one of a training with training.workers, got none; "
                    "resume with its own settings"
                )
            self._restore(resume)
            self._present = self._unpacked(packed)
            turns = self.progress.steps // self.world.num_envs
            done = turns - self._present[0] * self.config.segment_steps
        return map(self._count, self._moments(done))

    def _weights(self) -> bytes:
        """The weights that the agent acts with."""
        return to_bytes(named_weights(parametric_modules(self.agent.modules)))

    def _moments(self, done: int) -> Iterator[Moment]:
        """The moments of all rows, from the present segment on, without its first `done` turns."""
        assert self._present is not None
        index, states, weights = self._present
        rows, turns = self.world.num_envs, self.config.segment_steps
        ahead = _Ahead(self.live, index, states, weights[0])
        while self.progress.steps < self.config.steps:
            segment = ahead.result()
            self._present = index, states, weights
            if (index + 1) * turns * rows < self.config.steps:
                ahead = _Ahead(self.live, index + 1, segment.states, weights[1])
            for turn in range(done, turns):
                if self.progress.steps >= self.config.steps:
                    return
                moment = _joined([block[turn] for block in segment.moments])
                self.agent.memory.write(moment)
                self.agent.steps_done += 1
                yield moment
            index, states, done = index + 1, segment.states, 0
            weights = weights[1], self._weights()

    def _blobs(self) -> dict[str, bytes]:
        assert self._present is not None
        index, states, weights = self._present
        tensors = {"index": torch.tensor(index)}
        tensors |= {f"state.{n}": as_tensor(state) for n, state in enumerate(states)}
        tensors |= {f"weights.{n}": as_tensor(of) for n, of in enumerate(weights)}
        return {"segments": to_bytes(tensors)}

    def _unpacked(self, packed: bytes) -> tuple[int, list[bytes], tuple[bytes, bytes]]:
        tensors = from_bytes(packed)
        if f"state.{self.blocks - 1}" not in tensors or f"state.{self.blocks}" in tensors:
            raise ConfigError(
                f"checkpoint: expected {self.blocks} blocks of environments, got others; resume "
                "with its own settings"
            )
        states = [tensors[f"state.{n}"].numpy().tobytes() for n in range(self.blocks)]
        first, second = (tensors[f"weights.{n}"].numpy().tobytes() for n in range(2))
        return int(tensors["index"]), states, (first, second)


def _joined(parts: Sequence[bytes]) -> Moment:
    moments = [Moment.from_bytes(part) for part in parts]
    assert all(isinstance(moment, Moment) for moment in moments)
    return Moment.joined(moments)  # type: ignore[arg-type]
