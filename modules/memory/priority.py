"""A tree of sums: draws in proportion to priorities, all of a batch at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


class SumTree:
    """`size` numbers >= 0 of which each is drawn in proportion to itself (Schaul et al. 2016).

    A binary tree whose every node is the sum of its two; node 1 is the root. Setting and drawing
    k of them take log2(size) passes over k numbers.
    """

    def __init__(self, size: int) -> None:
        self.levels = max(1, (size - 1).bit_length())
        self.first = 1 << self.levels
        self.nodes: Floats = np.zeros(2 * self.first)

    @property
    def total(self) -> float:
        """The sum of all."""
        return float(self.nodes[1])

    def values(self, index: Whole) -> Floats:
        """The numbers at `index` [k]."""
        return self.nodes[self.first + index]

    def put(self, index: Whole, values: Floats | float) -> None:
        """Sets the numbers at `index` [k]; of one given twice the last stays."""
        nodes = self.first + index
        self.nodes[nodes] = values
        for _ in range(self.levels):
            nodes = nodes >> 1
            self.nodes[nodes] = self.nodes[2 * nodes] + self.nodes[2 * nodes + 1]

    def draw(self, share: Floats) -> Whole:
        """The place [k] at which each `share` [k], 0 to 1, of the total is reached."""
        left = share * self.total
        nodes = np.ones(len(share), np.int64)
        for _ in range(self.levels):
            nodes = nodes << 1
            below = self.nodes[nodes]
            # Rounding must not lead into an empty branch, whose numbers were never set.
            right = (left >= below) & (self.nodes[nodes + 1] > 0)
            left = np.where(right, left - below, left)
            nodes = nodes + right
        return nodes - self.first
