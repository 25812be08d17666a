"""`sextet train`: a life that learns; `--resume` goes on with one."""

from __future__ import annotations

import ctypes
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent import checkpoint
from agent.build import Assembly, assemble, known_kinds
from agent.commands.failure import running
from agent.config import Tree, merge, preset, settings_of
from agent.evaluation import whole_episodes
from agent.learn import Learner
from agent.loading import Request, configure, give_weights
from agent.run_folder import RunFolder
from agent.training import Progress, Schedule, Training
from modules.messages import ConfigError
from worlds.make import make_world

EVALUATION_SEED = 1_000_000
"""Added to the seed of a training for its evaluations, so that they never see its episodes."""


def _keep_pages() -> None:
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


def train(request: Request, run: Path | None, resume: Path | None, as_json: bool) -> None:
    """Trains, and prints what it came to; as JSON in the last line where asked.

    Everything is made and checked before the run folder is. Ctrl-C keeps a checkpoint.
    """
    _keep_pages()
    kept: checkpoint.Checkpoint | None = None
    if resume is not None:
        folder = RunFolder.open(resume)
        found = checkpoint.newest(folder.checkpoints)
        if found is None:
            raise ConfigError(f"run: wanted a checkpoint to resume from in '{resume}', got none")
        kept = found[1]
        tree = folder.read_config()
        if request.flags.get("steps"):
            tree = merge(tree, {"training": {"steps": request.flags["steps"]}})
    else:
        tree = _for_training(request)
    kinds = known_kinds(request.plugins)
    assembly = assemble(tree, kinds, training=True)
    config, settings = assembly.config, assembly.config.settings
    trained = merge(config.tree(), settings.training.evaluation)
    judge = assemble(_judged(trained, settings.training.evaluate_episodes), kinds)
    try:
        if resume is None:
            folder = RunFolder.create(run, f"train-{settings.world.id}")
            folder.write_config(config.tree())
        with running(kept=str(folder.path)):
            _train(assembly, judge, folder, kept, as_json)
    finally:
        assembly.world.close()
        judge.world.close()


def _for_training(request: Request) -> Tree:
    """The configuration of a training: where no preset was named, the one for such a world.

    The flag --steps means the steps of the training.
    """
    tree = configure(request)[0]
    if request.preset is None:
        asked = settings_of(tree).world
        glance = make_world(asked.id, rows=1, protocol=asked.protocol)
        spec = glance.spec
        glance.close()
        name = "learn-actions" if spec.actions.discrete else "learn-model"
        tree = merge(preset("learn-pixels" if spec.pixels is not None else name), tree)
    if tree.get("steps"):
        tree = merge(tree, {"training": {"steps": tree["steps"]}, "steps": None})
    return tree


def _judged(tree: Tree, episodes: int) -> Tree:
    """The configuration of an evaluation: no experience is kept, several rows at once."""
    small = {"world": {"rows": min(10, episodes)}, "memory": {"capacity": 1000}}
    return merge(tree, small)


def _train(
    assembly: Assembly,
    judge: Assembly,
    folder: RunFolder,
    kept: checkpoint.Checkpoint | None,
    as_json: bool,
) -> None:
    settings, agent = assembly.config.settings, assembly.agent
    learner = Learner(agent.modules, seed=settings.seed, **settings.learner.model_dump())
    plan = settings.training

    def evaluate() -> float:
        give_weights(judge.agent.modules, learner.weights(), "evaluation")
        seed = settings.seed + EVALUATION_SEED
        lived = whole_episodes(judge.agent, judge.world, plan.evaluate_episodes, seed)
        return statistics.fmean(lived.returns)

    training = Training(
        agent,
        assembly.world,
        learner,
        folder.path,
        Schedule(plan.steps, plan.report_every, plan.evaluate_every, plan.checkpoint_every),
        evaluate,
        settings.seed,
    )
    began = time.monotonic()
    resumed_at = None if kept is None else int(kept.facts["steps"])
    stopped = False
    progress = training.progress
    try:
        for progress in training.run(kept):
            print(_line(progress), flush=True)
    except KeyboardInterrupt:
        stopped = True
        training.save(str(progress.steps))
    seconds = time.monotonic() - began
    figures: dict[str, Any] = {
        "world": assembly.world.spec.id,
        "seed": settings.seed,
        "steps": progress.steps,
        "frames": progress.steps * assembly.world.spec.frames_per_step,
        "updates": learner.updates,
        "episodes": progress.episodes,
        "evaluation": progress.evaluation,
        "best": progress.best,
        "seconds": round(seconds, 1),
        "resumed_at": resumed_at,
        "stopped": stopped,
        "run": str(folder.path),
    }
    print(f"run       {folder.path}")
    best = folder.checkpoints / "best"
    if best.is_dir():
        print(f"best      {progress.best:.4g}, sextet eval {best}")
    if stopped:
        print(f"go on     sextet train --resume {folder.path}")
    if as_json:
        print(json.dumps(figures))


def _line(progress: Progress) -> str:
    """One line of progress for a person."""
    number: Callable[[float | None], str] = lambda value: "–" if value is None else f"{value:.4g}"  # noqa: E731
    returns = progress.returns
    mean = sum(returns) / len(returns) if returns else None
    left = time.strftime("%H:%M:%S", time.gmtime(progress.remaining_s))
    losses = " ".join(
        f"{name.split('/')[-1]} {value:.3g}" for name, value in progress.losses.items()
    )
    return (
        f"{progress.steps}/{progress.of_steps} steps  {progress.steps_per_s:.0f}/s  left {left}  "
        f"return {number(mean)}  eval {number(progress.evaluation)}  {losses}"
    )
