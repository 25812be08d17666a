"""The digest of a run: independent of whether and how its trace is written."""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from agent.recording.trace.layout import as_numbers
from modules.messages import (
    Moment,
)

_DIGESTED = (
    ("observation", ("pixels", "vector", "signals", "goal", "first", "terminated", "truncated")),
    ("energies", ("intrinsic", "critic")),
    ("plan", ("mode", "steps", "remaining_commit", "model_calls", "energy")),
)


class TraceDigest:
    """A hash of the observations, energies and actions of a run.

    Wall time, latents and the storage format are not part of it.
    """

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, moment: Moment) -> None:
        """Adds a moment."""
        update = self._hash.update
        values = moment.__dict__
        update(struct.pack("<q", moment.step))
        for part, names in _DIGESTED:
            fields = values[part].__dict__
            for name in names:
                value = fields[name]
                if value is not None:
                    update(np.ascontiguousarray(as_numbers(value)).data)
        update(np.ascontiguousarray(as_numbers(moment.plan.action)).data)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        return self._hash.hexdigest()
