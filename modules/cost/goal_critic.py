"""The critics of a goal: how many steps away it is (LeCun 2022, §3.2; goals: §4.6 and 4.7)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.cost.critic import Expectation
from modules.messages import ConfigError, Experience, Frozen, State, WorldSpec, latents_of
from modules.nets.mlp import MLP
from modules.nets.normalisation import RunningMoment, RunningScale

GOAL = "goal"
"""The head, and the drive, of the goal."""


class GoalCritic(nn.Module, ABC):
    """TC_goal(s, g): how far the goal is, in steps.

    It is learned from experience without a goal. Other heads are 0, and it is 0 in a state without
    a goal.
    """

    knows_actions = False

    class Config(Frozen):
        """`window`: steps of experience that a loss reads."""

        window: int = Field(default=5, ge=2, le=1024)

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
                "config cost.critic.kind: expected a world that sets goals for a critic of goals, "
                f"got {world.id}; try cost.critic.kind=scalar"
            )
        if not world.goal_pixels and world.goal != latent_size:
            raise ConfigError(
                "config cost.critic.kind: a critic of goals compares latents, expected a goal that "
                f"is a picture or has {latent_size} numbers, {world.id} has {world.goal}"
            )
        self.config, self.heads = config, heads

    @abstractmethod
    def distance(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Steps [...] from latents [... D] to goals [... D], differentiable in both."""

    @abstractmethod
    def is_initialised(self) -> bool:
        """False before the first update."""

    @abstractmethod
    def losses(
        self,
        energies: Tensor,
        experience: Experience,
        states: list[State],
        targets: list[State],
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """One loss, no priorities. `energies` are not read: what a goal will cost follows from the
        way to it.
        """

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


class GoalDistance(GoalCritic):
    """α ‖W (s - g)‖: how far the goal is in latents, in steps.

    W = C^-power, C the second moment of what one step changes: a dimension in which latents differ
    much although a step changes it little counts most, so what varies quickly and says little of
    the way is left out. Where latents are of one variance in all directions, slow ones are like the
    eigenfunctions of a random walk, and the distance is that of a diffusion: with power ½, which
    whitens, like the commute time, with power 1 like the biharmonic distance (Lipman et al. 2010),
    in which slow features count more: it goes on growing where that of ½ is as large as it gets,
    and a wall in between makes it longer. α is fitted such that states k steps apart in
    experience are k apart.
    """

    class Config(GoalCritic.Config):
        """Settings of `goal-distance`.

        least_share: the change in any direction counts as at least this share of the mean over
        directions, so that one that no step changes does not count infinitely. window: steps of
        experience between which α is fitted. power: of C.
        """

        least_share: float = Field(default=1e-3, gt=0, le=1)
        power: float = Field(default=0.5, ge=0, le=1)

    config: Config

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__(
            config=config, world=world, latent_size=latent_size, heads=heads, discount=discount
        )
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
        window, whose distance is the number of steps between them.
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


class TimeToGoal(GoalCritic):
    """The fewest steps in which any way that experience knows leads from s to g, round walls too.

    A quasimetric, learned as the largest one in which no step of experience is longer than 1 (Wang
    et al. 2023): d(s, s') <= 1 for each step, and d(s, g) as large as that allows for states s and
    g of other times. The triangle inequality, which the form of d grants, joins single steps to
    ways that no episode went. With a network f of two parts (Liu et al. 2023)

        d(s, g) = ‖f1(s) - f1(g)‖ + max_i relu(f2(s)_i - f2(g)_i)

    the first is the same there and back, the second is not. The constraint has a Lagrange
    multiplier, which the optimiser raises while steps are longer. It needs experience whose states
    are all of one layout: states of different ones are as far apart as those of no way.
    """

    class Config(GoalCritic.Config):
        """Settings of `time-to-goal`.

        window: steps of experience that a loss reads. width: hidden units of f. size: outputs of
        each of its parts. far_steps: states that are farther apart are no longer pushed apart.
        slack: root mean square by which steps of experience may be longer than 1.
        """

        width: int = Field(default=128, ge=1, le=8192)
        size: int = Field(default=32, ge=1, le=1024)
        far_steps: float = Field(default=60, gt=1, le=1e6)
        slack: float = Field(default=0.1, gt=0, le=1)

    config: Config

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__(
            config=config, world=world, latent_size=latent_size, heads=heads, discount=discount
        )
        self.scale = RunningScale(latent_size)
        self.network = MLP(latent_size, config.width, 2 * config.size, layers=2)
        self.log_multiplier = nn.Parameter(torch.zeros(()))
        self._last_goal: tuple[Tensor, int, Tensor] | None = None

    def features(self, latent: Tensor) -> Tensor:
        """f(s) of latents [... D], [... 2F]."""
        deviation = self.scale.deviation().clamp_min(1e-6)
        flat = ((latent - self.scale.centre) / deviation).flatten(0, -2)
        features: Tensor = self.network(flat).view(*latent.shape[:-1], -1)
        return features

    def between(self, first: Tensor, second: Tensor) -> Tensor:
        """Steps [...] from states to states by their features [... 2F]."""
        apart, size = first - second, self.config.size
        # The root has a finite slope at the goal.
        there_and_back = (apart[..., :size].square().sum(-1) + 1e-6).sqrt() - 1e-3
        one_way: Tensor = apart[..., size:].relu().amax(-1)
        return there_and_back + one_way

    def distance(self, latent: Tensor, goal: Tensor) -> Tensor:
        """Steps [...] from latents [... D] to goals [... D], differentiable in both."""
        return self.between(self.features(latent), self._features_of_goal(goal))

    def _features_of_goal(self, goal: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.features(goal)
        # All steps of a plan have the same goal; an update and other weights change the version.
        last, version = self._last_goal, self.network.last.weight._version
        if last is None or last[0] is not goal or last[1] != version:
            self._last_goal = last = goal, version, self.features(goal)
        return last[2]

    def is_initialised(self) -> bool:
        """False before the first update."""
        return bool(self.scale.count > 0)

    def losses(
        self,
        energies: Tensor,
        experience: Experience,
        states: list[State],
        targets: list[State],
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """`time to goal`: how near states of different windows are, and the multiplier times the
        mean square by which steps are longer than 1.
        """
        latents = latents_of(targets)[:, : self.config.window].detach()
        mask = experience.mask[:, : self.config.window]
        self.scale.update(latents[mask])
        features = self.features(latents)
        both = (mask[:, 1:] & mask[:, :-1]).float()
        longer = (self.between(features[:, :-1], features[:, 1:]) - 1).relu().square()
        excess = (longer * both).sum() / both.sum().clamp_min(1) - self.config.slack**2
        multiplier = self.log_multiplier.exp()
        # The multiplier grows by the excess, the network shrinks it: opposite signs.
        constraint = multiplier.detach() * excess - multiplier * excess.detach()
        return {"time to goal": self._nearness(features, mask) + constraint}, None

    def _nearness(self, features: Tensor, mask: Tensor) -> Tensor:
        """The mean over states of different windows, of features [B W 2F], of the share of
        `far_steps` by which they are nearer than that, softly bounded below by 0.
        """
        rows, steps = mask.shape
        step = torch.arange(steps, device=mask.device)
        # Windows are drawn at random, so that any other one is a random one.
        shift = 1 + step % max(rows - 1, 1)
        other = (torch.arange(rows, device=mask.device)[:, None] + shift) % rows
        apart = self.between(features, features[other, step])
        counted = (mask & mask[other, step]).float()
        nearer = nn.functional.softplus(1 - apart / self.config.far_steps, beta=6)
        return (nearer * counted).sum() / counted.sum().clamp_min(1)
