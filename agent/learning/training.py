"""Training: the interaction loop with updates, evaluations and checkpoints.

A training that was interrupted and continued equals one that was not.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from agent.agent import Agent
from agent.learning.collapse_monitor import CollapseMonitor
from agent.learning.evaluation import EvaluationProgress, Score, score
from agent.learning.learner import Learner
from agent.learning.metrics import JSONLines, Metrics
from agent.live import continue_from
from agent.recording import checkpoint
from agent.recording.drive_guard import drive_hashes, require_same
from agent.recording.episode_stats import EpisodeStats
from modules import chance
from modules.messages import Moment, Observation, SextetError, WorldError
from modules.ports import World

_PACE_S = 30.0
"""Seconds over which the pace is measured: it changes when learning begins."""


@dataclass
class Progress:
    """How far a training is, and its figures.

    `losses` are means since the last report, as `module/name`. `returns` are those of the last
    episodes of the training itself; `evaluation` is that with held-out seeds, `best` the best mean
    so far; `evaluating` says how far a running one is. `warnings` name the modules that have
    collapsed. `fresh`: this turn ended with a report.
    `seconds`, `cpu_seconds`: wall and processor time, earlier parts of a resumed training included.
    `run`: its folder.
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
    evaluating: EvaluationProgress | None = None
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
        """The mean of `returns`."""
        return sum(self.returns) / len(self.returns) if self.returns else None


class _Pace:
    """Steps a second over the last half minute."""

    def __init__(self, steps: int) -> None:
        self._times: deque[tuple[float, int]] = deque([(time.monotonic(), steps)])

    def at(self, steps: int) -> float | None:
        """The pace after `steps` steps; None within .2 s of the last measurement."""
        now, (last, _), (first, then) = time.monotonic(), self._times[-1], self._times[0]
        if now - last < 0.2:
            return None
        self._times.append((now, steps))
        while len(self._times) > 2 and now - self._times[1][0] > _PACE_S:
            self._times.popleft()
        return (steps - then) / (now - first)


class Training:
    """Acts, learns, evaluates and writes checkpoints, by a schedule of steps.

    `evaluate` returns the returns of episodes with held-out seeds, or None where `stopping`
    interrupted it; it must not change agent or world. `on_note` gets a line where the world cannot
    be restored. `run` yields its progress after every turn of the loop. Setting `stopping` ends it
    after the present update or turn, with a checkpoint; `evaluation_due`: an evaluation was then
    running or due. `saving`: a checkpoint is being written.
    """

    class Config(BaseModel):
        """The schedule of a training, in steps summed over environments; an interval of 0: only at
        the end.

        `keep_checkpoints`: the number of the newest ones that are kept. `init_from`: a bundled
        agent, run or checkpoint whose weights are loaded first; None: fresh. `vectorized_env`: the
        vectorised Atari environment; not used where the world model is the emulator. `evaluation`:
        settings that differ in evaluation, a configuration tree. `workers`: processes in which
        the environments are stepped, in blocks of 4, while this one learns; 0: all in this one.
        `segment_steps`: steps of each environment between two exchanges of weights and experience
        with the workers; the result depends on it, and not on the number of workers.
        `infer_actions`: where recordings lack actions, updates of a network that learns from the
        known ones which action lies between two frames and then infers the others; 0: they stay
        unknown.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        steps: int = Field(default=100_000, ge=1)
        report_every: int = Field(default=1_000, ge=0)
        evaluate_every: int = Field(default=10_000, ge=0)
        evaluate_episodes: int = Field(default=10, ge=1, le=1_000_000)
        checkpoint_every: int = Field(default=10_000, ge=0)
        keep_checkpoints: int = Field(default=3, ge=1)
        init_from: str | None = None
        vectorized_env: bool = True
        evaluation: dict[str, Any] = Field(default_factory=dict)
        workers: int = Field(default=0, ge=0, le=4096)
        segment_steps: int = Field(default=64, ge=64, le=65_536)
        infer_actions: int = Field(default=0, ge=0, le=10_000_000)

    def __init__(
        self,
        agent: Agent,
        world: World,
        learner: Learner,
        folder: Path,
        config: Config,
        evaluate: Callable[[], Sequence[float] | None],
        seed: int,
        metrics: Sequence[Metrics] = (),
        on_note: Callable[[str], object] | None = None,
    ) -> None:
        self.agent, self.world, self.learner = agent, world, learner
        self.folder, self.config, self.evaluate, self.seed = folder, config, evaluate, seed
        self.on_note = on_note
        self.metrics: list[Metrics] = [JSONLines(folder / "metrics.jsonl"), *metrics]
        self.stats = EpisodeStats(world.spec.id, world.num_envs)
        self.monitor = CollapseMonitor(agent, seed)
        self.progress = Progress(
            of_steps=config.steps, world=world.spec.id, seed=seed, run=str(folder)
        )
        self.stopping = self.evaluation_due = self.saving = False
        self._loss_sums: dict[str, float] = {}
        self._updates_reported = 0
        self._began = (time.monotonic(), time.process_time())

    def run(self, resume: checkpoint.Checkpoint | None = None) -> Iterator[Progress]:
        """Trains to the end of the schedule, from the start or from `resume`, which is emptied.

        The last complete checkpoint stays, whether the training ends by itself or by an exception.
        """
        config, progress = self.config, self.progress
        if resume is None:
            # Those of a training that was killed before its first checkpoint.
            for metrics in self.metrics:
                metrics.cut(0)
        turns = self._turns(resume)
        if self.learner.pending_updates >= 1:
            # The turn that was stopped amid its updates.
            turns = chain(map(self._learn, [0]), turns)
        elif self.evaluation_due:
            self._evaluate()
            if self.stopping:
                # It remains due, at the checkpoint that the training was resumed from.
                turns = iter(())
        pace = _Pace(progress.steps)
        for _ in turns:
            done = progress.steps
            if self.learner.pending_updates >= 1:
                self.save(str(done))
                self._clock()
                yield progress
                break
            self.evaluation_due |= self._due(config.evaluate_every)
            if self.evaluation_due and not self.stopping:
                self._evaluate()
            if (now := pace.at(done)) is not None:
                progress.steps_per_s = now
                progress.remaining_s = max(0, config.steps - done) / max(now, 1e-9)
            if self._due(config.report_every):
                self._report()
            # Read once: set after this line, it ends the next turn, which writes a checkpoint.
            stop = self.stopping
            if stop or self._due(config.checkpoint_every):
                self.save(str(done))
            self._clock()
            yield progress
            progress.fresh = False
            if stop:
                break
        self._clock()
        for metrics in self.metrics:
            metrics.close()

    @property
    def unfinished(self) -> bool:
        """Whether steps, updates or an evaluation of its schedule are left."""
        left = self.progress.steps < self.config.steps or self.learner.pending_updates >= 1
        return left or self.evaluation_due

    def _due(self, every: int) -> bool:
        """Whether the last turn reached a multiple of `every` steps, or the end."""
        done, turn_steps = self.progress.steps, self.world.num_envs
        crossed = every > 0 and done // every > (done - turn_steps) // every
        return crossed or done >= self.config.steps

    def _turns(self, resume: checkpoint.Checkpoint | None) -> Iterator[None]:
        """Resets or restores everything; returns the turns of the loop, each with its updates."""
        self.agent.reset(self.world.num_envs, self.seed)
        fault = self.world.rehearse()
        if resume is None:
            if fault is not None:
                self._note(
                    f"replay does not restore it ({fault}); --resume will begin new episodes"
                )
            observation = self.world.reset(self.seed)
        else:
            observation = self._continued(resume, fault)
        left = self.config.steps - self.progress.steps
        return map(self._count, continue_from(self.agent, self.world, observation, left))

    def _continued(self, resume: checkpoint.Checkpoint, fault: str | None) -> Observation:
        """The next observation after a checkpoint, the first of new episodes where the world cannot
        be restored, for which `fault` may be known as the reason.
        """
        memory, snapshot = self.agent.memory, resume.blobs.pop("world")
        self._restore(resume)
        if fault is None:
            try:
                self.world.restore(snapshot)
                return self.world.step(memory.last_written().plan.action)
            except WorldError as error:
                fault = str(error)
        self._note(f"not restored ({fault}); new episodes begin")
        memory.cut_episodes()
        self.stats.episodes.running.zero_()
        # Other episodes than those that began with the training.
        return self.world.reset(int(chance.keys(self.seed, 1, self.progress.steps)) % 2**31)

    def _note(self, line: str) -> None:
        if self.on_note is not None:
            self.on_note(f"world {self.world.spec.id}: {line}")

    def _count(self, moment: Moment) -> None:
        """Counts a moment and makes the updates due."""
        for _, value in self.stats.add(moment):
            self.progress.returns.append(value)
            self.progress.episodes += 1
        self.monitor.add(moment.plan.action, moment.energies.intrinsic)
        self._learn(self.world.num_envs)

    def _learn(self, steps: int) -> None:
        """Counts `steps` steps and makes the updates due for them."""
        progress = self.progress
        progress.steps += steps
        progress.frames = self._frames()
        for losses in self.learner.learn(steps, progress.steps):
            for name, value in losses.items():
                self._loss_sums[name] = self._loss_sums.get(name, 0.0) + value
            if self.stopping and self.learner.pending_updates >= 1:
                # The others are made when the training is resumed.
                break
        progress.updates = self.learner.updates

    def _frames(self) -> int:
        """Emulated frames so far, those between two observations included."""
        return self.progress.steps * self.world.spec.frames_per_step

    def _evaluate(self) -> None:
        """Evaluates and saves the best weights; an interrupted evaluation remains due."""
        returns = self.evaluate()
        if returns is None:
            return
        progress = self.progress
        self.evaluation_due = False
        # A mean that is no number would be the best for ever, because none is larger.
        judged = bool(returns) and all(map(math.isfinite, returns))
        progress.evaluation = score(returns) if judged else None
        mean, low, high, _ = progress.evaluation or (None, None, None, 0)
        if mean is not None and (progress.best is None or mean >= progress.best):
            progress.best = mean
            self.save("best", whole=False)
        self._write(
            {
                "evaluation": mean,
                "evaluation_low": low,
                "evaluation_high": high,
                "evaluation_episodes": len(returns),
                "best": progress.best,
            }
        )

    def _report(self) -> None:
        progress = self.progress
        updates = max(1, self.learner.updates - self._updates_reported)
        progress.losses = {name: total / updates for name, total in self._loss_sums.items()}
        self._loss_sums, self._updates_reported = {}, self.learner.updates
        self.monitor.examine(self.learner.updates)
        progress.warnings = self.monitor.warnings
        progress.fresh = True
        self._write(
            {
                "updates": self.learner.updates,
                "episodes": progress.episodes,
                "return": progress.mean_return,
                "steps_per_s": round(progress.steps_per_s, 1),
                **progress.losses,
                **self.monitor.figures,
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
            "running": self.stats.episodes.running.tolist(),
            "best": progress.best,
            "evaluation": progress.evaluation,
            "unjudged": self.evaluation_due,
            "sums": self._loss_sums,
            "updates_seen": self._updates_reported,
            "health": self.monitor.facts(),
            "agent_steps": self.agent.steps_done,
            "seed": self.seed,
            "drives": drive_hashes(self.agent),
            "seconds": progress.seconds,
            "cpu_seconds": progress.cpu_seconds,
        }

    def save(self, name: str, whole: bool = True) -> Path:
        """Writes a checkpoint: all that continuing needs, or, not `whole`, what acting needs.

        Raises SextetError, naming the tensor, where one is not finite; the last checkpoint stays.
        """
        saved = checkpoint.Checkpoint(
            tensors={"weights": self.learner.weights()}, facts=self.facts()
        )
        if whole:
            saved.tensors["learner"] = self.learner.tensors()
            saved.tensors["memory"] = self.agent.memory.tensors()
            saved.blobs |= self._blobs()
        for part, tensors in saved.tensors.items():
            _require_finite(f"checkpoint {name}: {part}", tensors)
        self.saving = True
        try:
            return checkpoint.save(
                self.folder / "checkpoints", name, saved, self.config.keep_checkpoints
            )
        finally:
            self.saving = False

    def _blobs(self) -> dict[str, bytes]:
        return {"world": self.world.snapshot()}

    def _restore(self, saved: checkpoint.Checkpoint) -> None:
        """Restores a checkpoint and empties it, which frees memory: a replay is large."""
        facts, progress = saved.facts, self.progress
        require_same(facts["drives"], drive_hashes(self.agent), "checkpoint")
        self.learner.load(saved.tensors.pop("weights"), saved.tensors.pop("learner"))
        self.learner.updates, self.learner.pending_updates = facts["updates"], facts["owed"]
        self.agent.memory.load_tensors(saved.tensors.pop("memory"))
        self.agent.memory.last_written().check(self.agent.dims)
        self.agent.steps_done = facts["agent_steps"]
        progress.steps, progress.updates = facts["steps"], facts["updates"]
        progress.frames = self._frames()
        # Those of version 0.1 may be NaN.
        best, scored = facts["best"], facts["evaluation"]
        progress.episodes = facts["episodes"]
        progress.best = best if best is not None and math.isfinite(best) else None
        progress.evaluation = Score(*scored) if scored and math.isfinite(scored[0]) else None
        progress.returns.extend(facts["returns"])
        running = self.stats.episodes.running
        running[:] = running.new_tensor(facts["running"])
        progress.seconds += facts["seconds"]
        progress.cpu_seconds += facts["cpu_seconds"]
        self.evaluation_due, self._loss_sums = facts["unjudged"], dict(facts["sums"])
        self._updates_reported = facts["updates_seen"]
        self.monitor.load(facts["health"])
        for metrics in self.metrics:
            metrics.cut(facts["steps"])


def _require_finite(where: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises SextetError, naming the tensor, where one holds a number that is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            number = tensor[~tensor.isfinite()][0]
            raise SextetError(
                f"{where} {name}: expected finite numbers, got {number:g}; the last checkpoint is "
                "kept, continue from it with --resume"
            )
