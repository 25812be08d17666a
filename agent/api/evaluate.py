"""Whole episodes under a protocol, and their returns."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

from agent.api.evaluation_blocks import in_blocks
from agent.api.failure import RunFailedError
from agent.assembly.load import SHOWPIECE, AgentName, AgentOptions, prepared, request_for
from agent.engines.choice import engine_for
from agent.engines.engine import Engine, describe
from agent.engines.threads import default_threads
from agent.learning.blocks import BLOCK
from agent.learning.evaluation import EvaluationProgress, score, whole_episodes
from worlds.scores import human_normalised

EVALUATION_SEED = 2_000_000
"""The default seed; no training with a seed below 1,000,000 uses it, nor do its evaluations."""


@dataclass(frozen=True)
class Scores:
    """The returns of whole episodes, in an order that depends on the seed alone.

    `interval`: 95 % bootstrap interval of the mean. `human_normalised`: (mean − random) / (human −
    random), None where these are not published. `mode2_share`: share of steps in Mode-2.
    `checkpoint`: the folder of the weights, None for an agent without any. `episodes` of the
    `episodes_requested` ended in time; means are None where one is missing, since those that end
    are the short ones.
    """

    agent: str
    world: str
    protocol: str | None
    episodes: int
    episodes_requested: int
    mean_return: float | None
    std_return: float | None
    human_normalised: float | None
    steps: int
    mode2_share: float
    model_calls: int
    ms_per_step: float | None
    interval: tuple[float, float] | None
    seed: int
    checkpoint: str | None
    returns: tuple[float, ...]

    def __str__(self) -> str:
        if self.mean_return is None or self.interval is None:
            ended = f"{self.episodes} of {self.episodes_requested} episodes ended"
            return f"{self.world}: {ended} in {self.steps} steps"
        low, high = self.interval
        return (
            f"{self.world}: {self.mean_return:.4g} [{low:.4g}, {high:.4g}] "
            f"over {self.episodes} episodes"
        )

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return dict(vars(self))


@default_threads()
def evaluate(
    agent: AgentName | None = None,
    *overrides: str,
    episodes: int = 10,
    on_note: Callable[[str], object] = lambda line: None,
    on_progress: Callable[[EvaluationProgress], object] = lambda progress: None,
    jobs: int | None = None,
    engine: Engine | str | None = None,
    address: str | None = None,
    **options: Unpack[AgentOptions],
) -> Scores:
    """Plays `episodes` whole episodes, or as many as end in `steps` steps; writes no folder.

    `agent`: what `train` returned, a run folder, a bundled agent (None: the showpiece), or a world.
    `overrides` are settings as "actor.policy.epsilon=0". `on_progress` is called after every turn
    of the loop, `on_note` with a line for each damaged checkpoint that is passed over.

    With `jobs`, an `engine` (serial, processes, ray) or its `address`, the environments (as many as
    episodes, unless `num_envs` sets another number) are divided into blocks of `BLOCK`, each a job:
    the result is the same for any engine and any number of jobs. It is not that of all environments
    in one batch, since each block has a seed of its own (`block_seed`). Raises
    ConfigError or WorldError where the agent cannot be assembled, RunFailedError where an episode
    fails.

    >>> evaluate("cartpole", episodes=3).mean_return
    500.0
    """
    seed = options.get("seed")
    seed = EVALUATION_SEED if seed is None else seed
    blocks = any(option is not None for option in (jobs, engine, address))
    chosen = engine_for(engine, jobs, address)
    if blocks:
        rows = options.get("num_envs") or episodes
        options["num_envs"] = min(BLOCK, rows)
    request = request_for(agent, overrides, episodes=episodes, **options)
    assembly = prepared(request, on_note)
    world, steps = assembly.world, assembly.config.settings.steps
    try:
        if blocks:
            evaluation = in_blocks(
                chosen, request, assembly, episodes, rows, seed, steps, on_progress
            )
        else:
            evaluation = whole_episodes(
                assembly.agent, world, episodes, seed, steps, on_progress=on_progress
            )
    except Exception as error:
        raise RunFailedError(describe(error)) from error
    finally:
        world.close()
    returns, summary, name = evaluation.returns, evaluation.summary, world.spec.id
    whole = returns if evaluation.whole else []
    mean = statistics.fmean(whole) if whole else None
    bounds = score(whole) if whole else None
    return Scores(
        agent=request.agent or SHOWPIECE, world=name, protocol=world.spec.protocol,
        episodes=len(returns), episodes_requested=episodes, mean_return=mean,
        std_return=statistics.pstdev(whole) if whole else None,
        human_normalised=None if mean is None else human_normalised(name, mean),
        steps=summary.steps, mode2_share=summary.mode2_share, model_calls=summary.model_calls,
        ms_per_step=1e3 / summary.steps_per_s if summary.steps_per_s else None,
        interval=None if bounds is None else (bounds.low, bounds.high),
        seed=seed,
        checkpoint=None if assembly.trained is None else os.fspath(assembly.trained),
        returns=tuple(returns),
    )  # fmt: skip
