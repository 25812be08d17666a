"""Timing of functions that take turns, so that other programs slow all of them alike."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Span(NamedTuple):
    """The duration of a call, seconds; processor time depends less on other programs."""

    wall: float
    processor: float


def duration(do: Callable[[], object]) -> Span:
    """Calls `do` once."""
    began, used = time.perf_counter(), time.process_time()
    do()
    return Span(time.perf_counter() - began, time.process_time() - used)


def in_turn(
    ways: Mapping[str, Callable[[int], object]], rounds: int, warmup: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Calls each of `ways` with the number of each round, in an order that rotates.

    Returns the `Span` of each call by the name of the way, [rounds 2], after `warmup` rounds that
    are not counted.
    """
    spans = defaultdict[str, list[Span]](list)
    names = list(ways)
    for i in range(warmup + rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            spans[name].append(duration(partial(ways[name], i)))
    return {name: np.array(spans[name][warmup:]) for name in names}


def medians(ways: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """The median wall time of each of `ways`, seconds; see `in_turn`."""
    return {name: float(np.median(spans[:, 0])) for name, spans in in_turn(ways, rounds).items()}
