"""Learning from what others lived: traces of recorded runs fill the memory, nobody acts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.learning.training import Training
from agent.modules import initial_moment
from agent.recording import checkpoint
from agent.recording.trace import Trace
from modules.messages import Moment, TraceError, WorldSpec
from modules.ports import Memory


def recorded_steps(traces: Sequence[Path]) -> int:
    """Steps in all of these traces, all rows counted. Raises TraceError, one line."""
    total = 0
    for path in traces:
        with Trace.open(path) as trace:
            total += trace.steps * trace.rows
    return total


def recorded_world(path: Path) -> tuple[str, str | None]:
    """World and protocol of a trace. Raises TraceError, one line."""
    with Trace.open(path) as trace:
        return trace.world.id, trace.world.protocol


def fitting(path: Path, world: WorldSpec) -> None:
    """Raises TraceError, one line, where what was recorded is not what the agent would perceive."""
    with Trace.open(path) as trace:
        theirs, trace_path = trace.world, trace.path
    for name in ("id", "pixels", "vector", "goal", "signals", "actions"):
        got, wanted = getattr(theirs, name), getattr(world, name)
        if got != wanted:
            how = (
                "; give the perception the frames that were recorded (--perception.frame_size, "
                "--perception.gray)"
                if name == "pixels"
                else ""
            )
            raise TraceError(f"trace {trace_path}: {name}: expected {wanted}, got {got}{how}")


def remember(memory: Memory, before: Moment, traces: Sequence[Path]) -> None:
    """Writes all rows of all traces into a memory of one row, stretch after stretch.

    `before` is the neutral moment the memory began with. Of a moment only what was observed,
    felt and done is taken: how another agent encoded it means nothing to this one.
    """
    for path in traces:
        with Trace.open(path) as trace:
            for row in range(trace.rows):
                index, begins = torch.tensor([row]), True
                for moment in trace:
                    memory.write(_own(moment.select(index), before, begins))
                    begins = False


def _own(lived: Moment, before: Moment, begins: bool) -> Moment:
    """The moment as this agent keeps it; the first of a stretch begins an episode."""
    seen = lived.observation
    if begins:
        seen = seen.replace(first=torch.ones_like(seen.first))
    actions = before.plan.actions.clone()
    actions[:, 0] = lived.plan.action
    return before.replace(
        step=lived.step,
        observation=seen,
        state=before.state.replace(signals=lived.state.signals),
        plan=before.plan.replace(actions=actions, mode=lived.plan.mode),
    )


class OfflineTraining(Training):
    """Training on traces alone: a step of it stands for one that would have been lived.

    So the updates, evaluations and checkpoints are those of a life of as many steps, of which
    nothing is lived. `traces` are read when it begins; resumed, it goes on from its checkpoint.
    """

    def __init__(self, agent: Agent, *others: Any, traces: Sequence[Path], **named: Any) -> None:
        super().__init__(agent, *others, **named)
        self.traces = list(traces)

    def _turns(self, resume: checkpoint.Checkpoint | None) -> Iterator[int]:
        """Updates at the pace at which a life would have gone on."""
        self.agent.reset(1, self.seed)
        if resume is not None:
            self._restore(resume)
        else:
            before = initial_moment(self.agent.modules, self.agent.world, 1)
            remember(self.agent.memory, before, self.traces)
        return self._read()

    def _read(self) -> Iterator[int]:
        while self.progress.steps < self.schedule.steps:
            self._learn(1)
            yield 1

    def _frames(self) -> int:
        """None: nothing is shown."""
        return 0

    def facts(self) -> dict[str, Any]:
        """The counters, and which traces were learned from."""
        return super().facts() | {"traces": [str(path) for path in self.traces]}

    def _blobs(self) -> dict[str, bytes]:
        return {}
