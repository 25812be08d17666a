"""The same training with several seeds, and the mean of their evaluations.

One folder: `seeds.json` has the seeds and the configuration, `seed-<n>/` is an ordinary run for
each, `summary.json` the result.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.api.failure import RunFailedError, RunInterrupted
from agent.api.training import (
    NOTHING,
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
from agent.engines import ledger
from agent.engines.engine import Engine, Job, Report
from agent.learning.evaluation import score
from agent.learning.offline_training import Sources
from agent.learning.training import Progress
from agent.recording import checkpoint
from agent.recording.atomic import write_json
from agent.recording.renames import current_settings
from agent.recording.run_folder import RunFolder
from modules.messages import ConfigError, SextetError
from modules.strange_files import TEXT_BYTES, plain_json, read_file

SEEDS = "seeds.json"


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
    engine: Engine,
    plugins: Sequence[str] = (),
    sources: Sources = NOTHING,
) -> MultiSeedRun:
    """Trains with each of `seeds` in a new folder.

    Raises ConfigError, WorldError or TraceError before the folder is created; after that
    RunFailedError, when the other seeds are done, or RunInterrupted.
    """
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"train --seeds: expected different seeds, got {list(seeds)}")
    world = check(tree, plugins)
    order = {
        "seeds": list(seeds), "config": tree, "plugins": list(plugins),
        **sources.facts(absolute=True),
    }  # fmt: skip
    folder = RunFolder.create(
        place, f"train-{world}-seeds", lambda new: write_json(new.path / SEEDS, order)
    )
    return continue_seeds(folder.path, None, observer, engine, (*plugins, *packages(tree)))


def continue_seeds(
    place: Path,
    steps: int | None,
    observer: Observer,
    engine: Engine,
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
    # All progress of a training that is alone; of several only what has a new report.
    every_turn = engine.slots == 1
    work = functools.partial(_train_seed, order, steps, observer.tensorboard, every_turn)
    reads = Sources.of_facts(order).paths
    waiting = [
        Job(f"seed {seed}", functools.partial(work, seed), _folder(place, seed), True, reads)
        for seed in seeds
        if not _is_done(_folder(place, seed), steps)
    ]
    failures, interrupted = list[str](), False

    def show(job: Job, report: Any) -> None:
        if isinstance(report, Progress) and job.folder is not None:
            report.run = os.fspath(job.folder)  # on another machine it has another place
        observer.report(report)

    try:
        for done in engine.map(waiting, show):
            ledger.enter(place, done)
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


def _is_done(folder: Path, steps: int | None) -> bool:
    try:
        return finished(folder, _steps_of(folder, steps)) is not None
    except SextetError:
        return False  # its job says why


def _steps_of(folder: Path, steps: int | None) -> int | None:
    """`steps`, or those of the seed in a folder, which may have been continued for longer."""
    if steps is None or not (folder / "config.yaml").is_file():
        return steps
    own = RunFolder.open(folder).read_config().get("training", {}).get("steps", steps)
    return max(steps, int(own))


def _train_seed(
    order: dict[str, Any],
    steps: int | None,
    tensorboard: bool,
    every_turn: bool,
    seed: int,
    folder: Path,
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
    try:
        steps = _steps_of(folder, steps)
        plugins = order.get("plugins", ())
        if finished(folder, steps) is not None:
            return None
        if folder.exists():
            continue_from(folder, steps, observer, plugins)
            return None
        tree = merge(order["config"], {"seed": seed})
        start(tree, folder, observer, plugins, Sources.of_facts(order))
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
