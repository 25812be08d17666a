"""The agent: six modules in one loop (LeCun 2022, Fig. 2 and §3.1)."""

from __future__ import annotations

from typing import cast

import torch

from agent.imagination import Imagination, PlanCost
from agent.modules import Modules, initial_moment
from modules import chance
from modules.messages import (
    Directive,
    Energy,
    MessageError,
    Moment,
    Observation,
    Plan,
    Recollection,
    Situation,
    State,
    WorldSpec,
)
from modules.ports import (
    CHECKED_METHODS,
    WRITING_METHODS,
    WritableMemory,
    WritingWorldModel,
    gate,
)


class Agent:
    """Acts in B rows of a world at once, one `step` for all of them:

        state        = perception.perceive(observation, previous)
        memory.write_pairs(world_model.writes(previous, state, observation.first))
        recollection = memory.recall(state)
        energies     = cost.energy(state)
        directive    = configurator.configure(situation)
        plan         = actor.act(situation, imagination, directive)
        expected     = world_model.predict(situation, plan.action, directive)
        memory.write(moment)

    The second line is that of an agent whose world model writes to memory, which then returns what
    happened just now, too. `previous` is the last moment of each row, `situation` what is known
    before acting, and `imagination` joins world model and cost under the directive. Memory holds
    the history and the learner the optimiser; the agent holds a count of steps, from which, with
    the seed, every random number of acting derives.
    """

    def __init__(self, modules: Modules, world: WorldSpec, plan_cost: PlanCost) -> None:
        self.modules, self.world, self.plan_cost = modules, world, plan_cost

    def reset(self, rows: int, seed: int) -> None:
        """Begins a run in `rows` rows: memory is empty, every row is before its first episode."""
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
        methods = WRITING_METHODS if m.writes_memory else CHECKED_METHODS
        self.world_model = gate("world_model", m.world_model, self.dims, methods)
        self.cost = gate("cost", m.cost, self.dims)
        self.memory = gate("memory", m.memory, self.dims)
        self.actor = gate("actor", m.actor, self.dims)
        self.configurator = gate("configurator", m.configurator, self.dims)
        self.memory.reset(initial_moment(m, self.world, rows))

    def imagination(self, situation: Situation, directive: Directive) -> Imagination:
        """What planners use: the agent's world model and cost under a directive."""
        return Imagination(self.world_model, self.cost, situation, directive, self.plan_cost)

    @torch.no_grad()
    def step(self, observation: Observation) -> Moment:
        """One turn of the loop (Fig. 2), from the observation to the action and what is expected
        after it.

        Raises MessageError, naming module, message, field and step, where a module returns a
        message of the wrong type or shape, or numbers that are not finite or out of range.
        """
        try:
            observation.check(self.dims)
            previous = self.memory.previous()
            state = self.perception.perceive(observation, previous)
            if self.modules.writes_memory:
                world_model = cast(WritingWorldModel, self.world_model)
                pairs = world_model.writes(previous, state, observation.first)
                cast(WritableMemory, self.memory).write_pairs(pairs)
            recollection = self.memory.recall(state)
            readout = recollection.readout if self.modules.reads_memory else None
            state = state.recalled(recollection.novelty, readout)
            energies = self.cost.energy(state)
            situation = self._situation(observation, state, recollection, energies, previous)
            directive = self.configurator.configure(situation)
            plan = self._plan(situation, directive)
            expected = self.world_model.predict(situation, plan.action, directive)
            moment = situation.moment(self.steps_done, observation, directive, plan, expected)
            self.memory.write(moment)
        except MessageError as error:
            error.step = self.steps_done
            raise
        self.steps_done += 1
        return moment

    def _plan(self, situation: Situation, directive: Directive) -> Plan:
        """The actor's plan. Imagination is unchecked: where a plan is refused, the same search is
        repeated with checks, which raises the error of the module that caused it.
        """
        imagination = self.imagination(situation, directive)
        try:
            return self.actor.act(situation, imagination, directive)
        except Exception:
            self.actor.act(situation, imagination.checked(self.dims), directive)
            raise

    def _situation(
        self,
        observation: Observation,
        state: State,
        recollection: Recollection,
        energies: Energy,
        previous: Moment,
    ) -> Situation:
        """All that is known before the step is decided, with this step's random keys."""
        rows = self.dims["B"]
        return Situation(
            env_index=torch.arange(rows),
            state=state,
            recollection=recollection,
            energies=energies,
            surprise=self.world_model.surprise(previous.expected, state) * ~observation.first,
            episode_model_calls=previous.episode_model_calls + previous.plan.model_calls,
            episode_step=previous.episode_step + 1,
            rng_key=chance.keys(self.seed, rows, self.steps_done),
            previous=previous,
        )
