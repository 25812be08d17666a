"""Whether what is written to memory can be kept, and whether what it holds is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.assembly.resolve import Slot
from modules.messages import ConfigError

READERS = ("cost.critic", "actor.policy", "world_model")
"""The slots whose modules may read what memory returns: those with a setting `reads_memory`."""


def require_used_memory(slots: Mapping[str, Slot], modules: Mapping[str, Any]) -> None:
    """Raises ConfigError, one line, where the world model writes to a memory that keeps no pairs,
    where a memory for such pairs is written by none, or where nothing reads it.
    """
    writes = getattr(modules["world_model"], "memory_writes", 0)
    kind, model = slots["memory"].kind, slots["world_model"].kind
    if not hasattr(modules["memory"], "write_pairs"):
        if writes:
            raise ConfigError(
                f"config world_model.memory_writes: expected 0 where memory.kind is {kind!r}, "
                f"which keeps no pairs, got {writes}; try memory.kind=world-state"
            )
        return
    if not writes:
        raise ConfigError(
            f"config memory.kind: {kind!r} holds what the world model writes, and {model!r} writes "
            "nothing here; try world_model.kind=jepa with world_model.memory_writes=16, or "
            "memory.kind=ring"
        )
    require_read(modules, f"config memory.kind: {kind!r}")


def require_read(modules: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError, which begins with `where`, unless a module reads what memory returns."""
    if not any(getattr(modules[port], "reads_memory", False) for port in _PORTS):
        tries = ", ".join(f"{slot}.reads_memory=true" for slot in READERS)
        raise ConfigError(f"{where}: expected a module that reads memory, got none; try {tries}")


_PORTS = ("cost", "actor", "world_model")
