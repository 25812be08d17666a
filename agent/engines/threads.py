"""How many threads torch uses: one, as more are slower for small tensors, sometimes tenfold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within, afterwards as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def default_threads() -> Iterator[None]:
    """One thread within, unless the environment sets OMP_NUM_THREADS."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
    else:
        with one_thread():
            yield
