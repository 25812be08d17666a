"""Recorded runs, the `trace.sqlite` of a run folder, as recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from agent.recording.readers.recording import Episode, Form
from agent.recording.trace import Trace
from modules.messages import Moment, TraceError
from modules.ports import Recorded


class RunRecording:
    """All rows of a trace. It lacks nothing."""

    lacks: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        with Trace.open(path) as trace:
            self.steps = trace.steps * trace.rows
            self.world: tuple[str, str | None] | None = (trace.world.id, trace.world.protocol)
            first = trace.series("observation.first") if trace.steps else None
            self.episodes = 0 if first is None else int(first.sum())

    def require(self, form: Form) -> None:
        """Raises TraceError, one line, where the trace has other observations or actions."""
        with Trace.open(self.path) as trace:
            recorded, trace_path = trace.world, trace.path
        for name in ("id", "pixels", "vector", "goal", "signals", "actions"):
            expected, got = getattr(form.world, name), getattr(recorded, name)
            if got != expected:
                hint = (
                    "; give the perception the frames that were recorded (--perception.frame_size, "
                    "--perception.grayscale)"
                )
                raise TraceError(
                    f"trace {trace_path}: {name}: expected {expected}, got {got}"
                    f"{hint if name == 'pixels' else ''}"
                )

    def episodes_in(self, form: Form) -> Iterator[Episode]:
        """The episodes of each row; an episode that the run began or stopped amid is one, too."""
        with Trace.open(self.path) as trace:
            for row in range(trace.rows):
                index, steps = torch.tensor([row]), list[Moment]()
                for moment in trace:
                    own = moment.select(index)
                    if steps and bool(own.observation.first):
                        yield _episode(steps)
                        steps = []
                    steps.append(own)
                if steps:
                    yield _episode(steps)

    def moments(self, form: Form, initial: Moment) -> Iterator[tuple[Moment, Recorded]]:
        """The steps of all rows, one row after the other."""
        known = torch.ones(len(form.world.signals), dtype=torch.bool)
        recorded = Recorded(expert=False, action=True, ends=True, signals=known)
        with Trace.open(self.path) as trace:
            for row in range(trace.rows):
                index, begins = torch.tensor([row]), True
                for moment in trace:
                    yield _own_moment(moment.select(index), initial, begins), recorded
                    begins = False


def _episode(moments: list[Moment]) -> Episode:
    """The episode of moments of one row."""
    seen = [moment.observation for moment in moments]
    shown = [one.vector if one.pixels is None else one.pixels for one in seen]
    goals = [one.goal for one in seen if one.goal is not None]
    signals = torch.cat([moment.state.signals for moment in moments])
    return Episode(
        observations=[one[0].numpy() for one in shown if one is not None],
        steps=len(moments),
        signals=signals,
        known=torch.ones(signals.shape[1], dtype=torch.bool),
        actions=torch.cat([moment.plan.action for moment in moments[:-1]])
        if len(moments) > 1
        else moments[0].plan.action[:0],
        terminated=bool(seen[-1].terminated),
        truncated=bool(seen[-1].truncated),
        goals=torch.cat(goals) if goals else None,
    )


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
