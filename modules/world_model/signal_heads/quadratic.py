"""A signal head whose signals are quadratic functions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.messages import Frozen
from modules.nets.film import FiLM
from modules.world_model.signal_heads.signal_head import SignalHeadSize, SignalNetwork


class QuadraticSignals:
    """Signals are linear in latent, action and change x, and in the squares of `width` learned
    directions: W [x, (P x)²] + b, in the signals' own units.

    The costs of optimal control, such as squared distances and squared effort. With the predictor
    `linear` the model is that of the linear-quadratic regulator, as in Embed to Control (Watter et
    al. 2015): a plan's cost is quadratic in its actions, also where no experience was.
    """

    class Config(Frozen):
        """`quadratic` has no settings; the number of directions is the world model's width."""

    def network(self, size: SignalHeadSize) -> SignalNetwork:
        """A new network of `size.width` directions."""
        return _QuadraticNetwork(size)


class _QuadraticNetwork(nn.Module):
    """See `SignalNetwork`."""

    def __init__(self, size: SignalHeadSize) -> None:
        super().__init__()
        self.directions = nn.Linear(size.inputs, size.width)
        self.film = FiLM(size.token_shape, size.width)
        self.last = nn.Linear(size.inputs + size.width, size.outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, inputs: Tensor, tokens: Tensor | None) -> Tensor:
        squares = self.film(self.directions(inputs), tokens).square()
        outputs: Tensor = self.last(torch.cat([inputs, squares], -1))
        return outputs

    def encode(self, signals: Tensor) -> Tensor:
        return signals

    def decode(self, values: Tensor) -> Tensor:
        return values
