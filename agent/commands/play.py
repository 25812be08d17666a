"""`sextet play`: an agent plays a world with all messages in view, recorded in a run folder."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from agent.api.failure import RunInterrupted, running
from agent.api.play import PlayedRun
from agent.api.play import play as call
from agent.assembly.load import Player
from agent.commands.text import number
from agent.commands.video import Film
from agent.recording.run_folder import RunFolder
from agent.reporting.run_picture import picture
from agent.view.dashboard import Screen, screen
from agent.view.keys import Keys, steerable
from modules.messages import Moment
from modules.ports import World

FILM = "video.mp4"


def play(
    agent: str | None, *overrides: str, as_json: bool, live_view: bool, video: bool, **options: Any
) -> None:
    """Plays and prints the summary; as JSON in the last line with `as_json`.

    `options` are those of `agent.play`. Ctrl-C ends the run, which is kept.
    """
    if video:
        Film.require()
    with ExitStack() as stack:
        views = _Views(stack, live_view, video)
        try:
            run = call(agent, *overrides, on_start=views.open, on_moment=views.show, **options)
        except RunInterrupted as interrupted:
            run = interrupted.run
    drawn = None
    if run.summary.steps:
        with running(run.folder):
            drawn = picture(RunFolder(run.folder))
    _print(run, drawn, video)
    if as_json:
        print(json.dumps(run.summary.as_dict()))


class _Views:
    """The dashboard and the film of a run, where they are asked for."""

    def __init__(self, stack: ExitStack, live: bool, video: bool) -> None:
        self.stack, self.live, self.video = stack, live, video
        self.screen: Screen | None = None
        self.film: Film | None = None
        self.world: World | None = None

    def open(self, player: Player, folder: Path) -> None:
        """Opens the views, on the agent and world of a run."""
        self.world = world = player.world
        if self.video:
            self.film = self.stack.enter_context(Film(folder / FILM))
        if self.live:
            modules = player.agent.modules
            steered, cost = steerable(modules.configurator), modules.cost
            view = screen(world.spec, cost.drives, cost.heads, world.render, steered)
            self.screen = self.stack.enter_context(view)
            if steered is not None and sys.stdout.isatty():
                self.stack.enter_context(Keys(steered))

    def show(self, moment: Moment) -> None:
        """Shows a moment in each view."""
        if self.screen is not None:
            self.screen.show(moment)
        if self.film is not None and self.world is not None:
            self.film.add(self.world.render()[0])


def _print(run: PlayedRun, drawn: Path | None, video: bool) -> None:
    summary = run.summary
    ended = ", ".join(f"{value:g}" for value in run.returns[-10:]) or "no episode ended"
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
