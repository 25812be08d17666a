"""Frames → state: s[0] = Enc(x) (LeCun 2022, §3), primed by the configurator."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules import chance
from modules.messages import (
    ConfigError,
    Experience,
    MessageError,
    Moment,
    Observation,
    State,
    WorldSpec,
)
from modules.nets.conv import CNN, ImpalaCNN, NatureCNN, SmallCNN, TinyCNN
from modules.nets.normalisation import RunningScale, unit_rms


def as_bytes(frames: Tensor) -> Tensor:
    """Frames of any dtype as uint8, which is what memory and carried context hold.

    Floats and bools are taken to run from 0 to 1, other whole numbers from 0 to 255.
    """
    if frames.dtype is torch.uint8:
        return frames
    if frames.dtype.is_floating_point:
        return (frames.clamp(0, 1) * 255).round().to(torch.uint8)
    if frames.dtype is torch.bool:
        return frames.to(torch.uint8) * 255
    return frames.to(torch.int64).clamp(0, 255).to(torch.uint8)


def shifted(frames: Tensor, offsets: Tensor) -> Tensor:
    """`frames` [M F H Y C] moved by `offsets` [M 2] (int64, pixels down and right).

    What comes in at an edge repeats the edge. One copy of a block for each row: an index for each
    pixel costs several times as much.
    """
    rows, several, height, width, channels = frames.shape
    far = int(offsets.abs().max()) if rows else 0
    wide = frames.new_empty(rows, several, height + 2 * far, width + 2 * far, channels)
    inner = wide[:, :, far : far + height]
    inner[:, :, :, far : far + width] = frames
    inner[:, :, :, :far] = frames[:, :, :, :1]
    inner[:, :, :, far + width :] = frames[:, :, :, -1:]
    wide[:, :, :far] = inner[:, :, :1]
    wide[:, :, far + height :] = inner[:, :, -1:]
    moved = torch.empty_like(frames)
    for row, (down, right) in enumerate((far - offsets).tolist()):
        moved[row] = wide[row, :, down : down + height, right : right + width]
    return moved


class Pixels(nn.Module):
    """A convolutional network over the last `frame_stack` frames; subclasses say which network.

    The frames before this one are carried in `State.carry` [B (stack-1)·H·Y·C] uint8, oldest
    first; where an episode begins its first frame stands for them.

    The latent is a linear map of the features, standardised in each dimension, then scaled to a
    root mean square of 1, so it lies on a sphere of radius √D. Standardised by the batch in
    learning and by what was usual in acting (Ioffe & Szegedy 2015): what all frames share, most of
    a game's picture, is no part of it, and no gradient can move it there. By running numbers alone
    it did move there: they followed, and all frames became one (docs/LOG.md, 2026-11-25). On the
    sphere `State.surprise` becomes 1 - cosine, VICReg's standard deviation of 1 is within reach,
    and SIGReg's standard normal is close.

    `subtract_mean_frame`, the network is shown how frames differ from the usual picture. Else what
    all share moves through it with every update, and what was usual is a deviation away from what
    is.
    """

    network_class: type[SmallCNN] | type[NatureCNN] | type[TinyCNN] | type[ImpalaCNN]

    def __init__(
        self,
        *,
        world: WorldSpec,
        token_shape: tuple[int, int],
        latent_size: int,
        frame_stack: int,
        frame_size: int,
        grayscale: bool,
        random_shift_pixels: int,
        intensity_jitter_std: float,
        subtract_mean_frame: bool,
        width_multiplier: int = 1,
    ) -> None:
        super().__init__()
        if world.pixels is None:
            raise ConfigError(
                "config perception.kind: expected a world that shows pixels, got "
                f"{world.id}, which "
                "shows a vector; try perception.kind=vectors"
            )
        self.latent_size, self.frame_stack = latent_size, frame_stack
        self.sensor = _sensor(frame_size, grayscale)
        self.random_shift_pixels, self.intensity_jitter_std = (
            random_shift_pixels,
            intensity_jitter_std,
        )
        self.frame, self.signals, self.goal = world.pixels, len(world.signals), world.goal
        height, width, channels = world.pixels
        self.carried = (frame_stack - 1) * height * width * channels
        self.picture = (
            RunningScale(height * width * channels, 0.999) if subtract_mean_frame else None
        )
        self.network: CNN | ImpalaCNN = self.network_class(
            frame_stack * channels, height, width, token_shape, width_multiplier
        )
        self.project = nn.Linear(self.network.features, latent_size)
        self.usual = RunningScale(latent_size)

    def encode(self, runs: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Latents [M D] of runs of frames [M stack H Y C] uint8, oldest first, under `tokens`
        [B T E], M = B·N.
        """
        return self._latent(self.project(self.network(self._shown(runs), tokens)).float())

    def _shown(
        self, runs: Tensor, offsets: Tensor | None = None, bright: Tensor | None = None
    ) -> Tensor:
        """What the network is shown of runs of bytes [M stack H Y C]: [M stack·C H Y], 0 to 1, or
        less the usual picture, over how far a pixel usually is from it; times `bright` [M].
        All of that is moved by `offsets` [M 2]. Each number is touched as seldom as can be, in
        place: in learning this once took longer than the network itself.
        """
        shown = runs.float()
        scale = shown.new_full((), 1 / 255)
        if self.picture is not None:
            shown -= self.picture.centre.mul(255).view(1, 1, *self.frame)
            scale = scale / self.picture.variance.mean().sqrt().clamp_min(1 / 255)
        shown *= scale if bright is None else (scale * bright)[:, None, None, None, None]
        return self._stacked(shown, offsets)

    def _latent(self, projected: Tensor) -> Tensor:
        """Standardised by what is usual, then onto the sphere."""
        return unit_rms((projected - self.usual.centre) / (self.usual.deviation() + 1e-3))

    def _learned(self, projected: Tensor) -> Tensor:
        """Standardised by the batch itself; what has a gradient says what is usual."""
        if projected.requires_grad:
            self.usual.update(projected.detach())
        variance, mean = torch.var_mean(projected, 0, correction=0)
        return unit_rms((projected - mean) / ((variance + 1e-6).sqrt() + 1e-3))

    def _runs(self, windows: Tensor, wanted: Tensor) -> Tensor:
        """The runs of `frame_stack` frames in `windows` [B F H Y C] that end at steps `wanted` [B
        W], [M stack H Y C].
        """
        several, device = windows.shape[1], windows.device
        begins = torch.arange(several - self.frame_stack + 1, device=device)
        begins = begins + several * torch.arange(len(windows), device=device)[:, None]
        index = (begins[wanted][:, None] + torch.arange(self.frame_stack, device=device)).flatten()
        runs = windows.flatten(0, 1).flatten(1).index_select(0, index)
        return runs.view(-1, self.frame_stack, *windows.shape[2:])

    @staticmethod
    def _stacked(runs: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Runs of frames [M stack H Y C] as channels [M stack·C H Y], moved by `offsets` [M 2].
        Those of a pixel lie side by side in memory: convolutions over few channels learn several
        times as fast from that.
        """
        stacked = torch.stack(runs.unbind(1), 3).flatten(3)
        if offsets is not None:
            stacked = shifted(stacked[:, None], offsets)[:, 0]
        return stacked.permute(0, 3, 1, 2)

    def encode_frame(
        self, frame: Tensor, hidden: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Latent [M D] and the carry [M R] after `frame` [M H Y C] was seen with `carry` [M R].

        A pure function, so that a simulator can be imagined from frame by frame.
        """
        frame = as_bytes(frame)
        held = torch.cat(
            [hidden.view(len(frame), self.frame_stack - 1, *self.frame), frame[:, None]], 1
        )
        return self.encode(held, tokens), held[:, 1:].flatten(1)

    def perceive(self, observation: Observation, before: Moment) -> State:
        """The state estimate; `before.directive` primes it, `before.state.carry` is context."""
        if observation.pixels is None or observation.pixels.shape[1:] != self.frame:
            got = observation.pixels if observation.pixels is None else observation.pixels.shape
            raise MessageError("Observation", "pixels", f"[B {self.frame}]", str(got))
        frame = as_bytes(observation.pixels)
        hidden = before.state.hidden
        if observation.first.any():
            repeated = frame.flatten(1).repeat(1, self.frame_stack - 1)
            hidden = torch.where(observation.first[:, None], repeated, hidden)
        latent, hidden = self.encode_frame(frame, hidden, before.directive.tokens)
        return State(
            latent=latent,
            hidden=hidden,
            signals=observation.signals,
            ended=observation.ended.float(),
            uncertainty=torch.zeros(len(latent)),
            goal=observation.goal,
        )

    def initial(self, rows: int) -> State:
        """What stands for the state before an episode begins: zeros of the usual shapes."""
        return State(
            latent=torch.zeros(rows, self.latent_size),
            hidden=torch.zeros(rows, self.carried, dtype=torch.uint8),
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
        """Latents [B W D] of the steps of windows in one pass, under `tokens` [B W T E]; with
        `wanted` [B W] (bool) those of some, the others 0.

        With `augment_key` [1] int64 each window is moved by up to `random_shift_pixels` and its
        brightness scaled by 1 + `intensity_jitter_std`·N(0, 1), cut at 2 deviations (SPR,
        Schwarzer et al. 2021); one draw a window, so that motion within it stays what it was.
        Raises MessageError if the windows do not bring stack-1 frames of context.
        """
        rows, steps = experience.mask.shape
        needed = steps + self.frame_stack - 1
        if experience.frames is None or experience.frames.shape[1] != needed:
            got = experience.frames if experience.frames is None else experience.frames.shape[1]
            raise MessageError("Experience", "frames", f"{needed} frames a window", str(got))
        frames = as_bytes(experience.frames)
        if wanted is None:
            wanted = torch.ones(rows, steps, dtype=torch.bool, device=frames.device)
        row = wanted.nonzero()[:, 0]
        runs = self._runs(frames, wanted)
        offsets = bright = None
        if augment_key is not None:
            if self.picture is not None and torch.is_grad_enabled():
                self.picture.update(runs[:, -1].flatten(1).float().mul_(1 / 255))
            if self.random_shift_pixels:
                drawn = chance.integers(
                    augment_key, "shift", 2 * self.random_shift_pixels + 1, rows, 2
                )[0]
                offsets = (drawn - self.random_shift_pixels).to(frames.device)[row]
            noise = chance.normal(augment_key, "intensity", rows)[0].clamp(-2, 2)
            bright = (1 + self.intensity_jitter_std * noise).to(frames.device)[row]
        shown = self._shown(runs, offsets, bright)
        if tokens is not None:
            tokens = tokens[wanted]
        projected = self.project(self.network(shown, tokens)).float()
        seen = self._latent(projected) if augment_key is None else self._learned(projected)
        return seen.new_zeros(rows, steps, self.latent_size).index_put((wanted,), seen)


def _sensor(frame_size: int, grayscale: bool) -> dict[str, Any] | None:
    """What the world is asked to show: None, whatever it shows by itself."""
    return {"height": frame_size, "width": frame_size, "gray": grayscale} if frame_size else None


class PixelsSmall(Pixels):
    """Pixels through the small network of data-efficient Rainbow."""

    network_class = SmallCNN

    class Config(BaseModel):
        """Settings of `pixels-small`.

        latent_size: D. wider: times the network's usual channels. stack: frames seen at once.
        frame_size: height and width asked of the world, pixels; 0: whatever it shows. gray: ask for
        one channel. random_shift_pixels, intensity: augmentation in learning. centred: the network
        is shown how frames differ from the usual picture.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["pixels-small"] = "pixels-small"
        latent_size: int = Field(default=256, ge=8)
        width_multiplier: int = Field(default=1, ge=1, le=16)
        frame_stack: int = Field(default=4, ge=1, le=16)
        frame_size: int = Field(default=84, ge=0, le=512)
        grayscale: bool = True
        random_shift_pixels: int = Field(default=4, ge=0, le=16)
        intensity_jitter_std: float = Field(default=0.05, ge=0, le=0.5)
        subtract_mean_frame: bool = False

        @property
        def sensor(self) -> dict[str, Any] | None:
            """Keywords height, width (pixels) and gray for the world, or None."""
            return _sensor(self.frame_size, self.grayscale)


class PixelsNature(Pixels):
    """Pixels through the network of DQN: slower, finer."""

    network_class = NatureCNN

    class Config(PixelsSmall.Config):
        """Settings of `pixels-nature`: those of `pixels-small`, with a larger latent."""

        kind: Literal["pixels-nature"] = "pixels-nature"  # type: ignore[assignment]
        latent_size: int = Field(default=512, ge=8)


class PixelsImpala(Pixels):
    """Pixels through the residual network of IMPALA: for a GPU."""

    network_class = ImpalaCNN

    class Config(PixelsSmall.Config):
        """Settings of `pixels-impala`: those of `pixels-small`, with a larger latent."""

        kind: Literal["pixels-impala"] = "pixels-impala"  # type: ignore[assignment]
        latent_size: int = Field(default=512, ge=8)
