"""Plans of agents in `sextet/Fork-state-v0`: three routes, each with its fork and its pay-offs.

`examples/fork.py` prints and draws it. An agent that `agent.train` trained on random actions is
evaluated, without more training, under directives that ask for the best mean, the best mean less
risk and the best worst case.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agent import evaluate, train
from command_line import Share, mean_of, table
from worlds.fork import PAYS, STATE_ID

TRAINING = (
    "world_model.kind=latent-jepa", "world_model.width=64", "world_model.blocks=2",
    "world_model.unroll_steps=1", "world_model.prediction_weight=1", "perception.features=1",
    "cost.drives=[signal:-reward]", "configurator.kind=fixed", "configurator.mode=1",
    "actor.policy.kind=categorical", "actor.planner.kind=rollout", "discount=1",
    "directive.horizon_steps=5", "directive.commit_steps=5", "directive.model_calls=500",
    "learner.train_modules=[world_model]", "learner.learning_rate=0.003",
    "learner.replay_ratio=0.0625", "learner.warmup_steps=1000", "learner.ema_rate=0.01",
    "memory.capacity=40000", "training.evaluate_every=0", "training.evaluate_episodes=1",
)  # fmt: skip
"""Mode-1 with an untrained policy, which acts at random; the world model alone learns."""

WAYS: dict[str, tuple[int, tuple[str, ...]]] = {
    f"{name}, {futures} future{'s' if futures > 1 else ''}": (
        route,
        (f"directive.futures={futures}", *settings),
    )
    for futures in (16, 8, 1)
    for name, route, settings in (
        ("best mean", 0, ()),
        ("risk .8", 1, ("directive.risk=0.8",)),
        ("adversarial", 2, ("directive.adversarial=true",)),
    )
}
"""The route that each directive should take, and its settings."""


@dataclass(frozen=True)
class Way:
    """The episodes of an agent under one directive: how many took each route, and their returns."""

    name: str
    seed: int
    routes: list[int]
    mean_return: float

    @property
    def right(self) -> int:
        """Episodes on the route that the directive should take."""
        return self.routes[WAYS[self.name][0]]


def ways_of(seed: int, steps: int, episodes: int) -> list[Way]:
    """Trains an agent for `steps` and evaluates it under each directive of WAYS."""
    ways = []
    with tempfile.TemporaryDirectory() as folder:
        agent: Any = train(
            STATE_ID, *TRAINING, preset="learn-actions", steps=steps, seed=seed,
            num_envs=10, run=f"{folder}/run",
        )  # fmt: skip
        for name, (_, settings) in WAYS.items():
            scores = evaluate(
                agent, "configurator.mode=2", *settings, episodes=episodes, num_envs=10
            )
            # A return says the route: no two pay the same.
            near = (torch.tensor(scores.returns)[:, None, None] - torch.tensor(PAYS)).abs()
            routes = torch.bincount(near.amin(2).argmin(1), minlength=len(PAYS)).tolist()
            ways.append(Way(name, seed, routes, sum(scores.returns) / len(scores.returns)))
    return ways


def named(ways: Sequence[Way], name: str) -> list[Way]:
    """Those of one directive."""
    return [way for way in ways if way.name == name]


def share_of(ways: Sequence[Way], route: int) -> Share:
    """The share of all episodes on a route, counted from 0."""
    counts = sum(way.routes[route] for way in ways)
    return Share.of_draws(counts, sum(sum(way.routes) for way in ways))


def bars_of(ways: Sequence[Way]) -> dict[str, bool]:
    """What the table must show, and whether it does."""
    bars = {}
    for name, (route, _) in WAYS.items():
        share = share_of(named(ways, name), route)
        right = share.count >= 0.95 * share.of
        if name.endswith("1 future"):
            bars[f"{name}: takes its route in less than 95 % of the episodes"] = not right
        else:
            bars[f"{name}: takes its route in at least 95 % of the episodes"] = right
    return bars


def table_of(ways: Sequence[Way]) -> str:
    """A line for each directive: the episodes on each route, and the return."""
    lines = []
    for name in WAYS:
        of = named(ways, name)
        shares = [str(share_of(of, route)) for route in range(len(PAYS))]
        lines.append([name, *shares, mean_of([way.mean_return for way in of])])
    return table(["directive", *(f"route {route + 1}" for route in range(3)), "return"], lines)
