"""Cost of memory: bytes a step, milliseconds a sample, microseconds a recall and write."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from modules import chance
from modules.memory.associative import Associative
from modules.memory.ring import Ring
from modules.messages import (
    SIGNALS,
    ActionSpec,
    Directive,
    Energy,
    Moment,
    Observation,
    Plan,
    Recollection,
    State,
    WorldSpec,
)

WORLD = WorldSpec(
    id="bench",
    pixels=(84, 84, 1),
    vector=None,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=18),
)
LATENT, CONTEXT, BATCH, WINDOW = 512, 3, 32, 6


def run(steps: int = 4000) -> dict[str, float]:
    """Fills a memory with `steps` steps of 84×84 gray frames and measures it on one thread.

    `bytes_per_step`: of the whole ring. `sample_ms`: 32 windows of 6 steps, 4 frames stacked.
    `associative_us_b1`, `associative_us_b16`: recall and write of one step, latent 512, 1 and 16
    rows; medians.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ring = _filled(1, steps)
        return {
            "bytes_per_step": round(ring.bytes_per_step, 1),
            "sample_ms": 1e3
            * _median(lambda i: ring.sample(BATCH, WINDOW, chance.keys(0, 1, i)), 200),
            "associative_us_b1": 1e6 * _associating(1),
            "associative_us_b16": 1e6 * _associating(16),
        }
    finally:
        torch.set_num_threads(threads)


def _recall(rows: int) -> Associative:
    return Associative(config=Associative.Config(), world=WORLD, rows=rows, latent_size=LATENT)


def _filled(rows: int, steps: int) -> Ring:
    recall = _recall(rows)
    ring = Ring(
        config=Ring.Config(capacity=steps),
        recall=recall,
        world=WORLD,
        rows=rows,
        context_frames=CONTEXT,
    )
    blank = moment(rows, -1)
    ring.reset(blank.replace(recollection=ring.initial(rows)))
    for step in range(steps // rows):
        ring.write(moment(rows, step))
    return ring


def _associating(rows: int) -> float:
    recall = _recall(rows)
    moments = [moment(rows, step) for step in range(400)]

    def once(i: int) -> None:
        recall.recall(moments[i].state)
        recall.write(moments[i])

    return _median(once, len(moments))


def _median(do: Callable[[int], object], times: int) -> float:
    spans = []
    for i in range(times):
        start = time.perf_counter()
        do(i)
        spans.append(time.perf_counter() - start)
    return sorted(spans)[times // 2]


def moment(rows: int, step: int) -> Moment:
    """A moment of noise: frames, latents and actions drawn anew at every step."""
    key = chance.keys(1, rows, step + 1)
    none, zeros = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows)
    whole, signals = zeros.long(), torch.zeros(rows, len(SIGNALS))
    state = State(
        latent=chance.normal(key, "latent", LATENT),
        hidden=torch.zeros(rows, 0),
        signals=signals,
        ended=zeros,
        uncertainty=zeros,
    )
    action = WORLD.actions.encode(chance.integers(key, "action", WORLD.actions.size))
    return Moment(
        step=step,
        observation=Observation(
            pixels=torch.full((rows, 84, 84, 1), step % 256, dtype=torch.uint8),
            vector=None,
            signals=signals,
            first=none | (step % 500 == 0),
            terminated=none | (step % 500 == 499),
            truncated=none,
        ),
        state=state,
        recollection=Recollection(
            keys=torch.zeros(rows, 1, 1),
            values=torch.zeros(rows, 1, 1),
            weights=torch.zeros(rows, 1),
            ages=torch.zeros(rows, 1),
            readout=torch.zeros(rows, 1),
            novelty=zeros,
        ),
        energies=Energy(
            intrinsic=torch.zeros(rows, 1), critic=torch.zeros(rows, 1), disagreement=zeros
        ),
        surprise=zeros,
        episode_model_calls=whole,
        episode_step=whole + step % 500,
        directive=Directive(
            mode=whole + 1,
            horizon_steps=whole,
            model_calls=whole,
            commit_steps=whole + 1,
            u=torch.ones(rows, 1),
            v=torch.ones(rows, 1),
            tokens=torch.zeros(rows, 0, 0),
            latent_temperature=zeros + 1,
            risk=zeros,
            configurator_state=torch.zeros(rows, 0),
            reason=("bench",) * rows,
        ),
        plan=Plan(
            actions=action.unsqueeze(1),
            steps=whole + 1,
            remaining_commit=whole,
            energy=zeros,
            mode=whole + 1,
            model_calls=whole,
            candidates=torch.zeros(rows, 0, 1, WORLD.actions.size),
            candidate_energies=torch.zeros(rows, 0),
        ),
        expected=state,
    )
