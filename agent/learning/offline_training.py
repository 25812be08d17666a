"""Learning from recordings: their steps fill the memory, and no action is taken."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from agent.agent import Agent
from agent.learning.training import Training
from agent.modules import initial_moment
from agent.recording import checkpoint
from agent.recording.readers import Form, RecordedEpisodes, open_recording, remember


class Sources(NamedTuple):
    """The recordings that a training learns from, those of an expert apart."""

    recordings: tuple[Path, ...] = ()
    experts: tuple[Path, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (*self.recordings, *self.experts)

    def opened(self) -> list[tuple[RecordedEpisodes, bool]]:
        """Each, with whether it is an expert's. Raises TraceError or ConfigError, one line."""
        pairs = [(path, False) for path in self.recordings]
        return [
            (open_recording(path), expert)
            for path, expert in [*pairs, *((path, True) for path in self.experts)]
        ]

    def facts(self, absolute: bool = False) -> dict[str, list[str]]:
        """The paths by name, as a checkpoint and a run folder hold them."""
        text = os.path.abspath if absolute else str
        return {name: [text(path) for path in paths] for name, paths in self._asdict().items()}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Sources:
        """What `facts` returned; runs of version 0.1 have `traces`."""
        recordings = facts.get("recordings", facts.get("traces", ()))
        return cls(tuple(map(Path, recordings)), tuple(map(Path, facts.get("experts", ()))))


class OfflineTraining(Training):
    """Training on recordings alone: each of its steps stands for a step of interaction.

    So updates, evaluations and checkpoints come as often as in a training of as many steps.
    `recordings`, each with whether it is an expert's, are read in `form` when it begins; a resumed
    training continues from its checkpoint, which names their `sources`.
    """

    def __init__(
        self,
        agent: Agent,
        *others: Any,
        sources: Sources,
        recordings: Sequence[tuple[RecordedEpisodes, bool]],
        form: Form,
        **named: Any,
    ) -> None:
        super().__init__(agent, *others, **named)
        self.sources, self.recordings, self.form = sources, recordings, form

    def _turns(self, resume: checkpoint.Checkpoint | None) -> Iterator[None]:
        self.agent.reset(1, self.seed)
        if resume is not None:
            self._restore(resume)
        else:
            initial = initial_moment(self.agent.modules, self.agent.world, 1)
            remember(self.agent.memory, initial, self.recordings, self.form)
        return map(self._learn, repeat(1, self.config.steps - self.progress.steps))

    def _frames(self) -> int:
        """0: no frame is emulated."""
        return 0

    def facts(self) -> dict[str, Any]:
        """The counters, and the recordings."""
        return super().facts() | self.sources.facts()

    def _blobs(self) -> dict[str, bytes]:
        return {}
