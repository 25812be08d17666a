"""Promises of every module: the loop runs with it, repeatably, and rows are independent."""

from __future__ import annotations

import torch

from agent.assembly.build import assemble
from agent.assembly.merge import merge
from agent.contracts.promises import promises_in, require, require_equal
from agent.contracts.subject import ROWS, SEED, STEPS, Subject, single
from agent.live import live


def repeats_from_the_same_seed(subject: Subject) -> None:
    """The same seed gives the same run, bit for bit."""
    again = assemble(subject.tree, subject.kinds)
    try:
        repeated = live(again.agent, again.world, STEPS * ROWS, SEED)
        for one, other in zip(subject.moments, repeated, strict=True):
            require_equal(one, other)
    finally:
        again.world.close()


def rows_are_independent(subject: Subject) -> None:
    """Row 0 of a batch and a run of row 0 alone agree."""
    alone = assemble(merge(subject.tree, {"world": {"num_envs": 1}}), subject.kinds)
    try:
        for one, other in zip(
            subject.moments, live(alone.agent, alone.world, STEPS, SEED), strict=True
        ):
            for (name, first), (_, second) in zip(
                one.select(single(0)).tensors(), other.tensors(), strict=True
            ):
                if first is None or second is None or first.shape != second.shape:
                    continue
                # A batch of one multiplies matrices in another order: equal up to rounding.
                same = torch.allclose(first.double(), second.double(), rtol=1e-3, atol=1e-3)
                require(same, f"step {one.step}: {name} of row 0 differs when it runs alone")
    finally:
        alone.world.close()


PROMISES = promises_in(globals())
