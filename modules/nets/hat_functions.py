"""Inputs of a network that must tell numbers near each other apart."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from modules.messages import Frozen


class HatFunctions(nn.Module):
    """Each number x, and beside it how near it is to each of `count` places of a grid.

    A hat function is 1 at its place, falls linearly to 0 at the two places beside it, and is 0
    elsewhere (linear B-splines). A network of x learns smooth functions of it first (spectral bias:
    Rahaman et al. 2019), and so a value function that jumps at a wall late or never; of hat
    functions it learns each place by itself, as with tile coding (Sutton & Barto 2018, §9.5.4) and
    fuzzy tiling (Pan, Banman & White 2021).
    """

    class Config(Frozen):
        """The grid: `count` places at equal distances from `low` to `high`, in units of the numbers
        that the network reads; outside it all hat functions are 0.
        """

        count: int = Field(ge=2, le=256)
        low: float
        high: float

        @model_validator(mode="after")
        def _order(self) -> Self:
            if self.low >= self.high:
                raise ValueError(f"expected low below high, got {self.low:g} and {self.high:g}")
            return self

    places: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.count = config.count
        places = torch.linspace(config.low, config.high, config.count)
        self.register_buffer("places", places, persistent=False)
        self.distance = (config.high - config.low) / (config.count - 1)

    def output_size(self, inputs: int) -> int:
        """Size of the output for `inputs` numbers."""
        return inputs * (1 + self.count)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [... N] → [... N·(1 + count)]: the N numbers, then the hat functions of the first,
        those of the second, and so on.
        """
        near = (1 - (x.unsqueeze(-1) - self.places).abs() / self.distance).clamp_min(0)
        return torch.cat([x, near.flatten(-2)], -1)
