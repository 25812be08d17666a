"""A signal head of fully connected layers."""

from __future__ import annotations

from torch import Tensor

from modules.messages import Frozen
from modules.nets.mlp import MLP
from modules.nets.normalisation import symexp, symlog
from modules.world_model.signal_heads.signal_head import SignalHeadSize, SignalNetwork


class MLPSignals:
    """An `MLP` of two hidden layers, which predicts the symlog of signals: signals of any scale and
    form, sudden ones too.
    """

    class Config(Frozen):
        """`mlp` has no settings; its width is the world model's."""

    def network(self, size: SignalHeadSize) -> SignalNetwork:
        """A new network of `size.width`."""
        return _MLPNetwork(size)


class _MLPNetwork(MLP):
    """See `SignalNetwork`."""

    def __init__(self, size: SignalHeadSize) -> None:
        super().__init__(
            size.inputs, size.width, size.outputs, 2, size.token_shape, zero_output=True
        )

    def encode(self, signals: Tensor) -> Tensor:
        return symlog(signals)

    def decode(self, values: Tensor) -> Tensor:
        return symexp(values)
