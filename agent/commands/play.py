"""`sextet play`: an agent plays a world with all messages in view, recorded in a run folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent.api.failure import RunInterrupted, running
from agent.api.play import PlayedRun
from agent.api.play import play as call
from agent.assembly.load import Player
from agent.commands.text import note, number
from agent.commands.video import Film
from agent.recording.run_folder import RunFolder
from agent.reporting.run_picture import picture
from agent.view.dashboard import screen
from agent.view.keys import Keys, steerable
from modules.messages import Moment

FILM = "video.mp4"


def play(
    agent: str | None = None,
    overrides: Sequence[str] = (),
    *,
    as_json: bool,
    live: bool,
    video: bool,
    **options: Any,
) -> None:
    """Plays and prints the summary; as JSON in the last line with `as_json`.

    `options` are those of `agent.play`. Ctrl-C ends the run, which is kept.
    """
    if video:
        Film.require()
    views: list[Callable[[Moment], object]] = []
    with ExitStack() as stack:

        def open_views(player: Player, folder: Path) -> None:
            world, modules = player.world, player.agent.modules
            if live:
                steered, cost = steerable(modules.configurator), modules.cost
                view = screen(world.spec, cost.drives, cost.heads, world.render, steered)
                views.append(stack.enter_context(view).show)
                if steered is not None and sys.stdout.isatty():
                    stack.enter_context(Keys(steered))
            if video:
                film = stack.enter_context(Film(folder / FILM))
                views.append(lambda _: film.add(world.render()[0]))

        try:
            run = call(agent, *overrides, on_start=open_views,
                       on_moment=lambda moment: [show(moment) for show in views], on_note=note,
                       **options)  # fmt: skip
        except RunInterrupted as interrupted:
            run = interrupted.run
    drawn = None
    if run.summary.steps:
        with running(run.folder):
            drawn = picture(RunFolder(run.folder))
    _print(run, drawn, video)
    if as_json:
        print(json.dumps(run.summary.as_dict()))


def _print(run: PlayedRun, drawn: Path | None, video: bool) -> None:
    summary = run.summary
    ended = ", ".join(f"{value:g}" for value in run.returns[-10:]) or "no episode ended"
    if summary.episodes_requested is not None and summary.episodes < summary.episodes_requested:
        ended = f"{summary.episodes} of {summary.episodes_requested} episodes ended: {ended}"
    mean = "" if summary.mean_return is None else f" (mean {number(summary.mean_return)})"
    print(f"world     {summary.world}")
    print(f"steps     {summary.steps}, {summary.steps_per_s:.0f} a second")
    print(f"score     {summary.score:g}")
    print(f"returns   {ended}{mean}")
    print(f"Mode-2    {summary.mode2_share:.0%} of steps, {summary.model_calls} model calls")
    print(f"run       {run.folder}")
    if drawn is not None:
        print(f"picture   {drawn}")
    if video:
        print(f"video     {run.folder / FILM}")
