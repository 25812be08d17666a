"""Signal heads: the networks within a world model that compute the next signals and the end."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class SignalHeadSize(NamedTuple):
    """The sizes of a signal head's network: `inputs` I, `outputs` S+1, `width` of the world model,
    and `token_shape` (T, E) of the directive's tokens.
    """

    inputs: int
    width: int
    outputs: int
    token_shape: tuple[int, int]


class SignalNetwork(Protocol):
    """A `torch.nn.Module`: latent, action and change of the latent → signals and the end.

    `last`: the layer whose outputs are the network's; a fresh one is 0, so that a fresh model
    predicts the mean.
    """

    last: nn.Linear

    def __call__(self, inputs: Tensor, tokens: Tensor | None) -> Tensor:
        """Standardised signals in the head's own unit and the logit of the end, [M S+1], of
        standardised latents, encoded actions and standardised changes [M I] under tokens.
        """

    def encode(self, signals: Tensor) -> Tensor:
        """Signals [... S] in the head's own unit, in which they are standardised and predicted."""

    def decode(self, values: Tensor) -> Tensor:
        """The inverse of `encode`."""


@runtime_checkable
class SignalHead(Protocol):
    """Settings of a signal head. The world model constructs the network, so that its initial
    weights follow from the seed in the order of the world model's layers.
    """

    def network(self, size: SignalHeadSize) -> SignalNetwork:
        """A new network."""
