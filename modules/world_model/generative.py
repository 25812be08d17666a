"""A generative world model: what it predicts is judged in the observation (LeCun 2022, §4.1)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from modules.messages import Experience, State, WorldSpec, latents_of
from modules.nets.frames import Deconvolutions, as_bytes
from modules.nets.gradient import scale_gradient
from modules.nets.mlp import MLP
from modules.nets.normalisation import RunningScale
from modules.objectives.none import Unregularised
from modules.ports import Batch
from modules.world_model.jepa import JEPA
from modules.world_model.predictors.predictor import Predictor
from modules.world_model.signal_heads.signal_head import SignalHead


class Generative(JEPA):
    """The encoder, predictor, signals and ends of `JEPA`, trained to reconstruct the observation.

    A decoder draws the newest frame from the latent (transposed convolutions), or the observed
    vector (an `MLP`). The gradient of its error reaches predictor and encoder; that latents carry
    information is all that acts against collapse, there is no objective. So the latent has to hold
    each detail that fills pixels, predictable or not: the baseline that §4.5 argues against, in the
    form of Ha & Schmidhuber (2018) and Dreamer (Hafner et al. 2020).

    The target is the frame as it was observed. Where perception augments, the encoder has seen it
    shifted and brightened, and the decoder learns to undo that.

    The unit of an error is the deviation of observations from their mean (of all pixels together,
    of each entry of a vector), both running statistics: 1 is the error of the mean frame. A fresh
    decoder draws the mean frame.
    """

    class Config(JEPA.Config):
        """Settings of `generative`: those of `jepa`, and of the decoder.

        prediction_weight: of the reconstruction of predicted states, reconstruction_weight: of that
        of encoded ones. filters: channels of the decoder before its last layer. ensemble_size:
        number of heads; each is decoded, which is the larger part of an update's cost.
        """

        ensemble_size: int = Field(default=1, ge=1, le=16)
        reconstruction_weight: float = Field(default=1.0, ge=0)
        filters: int = Field(default=16, ge=1, le=1024)

    config: Config

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
        context_frames: int,
        predictor: Predictor | None = None,
        signal_head: SignalHead | None = None,
    ) -> None:
        """`context_frames`: those that perception stacks before the newest."""
        super().__init__(
            config=config,
            world=world,
            latent_size=latent_size,
            token_shape=token_shape,
            objective=Unregularised(),
            predictor=predictor,
            signal_head=signal_head,
        )
        self._context_frames, self._frame_shape = context_frames, world.pixels
        self.decoder: nn.Module
        if world.pixels is not None:
            self.decoder = Deconvolutions(latent_size, *world.pixels, config.filters)
            size = world.pixels[0] * world.pixels[1] * world.pixels[2]
        else:
            size = world.vector or 0
            self.decoder = MLP(latent_size, config.width, size, zero_output=True)
        self.observation_stats = RunningScale(size, 0.999)

    # -- decoding ---------------------------------------------------------------------------

    def _decoded(self, latents: Tensor) -> Tensor:
        """Observations [M N] of latents [M D] in units of their deviation from the mean."""
        standard = (latents - self.latent_stats.centre) / self._latent_std()
        observations: Tensor = self.decoder(standard)
        return observations

    def _observation_scale(self) -> Tensor:
        """The deviation of observations from their mean: of frames [], of vectors [N]."""
        if self._frame_shape is None:
            return self.observation_stats.deviation().clamp_min(1e-3)
        return self.observation_stats.variance.mean().sqrt().clamp_min(1 / 255)

    def decode(self, state: State) -> Tensor:
        """The observations of states: frames [M H Y C] uint8, or vectors [M N] float32."""
        decoded = self._decoded(self.complete(state).latent)
        observations = self.observation_stats.centre + self._observation_scale() * decoded
        if self._frame_shape is None:
            return observations
        return as_bytes(observations).view(-1, *self._frame_shape)

    # -- learning ---------------------------------------------------------------------------

    def _observed(self, experience: Experience, row: Tensor, step: Tensor) -> Tensor:
        """The observations [M N] of `step` [M] in the windows `row` [M]: pixels from 0 to 1, or
        numbers of a vector. They are not augmented.
        """
        if experience.frames is not None:
            frames = as_bytes(experience.frames[row, step + self._context_frames])
            return frames.flatten(1).float() / 255
        assert experience.vectors is not None  # a world shows pixels or a vector
        return experience.vectors[row, step].float()

    def _reconstruction_errors(
        self, latents: Tensor, experience: Experience, row: Tensor, step: Tensor
    ) -> Tensor:
        """Mean squared errors [M K] of what is decoded from latents [M K D]."""
        observed = self._observed(experience, row, step) - self.observation_stats.centre
        decoded = self._decoded(latents.flatten(0, 1)).view(*latents.shape[:2], -1)
        return (decoded - (observed / self._observation_scale()).unsqueeze(1)).square().mean(2)

    def _prediction_errors(
        self, predicted: Tensor, target: Tensor, experience: Experience, row: Tensor, step: Tensor
    ) -> Tensor:
        """Errors [M K] of the frames or vectors decoded from the predicted latents [M K D]."""
        return self._reconstruction_errors(predicted, experience, row, step)

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Named scalar losses; no priorities.

        `reconstruction`: mean squared error of the observation decoded from each valid online
        latent; `prediction`: from each predicted latent, up to `unroll_steps` steps from the first,
        for each head; in units of the observations' deviation. `signals`, `ended`, `invariance` and
        what counts: as in `JEPA.losses`. Of `targets` only running statistics are taken.
        """
        experience, states, _ = batch
        mask = experience.mask[:, : self.window_steps()]
        self.observation_stats.update(self._observed(experience, *mask.nonzero().unbind(1)))
        losses, priorities = super().losses(batch, key)
        row, step = experience.mask[:, : len(states)].nonzero().unbind(1)
        latents = scale_gradient(latents_of(states)[row, step], self.config.encoder_grad_scale)
        errors = self._reconstruction_errors(latents.unsqueeze(1), experience, row, step)
        share = experience.importance_weights[row] / max(len(row), 1)
        weight = self.config.reconstruction_weight
        reconstruction = weight * (share * errors.squeeze(1)).sum()
        return losses | {"reconstruction": reconstruction}, priorities
