"""Living: the world and the agent take turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For types alone: `agent` itself imports this file, and must stay quick to import.
    from agent.agent import Agent
    from modules.messages import Moment, Observation
    from modules.ports import World


def live(agent: Agent, world: World, steps: int, seed: int) -> Iterator[Moment]:
    """Moments of one life: `steps` turns of the loop summed over the world's rows.

    A generator: whoever iterates decides what to log, draw, learn or stop. The moment is yielded
    before its action is carried out. Seed and row decide every random number.
    """
    agent.reset(world.num_envs, seed)
    yield from go_on(agent, world, world.reset(seed), steps)


def go_on(agent: Agent, world: World, observation: Observation, steps: int) -> Iterator[Moment]:
    """The same from where agent and world stand: `observation` is what the world shows now."""
    for _ in range(-(-steps // world.num_envs)):
        moment = agent.step(observation)
        yield moment
        observation = world.step(moment.plan.action)
