"""A life that learns, can be stopped anywhere, and goes on as if it never had been."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.agent import Agent
from agent.learning.collapse_monitor import Health
from agent.learning.evaluation import Score, score
from agent.learning.learner import Learner
from agent.learning.metrics import JSONLines, Metrics
from agent.live import continue_from
from agent.recording import checkpoint
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.episode_stats import EpisodeStats
from modules.messages import Moment
from modules.ports import World

_PACE_S = 30.0
"""Seconds over which the pace is measured: it changes when learning begins."""


@dataclass(frozen=True)
class Schedule:
    """When things happen, in steps summed over rows; 0: at the end alone."""

    steps: int
    report_every: int
    evaluate_every: int
    checkpoint_every: int


@dataclass
class Progress:
    """How far a training is and how it fares, for whoever shows it.

    `losses` are means since the last report, as `module/name`. `returns` are those of the last
    episodes lived; `evaluation` is that of held seeds, `best` the best mean so far. `warnings`
    say by name what has collapsed. `fresh`: there was a report since the last look. `seconds`,
    `cpu_seconds`: what it took so far, also before it was resumed. `run`: its folder.
    """

    steps: int = 0
    of_steps: int = 0
    frames: int = 0
    updates: int = 0
    episodes: int = 0
    steps_per_s: float = 0.0
    remaining_s: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    evaluation: Score | None = None
    best: float | None = None
    warnings: list[str] = field(default_factory=list)
    fresh: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    world: str = ""
    seed: int = 0
    run: str = ""

    @property
    def mean_return(self) -> float | None:
        """Of the last episodes lived."""
        return sum(self.returns) / len(self.returns) if self.returns else None


class _Pace:
    """Steps a second over the last half minute."""

    def __init__(self, steps: int) -> None:
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), steps)])

    def at(self, steps: int) -> float | None:
        """The pace, or None where it was asked a moment ago."""
        now, (last, _), (first, then) = time.monotonic(), self._seen[-1], self._seen[0]
        if now - last < 0.2:
            return None
        self._seen.append((now, steps))
        while len(self._seen) > 2 and now - self._seen[1][0] > _PACE_S:
            self._seen.popleft()
        return (steps - then) / (now - first)


class Training:
    """Lives, learns, evaluates and keeps checkpoints, by a schedule of steps.

    `evaluate` is given nothing and says the returns of held seeds, None where it was told to stop
    (see `stopping`); it must leave agent and world alone. `run` yields its progress after every
    turn. Setting `stopping` ends it after the turn under way, with a checkpoint; `unjudged`: an
    evaluation was then under way or due.
    """

    def __init__(
        self,
        agent: Agent,
        world: World,
        learner: Learner,
        folder: Path,
        schedule: Schedule,
        evaluate: Callable[[], Sequence[float] | None],
        seed: int,
        metrics: Sequence[Metrics] = (),
    ) -> None:
        self.agent, self.world, self.learner = agent, world, learner
        self.folder, self.schedule, self.evaluate, self.seed = folder, schedule, evaluate, seed
        self.metrics: list[Metrics] = [JSONLines(folder / "metrics.jsonl"), *metrics]
        self.keeper = EpisodeStats(world.spec.id, world.num_envs)
        self.health = Health(agent, seed)
        self.progress = Progress(
            of_steps=schedule.steps, world=world.spec.id, seed=seed, run=str(folder)
        )
        self.stopping = False
        self._sums: dict[str, float] = {}
        self._updates_seen = 0
        self.unjudged = False
        self._began = (time.monotonic(), time.process_time())

    def run(self, resume: checkpoint.Checkpoint | None = None) -> Iterator[Progress]:
        """Trains to the end of the schedule from the start or from `resume`, which is used up.

        However it is left, also by an exception, the last complete checkpoint stands.
        """
        schedule, progress = self.schedule, self.progress
        turns = self._turns(resume)
        if self.unjudged:
            self._judge()
        pace = _Pace(progress.steps)
        for rows in turns:
            done = progress.steps
            last = done >= schedule.steps
            due: Callable[[int], bool] = lambda every, d=done, r=rows, end=last: (  # type: ignore[misc]  # noqa: E731
                end or _crossed(d, r, every)
            )
            self.unjudged |= due(schedule.evaluate_every)
            if self.unjudged and not self.stopping:
                self._judge()
            if (now := pace.at(done)) is not None:
                progress.steps_per_s = now
                progress.remaining_s = max(0, schedule.steps - done) / max(now, 1e-9)
            if due(schedule.report_every):
                self._report()
            # Asked once: what is asked to stop after this line has a checkpoint yet to make.
            stop = self.stopping
            if stop or due(schedule.checkpoint_every):
                self.save(str(done))
            self._clock()
            yield progress
            progress.fresh = False
            if stop:
                break
        self._clock()
        for metrics in self.metrics:
            metrics.close()

    def _turns(self, resume: checkpoint.Checkpoint | None) -> Iterator[int]:
        """The turns of a life with what is learned in each: how many steps each was."""
        self.agent.reset(self.world.num_envs, self.seed)
        if resume is None:
            observation = self.world.reset(self.seed)
        else:
            self._restore(resume)
            observation = self.world.step(self.agent.memory.last_written().plan.action)
        left = self.schedule.steps - self.progress.steps
        return (
            self._live(moment)
            for moment in continue_from(self.agent, self.world, observation, left)
        )

    def _live(self, moment: Moment) -> int:
        """Counts a moment and learns what is owed; the steps it was."""
        for _, value in self.keeper.add(moment):
            self.progress.returns.append(value)
            self.progress.episodes += 1
        self.health.saw(moment.plan.action, moment.energies.intrinsic)
        self._learn(self.world.num_envs)
        return self.world.num_envs

    def _learn(self, steps: int) -> None:
        """Counts steps and does the updates they are worth."""
        progress = self.progress
        progress.steps += steps
        progress.frames = self._frames()
        for losses in self.learner.learn(steps, progress.steps):
            for name, value in losses.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        progress.updates = self.learner.updates

    def _frames(self) -> int:
        """Frames that the worlds have shown so far, emulated ones in between included."""
        return self.progress.steps * self.world.spec.frames_per_step

    def _judge(self) -> None:
        """Evaluates, and keeps the best; where that was told to stop it stays to be done."""
        returns = self.evaluate()
        if returns is None:
            return
        progress = self.progress
        self.unjudged = False
        progress.evaluation = judged = score(returns)
        if progress.best is None or judged.mean >= progress.best:
            progress.best = judged.mean
            self.save("best", whole=False)
        self._write(
            {
                "evaluation": judged.mean,
                "evaluation_low": judged.low,
                "evaluation_high": judged.high,
                "evaluation_episodes": judged.size,
                "best": progress.best,
            }
        )

    def _report(self) -> None:
        progress = self.progress
        updates = max(1, self.learner.updates - self._updates_seen)
        progress.losses = {name: total / updates for name, total in self._sums.items()}
        self._sums, self._updates_seen = {}, self.learner.updates
        self.health.examine(self.learner.updates)
        progress.warnings = self.health.warnings
        progress.fresh = True
        self._write(
            {
                "updates": self.learner.updates,
                "episodes": progress.episodes,
                "return": progress.mean_return,
                "steps_per_s": round(progress.steps_per_s, 1),
                **progress.losses,
                **self.health.figures,
                "warnings": progress.warnings,
            }
        )

    def _clock(self) -> None:
        progress, (wall, cpu) = self.progress, self._began
        self._began = (time.monotonic(), time.process_time())
        progress.seconds += self._began[0] - wall
        progress.cpu_seconds += self._began[1] - cpu

    def _write(self, figures: dict[str, Any]) -> None:
        axes = {"steps": self.progress.steps, "frames": self.progress.frames}
        for metrics in self.metrics:
            metrics.write(axes | figures)

    # -- checkpoints ------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """The counters of a checkpoint."""
        progress = self.progress
        return {
            "steps": progress.steps,
            "updates": self.learner.updates,
            "owed": self.learner.pending_updates,
            "episodes": progress.episodes,
            "returns": list(progress.returns),
            "running": self.keeper.episodes.running.tolist(),
            "best": progress.best,
            "evaluation": progress.evaluation,
            "unjudged": self.unjudged,
            "sums": self._sums,
            "updates_seen": self._updates_seen,
            "health": self.health.facts(),
            "agent_steps": self.agent.steps_done,
            "seed": self.seed,
            "drives": drive_hashes(self.agent),
            "seconds": progress.seconds,
            "cpu_seconds": progress.cpu_seconds,
        }

    def save(self, name: str, whole: bool = True) -> Path:
        """Keeps everything needed to go on, or, not `whole`, what is needed to play."""
        made = checkpoint.Checkpoint(
            tensors={"weights": self.learner.weights()}, facts=self.facts()
        )
        if whole:
            made.tensors["learner"] = self.learner.tensors()
            made.tensors["memory"] = self.agent.memory.tensors()
            made.blobs |= self._blobs()
        return checkpoint.save(self.folder / "checkpoints", name, made)

    def _blobs(self) -> dict[str, bytes]:
        return {"world": self.world.snapshot()}

    def _restore(self, kept: checkpoint.Checkpoint) -> None:
        """Stands where the checkpoint was made. What it holds is let go of: a replay is large."""
        facts, progress = kept.facts, self.progress
        require_same(facts["drives"], drive_hashes(self.agent), "checkpoint")
        self.learner.load(kept.tensors.pop("weights"), kept.tensors.pop("learner"))
        self.learner.updates, self.learner.pending_updates = facts["updates"], facts["owed"]
        self.agent.memory.load_tensors(kept.tensors.pop("memory"))
        self.agent.steps_done = facts["agent_steps"]
        if "world" in kept.blobs:
            self.world.restore(kept.blobs.pop("world"))
        progress.steps, progress.updates = facts["steps"], facts["updates"]
        progress.frames = self._frames()
        progress.episodes, progress.best = facts["episodes"], facts["best"]
        progress.evaluation = None if facts["evaluation"] is None else Score(*facts["evaluation"])
        progress.returns.extend(facts["returns"])
        self.keeper.episodes.running[:] = self.keeper.episodes.running.new_tensor(facts["running"])
        progress.seconds += facts["seconds"]
        progress.cpu_seconds += facts["cpu_seconds"]
        self.unjudged, self._sums = facts["unjudged"], dict(facts["sums"])
        self._updates_seen = facts["updates_seen"]
        self.health.load(facts["health"])
        for metrics in self.metrics:
            metrics.cut(facts["steps"])


def _crossed(done: int, rows: int, every: int) -> bool:
    """Whether the last turn of the loop, of `rows` steps, reached a multiple of `every`."""
    return every > 0 and done // every > (done - rows) // every
