"""Sub-goal heads: a critic's word for each task of a family (LeCun 2022, §6).

To set sub-goals is the configurator's most important function, the paper says. Here a task is a
column of the world's one-hot goal, each has a head of its own, and the configurator sets a
sub-goal by letting that head count: v.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modules.cost.critic import ActionCritic
from modules.messages import Experience, State, WorldSpec
from modules.weights import subgoal
from modules.weights import weights as weights_of

TOLD = ("score", "goal")
"""The drives whose meaning the task decides: sub-goal heads foretell them."""


class SubgoalCritic(ActionCritic):
    """TC_k(s, a) for each task k: what score and goal will yet cost where k is the task.

    A head is what all sub-goals share plus its own, and learns from what was lived under its task
    alone: what the state must tell it is what that task needs, and where tasks are alike (as a
    primed perception may make them) all learn together. Drives that no task changes (pain, effort,
    novelty) keep heads of their own. A world that sets no goals is one task. The action that all
    heads of a step learn from is the one best under the weights and the head of its task.
    """

    told: Tensor

    class Config(ActionCritic.Config):
        """As `actions`; `drive_weights` of score and goal also say how much of each a sub-goal
        is.
        """

        kind: Literal["subgoals"] = "subgoals"  # type: ignore[assignment]

    def __init__(
        self,
        *,
        width: int,
        ensemble_size: int,
        n_steps: int,
        n_step_start: int | None,
        discount_start: float | None,
        annealing_updates: int,
        ema_rate: float,
        drive_weights: dict[str, float],
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        self.tasks = world.goal or 1
        felt = weights_of(drive_weights, heads, "cost.critic.drive_weights")
        names = tuple(subgoal(task) for task in range(self.tasks))
        self.kept = [number for number, name in enumerate(heads) if name not in TOLD]
        own = {heads[number]: float(felt[number]) for number in self.kept}
        super().__init__(
            width=width,
            ensemble_size=ensemble_size,
            n_steps=n_steps,
            n_step_start=n_step_start,
            discount_start=discount_start,
            annealing_updates=annealing_updates,
            ema_rate=ema_rate,
            drive_weights=own | dict.fromkeys(names, 1.0),
            world=world,
            latent_size=latent_size,
            heads=(*own, *names),
            discount=discount,
        )
        told = torch.tensor([name in TOLD for name in heads])
        self.register_buffer("told", felt * told, persistent=False)

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As any critic's; `energies` [B W K] of the drives. Heads of other tasks have no part."""
        counts = self._counts(experience)
        task = (energies @ self.told).unsqueeze(-1).expand(*energies.shape[:-1], self.tasks)
        felt = torch.cat([energies[..., self.kept], task], -1) * counts
        return super().losses(felt, experience, _marked(states, counts), _marked(targets, counts))

    def _counts(self, experience: Experience) -> Tensor:
        """Which heads learn from which steps, [B W L], 1 or 0."""
        valid = experience.mask
        ones = torch.ones(*valid.shape, len(self.kept), device=valid.device)
        if experience.goals is None:
            return torch.cat([ones, ones.new_ones(*valid.shape, self.tasks)], -1)
        task = torch.nn.functional.one_hot(experience.goals.argmax(-1), self.tasks)
        return torch.cat([ones, task.to(ones.dtype)], -1)

    def _outputs(self) -> int:
        """Beside the heads, what sub-goals share: of all actions, and of each part and action."""
        return super()._outputs() + (1 + self.terms) * self.output.size

    def _formed(self, out: Tensor) -> Tensor:
        """Heads, what sub-goals share added to theirs; then as any critic of actions."""
        size = self.output.size
        each = out.view(*out.shape[:-1], 1 + self.terms, len(self.heads) + 1, size)
        own, common, kept = each[..., :-1, :], each[..., -1:, :], len(self.kept)
        heads = torch.cat([own[..., :kept, :], own[..., kept:, :] + common], -2)
        return super()._formed(heads.flatten(-3))

    def _here(self, latent: Tensor, action: Tensor) -> Tensor:
        """Exactly 0, which leaves nothing to learn, of heads that do not count."""
        latent, counts = self._parted(latent)
        return super()._here(latent, action) * counts

    def _beyond(self, latent: Tensor) -> Tensor:
        latent, counts = self._parted(latent)
        said = self.output.read(self._raw(latent, self.members)).mean(0)
        weighed = said * (self.weights * counts.squeeze(-1)).unsqueeze(-2)
        best = torch.nn.functional.one_hot(weighed.sum(-1).argmin(-1), self.shape[0])
        taken = self._raw(latent, self.targets) * best[None, ..., None, None]
        return taken.sum(3) * counts

    def _parted(self, marked: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B T D] and which heads count [B T L 1]."""
        size = marked.shape[-1] - len(self.heads)
        return marked[..., :size], marked[..., size:].unsqueeze(-1)


def _marked(states: list[State], counts: Tensor) -> list[State]:
    """States whose latents [B D] are followed by which heads count there, [B L]."""
    return [
        State.unchecked(latent=torch.cat([state.latent, counts[:, t]], -1))
        for t, state in enumerate(states)
    ]
