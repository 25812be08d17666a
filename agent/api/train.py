"""Training, with one seed or several, new or continued."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from agent.api.multi_seed import MultiSeedRun, continue_seeds, is_multi_seed, start_seeds
from agent.api.recordings import sources_of
from agent.api.training import Observer, TrainingRun, continue_from, start, training_config
from agent.assembly.load import AgentName, AgentOptions, request_for
from agent.engines.allocator import keep_freed_memory
from agent.engines.choice import engine_for
from agent.engines.engine import Engine
from agent.engines.threads import default_threads
from agent.learning.training import Progress
from modules.messages import ConfigError

STOP_TIMEOUT_S = 600.0
"""The time that interrupted trainings have to write a checkpoint, a large replay included."""


@default_threads()
def train(
    world: AgentName | None = None,
    *overrides: str,
    run: str | Path | None = None,
    resume: str | os.PathLike[str] | None = None,
    from_step: int | None = None,
    seeds: Sequence[int] = (),
    jobs: int | None = None,
    engine: Engine | str | None = None,
    address: str | None = None,
    recordings: Sequence[str | Path] = (),
    experts: Sequence[str | Path] = (),
    tensorboard: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
    on_note: Callable[[str], object] | None = None,
    **options: Unpack[AgentOptions],
) -> TrainingRun | MultiSeedRun:
    """Trains an agent in a world; prints nothing.

    `world`: a world, or a trained agent whose weights the training begins with. `overrides` are
    settings as "learner.batch=64". `run`: the new folder; None: the next free one under `runs/`.
    `resume`: a run to continue instead, which takes no other settings than `steps`; `from_step`:
    from its checkpoint at that step, not the newest. `seeds`: one training each, `jobs` of them at
    a time (None: one, or as many as a cluster has processors) on an `engine`: serial, processes or
    ray, with the `address` of its head node. `recordings`: run folders, Minari datasets, films or
    folders of pictures to learn from instead of acting; `experts`: those of an expert, who is
    imitated. For `on_progress` and `on_note` see `Observer`.

    Ctrl-C writes a checkpoint and raises RunInterrupted, a KeyboardInterrupt with the run so far
    (called in the main thread; in any other the last checkpoint stands). Raises ConfigError,
    WorldError or TraceError, one line, before the folder is created; RunFailedError after that.

    >>> train("CartPole-v1", steps=30_000, seed=0).scores[-1]
    (30000, 500.0)
    """
    keep_freed_memory()
    observer = Observer(on_progress, on_note, tensorboard)
    sources = sources_of(recordings, experts)
    place = None if run is None else Path(run)
    plugins = options.get("plugins", ())
    if resume is not None:
        _only_steps(world, overrides, {**options, "run": run, "seeds": seeds, **sources.facts()})
        folder, steps = Path(resume), options.get("steps")
        if is_multi_seed(folder):
            if from_step is not None:
                raise ConfigError(
                    f"train --from-step: expected the run of one seed, got the folder '{folder}' "
                    f"of several; try --resume {folder}/seed-N"
                )
            several = _engine(engine, jobs, address)
            return continue_seeds(folder, steps, observer, several, plugins)
        return continue_from(
            folder, steps, observer, plugins, from_step, _workers(engine, jobs, address)
        )
    if from_step is not None:
        raise ConfigError(f"train --from-step: expected a run to --resume, got none ({from_step})")
    if world is None and not sources.paths:
        raise ConfigError(
            "train: expected a WORLD, a run to --resume, or recordings --from, got none"
        )
    if seeds and options.get("seed") is not None:
        raise ConfigError("train: expected either --seed or --seeds, got both")
    tree = training_config(request_for(world, overrides, **options), sources)
    if seeds:
        several = _engine(engine, jobs, address)
        return start_seeds(tree, place, seeds, observer, several, plugins, sources)
    workers = _workers(engine, jobs, address)
    if workers is not None and not tree.get("training", {}).get("workers"):
        raise ConfigError(
            "train --engine: expected several --seeds or --training.workers=N, got one training "
            "in this process; leave it out"
        )
    return start(tree, place, observer, plugins, sources, workers)


def _engine(engine: Engine | str | None, jobs: int | None, address: str | None) -> Engine:
    """The engine of several seeds: one at a time unless more are asked for."""
    return engine_for(engine, jobs, address, usual_jobs=1, stop_timeout_s=STOP_TIMEOUT_S)


def _workers(engine: Engine | str | None, jobs: int | None, address: str | None) -> Engine | None:
    """The engine of one training with workers, where one is named."""
    if engine is None and address is None:
        return None
    return engine_for(engine, jobs, address)


def _only_steps(world: AgentName | None, overrides: Sequence[str], options: dict[str, Any]) -> None:
    """Raises ConfigError where a continued training is to have other settings, too."""
    named = {"a world": world, "settings": " ".join(f"--{override}" for override in overrides)}
    for name, value in options.items():
        if name not in ("steps", "plugins"):
            shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
            option = {
                "interventions": "intervene", "recordings": "from", "experts": "expert"
            }.get(name, name)  # fmt: skip
            named[f"--{option.replace('_', '-')}"] = shown
    for name, value in named.items():
        if value not in (None, ""):
            raise ConfigError(
                f"train --resume: continues with its own settings but for --steps, got {name} "
                f"{value}; leave that out, or start another training"
            )
