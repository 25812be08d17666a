"""The same training with several seeds, and the mean of their evaluations.

One folder: `seeds.json` has the seeds and the configuration, `seed-<n>/` is an ordinary run for
each, `summary.json` the result.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.api.failure import RunFailedError, RunInterrupted
from agent.api.training import (
    Observer,
    TrainingRun,
    check,
    continue_from,
    finished,
    require_steps,
    start,
)
from agent.assembly.merge import ConfigTree, merge
from agent.assembly.trust import packages, require_named
from agent.engines.engine import Engine, Job, Report, SerialEngine
from agent.engines.processes import ProcessEngine
from agent.learning.evaluation import score
from agent.recording import checkpoint
from agent.recording.atomic import write_json
from agent.recording.renames import current_settings
from agent.recording.run_folder import RunFolder
from modules.messages import ConfigError, SextetError
from modules.strange_files import TEXT_BYTES, plain_json, read_file

SEEDS = "seeds.json"

STOP_TIMEOUT_S = 600.0
"""The time that interrupted trainings have to write a checkpoint, a large replay included."""


@dataclass(frozen=True)
class MultiSeedRun:
    """The results of one training with several seeds.

    `evaluation`, `interval`: mean of the last evaluations of the `finished` ones, and its 95 %
    bootstrap interval over seeds. `stopped`: not all of them are finished.
    """

    world: str | None
    seeds: tuple[int, ...]
    results: tuple[TrainingRun, ...]
    finished: int
    evaluation: float | None
    interval: tuple[float, float] | None
    stopped: bool
    run: str

    @property
    def folder(self) -> Path:
        """Where the runs and their summary are."""
        return Path(self.run)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {**vars(self), "results": [run.as_dict() for run in self.results]}


def is_multi_seed(place: Path) -> bool:
    """Whether a folder holds a training with several seeds."""
    return (place / SEEDS).is_file()


def start_seeds(
    tree: ConfigTree,
    place: Path | None,
    seeds: Sequence[int],
    observer: Observer,
    jobs: int = 1,
    plugins: Sequence[str] = (),
    traces: Sequence[Path] = (),
) -> MultiSeedRun:
    """Trains with each of `seeds` in a new folder, `jobs` of them at a time.

    Raises ConfigError, WorldError or TraceError before the folder is created; after that
    RunFailedError, when the other seeds are done, or RunInterrupted.
    """
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"train --seeds: expected different seeds, got {list(seeds)}")
    world = check(tree, plugins)
    folder = RunFolder.create(place, f"train-{world}-seeds").path
    order = {
        "seeds": list(seeds), "config": tree, "plugins": list(plugins),
        "traces": [str(path) for path in traces],
    }  # fmt: skip
    write_json(folder / SEEDS, order)
    return continue_seeds(folder, None, observer, jobs, (*plugins, *packages(tree)))


def continue_seeds(
    place: Path,
    steps: int | None,
    observer: Observer,
    jobs: int = 1,
    plugins: Sequence[str] = (),
) -> MultiSeedRun:
    """Continues all seeds of a folder that are not finished; raises as `start_seeds`.

    `plugins`: the packages that may be imported.
    """
    try:
        order = plain_json(read_file(place / SEEDS, TEXT_BYTES))
        seeds: list[int] = order["seeds"]
        tree: ConfigTree = current_settings(order["config"])
        order["config"] = tree
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"run {place}: {SEEDS} cannot be read ({error})") from None
    require_named({**tree, "plugins": order.get("plugins")}, plugins, f"run {place}")
    order["plugins"] = list(plugins)
    if steps is not None:
        for seed in seeds:
            newest = checkpoint.newest(_folder(place, seed) / "checkpoints", only=())
            if newest is not None:
                require_steps(steps, tree, newest[1])
        tree = order["config"] = merge(tree, {"training": {"steps": steps}})
        write_json(place / SEEDS, order)
    steps = steps or tree.get("training", {}).get("steps")
    engine: Engine = SerialEngine() if jobs == 1 else ProcessEngine(jobs, STOP_TIMEOUT_S)
    work = functools.partial(_train_seed, place, order, steps, observer.tensorboard, jobs == 1)
    waiting = [Job(f"seed {seed}", functools.partial(work, seed)) for seed in seeds]
    failures, interrupted = list[str](), False
    try:
        for done in engine.map(waiting, lambda _, report: observer.report(report)):
            if done.value is not None:
                failures.append(f"{done.job.name}: {done.value}")
    except KeyboardInterrupt:
        interrupted = True
    if failures:
        raise RunFailedError(f"train --seeds: {', '.join(failures)} (kept: {place})")
    together = _together(place, seeds)
    write_json(place / "summary.json", together.as_dict())
    if interrupted:
        raise RunInterrupted(together) from None
    return together


def _folder(place: Path, seed: int) -> Path:
    return place / f"seed-{seed}"


def _train_seed(
    place: Path,
    order: dict[str, Any],
    steps: int | None,
    tensorboard: bool,
    every_turn: bool,
    seed: int,
    report: Report,
) -> str | None:
    """A job: trains one seed to its end; None, or why it failed.

    `every_turn`: each progress is reported, else only those with a new report.
    """
    observer = Observer(
        lambda progress: report(progress) if every_turn or progress.fresh else None,
        report,
        tensorboard,
    )
    folder = _folder(place, seed)
    try:
        if steps is not None and (folder / "config.yaml").is_file():
            # A single seed may have been continued for longer.
            own = RunFolder.open(folder).read_config().get("training", {}).get("steps", steps)
            steps = max(steps, int(own))
        plugins = order.get("plugins", ())
        if finished(folder, steps) is not None:
            return None
        if checkpoint.newest(folder / "checkpoints", only=()) is not None:
            continue_from(folder, steps, observer, plugins)
            return None
        # Killed before its first checkpoint.
        shutil.rmtree(folder, ignore_errors=True)
        tree = merge(order["config"], {"seed": seed})
        start(tree, folder, observer, plugins, [Path(path) for path in order.get("traces", ())])
    except SextetError as error:
        return str(error)
    return None


def _together(place: Path, seeds: Sequence[int]) -> MultiSeedRun:
    read = (TrainingRun.read(_folder(place, seed)) for seed in seeds)
    results = tuple(result for result in read if result is not None)
    evaluations = [r.evaluation for r in results if not r.stopped and r.evaluation is not None]
    joint = score(evaluations) if evaluations else None
    return MultiSeedRun(
        world=results[0].world if results else None, seeds=tuple(seeds), results=results,
        finished=len(evaluations),
        evaluation=None if joint is None else joint.mean,
        interval=None if joint is None else (joint.low, joint.high),
        stopped=len(evaluations) < len(seeds), run=os.fspath(place),
    )  # fmt: skip
