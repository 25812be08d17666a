"""Keyframes: the state from which a recorded run continues bit for bit.

A keyframe holds a snapshot of the world and, of the agent, its last moment, the tensors that its
memory needs to act, and the number of steps. Nothing else changes during a recorded run: modules
have no state of their own, every random number derives from (seed, row, step, port), and weights
are constant. No pickle is involved.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from safetensors.torch import save
from torch import Tensor

from agent.agent import Agent
from modules.messages import MessageError, Moment, TraceError
from modules.tensor_file import unpacked

_PREFIX = "memory."


@runtime_checkable
class ActingMemory(Protocol):
    """A memory that can separate the tensors needed to act from those needed to learn.

    Of any other memory a keyframe holds all tensors.
    """

    def acting_tensors(self) -> dict[str, Tensor]:
        """The tensors that acting needs, by name."""

    def load_acting(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `acting_tensors` returned; called after `reset`."""


def agent_bytes(agent: Agent) -> bytes:
    """The agent's part of a keyframe, taken after it has written a moment."""
    memory = agent.modules.memory
    stored = memory.acting_tensors() if isinstance(memory, ActingMemory) else memory.tensors()
    tensors = {f"{_PREFIX}{name}": tensor.contiguous() for name, tensor in stored.items()}
    return save({**tensors, "steps_done": torch.tensor(agent.steps_done)})


def restore_agent(agent: Agent, rows: int, seed: int, data: bytes) -> Moment:
    """Resets the agent and restores the state of `agent_bytes`; returns the last moment.

    Raises TraceError where the bytes are damaged or of another agent.
    """
    agent.reset(rows, seed)
    memory = agent.modules.memory
    try:
        tensors = unpacked(data)
        agent.steps_done = int(tensors.pop("steps_done"))
        stored = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
        if isinstance(memory, ActingMemory):
            memory.load_acting(stored)
        else:
            memory.load_tensors(stored)
        return memory.last_written().check(agent.dims)
    except (MessageError, KeyError, ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise TraceError(f"keyframe: expected one of this agent, got {line:.200}") from None
