"""Perception of vectors: s[0] = Enc(x) (LeCun 2022, §3), modulated by the configurator's tokens."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.messages import (
    ConfigError,
    Experience,
    Frozen,
    MessageError,
    Moment,
    Observation,
    State,
    WorldSpec,
)
from modules.nets.mlp import MLP
from modules.nets.normalisation import soft_log


class Vectors(nn.Module):
    """The observed vector itself, with its range compressed, and learned features of it.

    latent = [y, tanh(MLP(y))] with y = soft_log(scale · x), D = N + `features`. The first N have no
    weights, so the state loses nothing and cannot collapse: a model, untrained or trained, plans on
    the exact observation. `soft_log` rather than a running normalisation, which would be state and
    would let the meaning of a latent drift. Directive tokens modulate the features and objectives
    shape them; tanh bounds them and is smooth everywhere, unlike scaling to a fixed norm, which
    jumps at 0.
    """

    class Config(Frozen):
        """Settings of `vectors`.

        features: number of learned features, 0: none. width: of the two hidden layers. scale:
        factor of the observed numbers. Networks learn smooth functions first: where a small
        difference of the numbers matters, as on which side of a door one stands, a larger scale is
        learned from sooner.
        """

        features: int = Field(default=16, ge=0, le=4096)
        scale: float = Field(default=1.0, gt=0, le=1e6)
        width: int = Field(default=128, ge=8, le=8192)

        sensor: ClassVar[None] = None

    reads: ClassVar = "vectors"

    def __init__(self, *, config: Config, world: WorldSpec, token_shape: tuple[int, int]) -> None:
        super().__init__()
        if world.vector is None:
            raise ConfigError(
                f"config perception.kind: expected a world that shows a vector, got {world.id}, "
                "which shows pixels; try perception.kind=pixels-small"
            )
        self.world, self.size, self.scale = world, world.vector, config.scale
        self.latent_size = self.size + config.features
        self.network: MLP | None = None
        if config.features:
            self.network = MLP(self.size, config.width, config.features, token_shape=token_shape)

    def encode(self, vectors: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Latents [M D] of `vectors` [M N] under `tokens` [B T E]; M is a multiple of B."""
        compressed = soft_log(self.scale * vectors)
        if self.network is None:
            return compressed
        return torch.cat([compressed, self.network(compressed, tokens).tanh()], -1)

    def encode_frame(
        self, vector: Tensor, hidden: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Latent [M D] of `vector` [M N]; `hidden` [M 0] stays empty."""
        return self.encode(vector, tokens), hidden

    def perceive(self, observation: Observation, previous: Moment) -> State:
        """The state of `observation` under the tokens of `previous.directive`. Raises MessageError
        where the vector has another size.
        """
        vector = observation.vector
        if vector is None or vector.shape[1:] != (self.size,):
            received = "None" if vector is None else str(vector.shape)
            raise MessageError("Observation", "vector", f"[B {self.size}]", received)
        latent = self.encode(vector.float(), previous.directive.tokens)
        return State(
            latent=latent,
            hidden=previous.state.hidden,
            signals=observation.signals,
            ended=observation.ended.float(),
            uncertainty=torch.zeros(len(latent)),
            goal=observation.goal,
        )

    def initial(self, rows: int) -> State:
        """The state before the first of an episode: zeros of the usual shapes."""
        goal = self.world.goal
        return State(
            latent=torch.zeros(rows, self.latent_size),
            hidden=torch.zeros(rows, 0),
            signals=torch.zeros(rows, len(self.world.signals)),
            ended=torch.zeros(rows),
            uncertainty=torch.zeros(rows),
            goal=None if goal is None else torch.zeros(rows, goal),
        )

    def encode_windows(
        self,
        experience: Experience,
        tokens: Tensor | None = None,
        augment_key: Tensor | None = None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents [B W D] of all steps of all windows in one pass, under `tokens` [B W T E].

        Vectors are not augmented and encoding is cheap: `augment_key` and `step_mask` change
        nothing. Raises MessageError where the windows hold no vectors.
        """
        if experience.vectors is None:
            raise MessageError("Experience", "vectors", "vectors", "None")
        rows, steps = experience.mask.shape
        flat_tokens = None if tokens is None else tokens.flatten(0, 1)
        latents = self.encode(experience.vectors.flatten(0, 1).float(), flat_tokens)
        return latents.view(rows, steps, -1)
