"""`sextet train`: a life that learns; `--resume` goes on with one."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from agent.assembly.build import Assembly, assemble, known_kinds, learning_device
from agent.assembly.load import RunRequest, configure, init_from
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.resolve import preset, settings_of
from agent.commands.failure import running
from agent.learning.evaluation import whole_episodes
from agent.learning.learner import Learner
from agent.learning.metrics import Metrics, TensorBoard, require_tensorboard
from agent.learning.offline_training import OfflineTraining, fitting, recorded_steps, recorded_world
from agent.learning.training import Schedule, Training
from agent.recording import checkpoint
from agent.recording.drive_guard import guarded
from agent.recording.run_folder import RunFolder, write_json
from agent.recording.weights import load_weights
from agent.view.progress import progress_view
from modules.messages import ConfigError
from worlds.make import make_world

EVALUATION_SEED = 1_000_000
"""Added to the seed of a training for its evaluations, so that they never see its episodes."""

RESULT = "result.json"
"""What a training came to, written in its folder when it is over."""


@dataclass(frozen=True)
class Watching:
    """How a training is shown and measured. `title` stands above its progress.

    `parent`: a process without which it stops, 0 for none.
    """

    live: bool = True
    tensorboard: bool = False
    title: str = ""
    parent: int = 0


def train(
    request: RunRequest,
    run: Path | None,
    resume: Path | None,
    as_json: bool,
    *,
    seeds: Sequence[int] = (),
    jobs: int = 1,
    only: int | None = None,
    parent: int = 0,
    traces: Sequence[Path] = (),
    tensorboard: bool = False,
    live: bool = True,
) -> None:
    """Trains, and prints what it came to; as JSON in the last line where asked.

    Everything is made and checked before the run folder is. Ctrl-C keeps a checkpoint. With
    `seeds` see `agent.commands.several`; `only`: of a resumed run of several seeds, that one, and
    only as long as the process `parent` lives.
    """
    from agent.commands import several

    keep_pages()
    if tensorboard:
        require_tensorboard()
    watching = Watching(live, tensorboard, parent=parent)
    steps = request.flags.get("steps")
    if resume is not None:
        _nothing_else(request, run)
    if resume is not None and several.is_several(resume):
        figures = several.go_on(resume, steps, watching, jobs, only)
    elif seeds:
        tree = for_training(request, traces)
        figures = several.begin(tree, run, seeds, watching, jobs, request.plugins, traces)
    elif resume is not None:
        figures = go_on(resume, steps, watching, request.plugins)
    else:
        figures = begin(for_training(request, traces), run, watching, request.plugins, traces)
    if "results" not in figures:
        _say(figures)
    if as_json:
        print(json.dumps(figures))


def _nothing_else(request: RunRequest, run: Path | None) -> None:
    """Raises ConfigError where a training that is to go on is asked for other settings, too."""
    given = {
        "--preset": request.preset,
        "--config": request.config,
        "--run": run,
        "--intervene": " ".join(request.interventions),
        "settings": " ".join(f"--{override}" for override in request.overrides),
        **{f"--{name}": value for name, value in request.flags.items() if name != "steps"},
    }
    for name, value in given.items():
        if value not in (None, ""):
            raise ConfigError(
                f"train --resume: goes on as it was begun but for --steps, got {name} {value}; "
                "leave that out, or begin another training"
            )


def begin(
    tree: ConfigTree,
    place: Path | None,
    watching: Watching,
    plugins: tuple[str, ...] = (),
    traces: Sequence[Path] = (),
) -> dict[str, Any]:
    """A new training by a merged configuration in the new folder `place`; what it came to."""
    with _assembled(tree, plugins) as (assembly, judge):
        config = assembly.config
        for path in traces:
            fitting(path, assembly.world.spec)
        settings = config.settings
        if (first := settings.training.init_from) is not None:
            for port in init_from(assembly.agent, first, settings.learner.train_modules):
                print(f"note      {port} begins fresh: it is another in {first}")
        learner = _learner(assembly)
        folder = RunFolder.create(place, f"train-{settings.world.id}")
        folder.write_config(config.tree())
        with running(kept=str(folder.path)):
            return _train(assembly, judge, learner, folder, None, watching, traces)


def go_on(
    place: Path, steps: int | None, watching: Watching, plugins: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Goes on with the training in the folder `place`, to `steps` where given, which its
    configuration says from then on.
    """
    folder = RunFolder.open(place)
    checkpoint.recover(folder.checkpoints)
    passed: list[str] = []
    found = checkpoint.newest(folder.checkpoints, tell=passed.append)
    for why in passed:
        print(f"warning   passed over: {why}", file=sys.stderr)
    if found is None:
        raise ConfigError(f"run: expected a checkpoint to resume from in '{place}', got none")
    tree = folder.read_config()
    if steps is not None:
        enough(steps, tree, found[1])
        tree = merge(tree, {"training": {"steps": steps}})
    with (
        _assembled(tree, (*tree.get("plugins", ()), *plugins)) as (assembly, judge),
        running(kept=str(folder.path)),
    ):
        learner = _learner(assembly)
        checkpoint.set_aside(folder.checkpoints, found[0])
        if steps is not None:
            folder.write_config(assembly.config.tree())
        return _train(assembly, judge, learner, folder, found[1], watching, ())


def enough(steps: int, tree: ConfigTree, kept: checkpoint.Checkpoint) -> None:
    """Raises ConfigError where a training that is to go on to `steps` has done more."""
    done, rows = int(kept.facts["steps"]), int(tree.get("world", {}).get("num_envs", 1))
    # Whole turns are lived: the last may lead beyond what was asked for.
    if -(-steps // rows) * rows < done:
        raise ConfigError(f"train --steps: expected at least the {done} that are done, got {steps}")


def tried(tree: ConfigTree, plugins: tuple[str, ...]) -> str:
    """Builds all that a training needs, once, and lets go of it; the world's name. Raises
    ConfigError or WorldError where it cannot be: nothing has been written.
    """
    with _assembled(tree, plugins) as (assembly, _):
        _learner(assembly)
        return assembly.config.settings.world.id


def _learner(assembly: Assembly) -> Learner:
    """What learns in an agent, as the configuration has it. May raise ConfigError."""
    settings = assembly.config.settings
    return Learner(
        assembly.agent,
        config=settings.learner,
        seed=settings.seed,
        device=learning_device(settings.device),
    )


def finished(place: Path, steps: int | None) -> dict[str, Any] | None:
    """What the training in a folder came to, where it is over and not to go on to `steps`."""
    try:
        figures = json.loads((place / RESULT).read_text(encoding="utf-8"))
        config = RunFolder.open(place).read_config()
        wanted = config["training"]["steps"] if steps is None else steps
    except (OSError, ValueError, KeyError, ConfigError):
        return None
    over = not figures["stopped"] and figures["steps"] >= wanted
    return dict(figures) if over else None


@contextmanager
def _assembled(tree: ConfigTree, plugins: tuple[str, ...]) -> Iterator[tuple[Assembly, Assembly]]:
    """The agent that learns in its world, and the one that is evaluated in another."""
    kinds = known_kinds(plugins)
    assembly = assemble(tree, kinds, training=True)
    try:
        training = assembly.config.settings.training
        trained = merge(assembly.config.tree(), training.evaluation)
        try:
            judge = assemble(_judged(trained, training.evaluate_episodes), kinds)
        except ConfigError as error:
            hint = "training.evaluation says so; --training.evaluation={} evaluates it as it learns"
            raise ConfigError(f"{error} ({hint})") from None
        try:
            yield assembly, judge
        finally:
            judge.world.close()
    finally:
        assembly.world.close()


def for_training(request: RunRequest, traces: Sequence[Path] = ()) -> ConfigTree:
    """The configuration of a training: what is asked for, over what suits such a world.

    The flag --steps means the steps of the training. Learning from `traces` takes their world
    where none is named, and room for all of them.
    """
    if traces and request.agent is None:
        world, protocol = recorded_world(traces[0])
        rules = {} if protocol is None else {"protocol": protocol}
        request = replace(request, agent=world, flags={**rules, **request.flags})
    tree = configure(request, judged=False)[0]
    # A preset that says how to train says all of it; another is laid over what suits the world.
    if request.preset is None or "training" not in preset(request.preset):
        asked = settings_of(tree).world
        glance = make_world(asked.id, num_envs=1, protocol=asked.protocol)
        spec = glance.spec
        glance.close()
        name = "learn-actions" if spec.actions.discrete else "learn-model"
        if spec.pixels is not None:
            name = "atari-small" if spec.goal is None else "learn-tasks"
        tree = merge(preset(name), tree)
    if tree.get("steps"):
        tree = merge(tree, {"training": {"steps": tree["steps"]}, "steps": None})
    if traces:
        room = max(recorded_steps(traces), int(tree.get("memory", {}).get("capacity", 0)))
        tree = merge(tree, {"world": {"num_envs": 1}, "memory": {"capacity": room}})
    return tree


def _judged(tree: ConfigTree, episodes: int) -> ConfigTree:
    """The configuration of an evaluation: no experience is kept, several rows at once."""
    small = {"world": {"num_envs": min(10, episodes)}, "memory": {"capacity": 1000}}
    return merge(tree, small)


def _train(
    assembly: Assembly,
    judge: Assembly,
    learner: Learner,
    folder: RunFolder,
    kept: checkpoint.Checkpoint | None,
    watching: Watching,
    traces: Sequence[Path],
) -> dict[str, Any]:
    settings, agent, spec = assembly.config.settings, assembly.agent, assembly.world.spec
    plan = settings.training
    resumed_at = None if kept is None else int(kept.facts["steps"])
    if kept is not None:
        traces = [Path(path) for path in kept.facts.get("traces", ())]
    metrics: list[Metrics] = []
    if watching.tensorboard:
        metrics.append(TensorBoard(folder.path / "tensorboard"))

    def evaluate() -> list[float] | None:
        load_weights(judge.agent.modules, learner.weights(), "evaluation")
        seed, episodes = settings.seed + EVALUATION_SEED, plan.evaluate_episodes
        lived = whole_episodes(
            judge.agent, judge.world, episodes, seed, stop=lambda: training.stopping
        )
        return lived.returns if lived.whole else None

    given: dict[str, Any] = {
        "agent": agent,
        "world": assembly.world,
        "learner": learner,
        "folder": folder.path,
        "schedule": Schedule(
            plan.steps, plan.report_every, plan.evaluate_every, plan.checkpoint_every
        ),
        "evaluate": evaluate,
        "seed": settings.seed,
        "metrics": metrics,
    }
    training = OfflineTraining(traces=traces, **given) if traces else Training(**given)
    (folder.path / RESULT).unlink(missing_ok=True)
    heading = watching.title or f"{spec.id}  seed {settings.seed}  {folder.path}"
    with guarded(agent), _stoppable(training), progress_view(heading, watching.live) as view:
        for progress in training.run(kept):
            view.show(progress)
            if watching.parent and os.getppid() != watching.parent:
                training.stopping = True
    progress = training.progress
    judged = progress.evaluation
    figures: dict[str, Any] = {
        "world": spec.id,
        "seed": settings.seed,
        "steps": progress.steps,
        "frames": progress.frames,
        "updates": learner.updates,
        "episodes": progress.episodes,
        "evaluation": None if judged is None else judged.mean,
        "interval": None if judged is None else [judged.low, judged.high],
        "best": progress.best,
        "seconds": round(progress.seconds, 1),
        "cpu_seconds": round(progress.cpu_seconds, 1),
        "resumed_at": resumed_at,
        "stopped": training.stopping and (progress.steps < plan.steps or training.unjudged),
        "warnings": progress.warnings,
        "run": str(folder.path),
    }
    write_json(folder.path / RESULT, figures)
    return figures


@contextmanager
def _stoppable(training: Training) -> Iterator[None]:
    """Ctrl-C, or being told to terminate, ends the training after the turn under way, with a
    checkpoint; a second time it ends at once, and the last checkpoint stands.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if training.stopping:
            raise KeyboardInterrupt
        training.stopping = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(figures: dict[str, Any]) -> None:
    """How it ended and what to do next."""
    place = shlex.quote(figures["run"])
    number: Callable[[Any], str] = lambda value: "–" if value is None else f"{value:.4g}"  # noqa: E731
    print(f"run       {figures['run']}{'  (stopped, kept)' if figures['stopped'] else ''}")
    if figures["evaluation"] is not None:
        low, high = figures["interval"]
        print(f"eval      {number(figures['evaluation'])} [{low:.4g}, {high:.4g}], "
              f"best {number(figures['best'])}")  # fmt: skip
    more = "" if figures["stopped"] else f" --steps {2 * figures['steps']}"
    print(f"next      sextet eval {place} --episodes 20")
    print(f"          sextet play {place}")
    print(f"          sextet train --resume {place}{more}")


def keep_pages() -> None:
    """Asks glibc to keep what is freed, instead of giving it back and having the kernel clear it
    anew for every tensor of some megabytes: a third off an update on pixels. Elsewhere: nothing.
    """
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    try:
        allocator = ctypes.CDLL("libc.so.6")
        allocator.mallopt(mmap_threshold, 2**30)
        allocator.mallopt(trim_threshold, most)
    except (OSError, AttributeError):
        return
