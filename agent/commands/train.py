"""`sextet train`: learning in a world, new or continued, with one seed or several."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from agent.api.failure import RunInterrupted
from agent.api.multi_seed import MultiSeedRun
from agent.api.train import train as call
from agent.api.training import TrainingRun
from agent.assembly.trust import plugin_options
from agent.commands.text import bounds, note, number, whole_numbers
from agent.learning.training import Progress
from agent.recording.plain_json import dumps
from agent.recording.run_folder import RunFolder
from agent.view.progress import ProgressView, progress_view


def train(
    world: str | None = None,
    overrides: Sequence[str] = (),
    seeds: str | None = None,
    *,
    as_json: bool,
    live: bool,
    **options: Any,
) -> None:
    """Trains and prints the result; as JSON in the last line with `as_json`.

    `options` are those of `agent.train`. Ctrl-C keeps a checkpoint and prints the result so far;
    then RunInterrupted is raised.
    """
    numbers = () if seeds is None else whole_numbers("--seeds", seeds)
    on_cluster = "address" in options or options.get("engine") == "ray"
    several = options.get("jobs", 2 if on_cluster else 1) > 1
    side_by_side = several and bool(numbers or "resume" in options)
    views: dict[str, ProgressView] = {}
    # The trainings of several seeds have the same world, which is introduced once.
    once = functools.cache(note)
    with ExitStack() as stack:

        def show(progress: Progress) -> None:
            if progress.run not in views:
                title = f"{progress.world}  seed {progress.seed}  {progress.run}"
                if not side_by_side:
                    stack.close()  # the view of the seed before
                prefix = f"seed {progress.seed:<4} " if side_by_side else ""
                view = progress_view(title, live and not side_by_side, prefix)
                views[progress.run] = stack.enter_context(view)
            views[progress.run].show(progress)

        interrupted = None
        try:
            run = call(
                world, *overrides, seeds=numbers, on_progress=show, on_note=once, **options,
            )  # fmt: skip
        except RunInterrupted as error:
            run, interrupted = error.run, error
    _print(run)
    if as_json:
        print(dumps(run.as_dict()))
    if interrupted is not None:
        raise interrupted


def _print(run: TrainingRun | MultiSeedRun) -> None:
    if isinstance(run, MultiSeedRun):
        _print_seeds(run)
        return
    print(f"run       {run.run}{'  (stopped, kept)' if run.stopped else ''}")
    if run.evaluation is not None:
        print(f"eval      {number(run.evaluation)} {bounds(run.interval)}, best {number(run.best)}")
    place, more = shlex.quote(run.run), "" if run.stopped else f" --steps {2 * run.steps}"
    options = plugin_options(RunFolder(run.folder).read_config())
    print(f"next      sextet eval {place} --episodes 20{options}")
    print(f"          sextet play {place}{options}")
    print(f"          sextet train --resume {place}{more}{options}")


def _print_seeds(run: MultiSeedRun) -> None:
    print(
        f"{'seed':>6} {'steps':>9} {'evaluation':>11} {'interval':>20} {'best':>9} {'seconds':>9}"
    )
    for one in run.results:
        print(
            f"{one.seed:>6} {one.steps:>9} {number(one.evaluation):>11} {bounds(one.interval):>20} "
            f"{number(one.best):>9} {one.seconds:>9}{'  stopped' if one.stopped else ''}"
        )
    if run.evaluation is not None:
        print(
            f"mean      {number(run.evaluation)} {bounds(run.interval)} over {run.finished} of "
            f"{len(run.seeds)} seeds (bootstrap, 95 %)"
        )
    print(f"run       {run.run}")
    if run.stopped:
        print(f"go on     sextet train --resume {shlex.quote(run.run)}")
