"""Learning from recorded runs: traces fill the memory, and no action is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.learning.training import Training
from agent.modules import initial_moment
from agent.recording import checkpoint
from agent.recording.trace import Trace
from modules.messages import MessageError, Moment, TraceError, WorldSpec
from modules.ports import Memory


def recorded_steps(traces: Sequence[Path]) -> int:
    """The steps of all rows of all traces. Raises TraceError, one line."""
    total = 0
    for path in traces:
        with Trace.open(path) as trace:
            total += trace.steps * trace.rows
    return total


def recorded_world(path: Path) -> tuple[str, str | None]:
    """World and protocol of a trace. Raises TraceError, one line."""
    with Trace.open(path) as trace:
        return trace.world.id, trace.world.protocol


def require_same_world(path: Path, world: WorldSpec) -> None:
    """Raises TraceError, one line, where a trace has other observations or actions than `world`."""
    with Trace.open(path) as trace:
        recorded, trace_path = trace.world, trace.path
    for name in ("id", "pixels", "vector", "goal", "signals", "actions"):
        expected, got = getattr(world, name), getattr(recorded, name)
        if got != expected:
            hint = (
                "; give the perception the frames that were recorded (--perception.frame_size, "
                "--perception.gray)"
            )
            raise TraceError(
                f"trace {trace_path}: {name}: expected {expected}, got {got}"
                f"{hint if name == 'pixels' else ''}"
            )


def remember(memory: Memory, initial: Moment, traces: Sequence[Path]) -> None:
    """Writes all rows of all traces into a memory of one row, one after the other.

    `initial`: the moment that the memory was reset with. Of a recorded moment only observation,
    signals and action are used: another agent's latents have no meaning here. Raises TraceError,
    naming step and field, where one of these numbers is not finite.
    """
    for path in traces:
        with Trace.open(path) as trace:
            for row in range(trace.rows):
                index, begins = torch.tensor([row]), True
                for moment in trace:
                    own = _own_moment(moment.select(index), initial, begins)
                    try:
                        memory.write(own.check({}))
                    except MessageError as error:
                        raise TraceError(f"trace {path}: step {moment.step}: {error}") from None
                    begins = False


def _own_moment(recorded: Moment, initial: Moment, begins: bool) -> Moment:
    """A recorded moment as this agent stores it. `begins`: it begins an episode."""
    observation = recorded.observation
    if begins:
        observation = observation.replace(first=torch.ones_like(observation.first))
    actions = initial.plan.actions.clone()
    actions[:, 0] = recorded.plan.action
    return initial.replace(
        step=recorded.step,
        observation=observation,
        state=initial.state.replace(signals=recorded.state.signals),
        plan=initial.plan.replace(actions=actions, mode=recorded.plan.mode),
    )


class OfflineTraining(Training):
    """Training on traces alone: each of its steps stands for a step of interaction.

    So updates, evaluations and checkpoints come as often as in a training of as many steps.
    `traces` are read when it begins; a resumed training continues from its checkpoint.
    """

    def __init__(self, agent: Agent, *others: Any, traces: Sequence[Path], **named: Any) -> None:
        super().__init__(agent, *others, **named)
        self.traces = list(traces)

    def _turns(self, resume: checkpoint.Checkpoint | None) -> Iterator[None]:
        self.agent.reset(1, self.seed)
        if resume is not None:
            self._restore(resume)
        else:
            initial = initial_moment(self.agent.modules, self.agent.world, 1)
            remember(self.agent.memory, initial, self.traces)
        return map(self._learn, repeat(1, self.config.steps - self.progress.steps))

    def _frames(self) -> int:
        """0: no frame is emulated."""
        return 0

    def facts(self) -> dict[str, Any]:
        """The counters, and the traces."""
        return super().facts() | {"traces": [str(path) for path in self.traces]}

    def _blobs(self) -> dict[str, bytes]:
        return {}
