"""Promises of a memory (`modules.ports.Memory`)."""

from __future__ import annotations

import torch

from agent.contracts.promises import promises_in, require, require_equal, require_finite, shapes
from agent.contracts.subject import ROWS, SEED, Subject, single
from agent.modules import initial_moment
from modules import chance
from modules.messages import Pairs


def returns_the_last_moment(subject: Subject) -> None:
    """`previous` is the moment written last, in rows whose episode goes on."""
    previous, ended = subject.module.previous(), subject.last.observation.ended
    for row in range(ROWS):
        if not bool(ended[row]):
            index = single(row)
            require_equal(previous.select(index).state, subject.last.select(index).state)


def recollections_are_within_bounds(subject: Subject) -> None:
    """Weights >= 0 with sum <= 1, ages >= 0, novelty in [0, 1]; the same for every call."""
    memory, state = subject.module, subject.last.state
    recalled = memory.recall(state).check({"B": ROWS})
    require_finite(recalled)
    require((recalled.weights >= 0).all(), "a weight is below 0")
    require((recalled.weights.sum(-1) <= 1 + 1e-4).all(), "weights sum to more than 1")
    within = ((recalled.novelty >= 0) & (recalled.novelty <= 1)).all()
    require(within, "novelty is not within 0 and 1")
    require((recalled.ages >= 0).all(), "an age is below 0")
    require(shapes(recalled) == shapes(memory.initial(ROWS)), "initial has other shapes")
    require_equal(recalled, memory.recall(state))


def known_states_are_less_novel(subject: Subject) -> None:
    """A state that was written has at most the novelty of one far from all that were."""
    state = subject.last.state
    far = state.replace(latent=-50 * state.latent - 7)
    known = subject.module.recall(state).novelty
    require((known <= subject.module.recall(far).novelty).all(), "an unknown state is less novel")


def windows_stay_within_episodes(subject: Subject) -> None:
    """Sampled windows are [B W], not empty, repeatable, and end with the episode."""
    key = chance.keys(SEED, 1, 0)
    sampled = subject.module.sample(16, 6, key)
    require_equal(sampled, subject.module.sample(16, 6, key))
    shape = [*sampled.mask.shape]
    require(shape == [16, 6], f"expected 16 windows of 6 steps, got {shape}")
    require(sampled.mask[:, 0].all(), "a window is empty")
    over = (sampled.terminated | sampled.truncated)[:, :-1]
    require(not (over & sampled.mask[:, 1:]).any(), "a window crosses the end of an episode")


def windows_hold_what_was_returned(subject: Subject) -> None:
    """Each step of a window has what memory returned then, where a module reads that."""
    sampled = subject.module.sample(16, 6, chance.keys(SEED, 1, 0))
    if not subject.modules.reads_memory:
        require(sampled.readouts is None, "read-outs are stored, and no module reads them")
        return
    returned = torch.cat([moment.recollection.readout for moment in subject.moments])
    for readout in sampled.readouts[sampled.mask]:
        require((returned == readout).all(1).any(), "a window has a read-out that was not returned")


def a_query_of_zeros_writes_nothing(subject: Subject) -> None:
    """A memory that the world model writes to is unchanged by a query of zeros."""
    memory, state = subject.module, subject.last.state
    if not hasattr(memory, "write_pairs"):
        return
    recalled = memory.recall(state)
    queries = torch.zeros(ROWS, 2, recalled.keys.shape[2])
    values = torch.ones(ROWS, 2, recalled.values.shape[2])
    memory.write_pairs(Pairs(queries=queries, values=values))
    require_equal(recalled, memory.recall(state))


def cut_episodes_end(subject: Subject) -> None:
    """After `cut_episodes` the last moment ends its episode in every row. Checked late."""
    memory = subject.module
    memory.cut_episodes()
    require(memory.last_written().observation.ended.all(), "an episode goes on after the cut")
    initial = initial_moment(subject.modules, subject.assembly.agent.world, ROWS)
    require_equal(memory.previous(), initial)


def reset_forgets(subject: Subject) -> None:
    """After `reset` the previous moment is the initial one. Empties the memory: checked last."""
    memory = subject.module
    initial = initial_moment(subject.modules, subject.assembly.agent.world, ROWS)
    memory.reset(initial)
    require_equal(memory.previous(), initial)
    require_equal(memory.recall(subject.last.state), memory.recall(subject.last.state))


PROMISES = promises_in(globals())
