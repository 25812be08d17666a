"""`sextet play`: a life with everything said in view, kept in a run folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from agent.assembly.load import RunRequest, prepared
from agent.commands.failure import running
from agent.commands.video import Film
from agent.live import live
from agent.recording.episode_stats import EpisodeStats, Summary
from agent.recording.run_folder import RunFolder
from agent.reporting.run_picture import picture
from agent.view.dashboard import screen
from agent.view.keys import Keys, steerable
from modules.messages import Moment

STEPS = 1000
"""How long a run is where nothing was said."""
UNLIMITED = 2**40


def play(
    request: RunRequest, run: Path | None, as_json: bool, live_view: bool, video: bool
) -> None:
    """Plays, and prints what it came to; as JSON in the last line where asked.

    Everything is made and checked before the run folder is. Ctrl-C ends the run, which is kept.
    """
    if video:
        Film.require()
    assembly = prepared(request)
    config, world, agent = assembly.config, assembly.world, assembly.agent
    settings, cost = config.settings, agent.modules.cost
    try:
        folder = RunFolder.create(run, f"play-{settings.world.id}")
        folder.write_config(config.tree())
    except BaseException:
        world.close()
        raise
    steps = settings.steps or (UNLIMITED if settings.episodes else STEPS)
    keeper = EpisodeStats(world.spec.id, world.num_envs)
    began = time.monotonic()

    def moments() -> Iterator[Moment]:
        for moment in live(agent, world, steps, settings.seed):
            keeper.add(moment)
            yield moment
            if settings.episodes and len(keeper.returns) >= settings.episodes:
                return

    with running(kept=str(folder.path)):
        try:
            with ExitStack() as stack:
                stack.callback(world.close)
                recorder = stack.enter_context(assembly.recorder(folder))
                film = stack.enter_context(Film(folder.path / "video.mp4")) if video else None
                view = None
                if live_view:
                    steered = steerable(agent.modules.configurator)
                    view = screen(world.spec, cost.drives, cost.heads, world.render, steered)
                    stack.enter_context(view)
                    if steered is not None and sys.stdout.isatty():
                        stack.enter_context(Keys(steered))
                for moment in moments():
                    recorder.add(moment)
                    if view is not None:
                        view.show(moment)
                    if film is not None:
                        film.add(world.render()[0])
        except KeyboardInterrupt:
            pass
        summary = keeper.summary(time.monotonic() - began, str(folder.path))
        shown = picture(folder) if keeper.steps else None
    _say(summary, keeper.returns, folder, shown, video)
    if as_json:
        print(json.dumps(summary.as_dict()))


def _say(
    summary: Summary, returns: list[float], folder: RunFolder, shown: Path | None, video: bool
) -> None:
    """The summary for a person."""
    ended = ", ".join(f"{value:g}" for value in returns[-10:]) or "no episode ended"
    mean = "" if summary.mean_return is None else f" (mean {summary.mean_return:.4g})"
    print(f"world     {summary.world}")
    print(f"steps     {summary.steps}, {summary.steps_per_s:.0f} a second")
    print(f"score     {summary.score:g}")
    print(f"returns   {ended}{mean}")
    print(f"Mode-2    {summary.mode2_share:.0%} of steps, {summary.model_calls} model calls")
    print(f"run       {folder.path}")
    if shown is not None:
        print(f"picture   {shown}")
    if video:
        print(f"video     {folder.path / 'video.mp4'}")
