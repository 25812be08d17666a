"""A recorded run of an agent that does not learn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from agent.api.failure import RunInterrupted, running
from agent.assembly.load import AgentName, AgentOptions, Player, prepared, request_for
from agent.engines.threads import default_threads
from agent.learning.evaluation import UNLIMITED
from agent.live import live
from agent.recording.episode_stats import EpisodeStats, Summary
from agent.recording.run_folder import RunFolder
from modules.messages import Moment

STEPS = 1000
"""The length of a run where neither steps nor episodes are set."""


@dataclass(frozen=True)
class PlayedRun:
    """A recorded run: its folder, its summary, and the returns of the episodes that ended; of
    those that were asked for, if a number was set.
    """

    folder: Path
    summary: Summary
    returns: tuple[float, ...]

    def __fspath__(self) -> str:
        return str(self.folder)


@default_threads()
def play(
    agent: AgentName | None = None,
    *overrides: str,
    episodes: int | None = None,
    run: str | Path | None = None,
    on_start: Callable[[Player, Path], object] | None = None,
    on_moment: Callable[[Moment], object] | None = None,
    on_note: Callable[[str], object] = lambda line: None,
    **options: Unpack[AgentOptions],
) -> PlayedRun:
    """Plays `steps` steps, summed over environments, or until `episodes` have ended: the
    first to begin, so that short ones do not crowd out long ones.

    `agent` and `overrides` as in `evaluate`. `run`: the new folder; None: the next free one under
    `runs/`. `on_start` receives the player and the folder before the first moment, `on_moment` each
    moment before its action is carried out, `on_note` a line for each damaged checkpoint that is
    passed over. All is checked before the folder is created. Raises
    ConfigError or WorldError before, RunFailedError after that; Ctrl-C raises RunInterrupted, a
    KeyboardInterrupt with the run so far.
    """
    assembly = prepared(request_for(agent, overrides, episodes=episodes, **options), on_note)
    world, settings = assembly.world, assembly.config.settings
    try:
        folder = RunFolder.create(run, f"play-{settings.world.id}")
        folder.write_config(assembly.config.tree())
    except BaseException:
        world.close()
        raise
    steps = settings.steps or (UNLIMITED if settings.episodes else STEPS)
    stats = EpisodeStats(world.spec.id, world.num_envs, settings.episodes)
    start = time.monotonic()
    interrupted = False
    with running(folder.path):
        try:
            with assembly.recorder(folder) as recorder:
                if on_start is not None:
                    on_start(Player(assembly), folder.path)
                for moment in live(assembly.agent, world, steps, settings.seed):
                    stats.add(moment)
                    recorder.add(moment)
                    if on_moment is not None:
                        on_moment(moment)
                    if settings.episodes and stats.whole:
                        break
        except KeyboardInterrupt:
            interrupted = True
        finally:
            world.close()
    summary = stats.summary(time.monotonic() - start, str(folder.path))
    played = PlayedRun(folder.path, summary, tuple(stats.returns))
    if interrupted:
        raise RunInterrupted(played) from None
    return played
