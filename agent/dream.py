"""Imagined experience: what the critic learns from without living it (LeCun 2022, Fig. 7)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from agent.modules import Modules
from modules import chance
from modules.messages import Directive, Experience, Moment, Situation, State
from modules.ports import Imagination


class Dreamer:
    """Goes on from states of the experience with the world model, acting as in Mode-1.

    What comes of it has the form of an experience, so whoever learns from one learns from the
    other by the same losses. Nothing is learned about what was only dreamt: no gradient reaches
    perception, world model or actor.
    """

    def __init__(self, modules: Modules, steps: int) -> None:
        self.modules, self.steps = modules, steps

    @torch.no_grad()
    def dream(
        self, experience: Experience, start: State, key: Tensor
    ) -> tuple[Experience, list[State], list[State]]:
        """A dream of `steps` from `start` [B ...] for each window: the experience [B steps+1 ...],
        its states but for the last, and all of them, as `modules.ports.Learns.losses` takes them.

        A row's dream is over where the model deems the end likelier than not.
        """
        m, rows = self.modules, len(start.latent)
        directive: Directive = m.configurator.neutral(rows)
        directive = directive.replace(mode=torch.ones_like(directive.mode))
        before = Moment.raw(plan=m.actor.neutral(rows))
        state, states, actions = start.replace(latent=start.latent.detach()), [], []
        for t in range(self.steps + 1):
            situation = Situation.raw(
                row=torch.arange(rows),
                state=state,
                energies=m.cost.feel(state),
                surprise=torch.zeros(rows),
                chance=chance.keys(int(key), rows, t),
                before=before,
            )
            if t == 0:
                state = m.world_model.start(situation, directive)
            states.append(state)
            actions.append(m.actor.act(situation, cast(Imagination, None), directive).action)
            if t < self.steps:
                state = m.world_model.complete(m.world_model.step(state, actions[-1]))
        ended = torch.stack([s.ended > 0.5 for s in states], 1)
        over = ended.cumsum(1) - ended.long() > 0
        dreamt = Experience.raw(
            frames=None,
            vectors=None,
            goals=None if start.goal is None else torch.stack([start.goal] * len(states), 1),
            actions=torch.stack(actions, 1),
            signals=torch.stack([s.signals for s in states], 1),
            terminated=ended,
            truncated=torch.zeros_like(ended),
            valid=~over,
            weights=experience.weights,
            index=experience.index,
        )
        return dreamt, states[:-1], states
