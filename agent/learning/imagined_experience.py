"""Imagined experience: what the critic learns from without living it (LeCun 2022, Fig. 7)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from agent.modules import Modules
from modules import chance
from modules.messages import Directive, Experience, Moment, Situation, State
from modules.ports import Batch, Imagination


class ImaginedExperience:
    """Goes on from states of the experience with the world model, acting as in Mode-1.

    What comes of it has the form of an experience, so whoever learns from one learns from the
    other by the same losses. Nothing is learned about what was only dreamt: no gradient reaches
    perception, world model or actor.

    Where the critic knows actions, the first one of a dream is any: what a life tells about the
    actions not taken in it is little, and the model has learned it from all lives together. So
    each state is dreamt on from `branches` times.
    """

    def __init__(self, modules: Modules, steps: int, branches: int) -> None:
        self.modules, self.steps, self.branches = modules, steps, branches

    @torch.no_grad()
    def rollout(self, experience: Experience, start: State, key: Tensor) -> Batch:
        """Dreams of `steps` from `start` [B ...], M = B·branches: the experience [M steps+1 ...],
        its states but for the last, and all of them, as `modules.ports.Learnable.losses` takes
        them.

        A row's dream is over where the model deems the end likelier than not.
        """
        each = torch.arange(len(start.latent)).repeat_interleave(self.branches)
        start, m, rows = start.select(each), self.modules, len(each)
        directive: Directive = m.configurator.initial(rows)
        directive = directive.replace(mode=torch.ones_like(directive.mode))
        before = Moment.unchecked(plan=m.actor.initial(rows))
        state, states, actions = start.replace(latent=start.latent.detach()), [], []
        for t in range(self.steps):
            situation = Situation.unchecked(
                env_index=torch.arange(rows),
                state=state,
                energies=m.cost.energy(state),
                surprise=torch.zeros(rows),
                rng_key=chance.keys(int(key), rows, t),
                previous=before,
            )
            if t == 0:
                state = m.world_model.start(situation, directive)
            action = m.actor.act(situation, cast(Imagination, None), directive).action
            if t == 0 and situation.energies.critic_actions is not None:
                any_one = chance.integers(situation.rng_key, "dream", action.shape[-1])
                action = nn.functional.one_hot(any_one.squeeze(-1), action.shape[-1]).float()
            states.append(state)
            actions.append(action)
            state = m.world_model.complete(m.world_model.step(state, action))
        states.append(state)
        actions.append(torch.zeros_like(actions[-1]))
        ended = torch.stack([s.ended > 0.5 for s in states], 1)
        over = ended.cumsum(1) - ended.long() > 0
        dreamt = Experience.unchecked(
            frames=None,
            vectors=None,
            goals=None if start.goal is None else torch.stack([start.goal] * len(states), 1),
            actions=torch.stack(actions, 1),
            signals=torch.stack([s.signals for s in states], 1),
            terminated=ended,
            truncated=torch.zeros_like(ended),
            mask=~over,
            importance_weights=experience.importance_weights[each],
            indices=experience.indices[each],
        )
        return Batch(dreamt, states[:-1], states)
