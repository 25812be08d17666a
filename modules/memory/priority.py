"""A tree of sums, which draws in proportion to priorities, a batch at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class SumTree:
    """`size` numbers >= 0; an index is drawn with probability proportional to its number (Schaul et
    al. 2016). While all numbers are 0 the first index is drawn.

    A binary tree in an array: node 1 is the root, nodes 2i and 2i + 1 are the children of node i,
    each inner node is the sum of its children. Setting or drawing k numbers takes log2(size) passes
    over k numbers.
    """

    def __init__(self, size: int) -> None:
        self.levels = max(1, (size - 1).bit_length())
        self.first = 1 << self.levels
        self.nodes: Floats = np.zeros(2 * self.first)

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return float(self.nodes[1])

    def values(self, index: Integers) -> Floats:
        """The numbers at `index` [k]."""
        return self.nodes[self.first + index]

    def put(self, index: Integers, values: Floats | float) -> None:
        """Sets the numbers at `index` [k]; of a repeated index the last value counts."""
        nodes = self.first + index
        self.nodes[nodes] = values
        for _ in range(self.levels):
            nodes = nodes >> 1
            self.nodes[nodes] = self.nodes[2 * nodes] + self.nodes[2 * nodes + 1]

    def draw(self, share: Floats) -> Integers:
        """The index [k] at which the cumulative sum exceeds each `share` [k], 0 to 1, of the
        total.
        """
        rest = share * self.total
        nodes = np.ones(len(share), np.int64)
        for _ in range(self.levels):
            nodes = nodes << 1
            left = self.nodes[nodes]
            # A rounding error must not lead into a branch whose numbers are all 0.
            right = (rest >= left) & (self.nodes[nodes + 1] > 0)
            rest = np.where(right, rest - left, rest)
            nodes = nodes + right
        return nodes - self.first
