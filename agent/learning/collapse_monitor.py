"""Detection of collapse: representations, critics and policies that no longer depend on the state,
latent variables that leak or are ignored.

Examined at each report, on a batch from memory and the actions since the last report. It has random
numbers of its own and changes no weight, so training is the same without it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from agent.agent import Agent
from agent.learning import latent_monitor
from modules import chance
from modules.measures.spread import effective_rank
from modules.messages import Energy
from modules.ports import encoded_states

BATCH = 256
FEW_UPDATES = 100
"""Updates before which nothing is examined: fresh modules depend little on the state."""

MIN_RANK, MIN_RANK_SHARE = 1.5, 0.04
"""Least effective rank of a representation, in dimensions (a pendulum needs two) and as a share of
those it has. Of 256 dimensions, ranks of 4.5 and 8 learned no Atari game, 90 did (docs/LOG.md,
2026-11-25).
"""

MIN_DEVIATION = 1e-3
"""Least standard deviation over states, relative to the magnitude."""

MAX_ACTION_SHARE = 0.99
"""Greatest share of one action."""

MAX_PREFERRED_SHARE = 0.8
"""Greatest share of an action that the critic prefers in every state; exploration takes others."""

MAX_OUTSIDE_SHARE = 0.1
"""Greatest share of states whose target the critic's range does not reach."""


def _round_up(value: float) -> int:
    """The next of 1, 2, 3, 5, 10, 20, … that is not below `value`."""
    scale = 10 ** math.floor(math.log10(max(value, 1)))
    return next(int(step * scale) for step in (1, 2, 3, 5, 10) if step * scale >= value)


class CollapseMonitor:
    """Examines one agent. `figures` and `warnings` are those of the last `examine`."""

    def __init__(self, agent: Agent, seed: int) -> None:
        self.agent, self.seed = agent, seed
        # Sums of actions and of their squares.
        self.actions, self.steps = torch.zeros(2, agent.world.actions.size), 0
        self.max_intrinsic = torch.zeros(len(agent.modules.cost.drives))
        self.figures: dict[str, float] = {}
        self.warnings: list[str] = []

    def add(self, action: Tensor, intrinsic: Tensor) -> None:
        """Counts the actions [B A] and the intrinsic energies [B K] of a step."""
        self.actions[0] += action.sum(0)
        self.actions[1] += action.square().sum(0)
        self.steps += len(action)
        torch.maximum(self.max_intrinsic, intrinsic.abs().amax(0), out=self.max_intrinsic)

    @torch.no_grad()
    def examine(self, updates: int) -> None:
        """Examines perception, critic and policy after `updates` updates."""
        self.figures, self.warnings = {}, []
        if updates < FEW_UPDATES:
            return
        m = self.agent.modules
        with_z = m.world_model.latent is not None and updates >= latent_monitor.FEW_UPDATES
        steps = 2 if with_z else 1
        key = chance.keys(self.seed, 2, updates)[1:]
        experience = m.memory.sample(BATCH, steps, key)
        latents = m.perception.encode_windows(experience, experience.tokens, None)
        self._perception(latents[:, 0])
        if with_z and bool(torch.isfinite(latents).all()):
            figures, warnings = latent_monitor.examine_latent(self.agent, experience, latents, key)
            self.figures |= figures
            self.warnings += warnings
        directive = m.configurator.initial(len(latents))
        energies = m.cost.energy(encoded_states(experience, latents)[0]).at_best_action(directive)
        self._critic(energies, float(experience.terminated[:, 0].float().mean()))
        policy = f"policy {type(getattr(m.actor, 'policy', m.actor)).__name__}"
        self._preferred_action(policy, energies, directive.v)
        self._actions(policy)
        self.actions.zero_()
        self.steps = 0

    def _perception(self, latents: Tensor) -> None:
        size = latents.shape[1]
        name = f"perception {type(self.agent.modules.perception).__name__}"
        if not torch.isfinite(latents).all():
            self.warnings.append(f"{name}: representation is not finite")
            return
        rank = effective_rank(latents)
        deviation = float(latents.var(0, correction=0).mean().sqrt())
        magnitude = float(latents.square().mean().sqrt())
        self.figures |= {
            "health/effective_rank": rank,
            "health/latent_deviation": deviation,
            "health/latent_deviation_least": float(latents.std(0, correction=0).min()),
        }
        if deviation < MIN_DEVIATION * max(magnitude, 1e-9):
            self.warnings.append(
                f"{name}: representation collapsed: the same for every state (deviation "
                f"{deviation:.2g}, magnitude {magnitude:.2g})"
            )
        elif rank < max(MIN_RANK, MIN_RANK_SHARE * size):
            self.warnings.append(
                f"{name}: representation collapsed: effective rank {rank:.1f} of {size}"
            )

    def _critic(self, energies: Energy, end_rate: float) -> None:
        cost, values = self.agent.modules.cost, energies.critic
        assert values is not None
        name = f"critic {type(getattr(cost, 'critic', cost)).__name__}"
        magnitude, deviation = values.abs().amax(0), values.std(0, correction=0)
        self.figures["health/critic_deviation"] = float(deviation.max())
        # The head of a drive predicts that drive, the head of a sub-goal all of them.
        most = dict(zip(cost.drives, self.max_intrinsic, strict=True))
        bounds = torch.stack([most.get(head, self.max_intrinsic.sum()) for head in cost.heads])
        # A head whose drives were always 0 has nothing to predict.
        active = bounds > 0
        bounds = bounds / (1 - self.agent.plan_cost.discount)  # |Σ γ^i IC| <= max |IC| / (1 - γ)
        if not torch.isfinite(values).all():
            self.warnings.append(f"{name}: is not finite")
            return
        self._critic_range(name, energies, end_rate, bounds)
        if bool(active.any()) and cost.is_initialised():
            if bool((deviation < MIN_DEVIATION * magnitude)[active].all()):
                self.warnings.append(
                    f"{name}: collapsed: the same value for every state "
                    f"(deviation {float(deviation.max()):.2g})"
                )
            beyond = (values.abs() > 1.5 * bounds + 1e-2).float().mean(0) * active
            worst = int(beyond.argmax())
            if float(beyond[worst]) > 0.25:
                self.warnings.append(
                    f"{name}: saturated: '{cost.heads[worst]}' predicts "
                    f"{float(magnitude[worst]):.3g}, where at most {float(bounds[worst]):.3g} is "
                    "possible"
                )

    def _critic_range(self, name: str, energies: Energy, end_rate: float, bounds: Tensor) -> None:
        """Warns where targets IC + γ·TC leave the range that a critic of bins can represent: then
        all states that are worse have the same value.

        Targets follow the critic slowly, so their mean is also foreseen, as mean IC / (1 - γ(1-p))
        where a share p = `end_rate` of steps ends an episode. `bounds` [L]: the largest |TC|
        possible.
        """
        cost, values, discount = (
            self.agent.modules.cost,
            energies.critic,
            self.agent.plan_cost.discount,
        )
        limit = getattr(getattr(getattr(cost, "critic", cost), "head", None), "limit", math.inf)
        assert values is not None
        columns = dict(zip(cost.drives, energies.intrinsic.unbind(-1), strict=True))
        every = energies.intrinsic.sum(-1)
        intrinsic = torch.stack([columns.get(head, every) for head in cost.heads], -1)
        reached = (intrinsic + discount * values).abs().quantile(1 - MAX_OUTSIDE_SHARE, 0)
        foreseen = intrinsic.mean(0).abs() / (1 - discount * (1 - end_rate))
        largest, head = torch.maximum(reached, foreseen).max(0)
        if float(largest) > limit:
            bound = float(bounds[head])
            self.warnings.append(
                f"{name}: range too small: targets of '{cost.heads[int(head)]}' reach "
                f"{float(largest):.3g}, its bins end at {limit:.4g}; up to {bound:.3g} is "
                f"possible, try --cost.critic.v_max={_round_up(bound)}"
            )

    def _preferred_action(self, name: str, energies: Energy, v: Tensor) -> None:
        # Where no head has weight before a task is known, no action is preferred.
        values = energies.critic_actions
        if values is None or not self.agent.modules.cost.is_initialised() or not bool(v.any()):
            return
        best = (values * v.unsqueeze(1)).sum(-1).argmin(-1)
        share = torch.bincount(best).max().item() / len(best)
        self.figures["health/preferred_share"] = share
        taken = float(self.actions[0, best[0]]) / max(1, self.steps)
        if share == 1.0 and taken >= MAX_PREFERRED_SHARE:
            self.warnings.append(
                f"{name}: dead: the critic prefers action {int(best[0])} in every state"
            )

    def _actions(self, name: str) -> None:
        if not self.steps:
            return
        mean = self.actions[0] / self.steps
        if self.agent.world.actions.discrete:
            share = float(mean.max())
            self.figures["health/action_share"] = share
            if share >= MAX_ACTION_SHARE and self.steps >= BATCH and len(mean) > 1:
                self.warnings.append(
                    f"{name}: dead: action {int(mean.argmax())} in {share:.0%} of "
                    f"{self.steps} steps"
                )
            return
        deviation = (self.actions[1] / self.steps - mean.square()).clamp_min(0).sqrt().max()
        self.figures["health/action_deviation"] = float(deviation)
        if float(deviation) < MIN_DEVIATION and self.steps >= BATCH:
            self.warnings.append(f"{name}: dead: the same action in {self.steps} steps")

    # -- checkpoints ------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """The counts since the last report, for a checkpoint."""
        most = self.max_intrinsic.tolist()
        return {"actions": self.actions.tolist(), "steps": self.steps, "most": most}

    def load(self, facts: dict[str, Any]) -> None:
        """Restores what `facts` returned."""
        self.actions = torch.tensor(facts["actions"])
        self.steps = facts["steps"]
        self.max_intrinsic = torch.tensor(facts["most"])
