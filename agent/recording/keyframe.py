"""Keyframes: what a run needs to be gone on with, bit for bit, from a step on.

A snapshot of the world, and of the agent the last moment, what memory needs to act, and the count
of steps. That is all: no module keeps running context elsewhere, every random number derives from
(seed, row, step, port), and weights do not change while a run is recorded. Nothing is pickled.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from agent.agent import Agent
from modules.messages import MessageError, Moment, TraceError

_PREFIX = "memory."


@runtime_checkable
class ActingMemory(Protocol):
    """A memory that can tell what acting needs from all that it remembers.

    Of any other memory a keyframe holds everything.
    """

    def acting_tensors(self) -> dict[str, Tensor]:
        """What acting needs, by name."""

    def load_acting(self, tensors: dict[str, Tensor]) -> None:
        """Stands where `acting_tensors` were taken; after `begin`."""


def agent_bytes(agent: Agent) -> bytes:
    """What acting on needs of an agent that has just written a moment."""
    memory = agent.modules.memory
    kept = memory.acting_tensors() if isinstance(memory, ActingMemory) else memory.tensors()
    tensors = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in kept.items()}
    return save({**tensors, "steps_done": torch.tensor(agent.steps_done)})


def stand(agent: Agent, rows: int, seed: int, data: bytes) -> Moment:
    """Begins a life that goes on where `agent_bytes` were taken; the moment lived last.

    Raises TraceError where the bytes are damaged or of another agent.
    """
    agent.reset(rows, seed)
    memory = agent.modules.memory
    try:
        tensors = load(data)
        agent.steps_done = int(tensors.pop("steps_done"))
        kept = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        if isinstance(memory, ActingMemory):
            memory.load_acting(kept)
        else:
            memory.load_tensors(kept)
        return memory.last_written().check(agent.dims)
    except (SafetensorError, MessageError, KeyError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise TraceError(f"keyframe: expected one of this agent, got {line:.200}") from None
