"""Imagined experience: rollouts of the world model for the critic (LeCun 2022, Fig. 7).

They continue recorded states with Mode-1 actions and have the form of recorded experience, so that
the same losses apply.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from agent.agent import Agent
from agent.imagination import Imagination
from agent.modules import Modules, initial_moment
from modules import chance
from modules.messages import Directive, Experience, Moment, Situation, State
from modules.ports import Batch, LatentVariableModel, WorldModel


def first_moment(agent: Agent, state: State) -> Moment:
    """The moment before the first of an episode, in as many rows and on the device of `state`."""
    return initial_moment(agent.modules, agent.world, state.batch).to(state.latent.device)


def begun_at(state: State, modules: Modules, previous: Moment, rng_key: Tensor) -> Situation:
    """The situation [B] of episodes that begin at `state`, `previous` being `first_moment`."""
    zeros = torch.zeros(state.batch, device=state.latent.device)
    return Situation.unchecked(
        env_index=torch.arange(state.batch),
        state=state,
        recollection=previous.recollection,
        energies=modules.cost.energy(state),
        surprise=zeros,
        episode_model_calls=zeros.long(),
        episode_step=zeros.long(),
        rng_key=rng_key,
        previous=previous,
    )


def sampled_latent(model: WorldModel, state: State, action: Tensor, key: Tensor) -> Tensor | None:
    """A latent variable of each state [M ...] after its action [M A], [M Z], drawn by the random
    keys [M]; None where the model has none.
    """
    if model.latent is None:
        return None
    luck = chance.uniform(key, "luck", model.latent.luck)
    ones = torch.ones(len(action))
    return cast(LatentVariableModel, model).sample_latent(state, action, luck, ones)


class ImaginedExperience:
    """Rollouts of `horizon` steps by `modules`, the averaged ones of `agent`.

    No gradient reaches perception, world model or actor. Where the world model has a latent
    variable, each rollout draws its own. `rollouts_per_state` continue each state.
    With a critic of actions the first action of each is uniformly random: recorded experience has
    little about the actions that were not taken.
    """

    def __init__(
        self, agent: Agent, modules: Modules, horizon: int, rollouts_per_state: int
    ) -> None:
        self.agent, self.modules = agent, modules
        self.horizon, self.rollouts_per_state = horizon, rollouts_per_state

    @torch.no_grad()
    def rollout(self, experience: Experience, start: State, key: Tensor) -> Batch:
        """Rollouts from `start` [B ...], the states of step 0 of `experience`.

        A batch of M = B·rollouts_per_state windows of `horizon` + 1 steps: imagined experience, its
        states except the last, and all of them as targets. A window is masked behind the first step
        at which the world model predicts an end with probability > .5.
        """
        row = torch.arange(len(start.latent)).repeat_interleave(self.rollouts_per_state)
        start, m = start.select(row), self.modules
        directive = m.configurator.initial(len(row))
        directive = directive.replace(mode=torch.ones_like(directive.mode))
        previous = first_moment(self.agent, start)
        state, states, actions = start.replace(latent=start.latent.detach()), [], []
        for t in range(self.horizon):
            situation = begun_at(state, m, previous, chance.keys(int(key), len(row), t))
            if t == 0:
                state = m.world_model.start(situation, directive)
            imagination = self._imagination(situation, directive)
            action = m.actor.act(situation, imagination, directive).action
            if t == 0 and situation.energies.critic_actions is not None:
                random = chance.integers(situation.rng_key, "dream", action.shape[-1])
                action = nn.functional.one_hot(random.squeeze(-1), action.shape[-1]).float()
            states.append(state)
            actions.append(action)
            z = sampled_latent(m.world_model, state, action, situation.rng_key)
            state = m.world_model.complete(m.world_model.step(state, action, z))
        states.append(state)
        actions.append(torch.zeros_like(actions[-1]))
        ended = torch.stack([s.ended > 0.5 for s in states], 1)
        behind_end = ended.cumsum(1) - ended.long() > 0
        imagined = Experience.unchecked(
            frames=None,
            vectors=None,
            actions=torch.stack(actions, 1),
            signals=torch.stack([s.signals for s in states], 1),
            goals=None if start.goal is None else torch.stack([start.goal] * len(states), 1),
            tokens=directive.tokens.unsqueeze(1).expand(-1, len(states), -1, -1),
            mode2_mask=torch.zeros_like(ended),
            terminated=ended,
            truncated=torch.zeros_like(ended),
            mask=~behind_end,
            importance_weights=experience.importance_weights[row],
            indices=experience.indices[row],
        )
        return Batch(imagined, states[:-1], states)

    def _imagination(self, situation: Situation, directive: Directive) -> Imagination:
        return Imagination(
            self.modules.world_model,
            self.modules.cost,
            situation,
            directive,
            self.agent.plan_cost,
        )
