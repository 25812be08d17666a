"""The critic of a goal: how many steps away it is (LeCun 2022, §3.2; goals: §4.6 and 4.7)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.cost.critic import Expectation
from modules.messages import ConfigError, Experience, Frozen, State, WorldSpec, latents_of
from modules.nets.normalisation import RunningMoment

GOAL = "goal"
"""The head, and the drive, of the goal."""


class GoalDistance(nn.Module):
    """TC_goal(s, g) = α ‖W (s - g)‖: how far the goal is, in steps.

    W = C^-power, C the second moment of what one step changes: a dimension in which latents differ
    much although a step changes it little counts most, so what varies quickly and says little of
    the way is left out. Where latents are of one variance in all directions, slow ones are like the
    eigenfunctions of a random walk, and the distance is that of a diffusion: with power ½, which
    whitens, like the commute time, with power 1 like the biharmonic distance (Lipman et al. 2010),
    in which slow features count more: it goes on growing where that of ½ is as large as it gets,
    and a wall in between makes it longer. α is fitted such that states k steps apart in
    experience are k apart. W and α are learned from experience without a goal. Other heads are 0.
    It is 0 in a state without a goal.
    """

    class Config(Frozen):
        """Settings of `goal-distance`.

        least_share: the change in any direction counts as at least this share of the mean over
        directions, so that one that no step changes does not count infinitely. window: steps of
        experience between which α is fitted. power: of C.
        """

        least_share: float = Field(default=1e-3, gt=0, le=1)
        window: int = Field(default=5, ge=2, le=1024)
        power: float = Field(default=0.5, ge=0, le=1)

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__()
        if GOAL not in heads:
            raise ConfigError(
                "config cost.critic.kind: expected a world that sets goals for 'goal-distance', "
                f"got {world.id}; try cost.critic.kind=scalar"
            )
        if not world.goal_pixels and world.goal != latent_size:
            raise ConfigError(
                "config cost.critic.kind: 'goal-distance' compares latents, expected a goal that "
                f"is a picture or has {latent_size} numbers, {world.id} has {world.goal}"
            )
        self.config, self.heads = config, heads
        self.steps = RunningMoment(latent_size)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self._weighting: tuple[int, Tensor] | None = None

    def weighting(self) -> Tensor:
        """W, [D D]."""
        # Each step of a plan asks for it; an update and other weights change the version.
        version = self.steps.moment._version
        if self._weighting is None or self._weighting[0] != version:
            self._weighting = (
                version,
                self.steps.inverse_power(self.config.power, self.config.least_share),
            )
        return self._weighting[1]

    def distance(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Steps [...] from latents [... D] to goals [... D], differentiable in both."""
        apart = (latent - goal) @ self.weighting()
        # The root has a finite slope at the goal.
        return self.log_scale.exp() * ((apart.square().sum(-1) + 1e-6).sqrt() - 1e-3)

    def expect(self, state: State) -> Expectation:
        """The distances of M states."""
        values = state.latent.new_zeros(len(state.latent), len(self.heads))
        if state.goal is not None and self.is_initialised():
            values[:, self.heads.index(GOAL)] = self.distance(state.latent, state.goal)
        return Expectation(values, None, values.new_zeros(len(values)))

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC(s) of M states under weights `v` [M L], [M]."""
        if state.goal is None or not self.is_initialised():
            return state.latent.new_zeros(len(state.latent))
        return v[:, self.heads.index(GOAL)] * self.distance(state.latent, state.goal)

    def is_initialised(self) -> bool:
        """False before the first update."""
        return bool(self.steps.count > 0)

    def losses(
        self,
        energies: Tensor,
        experience: Experience,
        states: list[State],
        targets: list[State],
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """`goal distance`: the squared relative error of the distances between the states of a
        window, whose distance is the number of steps between them; no priorities. `energies` are
        not read: what a goal will cost follows from the way to it.
        """
        latents = latents_of(targets)[:, : self.config.window]
        mask = experience.mask[:, : self.config.window]
        both = mask[:, 1:] & mask[:, :-1]
        self.steps.update(latents.diff(dim=1)[both])
        first, last = torch.triu_indices(mask.shape[1], mask.shape[1], 1, device=mask.device)
        counted = (mask[:, first] & mask[:, last]).float()
        expected = (last - first).float()
        error = self.distance(latents[:, last], latents[:, first]) / expected - 1
        loss = (error.square() * counted).sum() / counted.sum().clamp_min(1)
        return {"goal distance": loss}, None

    def on_update(self) -> None:
        """Nothing: there is no target network and no schedule."""

    def on_reset(self) -> None:
        """Nothing: running statistics continue."""

    def window_steps(self) -> int:
        """Steps of experience that `losses` reads."""
        return self.config.window

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps [B W] whose latents are compared, all of the window."""
        step = torch.arange(experience.mask.shape[1], device=experience.mask.device)
        return experience.mask & (step < self.config.window)
