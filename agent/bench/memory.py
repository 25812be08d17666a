"""Cost of memory: bytes a step, milliseconds a sample, microseconds a recall and write."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from agent.bench.support.clock import medians
from agent.engines.threads import one_thread
from modules import chance
from modules.memory.associative import Associative
from modules.memory.ring import Ring
from modules.messages import (
    SIGNALS,
    ActionSpec,
    Directive,
    Energy,
    Message,
    Moment,
    Observation,
    Plan,
    Recollection,
    Shape,
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
AXES = {
    "D": LATENT, "S": len(SIGNALS), "A": WORLD.actions.size, **dict.fromkeys("KLVXUPO", 1),
    **dict.fromkeys("RTEMQ", 0),
}  # fmt: skip
"""The lengths of the axes of `moment` other than B, see `modules.messages`."""

DTYPES = {"bool": torch.bool, "int": torch.int64}
AnyMessage = TypeVar("AnyMessage", bound=Message)


@one_thread()
def run(steps: int = 4000) -> dict[str, float]:
    """Fills a memory with `steps` steps of 84×84 gray frames and measures it on one thread.

    `bytes_per_step`: of the whole ring. `sample_ms`: 32 windows of 6 steps, 4 frames stacked.
    `associative_us_b1`, `associative_us_b16`: recall and write of one step, latent 512, 1 and 16
    rows; medians.
    """
    ring = _filled(steps)
    sample = {"sample": lambda i: ring.sample(BATCH, WINDOW, chance.keys(0, 1, i))}
    return {
        "bytes_per_step": round(ring.bytes_per_step, 1),
        "sample_ms": 1e3 * medians(sample, 200)["sample"],
        "associative_us_b1": 1e6 * _associating(1),
        "associative_us_b16": 1e6 * _associating(16),
    }


def _recall(rows: int) -> Associative:
    return Associative(config=Associative.Config(), world=WORLD, rows=rows, latent_size=LATENT)


def _filled(steps: int) -> Ring:
    recall = _recall(1)
    ring = Ring(
        config=Ring.Config(capacity=steps),
        recall=recall,
        world=WORLD,
        rows=1,
        context_frames=CONTEXT,
    )
    ring.reset(moment(1, -1).replace(recollection=ring.initial(1)))
    for step in range(steps):
        ring.write(moment(1, step))
    return ring


def _associating(rows: int) -> float:
    recall = _recall(rows)
    moments = [moment(rows, step) for step in range(400)]

    def once(i: int) -> None:
        recall.recall(moments[i].state)
        recall.write(moments[i])

    return medians({"associative": once}, len(moments))["associative"]


def _zeros(kind: type[AnyMessage], rows: int, **fields: Any) -> AnyMessage:
    """A message of zeros but for `fields`."""
    for name, field in kind.model_fields.items():
        for shape in field.metadata:
            if isinstance(shape, Shape):
                lengths = [AXES.get(axis, rows) for axis in shape.axes]
                fields.setdefault(name, torch.zeros(lengths, dtype=DTYPES.get(shape.kind)))
    return kind(**fields)


def moment(rows: int, step: int) -> Moment:
    """A moment of noise: frames, latents and actions drawn anew at every step."""
    key, ones = chance.keys(1, rows, step + 1), torch.ones(rows)
    state = _zeros(State, rows, latent=chance.normal(key, "latent", LATENT))
    action = WORLD.actions.encode(chance.integers(key, "action", WORLD.actions.size))
    return _zeros(
        Moment,
        rows,
        step=step,
        observation=_zeros(
            Observation,
            rows,
            pixels=torch.full((rows, 84, 84, 1), step % 256, dtype=torch.uint8),
            vector=None,
            first=ones * (step % 500) == 0,
            terminated=ones * (step % 500) == 499,
        ),
        state=state,
        recollection=_zeros(Recollection, rows),
        energies=_zeros(Energy, rows, critic=torch.zeros(rows, 1)),
        episode_step=ones.long() * (step % 500),
        directive=_zeros(
            Directive,
            rows,
            mode=ones.long(),
            commit_steps=ones.long(),
            u=ones[:, None],
            v=ones[:, None],
            futures=ones.long(),
            latent_temperature=ones,
            reason=("bench",) * rows,
        ),
        plan=_zeros(Plan, rows, actions=action.unsqueeze(1), steps=ones.long(), mode=ones.long()),
        expected=state,
    )
