"""The interaction loop: the agent acts, the world responds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For types alone: `agent` itself imports this file, and must stay quick to import.
    from agent.agent import Agent
    from modules.messages import Moment, Observation
    from modules.ports import World


def live(agent: Agent, world: World, steps: int, seed: int) -> Iterator[Moment]:
    """Yields the moments of a run of `steps` steps, summed over the world's rows.

        for moment in live(agent, world, steps=500, seed=0):
            screen.show(moment)

    Agent and world are reset first. A moment holds all B rows and is yielded before its action is
    carried out, so the caller can log, draw, learn or stop in between. Seed and row derive every
    random number.
    """
    agent.reset(world.num_envs, seed)
    yield from continue_from(agent, world, world.reset(seed), steps)


def continue_from(
    agent: Agent, world: World, observation: Observation, steps: int
) -> Iterator[Moment]:
    """As `live`, from the present state of agent and world, which shows `observation`."""
    for _ in range(-(-steps // world.num_envs)):
        moment = agent.step(observation)
        yield moment
        observation = world.step(moment.plan.action)
