"""Blocks of environments: how a run is divided among processes, for any number of them."""

from __future__ import annotations

from modules import chance

BLOCK = 4
"""Environments that always stand in one batch where a run is divided among processes. Fixed, as the
number of rows in a batch changes the last bits of results.
"""


def block_seed(seed: int, block: int) -> int:
    """The seed of a block: that of the run for the first one, above 2^30 for the others."""
    if block == 0:
        return seed
    return 2**30 + int(chance.keys(seed, block + 1, 0)[block]) % 2**30
