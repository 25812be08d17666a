"""A plugin: perception, cost and a world model with a level above that know FourRooms exactly.

`--plugin tests.known_levels`. The latent is the place of the point, [2] in [-1, 1], as it is read
from a frame; a macro-action is one action held for `pool_steps` steps.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from agent.bench.support.known_dynamics import moved_together
from modules.cost.critic import Expectation
from modules.messages import ActionSpec, Frozen, Observation, State
from modules.world_model.persistence import Persistence
from worlds.point_rooms import SIDE, SPEED, FourRooms

MIDDLE = (SIDE - 1) / 2


class Place:
    """The place of the most red in frames."""

    class Config(Frozen):
        """No settings."""

    latent_size = 2
    frame_stack = 1

    def __init__(self, *, config: Config, world) -> None:
        self.signals = len(world.signals)

    @staticmethod
    def place(frames: Tensor) -> Tensor:
        at = frames[..., 0].flatten(1).argmax(1)
        pixels = torch.stack([at % SIDE, at // SIDE], 1).float()
        return (pixels - MIDDLE) / MIDDLE

    def perceive(self, observation: Observation, previous) -> State:
        rows = observation.batch
        return State(
            latent=self.place(observation.pixels),
            hidden=torch.zeros(rows, 0),
            signals=observation.signals,
            ended=observation.ended.float(),
            uncertainty=torch.zeros(rows),
            goal=self.place(observation.goal_pixels),
        )

    def initial(self, rows: int) -> State:
        zeros = torch.zeros(rows, 2)
        return State(
            latent=zeros, hidden=zeros[:, :0], signals=torch.zeros(rows, self.signals),
            ended=zeros[:, 0], uncertainty=zeros[:, 0], goal=zeros,
        )  # fmt: skip

    def encode_windows(self, experience, tokens, augment_key, step_mask=None) -> Tensor:
        frames = experience.frames
        return self.place(frames.flatten(0, 1)).view(*frames.shape[:2], 2)


class Held(Persistence):
    """Moves the point by the same action for a number of steps."""

    class Config(Frozen):
        doors: int = 3

    def __init__(self, *, config: Config, held: int = 1) -> None:
        env = FourRooms(doors=config.doors)
        env.reset(seed=0)
        self.walls, self.held = env.walls, held

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        # Walls are swept along the way, so one long step is as good as several short ones.
        speed = self.held * SPEED / action.norm(dim=-1, keepdim=True).clamp_min(1)
        place = state.latent.double().numpy() * MIDDLE + MIDDLE
        place = moved_together(place, (speed * action).double().numpy(), self.walls)
        latent = ((torch.from_numpy(place) - MIDDLE) / MIDDLE).float()
        return State.unchecked(**{**state.__dict__, "latent": latent})


class Above(Held):
    """The level above."""

    coarser = None

    def __init__(self, *, config: Held.Config, held: int) -> None:
        super().__init__(config=config, held=held)
        self.pool_steps = held
        self.macro_actions = ActionSpec(discrete=False, size=2, low=(-1, -1), high=(1, 1))

    def start(self, situation, directive) -> State:
        state = super().start(situation, directive)
        return state.replace(levels=state.latent.unsqueeze(1))

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        after = super().step(state, action)
        return State.unchecked(**{**after.__dict__, "levels": after.latent.unsqueeze(1)})

    def steps_to(self, state: State, goal: Tensor) -> Tensor:
        return (goal - state.latent).norm(dim=-1) * MIDDLE / (SPEED * self.held)


class WithLevel(Held):
    """The exact model, and one with its actions held above it."""

    class Config(Held.Config):
        pool_steps: int = Field(default=10, ge=2)

    def __init__(self, *, config: Config) -> None:
        super().__init__(config=config)
        self.config = config

    @property
    def coarser(self) -> Above:
        return Above(config=self.config, held=self.config.pool_steps)


class CrowFlies:
    """The distance to the goal as the crow flies, pixels."""

    knows_actions = False

    class Config(Frozen):
        """No settings."""

    def __init__(self, *, config: Config, heads: tuple[str, ...]) -> None:
        self.heads = heads

    def _distance(self, state: State) -> Tensor:
        return (state.latent - state.goal).norm(dim=-1) * MIDDLE

    def expect(self, state: State) -> Expectation:
        distance = self._distance(state)
        return Expectation(distance.unsqueeze(-1), None, torch.zeros_like(distance))

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        return v[:, 0] * self._distance(state)

    def is_initialised(self) -> bool:
        return True


MODULES = {
    "perception": {"place": Place},
    "world_model": {"with-level": WithLevel},
    "critic": {"crow-flies": CrowFlies},
}
