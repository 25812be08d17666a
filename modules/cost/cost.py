"""The cost: C(s) = IC(s) + TC(s), immutable drives and a critic (LeCun 2022, §3.2, eq. 1)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from modules.cost import drives as intrinsic_drives
from modules.cost.critic import Critic
from modules.messages import Energy, Experience, State, WorldSpec
from modules.ports import Batch


class Cost(nn.Module):
    """What a state costs, each drive and each head of the critic by itself; nobody weighs here."""

    class Config(BaseModel):
        """Drives and critic joined.

        `drives`: score, pain, effort, novelty; `goal` is there wherever the world sets one.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["cost"] = "cost"
        drives: tuple[str, ...] = ("score", "pain", "effort", "novelty")

    def __init__(self, *, drives: tuple[str, ...], critic: Critic, world: WorldSpec) -> None:
        super().__init__()
        self.drives = intrinsic_drives.drives_in(world, drives)
        self.critic = critic
        self.heads = critic.heads
        self._latent = intrinsic_drives.read_latent(self.drives, world)

    @torch.no_grad()
    def energy(self, state: State) -> Energy:
        """Energies of a perceived state, unweighted; those of a fresh critic are exactly 0."""
        expected = self.critic.expect(state.latent)
        return Energy(
            intrinsic=self.intrinsic(state),
            critic=expected.critic,
            disagreement=expected.disagreement,
            critic_actions=expected.critic_actions,
        )

    def intrinsic(self, state: State) -> Tensor:
        """IC_i(s), [M K], differentiable in the state."""
        return intrinsic_drives.intrinsic(self.drives, state)

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC(s) under weights `v` [M L], at the best action where the critic knows actions."""
        return self.critic.critic_value(state.latent, v)

    def action_values(self, state: State, v: Tensor) -> Tensor | None:
        """v·TC(s, a) under weights `v` [M L] of each action, [M A]; None where it knows none."""
        heads = self.critic.expect(state.latent).critic_actions
        return None if heads is None else (heads * v.unsqueeze(1)).sum(-1)

    def needs_latent(self) -> bool:
        """True where a drive looks at the latent: a goal the body does not feel."""
        return self._latent

    def is_initialised(self) -> bool:
        """False while the critic is fresh and outputs exactly zero."""
        return self.critic.is_initialised()

    def probe_hash(self) -> str:
        """What the drives do, as a SHA-256: it must never change (§3.2)."""
        return intrinsic_drives.probe_hash(self.drives)

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """The critic's: it is to foretell what these drives felt in the experience (Fig. 7)."""
        experience, states, targets = batch
        with torch.no_grad():
            energies = torch.stack(
                [
                    self.intrinsic(
                        State.unchecked(
                            latent=target.latent,
                            signals=experience.signals[:, t],
                            goal=None if experience.goals is None else experience.goals[:, t],
                        )
                    )
                    for t, target in enumerate(targets)
                ],
                1,
            )
        return self.critic.losses(energies, experience, states, targets)

    def on_update(self) -> None:
        """Lets the critic's target follow."""
        self.critic.on_update()

    def on_reset(self) -> None:
        """The critic learns as at first."""
        self.critic.on_reset()

    def window_steps(self) -> int:
        """Steps of experience that the next losses ask for."""
        return self.critic.window_steps()

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps [B W] whose target states are read: all where a drive looks at latents."""
        if self._latent:
            return torch.ones_like(experience.mask)
        return self.critic.target_mask(experience, steps)
