"""Learning when to think from recorded runs: returns after thinking against returns without.

At each moment without a plan under way the row either began to think or acted at once. Two ridge
regressions on the configurator's features, one for each case, predict the discounted return net of
the price of model calls; their difference estimates the advantage of thinking. The network is then
fitted to think where it is above 0, moments weighted by its size. The estimate is unbiased as far
as the features determine the probability of thinking: record with `random-rate`, where it is
constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from agent.assembly.build import Assembly
from agent.recording.trace import Trace
from modules import chance
from modules.messages import SIGNALS, ConfigError, Directive, Situation

DISCOUNT = 0.95
"""A step, of the return in recorded runs: a horizon of some 20 steps."""

_SCORE = SIGNALS.index("reward")


@runtime_checkable
class Tunable(Protocol):
    """A configurator that can be tuned: `learned`, or a plugin with the same parts."""

    weights: dict[str, Tensor]
    vector: Tensor

    def initial(self, rows: int) -> Directive:
        """The base directive at the start of an episode."""

    def features(self, situation: Situation) -> tuple[Tensor, Tensor]:
        """Inputs of its network, [B F], and the next `configurator_state`, [B Q]."""

    def outputs(self, features: Tensor) -> Tensor:
        """Log odds of planning, of replanning, and further outputs: [B ...]."""

    def load_weights(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Takes over weights."""


class _Decisions(NamedTuple):
    """Moments without a plan under way: features [M F], whether thinking began [M], and the net
    return after [M].
    """

    features: Tensor
    thought: Tensor
    net_return: Tensor


def learn_from(tunable: Tunable, runs: Sequence[Path], assembly: Assembly, price: float) -> None:
    """Fits the weights to recorded runs. Raises ConfigError or TraceError, one line."""
    parts: list[_Decisions] = []
    for run in runs:
        with Trace.open(run) as trace:
            drives = assembly.agent.modules.cost.drives
            if trace.drives != drives or trace.world.actions != assembly.world.spec.actions:
                raise ConfigError(
                    f"tune: '{run}' is a run in {trace.world.id} with drives "
                    f"{', '.join(trace.drives)}; expected one of {assembly.world.spec.id} with "
                    f"{', '.join(drives)}"
                )
            parts += _decisions(tunable, trace, price)
    if not any(len(part.features) for part in parts):
        raise ConfigError(
            "tune: in the recorded runs a plan was always under way, so the configurator never had "
            "a choice; record with configurator.kind=random-rate"
        )
    decisions = _Decisions(*map(torch.cat, zip(*parts, strict=True)))
    least = 2 * decisions.features.shape[1]
    for what, moments in (("thinks", decisions.thought), ("acts", ~decisions.thought)):
        if (count := int(moments.sum())) < least:
            raise ConfigError(
                f"tune: the recorded runs hold {count} moments at which it {what} and could do "
                f"otherwise; expected at least {least}: record with configurator.kind=random-rate"
            )
    _fit(tunable, decisions.features, advantage(*decisions))


def _decisions(tunable: Tunable, trace: Trace, price: float) -> Iterator[_Decisions]:
    """The free moments of a trace, row by row; nothing where it has no moments."""
    base, before = tunable.initial(trace.rows), None
    moments: list[tuple[Tensor, ...]] = []
    for moment in trace:
        first, over = moment.observation.first, moment.observation.ended
        if before is None:
            before = moment
        state = torch.where(
            first[:, None], torch.zeros_like(base.configurator_state), base.configurator_state
        )
        previous = before.replace(
            directive=moment.directive.replace(configurator_state=state, tokens=base.tokens),
            step=moment.step,
        )
        features, state = tunable.features(
            moment.situation(previous, chance.keys(0, trace.rows, moment.step))
        )
        base = base.replace(configurator_state=state)
        calls = moment.plan.model_calls
        free = ~first & ~over & (before.plan.remaining_commit == 0)
        score = moment.observation.signals[:, _SCORE].double()
        moments.append((features, calls > 0, free, -price * calls.double(), score, first, over))
        before = moment
    if not moments:
        return
    # Each [T B ...].
    features, thought, free, net_return, score, first, over = map(
        torch.stack, zip(*moments, strict=True)
    )
    for t in range(len(moments) - 2, -1, -1):
        # The score of a moment follows from the action before it.
        gained = (score[t + 1] + DISCOUNT * net_return[t + 1]) * ~first[t + 1]
        net_return[t] += gained * ~over[t]
    by_row = (values.transpose(0, 1)[free.T] for values in (features, thought, net_return.float()))
    yield _Decisions(*by_row)


def advantage(features: Tensor, thought: Tensor, net_return: Tensor, ridge: float = 1.0) -> Tensor:
    """The estimated advantage of thinking at each moment, [M], by two ridge regressions.

    `features` [M F], `thought` [M] bool, `net_return` [M]: discounted, less the price of calls.
    """
    scaled = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
    x = torch.cat([scaled, torch.ones(len(features), 1)], -1).double()
    penalty = ridge * torch.eye(x.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 1e-9
    predicted = []
    for which in (thought, ~thought):
        a, b = x[which], net_return[which].double()
        predicted.append(x @ torch.linalg.solve(a.T @ a + penalty, a.T @ b))
    difference: Tensor = predicted[0] - predicted[1]
    return difference.float()


def _fit(tunable: Tunable, features: Tensor, gain: Tensor, updates: int = 300) -> None:
    """Fits the log odds of thinking to the sign of `gain` [M], moments weighted by its size."""
    names = list(tunable.weights)
    leaves = {name: tunable.weights[name].clone().requires_grad_() for name in names}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=0.03)
    weight = gain.abs() / gain.abs().mean().clamp_min(1e-9)
    target = (gain > 0).float()
    with torch.enable_grad():
        for _ in range(updates):
            tunable.weights = leaves
            odds = tunable.outputs(features)[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, target, weight)
            # Weights that do not reduce the loss stay small.
            squares = torch.stack([leaf.square().sum() for leaf in leaves.values()])
            loss = loss + 1e-3 * squares.sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    tunable.weights = {name: leaf.detach() for name, leaf in leaves.items()}
