"""An evaluation of many episodes in blocks of environments, each block a job of an engine."""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.assembly.assembly_cache import cached, pinned
from agent.assembly.build import Assembly
from agent.assembly.load import RunRequest
from agent.engines.engine import Engine, Job, Report
from agent.learning.blocks import BLOCK, block_seed
from agent.learning.evaluation import Evaluation, EvaluationProgress, whole_episodes

_REPORT_S = 0.5


def in_blocks(
    engine: Engine,
    request: RunRequest,
    assembly: Assembly,
    episodes: int,
    rows: int,
    seed: int,
    steps: int | None,
    on_progress: Callable[[EvaluationProgress], object],
) -> Evaluation:
    """Runs until `episodes` of `rows` environments have ended, or for `steps` steps.

    `request` and its `assembly` have the environments of one block. A row of the whole plays as
    many episodes as it would in one batch, and returns are in the order of rows. Raises JobError.
    """
    key = f"evaluation {uuid.uuid4().hex}"
    reads = (Path(request.agent),) if request.agent and Path(request.agent).exists() else ()
    first, jobs = assembly.world.num_envs, list[Job]()
    shares = [episodes // rows + (row < episodes % rows) for row in range(rows)]
    for block, start in enumerate(range(0, rows, BLOCK)):
        of_block = shares[start : start + BLOCK]
        size = len(of_block)
        if not sum(of_block):
            break
        # As many turns as the whole batch would have.
        limit = None if steps is None else -(-steps // rows) * size
        sized = replace(request, flags={**request.flags, "num_envs": size})
        work = functools.partial(
            _block, key if size == first else f"{key} of {size}", sized, sum(of_block),
            block_seed(seed, block), limit,
        )  # fmt: skip
        jobs.append(Job(f"block {block}", work, reads=reads))
    latest: dict[str, EvaluationProgress] = {}

    def show(job: Job, progress: EvaluationProgress) -> None:
        latest[job.name] = progress
        ended, of_steps = (sum(one[place] for one in latest.values()) for place in (0, 2))
        on_progress(EvaluationProgress(ended, episodes, of_steps))

    began = time.perf_counter()
    with engine, pinned(key, assembly):
        done = {result.job.name: result.value for result in engine.map(jobs, show)}
    return _joined([done[job.name] for job in jobs], episodes, time.perf_counter() - began)


def _block(
    key: str,
    request: RunRequest,
    episodes: int,
    seed: int,
    steps: int | None,
    _: None,
    report: Report,
) -> Evaluation:
    """A job: the episodes of one block."""
    assembly = cached(key, request)
    last, ended = time.monotonic(), 0

    def show(progress: EvaluationProgress) -> None:
        nonlocal last, ended
        # Not every turn: each report crosses to another process.
        if progress.ended > ended or time.monotonic() - last > _REPORT_S:
            last, ended = time.monotonic(), progress.ended
            report(progress)

    return whole_episodes(assembly.agent, assembly.world, episodes, seed, steps, on_progress=show)


def _joined(blocks: list[Evaluation], episodes: int, seconds: float) -> Evaluation:
    """The evaluation of all blocks together, in their order, which took `seconds`."""
    returns = [value for block in blocks for value in block.returns]
    summaries = [block.summary for block in blocks]
    steps, whole = sum(one.steps for one in summaries), all(block.whole for block in blocks)
    planned = sum(one.mode2_share * one.steps for one in summaries)
    summary = replace(
        summaries[0], steps=steps, episodes=len(returns), episodes_requested=episodes,
        mean_return=sum(returns) / len(returns) if whole else None,
        score=sum(one.score for one in summaries),
        steps_per_s=steps / seconds if seconds > 0 else 0.0,
        mode2_share=planned / steps if steps else 0.0,
        model_calls=sum(one.model_calls for one in summaries), trace_digest="",
    )  # fmt: skip
    return Evaluation(returns, summary, whole)
