"""The cost: C(s) = IC(s) + TC(s), immutable drives and a critic (LeCun 2022, §3.2, eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.cost.critic import Critic
from modules.cost.drives import IntrinsicCost
from modules.messages import Energy, Experience, Frozen, State, WorldSpec, latents_of
from modules.ports import Batch, encoded_state


class Cost(nn.Module):
    """The energies of a state: of each drive and of each critic head, unweighted."""

    class Config(Frozen):
        """Drives and a critic.

        `drives`: of score, pain, effort, novelty, those that plugins add, and signals of the
        world: `signal:collision`, or `signal:-progress` where more is better. `goal` is added in
        every world that sets goals. Their weights are the directive's u.
        """

        drives: tuple[str, ...] = ("score", "pain", "effort", "novelty")

    def __init__(
        self, *, config: Config, intrinsic_cost: IntrinsicCost, critic: Critic, world: WorldSpec
    ) -> None:
        super().__init__()
        self.config, self.intrinsic_cost, self.critic = config, intrinsic_cost, critic
        self.drives, self.heads = tuple(intrinsic_cost.drives), critic.heads
        self.reads_memory: bool = getattr(critic, "reads_memory", False)
        self._needs_latent = intrinsic_cost.needs_latent(world)

    @torch.no_grad()
    def energy(self, state: State) -> Energy:
        """Energies of a perceived state, unweighted; those of an untrained critic are exactly 0."""
        expected = self.critic.expect(state)
        return Energy(
            intrinsic=self.intrinsic(state),
            critic=expected.critic,
            disagreement=expected.disagreement,
            critic_actions=expected.critic_actions,
        )

    def intrinsic(self, state: State) -> Tensor:
        """IC_i(s), [M K], differentiable in the state."""
        return self.intrinsic_cost.energies(state)

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC(s) under weights `v` [M L], [M]; at the best action of a critic of actions."""
        return self.critic.critic_value(state, v)

    def action_values(self, state: State, v: Tensor) -> Tensor | None:
        """v·TC(s, a) under weights `v` [M L] of each action, [M A]; None of a critic of states."""
        if not self.critic.knows_actions:
            return None
        heads = self.critic.expect(state).critic_actions
        assert heads is not None
        return (heads * v.unsqueeze(1)).sum(-1)

    def needs_latent(self) -> bool:
        """True where the goal is compared with the latent, which imagination must complete."""
        return self._needs_latent

    def is_initialised(self) -> bool:
        """False while the critic is untrained and exactly zero."""
        return self.critic.is_initialised()

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """The critic's: it predicts the energies that the drives have in experience (Fig. 7)."""
        experience, states, targets = batch
        with torch.no_grad():
            visited = encoded_state(experience, latents_of(targets))
            energies = self.intrinsic(visited).view(len(experience.mask), len(targets), -1)
        return self.critic.losses(energies, self._of_drives(experience), states, targets)

    def _of_drives(self, experience: Experience) -> Experience:
        """Experience in which all signals that no drive takes count as known."""
        known = experience.signals_mask
        if known is None:
            return experience
        known = known.clone()
        idle = sorted(set(range(known.shape[-1])) - set(self.intrinsic_cost.signals_read()))
        known[..., idle] = True
        return experience.replace(signals_mask=known)

    def on_update(self) -> None:
        """Moves the critic's target networks."""
        self.critic.on_update()

    def on_reset(self) -> None:
        """Restarts the critic's schedule."""
        self.critic.on_reset()

    def window_steps(self) -> int:
        """Steps of experience that the next losses read."""
        return self.critic.window_steps()

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps [B W] whose target states are read: all where a drive reads the latent. Goals
        that are pictures are not part of experience.
        """
        if self._needs_latent and experience.goals is not None:
            return torch.ones_like(experience.mask)
        return self.critic.target_mask(self._of_drives(experience), steps)
