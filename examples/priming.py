"""Is perception that is primed for the task in force better than one that is not? (LeCun 2022, §6)

    python examples/priming.py --seeds 0,1,2,3,4 --json

One world of several tasks (`sextet/Orchard-v0`), one small agent (preset `learn-tasks`), two arms:

  primed    configurator.kind=task, configurator.priming as the preset has it
  unprimed  configurator.kind=task, configurator.priming=0

What differs is one number, the size of the directive's tokens, and so what reaches FiLM in
perception; the world model is persistence, which reads no token. What is the same: in both arms
the task configurator reads the task from the observation's goal and sets v to the critic's
sub-goal head of that task; heads learn from the steps of their own task; architecture, number of
weights (those of FiLM exist and are 0 in the unprimed arm), initial weights, drives, replay,
budgets of steps and of updates. With one seed both arms take the same steps until the first
update. So an unprimed perception must represent what every task needs, a primed one only what its
task needs.

Each seed is a training of its own in each arm; then both agents play the same held-out episodes
(seed + 1,000,000), ε = 0.01. Reported: per seed the difference of mean returns; over seeds its mean
with a bootstrap interval (BCa, as in studies).

As a study: `sextet study priming` (arms with a `school`, which trains each first). From Python:
`train(seed, primed, budgets, [])` gives the agent's `Assembly` at each budget of steps,
`judge(assembly, episodes)` its returns. With several budgets (`--steps 4000,8000`) all trainings
advance together and are judged at every budget; the JSON line has the figures of the last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from agent.assembly.build import Assembly, assemble, known_kinds
from agent.assembly.merge import ConfigTree, dotted, merge
from agent.assembly.resolve import preset
from agent.learning.evaluation import whole_episodes
from agent.learning.learner import Learner
from agent.learning.statistics import mean
from agent.live import live

WORLD = "sextet/Orchard-v0"
ARMS = ("primed", "unprimed")
HELD_OUT = 1_000_000
"""Added to a seed for the episodes that judge the agent."""


def settings(seed: int, primed: bool, overrides: list[str]) -> ConfigTree:
    """The configuration of one arm."""
    tree = merge(preset("learn-tasks"), {"world": {"id": WORLD}, "seed": seed})
    tree = merge(tree, dotted(["world_model=persistence", *overrides]))
    return tree if primed else merge(tree, {"configurator": {"priming": 0.0}})


def train(
    seed: int, primed: bool, budgets: Sequence[int], overrides: list[str]
) -> Iterator[Assembly]:
    """One training, yielded each time it has done as many steps as the next of `budgets`."""
    assembly = assemble(settings(seed, primed, overrides), known_kinds(()), training=True)
    learner = Learner(assembly.agent, config=assembly.config.settings.learner, seed=seed)
    left, done = list(budgets), 0
    for _ in live(assembly.agent, assembly.world, max(budgets), seed):
        done += assembly.world.num_envs
        for _ in learner.learn(assembly.world.num_envs, done):
            pass
        if done >= left[0]:
            left.pop(0)
            yield assembly
    assembly.world.close()


def judge(trained: Assembly, episodes: int) -> list[float]:
    """Returns of held-out episodes."""
    evaluation = trained.config.settings.training.evaluation
    tree = merge(
        merge(trained.config.tree(), evaluation), {"world": {"num_envs": min(20, episodes)}}
    )
    assembly = assemble(merge(tree, {"memory": {"capacity": 1000}}), known_kinds(()))
    for port in ("perception", "cost"):
        weights = getattr(trained.agent.modules, port).state_dict()
        getattr(assembly.agent.modules, port).load_state_dict(weights)
    seed = trained.config.settings.seed + HELD_OUT
    returns = whole_episodes(assembly.agent, assembly.world, episodes, seed).returns
    assembly.world.close()
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument(
        "--steps", default="8000", help="budgets of each training, rising: 4000,8000"
    )
    parser.add_argument("--episodes", type=int, default=60, help="held-out ones, each agent")
    parser.add_argument("--json", action="store_true", help="one JSON object in the last line")
    parser.add_argument("overrides", nargs="*", help="settings of both arms: learner.batch=32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    budgets = [int(steps) for steps in options.steps.split(",")]
    trainings = {
        (seed, arm): train(seed, arm == "primed", budgets, options.overrides)
        for seed in seeds
        for arm in ARMS
    }
    figures: dict[str, Any] = {}
    began = time.monotonic()
    for steps in budgets:
        returns: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for (seed, arm), training in trainings.items():
            reached = statistics.fmean(judge(next(training), options.episodes))
            returns[arm].append(reached)
            spent = time.monotonic() - began
            print(f"{steps} steps  seed {seed} {arm:<8} {reached:+6.2f}  {spent:.0f} s", flush=True)
        difference = mean([a - b for a, b in zip(*returns.values(), strict=True)])
        print(
            f"{steps} steps  primed - unprimed {difference.mean:+.2f} [{difference.low:+.2f}, "
            f"{difference.high:+.2f}] over {len(seeds)} seeds",
            flush=True,
        )
        figures = {
            "world": WORLD,
            "seeds": seeds,
            "steps": steps,
            "episodes": options.episodes,
            "overrides": options.overrides,
            **returns,
            "difference": difference.mean,
            "interval": [difference.low, difference.high] if len(seeds) > 1 else None,
            "excludes_zero": difference.excludes_zero,
            "seconds": round(time.monotonic() - began, 1),
        }
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
