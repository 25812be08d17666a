"""Recorded runs as lessons in when to think: what followed a thought, and what followed none.

Wherever no plan was under way the row either thought or did not; two ridge regressions, of what
followed the one and the other on what was heard, say for each moment what thinking was worth. The
network is then taught to think where that is above 0, by gradient, moments that mattered counting
more. This is sound as far as what was heard decides who thought and who did not: record with
`random-rate`, where chance alone did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from agent.assembly.build import Assembly
from agent.recording.trace import Trace
from modules import chance
from modules.messages import SIGNALS, ConfigError, Directive, Situation

DISCOUNT = 0.95
"""Of what follows a moment in a recorded run, a step: some 20 steps count."""

_SCORE = SIGNALS.index("reward")


@runtime_checkable
class Taught(Protocol):
    """A configurator that can be tutored: `learned`, or anyone's with the same parts."""

    weights: dict[str, Tensor]
    vector: Tensor

    def initial(self, rows: int) -> Directive:
        """The standing directive where an episode begins."""

    def features(self, situation: Situation) -> tuple[Tensor, Tensor]:
        """Inputs of its network, [B F], and the next `configurator_state`, [B Q]."""

    def outputs(self, features: Tensor) -> Tensor:
        """Log odds of planning, of replanning, and further outputs: [B ...]."""

    def load_weights(self, weights: Mapping[str, Tensor], where: str) -> None:
        """Takes over weights."""


@dataclass(frozen=True)
class _Decisions:
    """Moments free to begin a thought: what was heard, whether one began, what followed."""

    features: Tensor
    thought: Tensor
    followed: Tensor


def learn_from(taught: Taught, runs: Sequence[Path], assembly: Assembly, price: float) -> None:
    """Teaches from recorded runs. Raises ConfigError or TraceError, one line."""
    free: list[_Decisions] = []
    for run in runs:
        with Trace.open(run) as trace:
            drives = assembly.agent.modules.cost.drives
            if trace.drives != drives or trace.world.actions != assembly.world.spec.actions:
                raise ConfigError(
                    f"tutor: '{run}' is a run in {trace.world.id} with drives "
                    f"{', '.join(trace.drives)}; expected one of {assembly.world.spec.id} with "
                    f"{', '.join(drives)}"
                )
            free += _decisions(taught, trace, price)
    if not free:
        raise ConfigError(
            "tutor: in the recorded runs a plan was always under way, so no thought was ever free "
            "to begin; record with configurator.kind=random-rate"
        )
    heard = torch.cat([d.features for d in free])
    thought = torch.cat([d.thought for d in free])
    followed = torch.cat([d.followed for d in free])
    least = 2 * heard.shape[1]
    for what, count in (("thinks", int(thought.sum())), ("acts", int((~thought).sum()))):
        if count < least:
            raise ConfigError(
                f"tutor: the recorded runs hold {count} moments at which it {what} though it could "
                f"do otherwise; expected at least {least}: record with "
                "configurator.kind=random-rate"
            )
    worth = advantage(heard, thought, followed)
    _fit(taught, heard, worth)


def _decisions(taught: Taught, trace: Trace, price: float) -> Iterator[_Decisions]:
    """The free moments of a trace, one item for each row."""
    rows = trace.rows
    heard: list[Tensor] = []
    standing = taught.initial(rows)
    before = None
    columns: dict[str, list[Tensor]] = {
        n: [] for n in ("thought", "free", "net", "score", "first", "over")
    }
    for moment in trace:
        first = moment.observation.first
        if before is None:
            before = moment
        configurator_state = torch.where(
            first[:, None],
            torch.zeros_like(standing.configurator_state),
            standing.configurator_state,
        )
        said = before.replace(
            directive=moment.directive.replace(
                configurator_state=configurator_state, tokens=standing.tokens
            ),
            step=moment.step,
        )
        features, configurator_state = taught.features(
            moment.situation(said, chance.keys(0, rows, moment.step))
        )
        calls = moment.plan.model_calls
        thought = calls > 0
        standing = standing.replace(configurator_state=configurator_state)
        over = moment.observation.ended
        heard.append(features)
        columns["thought"].append(thought)
        columns["free"].append(~first & ~over & (before.plan.remaining_commit == 0))
        columns["net"].append(-price * calls.double())
        columns["score"].append(moment.observation.signals[:, _SCORE].double())
        columns["first"].append(first)
        columns["over"].append(over)
        before = moment
    if not heard:
        return
    table = {name: torch.stack(values) for name, values in columns.items()}  # [T B]
    followed = torch.zeros_like(table["net"])
    later = torch.zeros(rows, dtype=torch.float64)
    for t in range(len(heard) - 1, -1, -1):
        gained = torch.zeros(rows, dtype=torch.float64)
        if t + 1 < len(heard):
            # What is felt at a moment was earned by the action before it.
            same = ~table["first"][t + 1]
            gained = (table["score"][t + 1] + DISCOUNT * later) * same
        later = table["net"][t] + gained * ~table["over"][t]
        followed[t] = later
    stacked = torch.stack(heard)
    for row in range(rows):
        free = table["free"][:, row]
        if bool(free.any()):
            yield _Decisions(
                stacked[free, row], table["thought"][free, row], followed[free, row].float()
            )


def advantage(heard: Tensor, thought: Tensor, followed: Tensor, ridge: float = 1.0) -> Tensor:
    """What thinking is worth at each of the moments, [M], by two ridge regressions.

    `heard` [M F], `thought` [M] bool, `followed` [M]: discounted return less what was paid.
    """
    scale = heard.std(0).clamp_min(1e-6)
    x = torch.cat([(heard - heard.mean(0)) / scale, torch.ones(len(heard), 1)], -1).double()
    penalty = ridge * torch.eye(x.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 1e-9
    foretold = []
    for which in (thought, ~thought):
        a, b = x[which], followed[which].double()
        foretold.append(x @ torch.linalg.solve(a.T @ a + penalty, a.T @ b))
    difference: Tensor = foretold[0] - foretold[1]
    return difference.float()


def _fit(taught: Taught, heard: Tensor, worth: Tensor, updates: int = 300) -> None:
    """Teaches the odds of thinking: even or better where `worth` [M] is above 0."""
    names = list(taught.weights)
    leaves = {name: taught.weights[name].clone().requires_grad_() for name in names}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=0.03)
    weight = worth.abs() / worth.abs().mean().clamp_min(1e-9)
    wanted = (worth > 0).float()
    with torch.enable_grad():
        for _ in range(updates):
            taught.weights = leaves
            odds = taught.outputs(heard)[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, wanted, weight)
            # Weights that explain nothing stay small.
            loss = (
                loss + 1e-3 * torch.stack([leaf.square().sum() for leaf in leaves.values()]).sum()
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    taught.weights = {name: leaf.detach() for name, leaf in leaves.items()}
