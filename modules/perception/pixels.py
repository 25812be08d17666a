"""Perception of frames: s[0] = Enc(x) (LeCun 2022, §3), modulated by the configurator's tokens."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from modules import chance
from modules.messages import Experience, Frozen, WorldSpec
from modules.nets.conv import CNN, ImpalaCNN, NatureCNN, SmallCNN
from modules.nets.frames import as_bytes
from modules.nets.normalisation import RunningScale, unit_rms
from modules.perception.frames import StackedFrames

_BATCH_VARIANCE_EPS = 1e-6
_STD_EPS = 1e-3


def shifted(frames: Tensor, offsets: Tensor) -> Tensor:
    """`frames` [M L H Y C] translated by `offsets` [M 2] (int64, pixels down and right), all L
    frames of a row alike, with the edge pixels repeated (DrQ, Kostrikov et al. 2021).
    """
    # On the CPU copying one block per row is several times faster than indexing each pixel; on
    # another device each of those copies would be a launch, and reading their places a wait.
    return _shifted_by_row(frames, offsets) if frames.is_cpu else _shifted_at_once(frames, offsets)


def _shifted_by_row(frames: Tensor, offsets: Tensor) -> Tensor:
    # By NumPy, whose calls cost a fraction of torch's: there are several for each row.
    before = frames.numpy()
    after = np.empty_like(before)
    height, width = before.shape[2:4]
    for old, new, (down, right) in zip(before, after, offsets.tolist(), strict=True):
        top, bottom = max(down, 0), height + min(down, 0)
        left, end = max(right, 0), width + min(right, 0)
        rows = new[:, top:bottom]
        rows[:, :, left:end] = old[:, top - down : bottom - down, left - right : end - right]
        rows[:, :, :left] = rows[:, :, left : left + 1]
        rows[:, :, end:] = rows[:, :, end - 1 : end]
        new[:, :top] = new[:, top : top + 1]
        new[:, bottom:] = new[:, bottom - 1 : bottom]
    return torch.from_numpy(after)


def _shifted_at_once(frames: Tensor, offsets: Tensor) -> Tensor:
    rows, length, height, width, _ = frames.shape
    device = frames.device
    row, step, y, x = (torch.arange(n, device=device) for n in (rows, length, height, width))
    y = (y - offsets[:, :1]).clamp(0, height - 1)[:, None, :, None]
    x = (x - offsets[:, 1:]).clamp(0, width - 1)[:, None, None, :]
    return frames[row[:, None, None, None], step[:, None, None], y, x]


@lru_cache(maxsize=2)
def _augmentation(
    key: int, rows: int, largest_shift: int, intensity_std: float
) -> tuple[Tensor, Tensor]:
    """Offsets [rows 2] (int64, pixels) and brightness [rows] of an update's windows. The online and
    the target encoder draw the same, one after the other.
    """
    row_key = torch.tensor([key])
    noise = chance.normal(row_key, "intensity", rows)[0].clamp(-2, 2)
    drawn = chance.integers(row_key, "shift", 2 * largest_shift + 1, rows, 2)[0]
    return drawn - largest_shift, 1 + intensity_std * noise


class Pixels(StackedFrames, nn.Module):
    """A convolutional encoder of the last `frame_stack` frames; subclasses name the network.

    latent = unit_rms((z - mean(z)) / std(z)), z = W·CNN(frames) + b, so a latent lies on the
    sphere of radius √D. In learning, mean and standard deviation are those of the batch, in acting
    running averages of them (Ioffe & Szegedy 2015). Batch statistics remove what all frames share
    from latent and gradient; with running statistics in learning, the common part grew and all
    frames got one latent (docs/LOG.md, 2026-11-25). On the sphere `State.surprise` is 1 - cosine,
    VICReg's target standard deviation of 1 can be reached, and SIGReg's standard normal is close.

    With `subtract_mean_frame` the network's input is (frame - mean frame) / (RMS deviation from
    it), both running averages. Otherwise each update moves the latents through the pixels that all
    frames share, and the running statistics used in acting lag behind.
    """

    class Config(Frozen):
        """Settings of all encoders of frames.

        latent_size: D. width_multiplier: times the network's standard channels. frame_stack:
        frames per encoding. frame_size: height and width requested of the world in pixels; 0: the
        world's own. grayscale: request one channel. random_shift_pixels: largest shift, and
        intensity_jitter_std: standard deviation of the brightness factor, of the augmentation in
        learning. subtract_mean_frame: the network's input is the difference from the mean frame.
        """

        latent_size: int = Field(default=512, ge=8, le=8192)
        width_multiplier: int = Field(default=1, ge=1, le=16)
        frame_stack: int = Field(default=4, ge=1, le=16)
        frame_size: int = Field(default=84, ge=0, le=512)
        grayscale: bool = True
        random_shift_pixels: int = Field(default=4, ge=0, le=16)
        intensity_jitter_std: float = Field(default=0.05, ge=0, le=0.5)
        subtract_mean_frame: bool = False

        @property
        def sensor(self) -> dict[str, Any] | None:
            """Settings of `worlds.protocols.Sensor`; None: frames as the world shows them."""
            if not self.frame_size:
                return None
            return {"height": self.frame_size, "width": self.frame_size, "gray": self.grayscale}

    reads: ClassVar = "pixels"
    network_class: type[CNN] | type[ImpalaCNN]

    def __init__(self, *, config: Config, world: WorldSpec, token_shape: tuple[int, int]) -> None:
        super().__init__()
        height, width, channels = self.frame_shape(world)
        self.config, self.world = config, world
        self.latent_size, self.frame_stack = config.latent_size, config.frame_stack
        self.hidden_size = (self.frame_stack - 1) * height * width * channels
        self.pixel_stats = (
            RunningScale(height * width * channels, 0.999) if config.subtract_mean_frame else None
        )
        self.network: CNN | ImpalaCNN = self.network_class(
            self.frame_stack * channels, height, width, token_shape, config.width_multiplier
        )
        self.project = nn.Linear(self.network.features, self.latent_size)
        self.latent_stats = RunningScale(self.latent_size)

    def encode(self, stacks: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Latents [M D] of stacks of frames [M stack H Y C] (uint8), oldest first, under `tokens`
        [B T E], M = B·N.
        """
        # Channels last, as version 0.1 had them: convolutions round by the layout of their input,
        # and the controls of forks from its runs would no longer be identical.
        pixels = self._input(stacks, self._mean_frame())
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return self._standardised(self.project(self.network(pixels, tokens)).float())

    def _mean_frame(self) -> Tensor | None:
        """The mean frame [1 1 H Y C], 0 to 255; None where it is not subtracted."""
        if self.pixel_stats is None or self.world.pixels is None:
            return None
        return self.pixel_stats.centre.mul(255).view(1, 1, *self.world.pixels)

    def _input(
        self, stacks: Tensor, mean_frame: Tensor | None, brightness: Tensor | None = None
    ) -> Tensor:
        """The network's input [M stack·C H Y] of `stacks` [M stack H Y C] (uint8): less
        `mean_frame` [M or 1, 1 H Y C], scaled to 0 to 1 or by `pixel_stats`, times `brightness`
        [M].
        """
        # Few passes over the frames, in place: this once took longer than the network itself.
        pixels = stacks.float()
        if mean_frame is not None:
            pixels -= mean_frame
        scale = pixels.new_full((), 1 / 255)
        if self.pixel_stats is not None:
            scale = scale / self.pixel_stats.variance.mean().sqrt().clamp_min(1 / 255)
        pixels *= scale if brightness is None else (scale * brightness)[:, None, None, None, None]
        return pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)

    def _standardised(self, projected: Tensor) -> Tensor:
        """Latents [M D] of projected features [M D], standardised by running statistics."""
        centred = projected - self.latent_stats.centre
        return self._bounded(centred / (self.latent_stats.deviation() + _STD_EPS))

    def _batch_standardised(self, projected: Tensor) -> Tensor:
        """Latents [M D] standardised by the batch; with gradient it updates the running ones."""
        if projected.requires_grad:
            self.latent_stats.update(projected.detach())
        variance, mean = torch.var_mean(projected, 0, correction=0)
        std = (variance + _BATCH_VARIANCE_EPS).sqrt()
        return self._bounded((projected - mean) / (std + _STD_EPS))

    def _bounded(self, standardised: Tensor) -> Tensor:
        """Latents [M D] of standardised features [M D]."""
        return unit_rms(standardised)

    def encode_windows(
        self,
        experience: Experience,
        tokens: Tensor | None = None,
        augment_key: Tensor | None = None,
        step_mask: Tensor | None = None,
    ) -> Tensor:
        """Latents [B W D] of all steps of all windows in one pass, under `tokens` [B W T E].

        `step_mask` [B W] (bool): the steps to encode, the others are 0; None: all.
        `augment_key` [1] (int64): with it each window is shifted by up to `random_shift_pixels`
        and its brightness multiplied by 1 + `intensity_jitter_std`·N(0, 1), the normal number
        clipped at ±2 (SPR, Schwarzer et al. 2021). One draw per window keeps motion within it.
        Raises MessageError where windows lack the stack-1 context frames.
        """
        rows, steps = experience.mask.shape
        frames = self.frames_of(experience)
        length = frames.shape[1]
        device = frames.device
        if step_mask is None:
            step_mask = torch.ones(rows, steps, dtype=torch.bool, device=device)
        row, step = step_mask.nonzero().unbind(1)
        if not len(row):
            return torch.zeros(rows, steps, self.latent_size, device=device)
        # Frames t to t + stack - 1 of a window are the stack of its step t.
        index = (row * length + step)[:, None] + torch.arange(self.frame_stack, device=device)
        planes, brightness = as_bytes(frames), None
        if augment_key is not None:
            if self.pixel_stats is not None and torch.is_grad_enabled():
                shown = planes.flatten(0, 1).index_select(0, index[:, -1])
                self.pixel_stats.update(shown.flatten(1).float().mul_(1 / 255))
            offsets, brightness = _augmentation(
                int(augment_key),
                rows,
                self.config.random_shift_pixels,
                self.config.intensity_jitter_std,
            )
            offsets, brightness = offsets.to(device), brightness.to(device)[row]
        mean_frame = self._mean_frame()
        # Whole windows are shifted, before their frames are stacked: in bytes, each frame once. The
        # mean frame is shifted as the window is, so the difference is the shifted difference.
        if augment_key is not None and self.config.random_shift_pixels:
            planes = shifted(planes, offsets)
            if mean_frame is not None:
                means = shifted(mean_frame.expand(rows, -1, -1, -1, -1), offsets)
                mean_frame = means.index_select(0, row)
        flat = planes.flatten(0, 1).flatten(1)
        stacks = flat.index_select(0, index.flatten()).view(-1, self.frame_stack, *planes.shape[2:])
        pixels = self._input(stacks, mean_frame, brightness)
        features = self.network(pixels, None if tokens is None else tokens[row, step])
        standardise = self._standardised if augment_key is None else self._batch_standardised
        latents = standardise(self.project(features).float())
        return latents.new_zeros(rows, steps, self.latent_size).index_put((row, step), latents)


class PixelsSmall(Pixels):
    """Frames through the small network of data-efficient Rainbow (van Hasselt et al. 2019)."""

    network_class = SmallCNN

    class Config(Pixels.Config):
        """Settings of `pixels-small`: those of `Pixels`, with a smaller latent."""

        latent_size: int = Field(default=256, ge=8, le=8192)


class PixelsNature(Pixels):
    """Frames through the network of DQN (Mnih et al. 2015): slower and larger."""

    network_class = NatureCNN


class PixelsImpala(Pixels):
    """Frames through the residual network of IMPALA (Espeholt et al. 2018), sized for a GPU."""

    network_class = ImpalaCNN
