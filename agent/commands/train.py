"""`sextet train`: learning in a world, new or continued, with one seed or several."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import ExitStack
from typing import Any

from agent.api.failure import RunInterrupted
from agent.api.multi_seed import MultiSeedRun
from agent.api.train import train as call
from agent.api.training import TrainingRun
from agent.commands.text import bounds, number
from agent.learning.training import Progress
from agent.view.progress import PlainProgress, ProgressView, progress_view


def train(world: str | None, *overrides: str, as_json: bool, live: bool, **options: Any) -> None:
    """Trains and prints the result; as JSON in the last line with `as_json`.

    `options` are those of `agent.train`. Ctrl-C keeps a checkpoint and prints the result so far.
    """
    jobs = options["jobs"] if options["seeds"] or options["resume"] else 1
    with _Screen(live, jobs > 1) as screen:
        try:
            run = call(world, *overrides, on_progress=screen.show, on_note=_note, **options)
        except RunInterrupted as interrupted:
            run = interrupted.run
    _print(run)
    if as_json:
        print(json.dumps(run.as_dict()))


def _note(line: str) -> None:
    print(f"note      {line}", file=sys.stderr)


class _Screen:
    """Shows trainings one after the other on a page, or `side_by_side` as lines with the seed."""

    def __init__(self, live: bool, side_by_side: bool) -> None:
        self.live, self.side_by_side = live, side_by_side
        self.views: dict[str, ProgressView] = {}
        self.stack = ExitStack()

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def show(self, progress: Progress) -> None:
        """Shows a progress; the first of a run opens its view."""
        if progress.run not in self.views:
            title = f"{progress.world}  seed {progress.seed}  {progress.run}"
            if self.side_by_side:
                view: ProgressView = PlainProgress(title, f"seed {progress.seed:<4} ")
            else:
                self.stack.close()
                view = progress_view(title, self.live)
            self.views[progress.run] = self.stack.enter_context(view)
        self.views[progress.run].show(progress)


def _print(run: TrainingRun | MultiSeedRun) -> None:
    if isinstance(run, MultiSeedRun):
        _print_seeds(run)
        return
    print(f"run       {run.run}{'  (stopped, kept)' if run.stopped else ''}")
    if run.evaluation is not None:
        print(f"eval      {number(run.evaluation)} {bounds(run.interval)}, best {number(run.best)}")
    place, more = shlex.quote(run.run), "" if run.stopped else f" --steps {2 * run.steps}"
    print(f"next      sextet eval {place} --episodes 20")
    print(f"          sextet play {place}")
    print(f"          sextet train --resume {place}{more}")


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
