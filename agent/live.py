"""The interaction loop: agent and world take turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For types alone: `agent` itself imports this file, and must stay quick to import.
    from agent.agent import Agent
    from modules.messages import Moment, Observation
    from modules.ports import World


def live(agent: Agent, world: World, steps: int, seed: int) -> Iterator[Moment]:
    """Yields the moments of a run of `steps` steps, counted over all rows of the world.

        for moment in live(agent, world, steps=500, seed=0):
            screen.show(moment)

    Agent and world are reset first. A moment holds all B rows and is yielded before its action is
    carried out; logging, learning and stopping are up to the caller. Seed and row determine every
    random number.
    """
    agent.reset(world.num_envs, seed)
    yield from go_on(agent, world, world.reset(seed), steps)


def go_on(agent: Agent, world: World, observation: Observation, steps: int) -> Iterator[Moment]:
    """Yields the moments of `steps` more steps, without a reset; `observation` is the world's
    present one.
    """
    for _ in range(-(-steps // world.num_envs)):
        moment = agent.step(observation)
        yield moment
        observation = world.step(moment.plan.action)
