"""What all environments of this package share: `reset(seed)` comes before everything else."""

from __future__ import annotations

from modules.messages import WorldError, WorldSpec


class SeededWorld:
    """An environment that `reset(seed)` starts."""

    spec: WorldSpec
    _seed: int | None = None

    def rehearse(self) -> str | None:
        """None: a snapshot restores the environment exactly."""
        return None

    def _require_seed(self) -> int:
        """The run's seed. Raises WorldError before the first `reset`, and after `close`."""
        if self._seed is None:
            raise WorldError(f"world {self.spec.id}: expected reset(seed) first, got none")
        return self._seed
