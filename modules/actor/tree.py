"""Tree search over plans: Gumbel top-k with sequential halving, and transpositions."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.planner import Planned, one_hot, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Futures, Imagination

_FREE = -1
"""A decision that is left to the default policy."""

_MIN_VISITS = 50
"""c_visit of `value_weight` (Danihelka et al. 2022, eq. 8)."""

_SAME = 1e-9
"""Costs that differ by less are equal."""

_TIE = 1e-6
"""Largest difference of the logits of equal decisions."""

Values = NDArray[np.float64]


@dataclass(slots=True)
class _Node:
    """A state in which decisions were tried: how often each, the least cost to go after it (inf:
    never), where it led, and whether every plan that begins with it was simulated.
    """

    logits: Values
    visits: NDArray[np.int64]
    to_go: Values
    is_closed: NDArray[np.bool_]
    after: dict[int, Hashable] = field(default_factory=dict)

    def choose(self, scale: float, value_weight: float) -> int:
        """The decision that argmax_a π'(a) - N(a) / (1 + Σ N) takes next (eq. 14 there), of those
        that are not closed; the best one where all are.
        """
        if self.is_closed.all():
            return int(self.to_go.argmin())
        improved = self.logits + self.advantages(scale, value_weight)
        odds = np.exp(improved - improved.max())
        odds /= odds.sum()
        scores = odds - self.visits / (1 + self.visits.sum())
        scores[self.is_closed] = -math.inf
        return int(scores.argmax())

    def advantages(self, scale: float, value_weight: float) -> Values:
        """σ(q) of each decision, where q = -cost to go / `scale`; a decision that was never tried
        has the mean of the others.
        """
        tried = np.isfinite(self.to_go)
        if not tried.any():
            return np.zeros(len(self.visits))
        completed = np.where(tried, self.to_go, self.to_go[tried].mean())
        weight = (_MIN_VISITS + self.visits.max()) * value_weight
        advantages: Values = weight * (completed.min() - completed) / scale
        return advantages


class _Tree:
    """The nodes of one row, by depth and state: plans that lead to equal states share one.

    `order` [A]: random numbers by which equal decisions are ordered, the same in all nodes.
    `decisions`: those of a whole plan.
    """

    def __init__(self, root: Hashable, logits: Values, order: Values, decisions: int) -> None:
        self.order, self.decisions = _TIE * order, decisions
        self.nodes: dict[Hashable, _Node] = {}
        self.root = self._node(root, logits)
        self.least, self.most = math.inf, -math.inf

    @property
    def scale(self) -> float:
        """The range of the costs so far, > 0."""
        return max(self.most - self.least, 1e-9)

    def walk(self, first: int, value_weight: float) -> list[int]:
        """Decisions from the root on to the first that was never tried. They begin with `first`
        unless every plan that does was simulated.
        """
        if self.root.is_closed[first]:
            first = self.root.choose(self.scale, value_weight)
        path, key = [first], self.root.after.get(first)
        while key is not None and len(path) < self.decisions:
            node = self.nodes[key]
            path.append(node.choose(self.scale, value_weight))
            key = node.after.get(path[-1])
        return path

    def add(
        self, path: list[int], states: list[Hashable], logits: list[Values], cost: list[float]
    ) -> None:
        """Notes a simulation that began with the decisions of `path`: the `states` that these led
        to, in which decisions have the `logits`, and the `cost` until each decision and of the
        whole plan.
        """
        self.least, self.most = min(self.least, cost[-1]), max(self.most, cost[-1])
        node, passed = self.root, list[_Node]()
        for depth, decision in enumerate(path):
            passed.append(node)
            node.visits[decision] += 1
            node.to_go[decision] = min(node.to_go[decision], cost[-1] - cost[depth])
            if depth + 1 < self.decisions:
                # The same plan may lead to a state of other rounding beside other plans.
                key = node.after.setdefault(decision, states[depth])
                node = self._node(key, logits[depth])
        for depth, above in reversed(list(enumerate(passed))):
            is_closed = depth + 1 == self.decisions
            if not is_closed:
                below = self.nodes[above.after[path[depth]]]
                # By another way all may be known of a state; the best of it is tried by this one.
                is_best = cost[-1] - cost[depth + 1] <= below.to_go.min() + _SAME
                is_closed = bool(below.is_closed.all()) and is_best
            above.is_closed[path[depth]] |= is_closed

    def _node(self, key: Hashable, logits: Values) -> _Node:
        """The node of a state, a new one where it has none."""
        if key not in self.nodes:
            count = len(logits)
            self.nodes[key] = _Node(
                logits=logits + self.order,
                visits=np.zeros(count, np.int64),
                to_go=np.full(count, np.inf),
                is_closed=np.zeros(count, np.bool_),
            )
        return self.nodes[key]


class Tree:
    """Searches a tree whose nodes are states and whose edges are decisions.

    At the root `root_actions` decisions, chosen by Gumbel top-k, compete in rounds of sequential
    halving: each round gives every survivor equally many simulations and drops the worse half, by
    g(a) + logits(a) + σ(q(a)) (Gumbel MuZero: Danihelka et al. 2022, §3). Below the root a decision
    is chosen deterministically, such that visits follow the improved policy (§5 there). Logits are
    those of the critic, -v·TC(s, a) by its deviation over actions; 0 without one.

    A simulation is a whole plan: it follows the tree to the first decision that was never tried and
    then the default policy to the horizon, the critic's greedy one, or without a critic random
    decisions that last; all of it becomes part of the tree. Its cost is the plan's, so a node keeps
    the least cost to go after each decision. No plan is simulated twice while there are others.
    States that are equal after equally many decisions are one node: what one way there
    found serves the others (transpositions: Childs et al. 2008).

    Rows are planned for side by side and do not depend on each other.
    """

    class Config(Frozen):
        """Tree search for discrete actions.

        `action_repeat`: every decision lasts this many steps. `root_actions`: decisions that
        compete at the root; 0: all. `gumbel_scale`: 1 draws them by the critic's odds, 0 takes the
        best. `value_weight`: c_scale, how strongly values outweigh logits.
        """

        action_repeat: int = Field(4, ge=1, le=32)
        root_actions: int = Field(16, ge=0)
        gumbel_scale: float = Field(1.0, ge=0, le=10)
        value_weight: float = Field(0.1, gt=0, le=10)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("tree", world, discrete=True)
        self.config, self.choices = config, world.actions.size

    def size(self, horizon: int, budget: int) -> tuple[int, int]:
        """Horizon and simulations. A small budget reduces the simulations, then the horizon."""
        horizon = max(1, min(horizon, budget))
        return horizon, budget // horizon

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        return _Search(self.config, self.choices, imagination, key).plan(
            proposals, *self.size(proposals.shape[2], budget)
        )


class _Search:
    """One search, for all rows."""

    def __init__(
        self, config: Tree.Config, choices: int, imagination: Imagination, key: Tensor
    ) -> None:
        self.config, self.choices = config, choices
        self.imagination, self.key = imagination, key
        self.simulated = 0
        self.paths, self.costs = list[Tensor](), list[Tensor]()

    def plan(self, proposals: Tensor, horizon: int, simulations: int) -> Planned:
        """The sequences simulated, cheapest first."""
        self.horizon, repeat = horizon, self.config.action_repeat
        self.decisions = -(-horizon // repeat)
        self.trees = self._planted()
        proposed = proposals[:, :simulations, :horizon].argmax(-1)
        self._simulate([[_held(p, repeat) for p in row] for row in proposed.tolist()], proposed)
        self._halve(simulations - proposed.shape[1])
        paths, costs = torch.cat(self.paths, 1), torch.cat(self.costs, 1)
        return ranked(one_hot(paths, self.choices), costs)

    def _planted(self) -> list[_Tree]:
        """The trees, each with its root."""
        start = self.imagination.begin(1)
        logits, keys = self._logits(self.imagination.action_values(start), 1), self._keys(start, 0)
        order = chance.uniform(self.key, "tree order", self.choices).double().numpy()
        return [
            _Tree(keys[row][0], logits[row, 0], order[row], self.decisions)
            for row in range(len(self.key))
        ]

    def _logits(self, values: Tensor | None, count: int) -> Values:
        """Logits [B N A] of the critic's action values [B N A]; 0 without any."""
        if values is None:
            return np.zeros((len(self.key), count, self.choices))
        numbers: Values = values.double().numpy()
        std = numbers.std(-1, keepdims=True)
        logits: Values = (numbers.min(-1, keepdims=True) - numbers) / np.maximum(std, 1e-9)
        return logits

    def _halve(self, simulations: int) -> None:
        """Sequential halving with what is left of the budget."""
        noise = chance.gumbel(self.key, "tree", self.choices).double().numpy()
        bonus = [
            self.config.gumbel_scale * noise[row] + tree.root.logits
            for row, tree in enumerate(self.trees)
        ]
        count = min(self.config.root_actions or self.choices, self.choices, simulations)
        if not count:
            return
        survivors = [np.argsort(-of_row, kind="stable")[:count].tolist() for of_row in bonus]
        rounds, weight = max(1, math.ceil(math.log2(count))), self.config.value_weight
        share, left = simulations // rounds, simulations
        # Also where every plan of a row is known: its neighbours must not change what it spends.
        while left:
            count = min(len(survivors[0]), left)
            for _ in range(max(1, share // count)):
                count = min(count, left)
                left -= count
                self._simulate(
                    [
                        [tree.walk(first, weight) for first in of_row[:count]]
                        for tree, of_row in zip(self.trees, survivors, strict=True)
                    ]
                )
            for row, tree in enumerate(self.trees):
                scores = bonus[row] + tree.root.advantages(tree.scale, weight)
                best = sorted(survivors[row], key=lambda action: -scores[action])
                survivors[row] = best[: max(1, len(best) // 2)]

    def _simulate(self, paths: list[list[list[int]]], whole: Tensor | None = None) -> None:
        """Simulates a plan for each of the `paths`, N lists of decisions for each row, continued by
        the default policy; `whole` [B N H] are its actions where those are known.
        """
        rows, count = len(paths), len(paths[0])
        if not count:
            return
        forced = torch.full((rows, count, self.decisions), _FREE)
        for row, of_row in enumerate(paths):
            for number, path in enumerate(of_row):
                forced[row, number, : len(path)] = torch.tensor(path, dtype=torch.int64)
        drawn = self._default(count)
        futures = self.imagination.begin(count)
        keys, logits, spent, taken = [], [], [futures.costs.mean(-1)], []
        for step in range(self.horizon):
            decision, held_for = divmod(step, self.config.action_repeat)
            if not held_for:
                action, values = forced[:, :, decision], None
                if bool((action == _FREE).any()):
                    values = self.imagination.action_values(futures)
                    default = drawn[:, :, decision] if values is None else values.argmin(-1)
                    action = action.where(action != _FREE, default)
                if decision:
                    keys.append(self._keys(futures, decision))
                    logits.append(self._logits(values, count))
                    spent.append(futures.costs.mean(-1))
            if whole is not None:
                action = whole[:, :, step]
            taken.append(action)
            futures = self.imagination.extend(futures, one_hot(action.flatten(), self.choices))
        cost = self.imagination.cost(futures)
        self.paths.append(torch.stack(taken, -1))
        self.costs.append(cost)
        self.simulated += count
        sums = torch.stack([*spent, cost], -1).tolist()
        decided = torch.stack(taken[:: self.config.action_repeat], -1).tolist()
        for row, tree in enumerate(self.trees):
            for number, path in enumerate(paths[row]):
                states = [of_depth[row][number] for of_depth in keys]
                odds = [of_depth[row, number] for of_depth in logits]
                known = decided[row][number] if whole is None else path
                tree.add(known, states, odds, sums[row][number])

    def _default(self, count: int) -> Tensor:
        """Random decisions [B count K]; each repeats the one before with probability 1/2."""
        name = f"tree default {self.simulated}"
        drawn = chance.integers(self.key, name, self.choices, count, self.decisions)
        lasts = chance.uniform(self.key, f"{name} lasts", count, self.decisions) < 0.5
        for decision in range(1, self.decisions):
            drawn[:, :, decision] = drawn[:, :, decision - 1].where(
                lasts[:, :, decision], drawn[:, :, decision]
            )
        return drawn

    def _keys(self, futures: Futures, depth: int) -> list[list[Hashable]]:
        """What names the state of each candidate of each row, after `depth` decisions."""
        ids = self.imagination.state_ids(futures.state)
        looks = futures.state.latent if ids is None else ids
        rows, count, _ = futures.costs.shape
        looks_of = looks.reshape(rows, count, -1).numpy()
        hidden = futures.state.hidden.reshape(rows, count, -1).numpy()
        # The same state costs less from here on where the episode may have ended before it.
        parts = (looks_of, hidden, futures.survivals.numpy())
        return [
            [(depth, *(part[row, number].tobytes() for part in parts)) for number in range(count)]
            for row in range(rows)
        ]


def _held(actions: list[int], action_repeat: int) -> list[int]:
    """The decisions that a plan begins with, each held for `action_repeat` steps."""
    path = []
    for step in range(0, len(actions), action_repeat):
        part = actions[step : step + action_repeat]
        if len(set(part)) > 1:
            break
        path.append(part[0])
    return path
