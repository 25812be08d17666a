"""What discrete codes say of discrete labels: mutual information, perplexity."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from modules.measures.entropy import code_entropy

Codes = NDArray[np.int64]


def perplexity(codes: Codes, size: int) -> float:
    """The number of codes [M] out of `size` that are in use: the exponential of their entropy."""
    return math.exp(code_entropy(codes, size))


def code_information(codes: Codes, labels: Codes) -> float:
    """Mutual information of two discrete variables [M], nats: H(c) + H(l) - H(c, l).

    Entropies by frequencies with the correction of Miller (1955), (symbols in use - 1) / 2M each,
    so that independent variables have about 0, and possibly less.
    """
    pairs = np.unique(np.stack([codes, labels]), axis=1, return_inverse=True)[1].ravel()
    return _entropy(codes) + _entropy(labels) - _entropy(pairs)


def information_share(codes: Codes, labels: Codes) -> float:
    """`code_information` as a share of the labels' entropy: 1 where codes tell all of them."""
    return code_information(codes, labels) / max(_entropy(labels), 1e-12)


def conditional_share(codes: Codes, labels: Codes, condition: Codes) -> float:
    """I(c; l | s) as a share of H(l | s), s the `condition` [M]: 1 where codes and it tell all."""
    information = entropy = 0.0
    for value in np.unique(condition):
        here = condition == value
        information += here.sum() * code_information(codes[here], labels[here])
        entropy += here.sum() * _entropy(labels[here])
    return information / max(entropy, 1e-12)


def _entropy(symbols: Codes) -> float:
    values, places = np.unique(symbols, return_inverse=True)
    plain = code_entropy(places.ravel().astype(np.int64), len(values))
    return plain + (len(values) - 1) / (2 * len(symbols))
