"""The interface of a latent variable z: what a state and an action do not determine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from modules.messages import LatentSpec, WorldSpec

Error = Callable[[Tensor, Tensor], Tensor]
"""`error(z [N Z], row [N])`: the errors [N] of the predictions under z in those rows (int64).
"""


def input_size(world: WorldSpec, latent_size: int) -> int:
    """Numbers that describe a state and an action, I: the latent, the action and its factors."""
    return latent_size + world.actions.size + world.actions.factor_matrix().shape[1]


class Explained(NamedTuple):
    """Latent variables `z` [M Z] under which the predictor learns what happened, and the losses of
    each row [M] by name, which keep z minimal and teach its prior.
    """

    z: Tensor
    terms: dict[str, Tensor]


class LatentVariable(Protocol):
    """A latent variable with its learned prior p(z | s, a), a `torch.nn.Module`.

    `inputs` [M I] describe a state and an action and `outcome` [M D] the change that followed, all
    in usual units; `tokens` are the directive's.
    """

    spec: LatentSpec
    input_scale: float
    """Factor of z where the predictor reads it, beside the numbers of the action."""

    def sample(
        self, inputs: Tensor, tokens: Tensor | None, luck: Tensor, temperature: Tensor
    ) -> Tensor:
        """Draws z [M Z] from the prior by the uniform numbers `luck` [M U], at a `temperature` [M]:
        0 draws the most likely z.
        """

    def log_prior(self, inputs: Tensor, tokens: Tensor | None, z: Tensor) -> Tensor:
        """The log prior, nats, [M]: of codes that of a probability, of numbers of a density."""

    def infer(self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor, error: Error) -> Tensor:
        """The z [M Z] of least `error`: argmin_z E (§4.4)."""

    def explain(
        self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor, error: Error, key: Tensor
    ) -> Explained:
        """What learning takes for z where the outcome is known; `key` [1] is a random key."""

    def on_update(self) -> None:
        """Called after each optimiser step: schedules advance."""

    def on_reset(self) -> None:
        """Called after weights were reset: schedules begin again."""
