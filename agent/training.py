"""A life that learns, can be stopped anywhere, and goes on as if it never had been."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import checkpoint
from agent.agent import Agent
from agent.learn import Learner
from agent.live import go_on
from agent.scorekeeper import Scorekeeper
from modules.messages import Moment
from modules.ports import World


@dataclass(frozen=True)
class Schedule:
    """When things happen, in steps summed over rows; 0 is never."""

    steps: int
    report_every: int
    evaluate_every: int
    checkpoint_every: int


@dataclass
class Progress:
    """How far a training is and how it fares, for whoever shows it.

    `losses` are means since the last report. `returns` are those of the last episodes lived;
    `evaluation` is the mean return of the last evaluation, `best` the best so far.
    """

    steps: int = 0
    of_steps: int = 0
    updates: int = 0
    episodes: int = 0
    steps_per_s: float = 0.0
    remaining_s: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    evaluation: float | None = None
    best: float | None = None
    warnings: list[str] = field(default_factory=list)


class Training:
    """Lives, learns, evaluates and keeps checkpoints, by a schedule of steps.

    `evaluate` is given nothing and says the mean return of held seeds; it must leave agent and
    world alone. What it yields is shown by whoever iterates `run`.
    """

    def __init__(
        self,
        agent: Agent,
        world: World,
        learner: Learner,
        folder: Path,
        schedule: Schedule,
        evaluate: Callable[[], float],
        seed: int,
    ) -> None:
        self.agent, self.world, self.learner = agent, world, learner
        self.folder, self.schedule, self.evaluate, self.seed = folder, schedule, evaluate, seed
        self.keeper = Scorekeeper(world.spec.id, world.rows)
        self.progress = Progress(of_steps=schedule.steps)
        self._sums: dict[str, float] = {}
        self._updates_seen = 0
        self._frames = world.spec.frames_per_step

    def run(self, resume: checkpoint.Checkpoint | None = None) -> Iterator[Progress]:
        """Trains to the end of the schedule from the start or from `resume`, reporting as it goes.

        However it is left, also by an exception, the last complete checkpoint stands.
        """
        rows, schedule = self.world.rows, self.schedule
        self.agent.begin(rows, self.seed)
        if resume is None:
            observation = self.world.reset(self.seed)
        else:
            self._restore(resume)
            observation = self.world.step(self.agent.memory.last().plan.action)
        began, begun_at = time.monotonic(), self.progress.steps
        for moment in go_on(self.agent, self.world, observation, schedule.steps - begun_at):
            done = self._live(moment)
            if _crossed(done, rows, schedule.evaluate_every) or done >= schedule.steps:
                self._evaluate(done)
            if _crossed(done, rows, schedule.checkpoint_every) or done >= schedule.steps:
                self.save(str(done))
            if _crossed(done, rows, schedule.report_every) or done >= schedule.steps:
                spent = time.monotonic() - began
                self.progress.steps_per_s = (done - begun_at) / max(spent, 1e-9)
                left = max(0, schedule.steps - done)
                self.progress.remaining_s = left / max(self.progress.steps_per_s, 1e-9)
                self._report(done)
                yield self.progress

    def _live(self, moment: Moment) -> int:
        """Counts a moment and learns what is owed; the steps done so far."""
        for _, value in self.keeper.add(moment):
            self.progress.returns.append(value)
            self.progress.episodes += 1
        self.progress.steps += self.world.rows
        for losses in self.learner.learn(self.world.rows, self.progress.steps):
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        self.progress.updates = self.learner.updates
        return self.progress.steps

    def _evaluate(self, done: int) -> None:
        value = self.evaluate()
        self.progress.evaluation = value
        if self.progress.best is None or value >= self.progress.best:
            self.progress.best = value
            self.save("best", whole=False)
        self._write({"steps": done, "evaluation": value})

    def _report(self, done: int) -> None:
        updates = max(1, self.learner.updates - self._updates_seen)
        self.progress.losses = {name: value / updates for name, value in self._sums.items()}
        self._sums, self._updates_seen = {}, self.learner.updates
        returns = self.progress.returns
        self._write(
            {
                "steps": done,
                "frames": done * self._frames,
                "updates": self.learner.updates,
                "episodes": self.progress.episodes,
                "return": sum(returns) / len(returns) if returns else None,
                **self.progress.losses,
            }
        )

    def _write(self, figures: dict[str, Any]) -> None:
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps(figures) + "\n")

    # -- checkpoints ------------------------------------------------------------------------

    def save(self, name: str, whole: bool = True) -> Path:
        """Keeps everything needed to go on, or, not `whole`, what is needed to play."""
        progress = self.progress
        facts = {
            "steps": progress.steps,
            "updates": self.learner.updates,
            "owed": self.learner.owed,
            "episodes": progress.episodes,
            "returns": list(progress.returns),
            "running": self.keeper.running.tolist(),
            "best": progress.best,
            "evaluation": progress.evaluation,
            "agent_steps": self.agent.steps_done,
            "seed": self.seed,
        }
        made = checkpoint.Checkpoint(tensors={"weights": self.learner.weights()}, facts=facts)
        if whole:
            made.tensors["learner"] = self.learner.tensors()
            made.tensors["memory"] = self.agent.memory.tensors()
            made.blobs["world"] = self.world.snapshot()
        return checkpoint.save(self.folder / "checkpoints", name, made)

    def _restore(self, kept: checkpoint.Checkpoint) -> None:
        facts = kept.facts
        self.learner.load(kept.tensors["weights"], kept.tensors["learner"])
        self.learner.updates, self.learner.owed = facts["updates"], facts["owed"]
        self._updates_seen = facts["updates"]
        self.agent.memory.load_tensors(kept.tensors["memory"])
        self.agent.steps_done = facts["agent_steps"]
        self.world.restore(kept.blobs["world"])
        progress = self.progress
        progress.steps, progress.updates = facts["steps"], facts["updates"]
        progress.episodes, progress.best = facts["episodes"], facts["best"]
        progress.evaluation = facts["evaluation"]
        progress.returns.extend(facts["returns"])
        self.keeper.running[:] = self.keeper.running.new_tensor(facts["running"])
        _cut(self.folder / "metrics.jsonl", facts["steps"])


def _crossed(done: int, rows: int, every: int) -> bool:
    """Whether the last turn of the loop, of `rows` steps, reached a multiple of `every`."""
    return every > 0 and done // every > (done - rows) // every


def _cut(metrics: Path, steps: int) -> None:
    """Drops what was measured after the checkpoint that a run goes on from."""
    if metrics.exists():
        lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [
            line for line in lines if line.endswith("\n") and json.loads(line)["steps"] <= steps
        ]
        metrics.write_text("".join(kept), encoding="utf-8")
