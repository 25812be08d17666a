"""The agent: six modules in one loop (LeCun 2022, Fig. 2 and §3.1)."""

from __future__ import annotations

import torch

from agent.imagination import Imagination
from agent.modules import Modules, initial_moment
from modules import chance
from modules.messages import (
    MessageError,
    Moment,
    Observation,
    Situation,
    WorldSpec,
)
from modules.ports import gate


class Agent:
    """Lives in B rows of a world at once, one `step` for all of them.

    It owns no history (memory does), no optimiser (the learner does) and no clock but a count of
    steps, from which, with the seed, every random number of the run derives.
    """

    def __init__(
        self,
        modules: Modules,
        world: WorldSpec,
        discount: float,
        sum_critic_every_step: bool = False,
        td_lambda: float = 1.0,
    ) -> None:
        self.modules, self.world = modules, world
        self.discount, self.sum_critic_every_step, self.td_lambda = (
            discount,
            sum_critic_every_step,
            td_lambda,
        )

    def reset(self, rows: int, seed: int) -> None:
        """A new life: memory is empty, every row stands before its first episode."""
        m = self.modules
        self.seed, self.steps_done = seed, 0
        self.dims = {
            "B": rows,
            "D": m.perception.latent_size,
            "K": len(m.cost.drives),
            "L": len(m.cost.heads),
            "S": len(self.world.signals),
            "A": self.world.actions.size,
        }
        self.perception = gate("perception", m.perception, self.dims)
        self.world_model = gate("world_model", m.world_model, self.dims)
        self.cost = gate("cost", m.cost, self.dims)
        self.memory = gate("memory", m.memory, self.dims)
        self.actor = gate("actor", m.actor, self.dims)
        self.configurator = gate("configurator", m.configurator, self.dims)
        self.memory.reset(initial_moment(m, self.world, rows))

    @torch.no_grad()
    def step(self, observation: Observation) -> Moment:
        """One turn of the loop: from what is observed to what is done and expected.

        Raises MessageError, naming module, message, field and step, where a module says
        something of the wrong form.
        """
        try:
            before = self.memory.previous()
            state = self.perception.perceive(observation, before)
            recollection = self.memory.recall(state)
            state = state.with_novelty(recollection.novelty)
            energies = self.cost.energy(state)
            situation = Situation(
                env_index=torch.arange(self.dims["B"]),
                state=state,
                recollection=recollection,
                energies=energies,
                surprise=state.surprise(before.expected) * ~observation.first,
                episode_model_calls=before.episode_model_calls + before.plan.model_calls,
                episode_step=before.episode_step + 1,
                rng_key=chance.keys(self.seed, self.dims["B"], self.steps_done),
                previous=before,
            )
            directive = self.configurator.configure(situation)
            imagination = Imagination(
                self.world_model,
                self.cost,
                situation,
                directive,
                self.world.actions,
                self.discount,
                self.sum_critic_every_step,
                self.td_lambda,
            )
            plan = self.actor.act(situation, imagination, directive)
            expected = self.world_model.predict(situation, plan.action, directive)
            moment = Moment(
                step=self.steps_done,
                observation=observation,
                state=state,
                recollection=recollection,
                energies=energies.at_best_action(directive),
                surprise=situation.surprise,
                episode_model_calls=situation.episode_model_calls,
                episode_step=situation.episode_step,
                directive=directive,
                plan=plan,
                expected=expected,
            )
            self.memory.write(moment)
        except MessageError as error:
            error.step = self.steps_done
            raise
        self.steps_done += 1
        return moment
