"""The cost with an objective inferred from an expert (LeCun 2022, §3.2)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from modules.cost.cost import Cost
from modules.cost.critic import Critic
from modules.cost.drives import IntrinsicCost
from modules.messages import Energy, Experience, State, WorldSpec, latents_of
from modules.nets.mlp import MLP
from modules.ports import Batch

EXPERT = "expert"
"""The head of the inferred objective, the last one."""


class InferredCost(Cost):
    """Drives, a critic, and one more head: low where an expert goes and high elsewhere.

    TC_expert(s) = max(0, 1 - 2·p(s)), p the probability that a state is an expert's rather than one
    of the other recorded steps, by a network that tells them apart, both weighing the same (Ho &
    Ermon 2016 use the logarithm; this one is bounded, so that no drive is outweighed by a state
    that no recording has). It is 1 where the expert never goes, 0 where it goes at least as often
    as the others, so that no plan stays at a place because the expert does. It has no action and
    no time: Mode-2 follows it with the agent's own model, from other starts and to other goals than
    those of the recording. The drives stay what they are; the directive's v weighs the head.
    """

    class Config(Cost.Config):
        """As `cost`. `expert_width`: hidden units of the network of the inferred head."""

        expert_width: int = Field(default=256, ge=1, le=8192)

    infers_objective = True

    def __init__(
        self,
        *,
        config: Config,
        intrinsic_cost: IntrinsicCost,
        critic: Critic,
        world: WorldSpec,
        latent_size: int,
    ) -> None:
        super().__init__(config=config, intrinsic_cost=intrinsic_cost, critic=critic, world=world)
        self.heads = (*critic.heads, EXPERT)
        self.network = MLP(latent_size, config.expert_width, 1, layers=2, zero_output=True)

    def expert_energy(self, latent: Tensor) -> Tensor:
        """TC_expert of latents [M D], [M], 0 to 1; exactly 0 before training."""
        logit: Tensor = self.network(latent).squeeze(-1)
        return (1 - 2 * logit.sigmoid()).relu()

    @torch.no_grad()
    def energy(self, state: State) -> Energy:
        """Energies of a perceived state, unweighted, that of the inferred head last."""
        energy, value = super().energy(state), self.expert_energy(state.latent).unsqueeze(-1)
        critic, actions = energy.critic, energy.critic_actions
        if critic is not None:
            critic = torch.cat([critic, value], -1)
        if actions is not None:
            each = value.unsqueeze(1).expand(-1, actions.shape[1], -1)
            actions = torch.cat([actions, each], -1)
        return energy.replace(critic=critic, critic_actions=actions)

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC(s) under weights `v` [M L], [M], the inferred head included."""
        return super().critic_value(state, v[:, :-1]) + v[:, -1] * self.expert_energy(state.latent)

    def action_values(self, state: State, v: Tensor) -> Tensor | None:
        """v·TC(s, a) under weights `v` [M L] of each action, [M A]; None of a critic of states."""
        values = super().action_values(state, v[:, :-1])
        if values is None:
            return None
        return values + (v[:, -1] * self.expert_energy(state.latent)).unsqueeze(1)

    def is_initialised(self) -> bool:
        """False while critic and inferred head are untrained and exactly zero."""
        return super().is_initialised() or any(
            bool(p.detach().any()) for p in self.network.last.parameters()
        )

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """The critic's, and `expert`: the cross entropy of telling an expert's states from others,
        the mean of its means over both; 0 in a batch that lacks one of them. Its gradient does not
        reach the latents.
        """
        losses, priorities = super().losses(batch, key)
        return losses | {"expert": self._expert_loss(batch.experience, batch.states)}, priorities

    def _expert_loss(self, experience: Experience, states: list[State]) -> Tensor:
        latents, mask = latents_of(states).detach(), experience.mask[:, : len(states)]
        expert = experience.expert_mask
        if expert is None:
            return latents.new_zeros(())
        shown = expert[:, : len(states)][mask]
        if bool(shown.all()) or not bool(shown.any()):
            return latents.new_zeros(())
        errors = cross_entropy(
            self.network(latents[mask]).squeeze(-1), shown.float(), reduction="none"
        )
        return (errors[shown].mean() + errors[~shown].mean()) / 2
