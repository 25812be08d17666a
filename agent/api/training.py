"""One training: its configuration, its start or continuation in a folder, and its result."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from agent.api.failure import RunInterrupted, running
from agent.assembly.build import Assembly, assemble, known_kinds, learning_device
from agent.assembly.load import RunRequest, configure, init_from
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import preset, settings_of
from agent.assembly.trust import require_named
from agent.learning.evaluation import EvaluationProgress, whole_episodes
from agent.learning.learner import Learner
from agent.learning.metrics import TensorBoard, require_tensorboard
from agent.learning.offline_training import (
    OfflineTraining,
    recorded_steps,
    recorded_world,
    require_same_world,
)
from agent.learning.resumable import require_resumable
from agent.learning.training import Progress, Training
from agent.recording import checkpoint
from agent.recording.atomic import write_json
from agent.recording.drive_guard import guarded
from agent.recording.run_folder import RunFolder
from agent.recording.weights import load_weights
from modules.messages import ConfigError
from worlds.make import world_spec

EVALUATION_SEED = 1_000_000
"""Added to the seed of a training for its evaluations, so that they share no episode with it."""

RESULT = "result.json"
"""The result of a training, written into its folder when it ends."""


@dataclass(frozen=True)
class Observer:
    """How a training is followed.

    `on_progress` is called after every turn of the loop and of an evaluation; `Progress.fresh`
    marks a new report.
    `on_note` gets a line where a module starts fresh or a damaged checkpoint is passed over.
    """

    on_progress: Callable[[Progress], object] | None = None
    on_note: Callable[[str], object] | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.tensorboard:
            require_tensorboard()

    def report(self, value: Progress | str) -> None:
        """Calls `on_progress`, or `on_note` with a line."""
        if isinstance(value, str):
            if self.on_note is not None:
                self.on_note(value)
        elif self.on_progress is not None:
            self.on_progress(value)


@dataclass(frozen=True)
class TrainingRun:
    """The result of a training.

    `evaluation` and `interval` are mean return and 95 % interval of the last evaluation, `best` the
    best mean. `frames` counts emulated frames, `resumed_at` the steps of the checkpoint that this
    part of the training continued from. `stopped`: it was interrupted before its last step or
    evaluation. `warnings` name what has collapsed.
    """

    world: str
    seed: int
    steps: int
    frames: int
    updates: int
    episodes: int
    evaluation: float | None
    interval: tuple[float, float] | None
    best: float | None
    seconds: float
    cpu_seconds: float
    resumed_at: int | None
    stopped: bool
    warnings: tuple[str, ...]
    run: str

    @property
    def folder(self) -> Path:
        """Where configuration, checkpoints and metrics are."""
        return Path(self.run)

    @property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Every figure of `metrics.jsonl` over steps, as "return" or "world_model/prediction"."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for line in RunFolder(self.folder).metrics.read_text(encoding="utf-8").splitlines():
            figures = json.loads(line)
            for name, value in figures.items():
                if name != "steps" and isinstance(value, int | float):
                    curves.setdefault(name, []).append((figures["steps"], value))
        return curves

    @property
    def scores(self) -> list[tuple[int, float]]:
        """Steps and mean return of each evaluation during the training."""
        return self.curves.get("evaluation", [])

    def __fspath__(self) -> str:
        return self.run

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dict(vars(self))

    @classmethod
    def read(cls, folder: Path) -> TrainingRun | None:
        """The result in a run folder; None where there is no readable one."""
        try:
            figures = json.loads((folder / RESULT).read_text(encoding="utf-8"))
            return cls(**{**figures, "warnings": tuple(figures["warnings"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None


def training_config(request: RunRequest, traces: Sequence[Path] = ()) -> ConfigTree:
    """The configuration of a training: a request over the preset that suits its world.

    The flag `steps` means the steps of the training. Learning from `traces` takes their world where
    the request names none, and a memory for all of their steps. Raises ConfigError or TraceError.
    """
    if traces and request.agent is None:
        world, protocol = recorded_world(traces[0])
        rules = {} if protocol is None else {"protocol": protocol}
        request = replace(request, agent=world, flags={**rules, **request.flags})
    tree = configure(request, evaluating=False)[0]
    # A preset with a training block is complete; any other one is merged over the usual preset.
    if request.preset is None or "training" not in preset(request.preset):
        where = settings_of(tree).world
        spec = world_spec(where.id, where.protocol, where.isolate)
        name = "learn-actions" if spec.actions.discrete else "learn-model"
        if spec.pixels is not None:
            name = "atari-small" if spec.goal is None else "learn-tasks"
        tree = merge(preset(name), tree)
    if tree.get("steps"):
        tree = merge(tree, {"training": {"steps": tree["steps"]}, "steps": None})
    if traces:
        capacity = max(recorded_steps(traces), int(tree.get("memory", {}).get("capacity", 0)))
        tree = merge(tree, {"world": {"num_envs": 1}, "memory": {"capacity": capacity}})
    return tree


def start(
    tree: ConfigTree,
    place: Path | None,
    observer: Observer,
    plugins: Sequence[str] = (),
    traces: Sequence[Path] = (),
) -> TrainingRun:
    """Trains by a merged configuration in the new folder `place`.

    Raises ConfigError, WorldError or TraceError before the folder is created, RunFailedError or
    RunInterrupted after that.
    """
    with _assembled(tree, plugins) as (assembly, evaluator):
        settings = assembly.config.settings
        for path in traces:
            require_same_world(path, assembly.world.spec)
        if (source := settings.training.init_from) is not None:
            for port in init_from(assembly.agent, source, settings.learner.train_modules):
                observer.report(f"{port} begins fresh: kind or size differ in {source}")
        learner = _learner(assembly)
        folder = RunFolder.create(place, f"train-{settings.world.id}")
        folder.write_config(assembly.config.tree())
        with running(folder.path):
            return _learn(assembly, evaluator, learner, folder, None, observer, traces)


def continue_from(
    place: Path, steps: int | None, observer: Observer, plugins: Sequence[str] = ()
) -> TrainingRun:
    """Continues the training in the folder `place` from its newest checkpoint.

    `steps`: its new length, which its `config.yaml` then says. Raises as `start`.
    """
    folder = RunFolder.open(place)
    checkpoint.recover(folder.checkpoints)
    newest = checkpoint.newest(
        folder.checkpoints, warn=lambda why: observer.report(f"passed over: {why}")
    )
    if newest is None:
        raise ConfigError(f"run: expected a checkpoint to resume from in '{place}', got none")
    tree = folder.read_config()
    require_named(tree, plugins, f"run {place}")
    if steps is not None:
        require_steps(steps, tree, newest[1])
        tree = merge(tree, {"training": {"steps": steps}})
    with _assembled(tree, plugins) as (assembly, evaluator):
        learner = _learner(assembly)
        require_resumable(newest[1], learner, assembly.world.num_envs)
        with running(folder.path):
            checkpoint.set_aside(folder.checkpoints, newest[0])
            if steps is not None:
                folder.write_config(assembly.config.tree())
            return _learn(assembly, evaluator, learner, folder, newest[1], observer, ())


def require_steps(steps: int, tree: ConfigTree, saved: checkpoint.Checkpoint) -> None:
    """Raises ConfigError where a checkpoint is already beyond `steps`."""
    # Both are checked when they are used.
    try:
        done, rows = int(saved.facts["steps"]), int(tree.get("world", {}).get("num_envs", 1))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return
    # The last turn takes a step in every environment, so it may lead beyond `steps`.
    if rows > 0 and -(-steps // rows) * rows < done:
        raise ConfigError(f"train --steps: expected at least the {done} that are done, got {steps}")


def check(tree: ConfigTree, plugins: Sequence[str]) -> str:
    """Assembles a training, closes it again and returns the id of its world; writes nothing.

    Raises ConfigError or WorldError.
    """
    with _assembled(tree, plugins) as (assembly, _):
        _learner(assembly)
        return assembly.config.settings.world.id


def finished(place: Path, steps: int | None) -> TrainingRun | None:
    """The result in a folder whose training reached its end, or `steps`; else None."""
    result = TrainingRun.read(place)
    if result is None or result.stopped:
        return None
    try:
        end = RunFolder.open(place).read_config()["training"]["steps"] if steps is None else steps
    except (KeyError, ConfigError):
        return None
    return result if result.steps >= end else None


def _learner(assembly: Assembly) -> Learner:
    settings = assembly.config.settings
    return Learner(
        assembly.agent,
        config=settings.learner,
        seed=settings.seed,
        device=learning_device(settings.device),
    )


@contextmanager
def _assembled(tree: ConfigTree, plugins: Sequence[str]) -> Iterator[tuple[Assembly, Assembly]]:
    """The agent that learns in its world, and the one that is evaluated in another."""
    kinds = known_kinds(tuple(plugins))
    assembly = assemble(tree, kinds, training=True)
    with closing(assembly.world):
        training = assembly.config.settings.training
        # No experience is stored, and several environments run at once.
        small = {
            "world": {"num_envs": min(10, training.evaluate_episodes)}, "memory": {"capacity": 1000}
        }  # fmt: skip
        evaluated = merge(merge(assembly.config.tree(), training.evaluation), small)
        try:
            evaluator = assemble(evaluated, kinds)
        except ConfigError as error:
            hint = "training.evaluation says so; --training.evaluation={} evaluates it as it learns"
            raise ConfigError(f"{error} ({hint})") from None
        with closing(evaluator.world):
            yield assembly, evaluator


def _learn(
    assembly: Assembly,
    evaluator: Assembly,
    learner: Learner,
    folder: RunFolder,
    saved: checkpoint.Checkpoint | None,
    observer: Observer,
    traces: Sequence[Path],
) -> TrainingRun:
    settings, spec = assembly.config.settings, assembly.world.spec
    plan = settings.training
    resumed_at = None if saved is None else int(saved.facts["steps"])
    if saved is not None:
        traces = [Path(path) for path in saved.facts.get("traces", ())]
    metrics = [TensorBoard(folder.path / "tensorboard")] if observer.tensorboard else []

    def evaluate() -> list[float] | None:
        load_weights(evaluator.agent.modules, learner.weights(), "evaluation")
        seed, episodes = settings.seed + EVALUATION_SEED, plan.evaluate_episodes

        def show(now: EvaluationProgress) -> None:
            training.progress.evaluating = now
            observer.report(training.progress)

        try:
            evaluation = whole_episodes(
                evaluator.agent, evaluator.world, episodes, seed,
                stop=lambda: training.stopping, on_progress=show,
            )  # fmt: skip
        finally:
            training.progress.evaluating = None
        return evaluation.returns if evaluation.whole else None

    parts: dict[str, Any] = {
        "agent": assembly.agent, "world": assembly.world, "learner": learner,
        "folder": folder.path, "evaluate": evaluate, "seed": settings.seed, "metrics": metrics,
        "config": plan, "on_note": observer.report,
    }  # fmt: skip
    training = OfflineTraining(traces=traces, **parts) if traces else Training(**parts)
    (folder.path / RESULT).unlink(missing_ok=True)
    with guarded(assembly.agent), _stoppable(training):
        for progress in training.run(saved):
            observer.report(progress)
    progress = training.progress
    evaluation = progress.evaluation
    result = TrainingRun(
        world=spec.id, seed=settings.seed, steps=progress.steps, frames=progress.frames,
        updates=learner.updates, episodes=progress.episodes,
        evaluation=None if evaluation is None else evaluation.mean,
        interval=None if evaluation is None else (evaluation.low, evaluation.high),
        best=progress.best, seconds=round(progress.seconds, 1),
        cpu_seconds=round(progress.cpu_seconds, 1), resumed_at=resumed_at,
        stopped=training.stopping and (progress.steps < plan.steps or training.evaluation_due),
        warnings=tuple(progress.warnings), run=os.fspath(folder),
    )  # fmt: skip
    write_json(folder.path / RESULT, result.as_dict())
    if training.stopping:
        raise RunInterrupted(result)
    return result


@contextmanager
def _stoppable(training: Training) -> Iterator[None]:
    """Lets SIGINT and SIGTERM end the training after the present turn, with a checkpoint.

    A second signal raises KeyboardInterrupt at once; the last checkpoint stands. A signal that the
    process ignores, as a worker of an engine does Ctrl-C, stays ignored. Only the main thread may
    set handlers: in another one a signal does what it did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if training.stopping:
            raise KeyboardInterrupt
        training.stopping = True

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
