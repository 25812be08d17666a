"""What encoders of frames share: the last frames, stacked, and their place in a state."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from modules.messages import (
    ConfigError,
    Experience,
    MessageError,
    Moment,
    Observation,
    State,
    WorldSpec,
)
from modules.nets.frames import as_bytes


class StackedFrames(ABC):
    """A perception of the last `frame_stack` frames.

    `State.hidden` [B (stack-1)·H·Y·C] (uint8) holds the frames before the present one, oldest
    first; at the first step of an episode it holds copies of that step's frame.
    """

    world: WorldSpec
    latent_size: int
    frame_stack: int
    hidden_size: int

    @staticmethod
    def frame_shape(world: WorldSpec) -> tuple[int, int, int]:
        """Height, width and channels of frames. Raises ConfigError where the world shows none."""
        if world.pixels is None:
            raise ConfigError(
                f"config perception.kind: expected a world that shows pixels, got {world.id}, "
                "which shows a vector; try perception.kind=vectors"
            )
        return world.pixels

    @abstractmethod
    def encode(self, stacks: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Latents [M D] of stacks of frames [M stack H Y C] (uint8), oldest first, under `tokens`
        [B T E], M = B·N.
        """

    def encode_frame(
        self, frame: Tensor, hidden: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Latent [M D] and the next `hidden` [M R] of `frame` [M H Y C] after `hidden` [M R].

        A pure function, so that a simulator can be encoded frame by frame.
        """
        frame = as_bytes(frame)
        earlier = hidden.view(len(frame), self.frame_stack - 1, *frame.shape[1:])
        stack = torch.cat([earlier, frame[:, None]], 1)
        return self.encode(stack, tokens), stack[:, 1:].flatten(1)

    def perceive(self, observation: Observation, previous: Moment) -> State:
        """The state of `observation`, under the tokens of `previous.directive`, after the frames in
        `previous.state.hidden`. Raises MessageError where the frames have another shape.
        """
        pixels, expected = observation.pixels, self.world.pixels
        if pixels is None or pixels.shape[1:] != expected:
            received = "None" if pixels is None else str(pixels.shape)
            raise MessageError("Observation", "pixels", f"[B {expected}]", received)
        frame = as_bytes(pixels)
        hidden = previous.state.hidden
        if observation.first.any():
            repeated = frame.flatten(1).repeat(1, self.frame_stack - 1)
            hidden = torch.where(observation.first[:, None], repeated, hidden)
        latent, hidden = self.encode_frame(frame, hidden, previous.directive.tokens)
        goal = observation.goal
        if observation.goal_pixels is not None:
            goal = self._goal_latent(observation.goal_pixels, observation.first, previous)
        return State(
            latent=latent,
            hidden=hidden,
            signals=observation.signals,
            ended=observation.ended.float(),
            uncertainty=torch.zeros(len(latent)),
            goal=goal,
        )

    def _goal_latent(self, goal_pixels: Tensor, first: Tensor, previous: Moment) -> Tensor:
        """The latents [B D] of goals that are pictures [B H Y C], as if seen for `frame_stack`
        steps, encoded where an episode begins, `first` [B], and where the picture changes.
        """
        frame, known = as_bytes(goal_pixels), previous.state.goal
        before = previous.observation.goal_pixels
        if before is None or known is None:
            new = torch.ones_like(first)
        else:
            new = first | (frame != as_bytes(before)).flatten(1).any(1)
            if not bool(new.any()):
                return known
        hidden = frame.flatten(1).repeat(1, self.frame_stack - 1)
        latent, _ = self.encode_frame(frame, hidden, previous.directive.tokens)
        return latent if known is None else latent.where(new[:, None], known)

    def initial(self, rows: int) -> State:
        """The state before the first of an episode: zeros of the usual shapes."""
        goal = self.latent_size if self.world.goal_pixels else self.world.goal
        return State(
            latent=torch.zeros(rows, self.latent_size),
            hidden=torch.zeros(rows, self.hidden_size, dtype=torch.uint8),
            signals=torch.zeros(rows, len(self.world.signals)),
            ended=torch.zeros(rows),
            uncertainty=torch.zeros(rows),
            goal=None if goal is None else torch.zeros(rows, goal),
        )

    def frames_of(self, experience: Experience) -> Tensor:
        """The frames of windows, [B stack-1+W H Y C]. Raises MessageError where they lack the
        stack-1 context frames.
        """
        frames, length = experience.frames, experience.mask.shape[1] + self.frame_stack - 1
        if frames is None or frames.shape[1] != length:
            received = "None" if frames is None else str(frames.shape[1])
            raise MessageError("Experience", "frames", f"{length} frames a window", received)
        return frames
