"""Objectives of a joint-embedding model: error, and penalties on encodings (LeCun 2022, §4.5)."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from modules.ports import Batch


class Encodings(NamedTuple):
    """The encodings of a batch that penalties may read.

    `latents` [M D]: all valid online latents. `windows` [B T D]: the same by window, the first T
    steps of each, T the learner's `online_steps`; `mask` [B T] bool: the step is valid and of the
    episode of step 0, so it is true up to some step and false from there on. `actions` [B T-1 A]:
    the encoded action at step t, which led to step t+1; `action_mask` [B T-1] bool: it is known,
    and both steps are valid. `other_view` [B D]: the target encoding of step 0, another
    augmentation of it, without gradient, where the objective `compares_views`;
    valid where `mask[:, 0]` is. Numbers outside the mask are 0. `observations` [B T ...]: what
    was observed at each step, frames uint8 [H Y C] or a vector [N], not masked; None of latents
    that come from elsewhere.
    """

    latents: Tensor
    windows: Tensor
    mask: Tensor
    actions: Tensor
    action_mask: Tensor
    other_view: Tensor
    observations: Tensor | None = None


def encodings_of(
    batch: Batch, latents: Tensor, windows: Tensor, mask: Tensor, over: Tensor
) -> Encodings:
    """The Encodings of a whole `batch` from its online latents: the valid ones [M D] and those by
    window [B T D].

    `mask` and `over` [B W] bool on the CPU: the step is valid, the episode ends at it.
    """
    steps = windows.shape[1]
    joined = mask[:, 1:steps] & mask[:, : steps - 1] & ~over[:, : steps - 1]
    counted = torch.cat([mask[:, :1], joined.cumprod(1).bool()], 1).to(windows.device)
    actions, other_view = batch.experience.actions, batch.targets[0].latent
    acted = counted[:, 1:]
    shown = batch.experience.vectors
    if (frames := batch.experience.frames) is not None:
        shown = frames[:, frames.shape[1] - mask.shape[1] :]  # behind the context frames
    if batch.experience.action_mask is not None:
        acted = acted & batch.experience.action_mask[:, : steps - 1]
    # Selected, not multiplied by 0: what follows an end may be NaN.
    return Encodings(
        latents=latents,
        windows=torch.where(counted.unsqueeze(2), windows, 0.0),
        mask=counted,
        actions=torch.where(acted.unsqueeze(2), actions[:, : steps - 1], 0.0),
        action_mask=acted,
        other_view=torch.where(counted[:, :1], other_view.detach(), 0.0),
        observations=None if shown is None else shown[:, :steps],
    )


@runtime_checkable
class Objective(Protocol):
    """The error of a prediction, and penalties on the encodings.

    Criterion 3 of §4.5 is `error`; criteria 1 and 2, that the state stays informative about the
    percept, are `penalties`. An objective may be an nn.Module: its parameters are then trained and
    saved with those of the world model. The rate of the target encoder is the learner's `ema_rate`.
    """

    @property
    def online_steps(self) -> int:
        """Online steps of a window that the penalties need: a training with a smaller
        `learner.online_steps` is refused.
        """

    @property
    def compares_views(self) -> bool:
        """Whether the penalties read `other_view`: the world model then has it encoded."""

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """The error [M K] of `predicted` [M K D] about `target` [M D]; `unit` [D] is the scale of
        an error in each dimension.
        """

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """Named scalar losses, weighted; `key` [1] int64: a random key. An objective of only one
        loss names it after itself.
        """


class Squared:
    """Objectives whose error is a mean square in given units, and who need no more of a batch than
    its latents.
    """

    online_steps: ClassVar[int] = 1
    compares_views: ClassVar[bool] = False

    def error(self, predicted: Tensor, target: Tensor, unit: Tensor) -> Tensor:
        """mean_d ((predicted - target) / unit)², [M K]: dimensions of any scale count alike, so
        shrinking the latents does not lower it.
        """
        return ((predicted - target.unsqueeze(1)) / unit).square().mean(2)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` (of one shape) is true, a scalar; 0 where it never is."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)
