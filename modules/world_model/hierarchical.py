"""A hierarchical joint-embedding predictive world model, H-JEPA (LeCun 2022, §4.6, Fig. 15)."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.messages import (
    ActionSpec,
    ConfigError,
    Directive,
    Experience,
    Situation,
    State,
    WorldSpec,
)
from modules.objectives.objective import Objective
from modules.ports import Batch
from modules.world_model.deterministic import Deterministic
from modules.world_model.jepa import JEPA
from modules.world_model.level import Level, LevelSettings
from modules.world_model.predictors.predictor import Predictor
from modules.world_model.signal_heads.signal_head import SignalHead

LONGEST_WINDOW = 1000
"""The most steps of experience that the levels together may read."""


class HierarchicalJEPA(JEPA):
    """A JEPA with levels above it, each of which predicts over `pool_steps` steps of the level
    below, from macro-actions (`modules.world_model.level.Level`).

    All levels are trained in the same updates, from the bottom up: a level reads the latents of
    the one below as they are, and its losses send no gradient into it.

    `coarser` is the world model of the level above: planners imagine with it as with any other.
    """

    class Config(JEPA.Config, LevelSettings):
        """Settings of `hierarchical-jepa`: those of `jepa` are of the lowest level.

        levels: number of levels above it. The rest are of each of these (`LevelSettings`).
        """

        levels: int = Field(default=1, ge=1, le=3)

    config: Config

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
        objective: Objective,
        predictor: Predictor | None = None,
        signal_head: SignalHead | None = None,
    ) -> None:
        """`predictor`: of the lowest level; None for `MLPPredictor`. Raises ConfigError where the
        levels read more than `LONGEST_WINDOW` steps.
        """
        super().__init__(
            config=config,
            world=world,
            latent_size=latent_size,
            token_shape=token_shape,
            objective=objective,
            predictor=predictor,
            signal_head=signal_head,
        )
        if config.reads_memory:
            raise ConfigError(
                "config world_model.reads_memory: expected false for 'hierarchical-jepa', whose "
                "levels do not read memory, got true; try world_model.kind=jepa, or let "
                "cost.critic or actor.policy read it"
            )
        self._pooled_steps: int = config.coarse_unroll * config.pool_steps**config.levels
        if self._pooled_steps > LONGEST_WINDOW:
            raise ConfigError(
                f"config world_model.pool_steps: expected levels that read at most {LONGEST_WINDOW}"
                f" steps, got {config.coarse_unroll} steps of {config.levels} levels of "
                f"{config.pool_steps}, {self._pooled_steps} steps; try fewer of one of them"
            )
        self.levels = nn.ModuleList(
            Level(
                settings=config,
                world=world,
                latent_size=config.coarse_size if number else latent_size,
                action_size=config.macro_size if number else world.actions.size,
                token_shape=token_shape,
            )
            for number in range(config.levels)
        )
        self.levels_shape = config.levels, config.coarse_size

    @property
    def above(self) -> list[Level]:
        """The levels above, the lowest first."""
        return [cast(Level, level) for level in self.levels]

    @property
    def coarser(self) -> CoarserJEPA:
        """The world model of the level above."""
        return CoarserJEPA(self, 1)

    # -- imagining --------------------------------------------------------------------------

    def encoded_levels(self, latent: Tensor) -> Tensor:
        """The coarser latents [M J I] of latents [M D]."""
        coarser = list[Tensor]()
        for level in self.above:
            latent = level.encode(latent)
            coarser.append(latent)
        return torch.stack(coarser, 1)

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The expected next state [B ...], with the coarser latents of what is expected."""
        expected = super().predict(situation, action, directive)
        return expected.replace(levels=self.encoded_levels(expected.latent))

    # -- learning ---------------------------------------------------------------------------

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """The losses of `jepa`, and those of each level by `level 2 prediction` and the like: the
        same of its own steps, and `read-out` (`Level.learn`).
        """
        losses, priorities = super().losses(batch, key)
        for number, level in enumerate(self.above, 2):
            batch, of_level = level.learn(batch, key + number)
            if not of_level:
                break
            losses |= {f"level {number} {name}": loss for name, loss in of_level.items()}
        return losses, priorities

    def window_steps(self) -> int:
        """Steps of experience that `losses` reads, W."""
        return max(super().window_steps(), self._pooled_steps + 1)

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps whose target latents `losses` reads, [B W] bool: those of `jepa`, and where the
        steps of the first level begin and end.
        """
        place, mask = self.above[0].places(experience)
        read = super().target_mask(experience, steps)
        return read | torch.zeros_like(read).scatter(1, place, mask)


class CoarserJEPA(Deterministic):
    """The world model of a level above (`modules.ports.CoarserWorldModel`).

    Its states are those of the agent: `latent` [M D] is what a state of this level is read out to,
    down to the lowest level, so that costs, and planners of the level below, read it as any other;
    `levels` [M 1 I] is the coarser latent that the next step begins from.
    """

    hidden_size = 0

    def __init__(self, whole: HierarchicalJEPA, number: int) -> None:
        """`number`: of the level, 1 for the first above."""
        self.whole, self.number = whole, number
        self.levels = whole.above[:number]
        self.level = self.levels[-1]
        self.pool_steps = self.level.pool_steps
        self.macro_actions: ActionSpec = self.level.actions

    @property
    def coarser(self) -> CoarserJEPA | None:
        """The world model of the level above this one; None of the highest."""
        above = self.number < len(self.whole.levels)
        return CoarserJEPA(self.whole, self.number + 1) if above else None

    def start(self, situation: Situation, directive: Directive) -> State:
        """The perceived state, with its coarser latent."""
        state = self.whole.start(situation, directive)
        # Of the context below, the directive's tokens count here too, its recurrent state does not.
        tokens, _ = self.whole._split(state)
        return state.replace(
            hidden=state.hidden[:, :0] if tokens is None else tokens,
            levels=self._ascend(state.latent).unsqueeze(1),
        )

    def _ascend(self, latent: Tensor) -> Tensor:
        """The latents of this level [M I] of those of the lowest [M D]."""
        for level in self.levels:
            latent = level.encode(latent)
        return latent

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after a macro-action [M A] in [-1, 1]; there is no latent variable."""
        assert state.levels is not None  # as `start` and `step` return it
        before = State.unchecked(**{**state.__dict__, "latent": state.levels[:, 0]})
        after = self.level.step(before, action)
        latent = after.latent
        for level in reversed(self.levels):
            latent = level.read_out(latent)
        return State.unchecked(
            **{**after.__dict__, "latent": latent, "levels": after.latent.unsqueeze(1)}
        )

    def complete(self, state: State) -> State:
        """`state` itself."""
        return state

    def steps_to(self, state: State, goal: Tensor) -> Tensor:
        """How many steps of this level `goal`, latents of the lowest level [M D], is away from
        states, [M]: the root mean square difference of the coarser latents in units of what one
        step changes.
        """
        assert state.levels is not None
        return self.level.steps_between(state.levels[:, 0], self._ascend(goal))

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The state expected after a macro-action [B A]."""
        return self.step(self.start(situation, directive), action)
