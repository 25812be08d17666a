"""The observation of a step, drawn from its latents by a decoder (Ha & Schmidhuber 2018)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.messages import Frozen, WorldSpec
from modules.nets.frames import Deconvolutions, as_bytes
from modules.nets.mlp import MLP
from modules.nets.normalisation import RunningScale
from modules.objectives.objective import Encodings, Squared, masked_mean


class Reconstruction(Squared, nn.Module):
    """A decoder draws the newest frame from the latents (transposed convolutions), or the observed
    vector (an `MLP`).

    Latents then hold each detail that fills pixels, predictable or not: what §4.5 argues against,
    as a baseline for the other objectives. Predictions are still judged in latents; in `generative`
    they are drawn, too. The target is the observation as it was recorded, without augmentation.
    """

    class Config(Frozen):
        """Settings of `reconstruction`.

        weight: of the loss. filters: channels of the decoder of frames before its last layer.
        width: of the hidden layers of the decoder of vectors.
        """

        weight: float = Field(default=1.0, ge=0)
        filters: int = Field(default=16, ge=1, le=1024)
        width: int = Field(default=256, ge=8, le=8192)

    def __init__(self, *, config: Config, world: WorldSpec, latent_size: int) -> None:
        super().__init__()
        self.config, self.pixels = config, world.pixels is not None
        self.decoder: nn.Module
        if world.pixels is not None:
            self.decoder = Deconvolutions(latent_size, *world.pixels, config.filters)
            size = math.prod(world.pixels)
        else:
            size = world.vector or 0
            self.decoder = MLP(latent_size, config.width, size, zero_output=True)
        self.observation_stats = RunningScale(size, 0.999)

    def _scale(self) -> Tensor:
        """The deviation of observations from their mean: of frames [], of vectors [N]."""
        if self.pixels:
            return self.observation_stats.variance.mean().sqrt().clamp_min(1 / 255)
        return self.observation_stats.deviation().clamp_min(1e-3)

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`reconstruction`, a weighted scalar: the mean squared error of what is drawn from valid
        latents of windows, in units of the observations' deviation, so that 1 is the error of the
        mean observation. 0 where no step is valid.
        """
        windows, mask = encodings.windows, encodings.mask
        assert encodings.observations is not None  # a batch of experience has them
        observed = encodings.observations[mask]
        shown = (as_bytes(observed).float() / 255 if self.pixels else observed).flatten(1)
        self.observation_stats.update(shown)
        target = ((shown - self.observation_stats.centre) / self._scale()).to(windows.dtype)
        errors = (self.decoder(windows[mask]) - target).square().mean(1)
        loss = masked_mean(errors, torch.ones_like(errors, dtype=torch.bool))
        return {"reconstruction": self.config.weight * loss}
