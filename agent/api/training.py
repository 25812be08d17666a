"""One training: its configuration, its start or continuation in a folder, and its result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.api.failure import RunInterrupted, running
from agent.api.recordings import form_of, opened_for, world_of
from agent.api.segments import Workers
from agent.api.stopping import stoppable
from agent.assembly.build import Assembly, assemble, known_kinds, learning_device, spec_of
from agent.assembly.load import RunRequest, configure, init_from
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import preset
from agent.assembly.trust import require_named
from agent.engines.engine import Engine
from agent.engines.processes import ProcessEngine
from agent.learning.evaluation import EvaluationProgress, whole_episodes
from agent.learning.learner import Learner
from agent.learning.metrics import TensorBoard, require_tensorboard
from agent.learning.offline_training import OfflineTraining, Sources
from agent.learning.resumable import require_resumable, resumable_forms
from agent.learning.segmented_training import SegmentedTraining
from agent.learning.training import Progress, Training
from agent.recording import checkpoint
from agent.recording.atomic import remove_left, write_json
from agent.recording.drive_guard import guarded
from agent.recording.readers import RecordedEpisodes
from agent.recording.run_folder import RunFolder
from agent.recording.weights import load_weights
from modules.messages import ConfigError, WorldSpec
from modules.strange_files import TEXT_BYTES, plain_json, read_file

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
        text = RunFolder(self.folder).metrics.read_text(encoding="utf-8")
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # being written, or never finished
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
            figures = plain_json(read_file(folder / RESULT, TEXT_BYTES))
            # The folder may have been made elsewhere, or moved.
            here = {"run": os.fspath(folder), "warnings": tuple(figures["warnings"])}
            return cls(**{**figures, **here})
        except (OSError, ValueError, KeyError, TypeError, ConfigError):
            return None


NOTHING = Sources()
"""No recordings: a training that acts."""


def training_config(request: RunRequest, sources: Sources = NOTHING) -> ConfigTree:
    """The configuration of a training: a request over the preset that suits its world.

    The flag `steps` means the steps of the training. Learning from recordings takes their world
    where the request names none, and a memory for all of their steps. Raises ConfigError or
    TraceError.
    """
    recordings = sources.opened()
    if recordings and request.agent is None:
        world, protocol = world_of(recordings)
        rules = {} if protocol is None else {"protocol": protocol}
        request = replace(request, agent=world, flags={**rules, **request.flags})
    tree = configure(request, evaluating=False)[0]
    # A preset with a training block is complete; any other one is merged over the usual preset.
    if request.preset is None or "training" not in preset(request.preset):
        spec = spec_of(tree, known_kinds(request.plugins))
        tree = merge(_usual(spec, bool(sources.experts)), tree)
    if tree.get("steps"):
        tree = merge(tree, {"training": {"steps": tree["steps"]}, "steps": None})
    if recordings:
        steps = sum(recording.steps for recording, _ in recordings)
        capacity = max(steps, 2, int(tree.get("memory", {}).get("capacity", 0)))
        tree = merge(tree, {"world": {"num_envs": 1}, "memory": {"capacity": capacity}})
    return tree


def _usual(world: WorldSpec, imitates: bool) -> ConfigTree:
    """The preset that suits a world, by what it shows, the kind of its actions and whether there is
    an expert to imitate.
    """
    if imitates:
        return preset("imitate" if world.actions.discrete else "imitate-continuous")
    if not world.actions.discrete:
        tree = preset("learn-model")
        return tree if world.pixels is None else merge(tree, _OF_PICTURES)
    if world.pixels is None:
        return preset("learn-actions")
    return preset("atari-small" if world.goal is None else "learn-tasks")


_OF_PICTURES: ConfigTree = {
    "perception": {"kind": "pixels-small", "frame_size": 64},
    "world_model": {"objective": {"kind": "vicreg"}},
}
"""What differs from the preset `learn-model` where the model is one of pictures."""


def start(
    tree: ConfigTree,
    place: Path | None,
    observer: Observer,
    plugins: Sequence[str] = (),
    sources: Sources = NOTHING,
    engine: Engine | None = None,
) -> TrainingRun:
    """Trains by a merged configuration in the new folder `place`.

    Raises ConfigError, WorldError or TraceError before the folder is created, RunFailedError or
    RunInterrupted after that.
    """
    with _assembled(tree, plugins) as (assembly, evaluator):
        learner = _new_learner(assembly, observer)
        recordings = opened_for(learner, sources, assembly, plugins, observer.report)

        def write(new: RunFolder) -> None:
            new.write_config(assembly.config.tree())
            write_json(new.training, sources.facts(absolute=True))

        folder = RunFolder.create(place, f"train-{assembly.config.settings.world.id}", write)
        with running(folder.path):
            return _learn(
                assembly, evaluator, learner, folder, None, observer, sources, recordings, plugins,
                engine,
            )  # fmt: skip


def continue_from(
    place: Path,
    steps: int | None,
    observer: Observer,
    plugins: Sequence[str] = (),
    from_step: int | None = None,
    engine: Engine | None = None,
) -> TrainingRun:
    """Continues the training in the folder `place` from its newest checkpoint.

    `steps`: its new length, which its `config.yaml` then says. `from_step`: continues from the
    checkpoint at that step, and sets newer ones aside. A training that was killed before its first
    checkpoint begins again with its configuration. Raises as `start`.
    """
    folder = RunFolder.open(place)
    remove_left(folder.path)
    checkpoint.recover(folder.checkpoints)
    tree = folder.read_config()
    require_named(tree, plugins, f"run {place}")
    begun = checkpoint.numbers(folder.checkpoints) or from_step is not None
    sources = NOTHING if begun else _begun_with(folder)
    if steps is not None:
        tree = merge(tree, {"training": {"steps": steps}})
    with _assembled(tree, plugins) as (assembly, evaluator):
        latest = None
        if begun:
            learner = _learner(assembly)
            # The forms of a checkpoint are compared with the modules before it is read.
            fits = resumable_forms(learner, assembly.world.num_envs)
            latest = _saved(folder, observer, from_step, fits)
            require_resumable(latest[1], learner, assembly.world.num_envs)
            if steps is not None:
                require_steps(steps, tree, latest[1])
        else:
            observer.report("no checkpoint was written yet: begins at step 0, with its settings")
            learner = _new_learner(assembly, observer)
        if latest is not None:
            sources = Sources.of_facts(latest[1].facts)
        # A checkpoint holds the steps of the recordings.
        recordings = []
        if latest is None:
            recordings = opened_for(learner, sources, assembly, plugins, observer.report)
        with running(folder.path):
            if latest is not None:
                _set_newer_aside(folder, latest, "damaged" if from_step is None else "newer")
            if steps is not None:
                folder.write_config(assembly.config.tree())
            saved = latest and latest[1]
            return _learn(
                assembly, evaluator, learner, folder, saved, observer, sources, recordings, plugins,
                engine,
            )  # fmt: skip


def _saved(
    folder: RunFolder, observer: Observer, from_step: int | None, fits: checkpoint.Fits
) -> tuple[Path, checkpoint.Checkpoint]:
    """The newest checkpoint of a run that can be read, or that at `from_step`.

    `fits` as in `checkpoint.load`. Raises ConfigError, one line, where there is no such one, or all
    are damaged.
    """
    steps = checkpoint.numbers(folder.checkpoints)
    shown = ", ".join(map(str, steps)) or "none"
    if from_step is not None:
        if from_step not in steps:
            raise ConfigError(
                f"train --from-step: expected a checkpoint of '{folder.path}' ({shown}), got "
                f"{from_step}"
            )
        place = folder.checkpoints / str(from_step)
        return place, checkpoint.load(place, fits=fits)
    lines: list[str] = []
    newest = checkpoint.newest(folder.checkpoints, warn=lines.append, fits=fits)
    if newest is None:
        raise ConfigError(
            f"run: expected a checkpoint to resume from in '{folder.path}', got damaged ones alone "
            f"({shown}): {lines[0]}"
        )
    for line in lines:
        observer.report(f"passed over: {line}")
    if lines:
        observer.report(f"falls back to the checkpoint at step {newest[0].name}")
    return newest


def _begun_with(folder: RunFolder) -> Sources:
    """The recordings that a training was begun with. Raises ConfigError where it was none."""
    try:
        begun = plain_json(read_file(folder.training, TEXT_BYTES))
        if not begun.keys() & {"recordings", "traces"}:
            raise KeyError("recordings")
        return Sources.of_facts(begun)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            f"run: expected a checkpoint to resume from in '{folder.path}', got none; start "
            f"another training, with --config {folder.config}"
        ) from None


def _set_newer_aside(
    folder: RunFolder, latest: tuple[Path, checkpoint.Checkpoint], why: str
) -> None:
    """Renames the checkpoints that are newer than the one that is resumed.

    Where the best weights are newer, too, the best of the next evaluation takes their place.
    """
    place, saved = latest
    checkpoint.set_aside(folder.checkpoints, place, why)
    best = folder.checkpoints / "best"
    if why == "damaged" or not best.is_dir():
        return
    try:
        newer = checkpoint.load(best, only=()).facts["steps"] > saved.facts["steps"]
    except (ConfigError, KeyError, TypeError):
        newer = True
    if newer:
        checkpoint.put_aside(best, why)
        saved.facts["best"] = None


def _new_learner(assembly: Assembly, observer: Observer) -> Learner:
    """The learner of a training that begins. Raises ConfigError."""
    settings = assembly.config.settings
    if (source := settings.training.init_from) is not None:
        for part in init_from(assembly.agent, source, settings.learner.train_modules):
            observer.report(f"{part} begins fresh: kind or size differ in {source}")
    return _learner(assembly)


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
    sources: Sources,
    recordings: Sequence[tuple[RecordedEpisodes, bool]],
    plugins: Sequence[str],
    engine: Engine | None,
) -> TrainingRun:
    settings, spec = assembly.config.settings, assembly.world.spec
    for line in assembly.introduction:
        observer.report(line)
    write_json(folder.world, assembly.facts())
    plan = settings.training
    if not learner.updates_within(plan.steps, 1 if sources.paths else assembly.world.num_envs):
        observer.report(
            f"learns nothing: no update is due within {plan.steps} steps, with "
            f"learner.warmup_steps={settings.learner.warmup_steps} and "
            f"learner.replay_ratio={settings.learner.replay_ratio}; try a smaller "
            "--learner.warmup_steps, or more --steps"
        )
    resumed_at = None if saved is None else int(saved.facts["steps"])
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
    with ExitStack() as stack:
        training: Training
        if sources.paths:
            training = OfflineTraining(
                sources=sources, recordings=recordings, form=form_of(assembly, plugins), **parts
            )
        elif plan.workers:
            several = stack.enter_context(engine or ProcessEngine(plan.workers))
            workers = Workers(several, assembly, plugins, folder)
            training = SegmentedTraining(live=workers.live, blocks=len(workers.blocks), **parts)
        else:
            training = Training(**parts)
        (folder.path / RESULT).unlink(missing_ok=True)
        stack.enter_context(guarded(assembly.agent))
        stack.enter_context(stoppable(training))
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
        stopped=training.stopping and training.unfinished,
        warnings=tuple(progress.warnings), run=os.fspath(folder),
    )  # fmt: skip
    write_json(folder.path / RESULT, result.as_dict())
    if training.stopping:
        raise RunInterrupted(result)
    return result
