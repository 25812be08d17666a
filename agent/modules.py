"""The six modules of an agent, and the moment before its first."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from modules.messages import Moment, Observation, WorldSpec
from modules.ports import Actor, Configurator, Cost, Memory, Perception, WorldModel


@dataclass(frozen=True)
class Modules:
    """One module for each port of Fig. 2."""

    perception: Perception
    world_model: WorldModel
    cost: Cost
    memory: Memory
    actor: Actor
    configurator: Configurator

    @property
    def reads_memory(self) -> bool:
        """Whether policy, critic or world model read what memory returns."""
        readers = (self.world_model, self.cost, self.actor)
        return any(getattr(module, "reads_memory", False) for module in readers)

    @property
    def writes_memory(self) -> bool:
        """Whether the world model writes to memory."""
        return getattr(self.world_model, "memory_writes", 0) > 0


def initial_moment(m: Modules, w: WorldSpec, rows: int) -> Moment:
    """The moment before the first of an episode, step -1: zeros and each module's `initial`."""
    none, zeros = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows)
    state, directive = m.perception.initial(rows), m.configurator.initial(rows)
    levels = getattr(m.world_model, "levels_shape", None)
    recollection = m.memory.initial(rows)
    if m.reads_memory:
        state = state.replace(readout=recollection.readout)
    no_pixels = None if w.pixels is None else torch.zeros(rows, *w.pixels, dtype=torch.uint8)
    return Moment(
        step=-1,
        observation=Observation(
            pixels=no_pixels,
            vector=None if w.vector is None else torch.zeros(rows, w.vector),
            signals=torch.zeros(rows, len(w.signals)),
            goal=None if w.goal is None else torch.zeros(rows, w.goal),
            goal_pixels=no_pixels if w.goal_pixels else None,
            first=none,
            terminated=none,
            truncated=none,
        ),
        state=state,
        recollection=recollection,
        energies=m.cost.energy(state).at_best_action(directive),
        surprise=zeros,
        episode_model_calls=zeros.long(),
        episode_step=zeros.long() - 1,
        directive=directive,
        plan=m.actor.initial(rows),
        expected=state.replace(
            hidden=torch.zeros(rows, m.world_model.hidden_size),
            levels=None if levels is None else torch.zeros(rows, *levels),
        ),
    )
