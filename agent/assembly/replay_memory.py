"""The main memory that a replay will take, computed before any of it is allocated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.assembly.resolve import ResolvedConfig
from agent.modules import Modules
from modules.messages import ConfigError, WorldSpec

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_bytes() -> int:
    """Main memory that this process may use: the machine's, or less by the limit of its cgroup."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for place in map(Path, _LIMITS):
        try:
            limits.append(int(place.read_text()))
        except (OSError, ValueError):
            continue  # no cgroup, or "max"
    return min(limits)


@dataclass(frozen=True)
class ReplayMemory:
    """The steps that a run stores at most, all rows together, and the bytes of each."""

    steps: int
    bytes_per_step: int

    @property
    def bytes(self) -> int:
        """Main memory of all steps."""
        return self.steps * self.bytes_per_step

    def __str__(self) -> str:
        return f"{self.steps:,} steps of {_size(self.bytes_per_step)}: {_size(self.bytes)}"


def recalled_bytes(modules: Modules) -> int:
    """Bytes of a step for what memory returned, which is stored where a module reads it; of a
    memory whose reading is trained with the entries that it was read from.
    """
    if not modules.reads_memory:
        return 0
    recalled = modules.memory.initial(1)
    stored = [recalled.readout]
    if hasattr(modules.memory, "write_pairs"):
        stored += [recalled.keys, recalled.values]
    return sum(tensor.nbytes for tensor in stored)


def replay_memory(
    config: ResolvedConfig, modules: Modules, world: WorldSpec, training: bool
) -> ReplayMemory | None:
    """What the memory of a run stores when it ends; None for a memory that does not say.

    Raises ConfigError, with the largest capacity that fits, where it is more than the machine has.
    """
    slot, settings = config.slots["memory"], config.settings
    count = getattr(slot.cls, "bytes_a_step", None)
    capacity = getattr(slot.settings, "capacity", None)
    if count is None or capacity is None:
        return None
    ends_after = settings.training.steps if training else settings.steps
    steps = capacity if ends_after is None else min(capacity, ends_after)
    size = count(slot.settings, world) + recalled_bytes(modules)
    memory, available = ReplayMemory(steps, size), machine_bytes()
    if memory.bytes > available:
        fits = max(available // memory.bytes_per_step, 1)
        raise ConfigError(
            f"config memory.capacity: expected a replay that fits into the {_size(available)} of "
            f"this machine, got {memory} in {world.id}; try --memory.capacity={fits // 2 or 1}, "
            f"{fits} at most"
        )
    return memory


def _size(count: int) -> str:
    """A number of bytes in three digits."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while value >= 999.5:
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"
