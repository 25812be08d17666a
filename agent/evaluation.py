"""Whole episodes, and what they came to."""

from __future__ import annotations

from dataclasses import dataclass

from agent.agent import Agent
from agent.live import live
from agent.scorekeeper import Scorekeeper, Summary
from modules.ports import World

UNLIMITED = 2**40


@dataclass(frozen=True)
class Evaluation:
    """The returns of whole episodes, in the order they ended, and the summary of the life."""

    returns: list[float]
    summary: Summary


def whole_episodes(
    agent: Agent, world: World, episodes: int, seed: int, steps: int | None = None
) -> Evaluation:
    """Lives until `episodes` have ended, or `steps` are done.

    Where several rows are lived side by side, the first episodes to *begin* count, not the first
    to end: those would be the short ones.
    """
    rows = world.rows
    quota = [episodes // rows + (row < episodes % rows) for row in range(rows)]
    keeper, returns, done = Scorekeeper(world.spec.id, rows), list[float](), [0] * rows
    for moment in live(agent, world, steps or UNLIMITED, seed):
        for row, value in keeper.add(moment):
            if done[row] < quota[row]:
                done[row] += 1
                returns.append(value)
        if done == quota:
            break
    return Evaluation(returns, keeper.summary(0.0))
