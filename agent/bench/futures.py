"""Cost of a plan: eight futures of each candidate against one, at three sizes.

A fresh `latent-jepa` with a categorical z in `sextet/Fork-state-v0`, planned for by the categorical
cross-entropy method: one round of N candidates of five steps, one row, one thread. The plans with
one and with eight futures are made in turn, each from random keys of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from agent.assembly.load import prepared, request_for
from agent.bench.support.clock import in_turn
from agent.engines.threads import one_thread
from modules import chance
from modules.messages import Situation

WORLD = "sextet/Fork-state-v0"
HORIZON = 5
FUTURES = (1, 8)


class Size(NamedTuple):
    """Numbers of a latent, width of the networks, and candidates of a plan."""

    latent: int
    width: int
    candidates: int


SIZES = {
    "small": Size(latent=16, width=64, candidates=32),
    "medium": Size(latent=128, width=256, candidates=64),
    "large": Size(latent=512, width=512, candidates=128),
}
PLANNER = ("actor.planner.kind=cem-categorical", "actor.planner.action_repeat=1",
           "actor.planner.iterations=1")  # fmt: skip


class Planning(NamedTuple):
    """`plan(round)` makes a plan with the random keys of that round and returns its model calls;
    `close` closes its world.
    """

    plan: Callable[[int], int]
    close: Callable[[], None]


@one_thread()
def run(rounds: int = 30, sizes: Mapping[str, Size] = SIZES) -> dict[str, float]:
    """For each size and number of futures K the model calls of a plan, `NAME_K_calls`, and the
    median of its processor time, `NAME_K_ms`; `NAME_ratio`: the median over rounds of the time with
    eight futures over that with one.
    """
    figures: dict[str, float] = {}
    for name, size in sizes.items():
        planned = {futures: planning(size, futures) for futures in FUTURES}
        ways = {str(futures): of.plan for futures, of in planned.items()}
        spans = {futures: span[:, 1] for futures, span in in_turn(ways, rounds, warmup=5).items()}
        for futures, of in planned.items():
            figures[f"{name}_{futures}_calls"] = of.plan(0)
            figures[f"{name}_{futures}_ms"] = round(1e3 * float(np.median(spans[str(futures)])), 3)
            of.close()
        ratio = np.median(spans[str(FUTURES[1])] / spans[str(FUTURES[0])])
        figures[f"{name}_ratio"] = round(float(ratio), 3)
    return figures


def planning(size: Size, futures: int) -> Planning:
    """Plans at the first step of an episode, with so many `futures` of each candidate."""
    calls = size.candidates * HORIZON * futures
    features = size.latent - 6  # beside the six numbers of the world
    settings = (
        *PLANNER, f"actor.planner.samples={size.candidates}", "world_model.kind=latent-jepa",
        f"world_model.width={size.width}", f"world_model.latent.width={size.width}",
        f"perception.features={features}", "configurator.kind=fixed", "configurator.mode=2",
        f"directive.horizon_steps={HORIZON}", f"directive.model_calls={calls}",
        f"directive.futures={futures}", "directive.commit_steps=1",
    )  # fmt: skip
    assembly = prepared(request_for(WORLD, settings, seed=0, num_envs=1))
    agent, world = assembly.agent, assembly.world
    agent.reset(1, 0)
    moment = agent.step(world.reset(0))

    @torch.no_grad()
    def plan(round_: int) -> int:
        situation = Situation(
            env_index=torch.arange(1),
            state=moment.state,
            recollection=moment.recollection,
            energies=moment.energies,
            surprise=moment.surprise,
            episode_model_calls=moment.episode_model_calls,
            episode_step=moment.episode_step,
            rng_key=chance.keys(0, 1, round_),
            previous=moment,
        )
        imagination = agent.imagination(situation, moment.directive)
        actor: Any = agent.actor
        return int(actor.act(situation, imagination, moment.directive).model_calls)

    return Planning(plan, world.close)
