"""Vector observations → state: s[0] = Enc(x) (LeCun 2022, §3), primed by the configurator."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules.messages import (
    ConfigError,
    Experience,
    MessageError,
    Moment,
    Observation,
    State,
    WorldSpec,
)
from modules.nets.mlp import MLP
from modules.nets.normalisation import soft_log


class Vectors(nn.Module):
    """The observation itself, squashed, and beside it what a network makes of it.

    latent = [squash(x), tanh(network(squash(x)))], D = N + `features`. The first N numbers are
    unlearned, so that the state can lose nothing and cannot collapse: a model fresh or trained
    plans on the exact observation. `soft_log` squashes rather than a running normalisation,
    which would be state and let the meaning of a latent drift. The features are what directive
    tokens modulate and objectives shape; tanh bounds them and is smooth everywhere, unlike
    scaling to a fixed size, which jumps where they pass through 0.
    """

    class Config(BaseModel):
        """Settings of `vectors`.

        features: learned numbers beside the observation's own. width: of two hidden layers.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["vectors"] = "vectors"
        features: int = Field(default=16, ge=1)
        width: int = Field(default=128, ge=8)

        sensor: ClassVar[None] = None

    sensor: None = None

    def __init__(
        self,
        *,
        world: WorldSpec,
        token_shape: tuple[int, int],
        features: int,
        width: int,
    ) -> None:
        super().__init__()
        if world.vector is None:
            raise ConfigError(
                f"config perception.kind: expected a world that shows a vector, got {world.id}, "
                "which shows pixels; try perception.kind=pixels-small"
            )
        self.size, self.signals, self.goal = world.vector, len(world.signals), world.goal
        self.latent_size = world.vector + features
        self.network = MLP(world.vector, width, features, token_shape=token_shape)

    def encode(self, vectors: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Latents [M D] of `vectors` [M N] under `tokens` [B T E], M = B·N."""
        squashed = soft_log(vectors)
        return torch.cat([squashed, self.network(squashed, tokens).tanh()], -1)

    def encode_frame(
        self, vector: Tensor, hidden: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Latent [M D] of `vector` [M N]; the carry [M 0] stays empty."""
        return self.encode(vector, tokens), hidden

    def perceive(self, observation: Observation, before: Moment) -> State:
        """The state estimate, primed by `before.directive`."""
        if observation.vector is None or observation.vector.shape[1:] != (self.size,):
            got = observation.vector if observation.vector is None else observation.vector.shape
            raise MessageError("Observation", "vector", f"[B {self.size}]", str(got))
        latent = self.encode(observation.vector.float(), before.directive.tokens)
        return State(
            latent=latent,
            hidden=before.state.hidden,
            signals=observation.signals,
            ended=observation.ended.float(),
            uncertainty=torch.zeros(len(latent)),
            goal=observation.goal,
        )

    def initial(self, rows: int) -> State:
        """What stands for the state before an episode begins: zeros of the usual shapes."""
        return State(
            latent=torch.zeros(rows, self.latent_size),
            hidden=torch.zeros(rows, 0),
            signals=torch.zeros(rows, self.signals),
            ended=torch.zeros(rows),
            uncertainty=torch.zeros(rows),
            goal=None if self.goal is None else torch.zeros(rows, self.goal),
        )

    def encode_windows(
        self,
        experience: Experience,
        tokens: Tensor | None = None,
        augment_key: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """Latents [B W D] of all steps of all windows in one pass, under `tokens` [B W T E].

        Vectors are not augmented, and cost little: `augment_key` and `wanted` are taken, as from
        pixels, and change nothing.
        """
        if experience.vectors is None:
            raise MessageError("Experience", "vectors", "vectors", "None")
        rows, steps = experience.mask.shape
        each = None if tokens is None else tokens.flatten(0, 1)
        latents = self.encode(experience.vectors.flatten(0, 1).float(), each)
        return latents.view(rows, steps, -1)
