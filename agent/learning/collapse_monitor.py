"""Whether what learns is still alive: collapse is said by name, while there is time to stop.

Looked at where training reports, from a batch of what memory holds and from what was done since;
it draws nothing that learning draws and changes nothing that learning changes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from agent.agent import Agent
from modules import chance
from modules.messages import State

BATCH = 256
FEW_UPDATES = 100
"""Before so many updates nothing is said: what is fresh is not yet anything."""

RANK_LEAST, RANK_SHARE = 1.5, 0.04
"""Effective rank under which a representation says too little: one thing at most (a pendulum needs
two), or too small a share of what it has room for. Of 256 dimensions 4.5 and 8 learned no Atari
game, 90 did (docs/LOG.md, 2026-11-25).
"""

SPREAD_LEAST = 1e-3
"""Standard deviation over states, relative to the usual size, under which all are the same."""

SHARE_MOST = 0.99
"""Share of one action above which a policy does nothing else."""

SHARE_PREFERRED = 0.8
"""The same where a critic prefers that action in every state: the rest is exploration."""


def effective_rank(latents: Tensor) -> float:
    """How many directions `latents` [M D] use, 1 to D; 0 where all are the same.

    The exponential of the entropy of the normalised singular values of the centred latents (Roy &
    Vetterli 2007).
    """
    values = torch.linalg.svdvals((latents - latents.mean(0)).double())
    total = values.sum()
    if float(total) <= 1e-9 * latents.numel():
        return 0.0
    share = values / total
    return float(torch.special.entr(share).sum().exp())


class Health:
    """Watches one agent. `figures` and `warnings` are as of the last `examine`."""

    def __init__(self, agent: Agent, seed: int) -> None:
        self.agent, self.seed = agent, seed
        self.actions, self.steps = torch.zeros(2, agent.world.actions.size), 0
        self.most = torch.zeros(len(agent.modules.cost.drives))
        self.figures: dict[str, float] = {}
        self.warnings: list[str] = []

    def saw(self, action: Tensor, intrinsic: Tensor) -> None:
        """Counts what was done, [B A], and what the drives felt, [B K]."""
        self.actions[0] += action.sum(0)
        self.actions[1] += action.square().sum(0)
        self.steps += len(action)
        torch.maximum(self.most, intrinsic.abs().amax(0), out=self.most)

    @torch.no_grad()
    def examine(self, updates: int) -> None:
        """Looks at perception, critic and policy; `updates` were learned so far."""
        self.figures, self.warnings = {}, []
        if updates < FEW_UPDATES:
            return
        modules = self.agent.modules
        key = chance.keys(self.seed, 2, updates)[1:]
        experience = modules.memory.sample(BATCH, 1, key)
        latents = modules.perception.encode_windows(experience, experience.tokens, None)[:, 0]
        self._perception(latents)
        state = State.unchecked(
            latent=latents,
            hidden=latents.new_zeros(len(latents), 0),
            signals=experience.signals[:, 0],
            ended=experience.terminated[:, 0].float(),
            uncertainty=latents.new_zeros(len(latents)),
            goal=None if experience.goals is None else experience.goals[:, 0],
        )
        self._critic_and_policy(state)
        self.actions.zero_()
        self.steps = 0

    def _perception(self, latents: Tensor) -> None:
        size = latents.shape[1]
        name = f"perception {type(self.agent.modules.perception).__name__}"
        if not torch.isfinite(latents).all():
            self.warnings.append(f"{name}: representation is not finite")
            return
        rank = effective_rank(latents)
        spread = float(latents.var(0, correction=0).mean().sqrt())
        usual = float(latents.square().mean().sqrt())
        least = float(latents.std(0, correction=0).min())
        self.figures |= {
            "health/effective_rank": rank,
            "health/latent_deviation": spread,
            "health/latent_deviation_least": least,
        }
        if spread < SPREAD_LEAST * max(usual, 1e-9):
            self.warnings.append(
                f"{name}: representation collapsed: every state looks the same (deviation "
                f"{spread:.2g} of a size of {usual:.2g})"
            )
        elif rank < max(RANK_LEAST, RANK_SHARE * size):
            self.warnings.append(
                f"{name}: representation collapsed: effective rank {rank:.1f} of {size}"
            )

    def _critic_and_policy(self, state: State) -> None:
        m, rows = self.agent.modules, len(state.latent)
        directive = m.configurator.initial(rows)
        energies = m.cost.energy(state).at_best_action(directive)
        critic = getattr(m.cost, "critic", m.cost)
        name = f"critic {type(critic).__name__}"
        expected = energies.critic
        assert expected is not None
        usual, spread = expected.abs().amax(0), expected.std(0, correction=0)
        self.figures["health/critic_deviation"] = float(spread.max())
        # A drive's head can expect what that drive was at worst; a sub-goal's, what all were.
        drives, heads = list(m.cost.drives), m.cost.heads
        most = self.most.new_tensor(
            [self.most[drives.index(h)] if h in drives else self.most.sum() for h in heads]
        )
        # A head whose drive was never felt has nothing to say, and need not be heard.
        felt = most > 0
        if not torch.isfinite(expected).all():
            self.warnings.append(f"{name}: is not finite")
        elif bool(felt.any()) and m.cost.is_initialised():
            if bool((spread < SPREAD_LEAST * usual)[felt].all()):
                self.warnings.append(
                    f"{name}: collapsed: expects the same of every state "
                    f"(deviation {float(spread.max()):.2g})"
                )
            # More than a drive's worst for ever cannot come: Σ γ^i = 1/(1-γ).
            bound = 1.5 * most / (1 - self.agent.discount) + 1e-2
            beyond = (expected.abs() > bound).float().mean(0) * felt
            worst = int(beyond.argmax())
            if float(beyond[worst]) > 0.25:
                self.warnings.append(
                    f"{name}: saturated: '{heads[worst]}' expects "
                    f"{float(usual[worst]):.3g} where at most "
                    f"{float(most[worst] / (1 - self.agent.discount)):.3g} can come"
                )
        name = f"policy {type(getattr(m.actor, 'policy', m.actor)).__name__}"
        v = directive.v
        # Where no head counts before a task is known, no action is preferred.
        if energies.critic_actions is not None and m.cost.is_initialised() and bool(v.any()):
            best = (energies.critic_actions * v.unsqueeze(1)).sum(-1).argmin(-1)
            share = torch.bincount(best).max().item() / rows
            self.figures["health/preferred_share"] = share
            done = float(self.actions[0, best[0]]) / max(1, self.steps)
            if share == 1.0 and done >= SHARE_PREFERRED:
                self.warnings.append(
                    f"{name}: dead: the critic prefers action {int(best[0])} in every state"
                )
        if self.steps:
            self._done(name)

    def _done(self, name: str) -> None:
        mean = self.actions[0] / self.steps
        if self.agent.world.actions.discrete:
            share = float(mean.max())
            self.figures["health/action_share"] = share
            if share >= SHARE_MOST and self.steps >= BATCH and len(mean) > 1:
                self.warnings.append(
                    f"{name}: dead: action {int(mean.argmax())} in {share:.0%} of "
                    f"{self.steps} steps"
                )
            return
        spread = (self.actions[1] / self.steps - mean.square()).clamp_min(0).sqrt()
        self.figures["health/action_deviation"] = float(spread.max())
        if float(spread.max()) < SPREAD_LEAST and self.steps >= BATCH:
            self.warnings.append(f"{name}: dead: the same action in {self.steps} steps")

    # -- checkpoints ------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What was counted since the last report, for a checkpoint."""
        return {
            "actions": self.actions.tolist(),
            "steps": self.steps,
            "most": self.most.tolist(),
        }

    def load(self, facts: dict[str, Any]) -> None:
        """Goes on from what `facts` gave."""
        self.actions = torch.tensor(facts["actions"])
        self.steps = facts["steps"]
        self.most = torch.tensor(facts["most"])
