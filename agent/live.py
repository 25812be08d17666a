"""Living: the world and the agent take turns."""

from __future__ import annotations

from collections.abc import Iterator

from agent.agent import Agent
from modules.messages import Moment
from modules.ports import World


def live(agent: Agent, world: World, steps: int, seed: int) -> Iterator[Moment]:
    """Moments of one life: `steps` turns of the loop summed over the world's rows.

    A generator: whoever iterates decides what to log, draw, learn or stop. The moment is yielded
    before its action is carried out. Seed and row decide every random number.
    """
    agent.begin(world.rows, seed)
    observation = world.reset(seed)
    for _ in range(-(-steps // world.rows)):
        moment = agent.step(observation)
        yield moment
        observation = world.step(moment.plan.action)
