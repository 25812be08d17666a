"""The memory that the world model writes to: an event changes what it touched and nothing else."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.memory.associative import Associative
from modules.memory.world_state import WorldStateMemory
from modules.messages import SIGNALS, ActionSpec, ConfigError, MessageError, Pairs, State, WorldSpec
from modules.world_model.entities import EntityWrites
from worlds.rooms import CARRIED, THINGS, Rooms

SIZE, ROWS = 16, 2
"""Numbers of an observation of Rooms, which are the latent here."""

WORLD = WorldSpec(
    id="sextet/Rooms-state-v0", pixels=None, vector=SIZE, signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=5), goal=len(THINGS),
)  # fmt: skip


def memory(rows: int = ROWS, **settings: float) -> WorldStateMemory:
    config = WorldStateMemory.Config.model_validate({"capacity": 100, **settings})
    recall = Associative(config=Associative.Config(), world=WORLD, rows=rows, latent_size=SIZE)
    torch.manual_seed(0)
    return WorldStateMemory(config=config, recall=recall, world=WORLD, rows=rows, latent_size=SIZE)


def episode(seed: int) -> tuple[Rooms, Tensor]:
    """A world after 40 random steps, and what was seen, [T 16]."""
    env, luck = Rooms(observation="state"), np.random.default_rng(seed)
    seen = [env.reset(seed=seed)[0]["observation"]]
    for _ in range(40):
        observed, _, terminated, *_ = env.step(luck.integers(5))
        seen.append(observed["observation"])
        if terminated:
            break
    return env, torch.from_numpy(np.stack(seen))


@pytest.fixture(scope="module")
def learned() -> tuple[EntityWrites, Tensor]:
    """What changes together in Rooms, and the usual change of each number."""
    changes = torch.cat([episode(seed)[1].diff(dim=0) for seed in range(100, 160)])
    unit = changes.square().mean(0).sqrt()
    writes = EntityWrites(SIZE, SIZE)
    writes.update(changes, unit)
    return writes, unit


def columns(thing: int) -> slice:
    """The numbers of an observation that are about a thing: is it seen, row, column."""
    return slice(7 + 3 * thing, 10 + 3 * thing)


def test_the_numbers_of_a_thing_have_one_query_and_things_different_ones(
    learned: tuple[EntityWrites, Tensor],
) -> None:
    patterns = learned[0].patterns()
    assert torch.allclose(patterns.norm(dim=1), torch.ones(SIZE))
    alike = patterns @ patterns.T
    for thing in range(len(THINGS)):
        own = columns(thing)
        assert bool((alike[own, own] > 0.9).all())
        others = [columns(k) for k in range(len(THINGS)) if k != thing]
        assert all(bool((alike[own, other] < 0.6).all()) for other in others)


def events(seed: int, learned: tuple[EntityWrites, Tensor]) -> Iterator[tuple[int, Tensor, Pairs]]:
    """The steps of an episode's events: the thing that is carried, what was seen before and after
    the step [2 16], and what the world model writes, in two rows that are alike.
    """
    env, seen = episode(seed)
    never = torch.zeros(ROWS, dtype=torch.bool)
    for step in range(CARRIED * env.events):
        both = seen[step : step + 2]
        rows = both.unsqueeze(1).expand(-1, ROWS, -1)
        pairs = learned[0].pairs(rows[0], rows[1], learned[1], never)
        yield env.plan[step // CARRIED][0], both, pairs


@pytest.mark.parametrize("seed", range(5))
def test_an_event_changes_only_what_it_touched(
    seed: int, learned: tuple[EntityWrites, Tensor]
) -> None:
    held, entry_of = memory(), dict[int, set[int]]()
    for thing, (before, after), pairs in events(seed, learned):
        keys, values = held.keys.copy(), held.values.copy()
        held.write_pairs(pairs)
        changed = (held.keys != keys).any(-1) | (held.values != values).any(-1)
        assert changed.any(1).all()
        entry_of.setdefault(thing, set()).update(np.flatnonzero(changed[0]).tolist())
        # What the entry holds is the event: the state before it and after it.
        (entry,) = np.flatnonzero(changed[0])
        event = torch.cat([before, after]).numpy()
        assert np.abs(held.values[0, entry] - event).max() < 0.2
    entries = list(entry_of.values())
    assert len(entries) == len(THINGS)
    assert all(len(own) == 1 for own in entries)
    assert len(set.union(*entries)) == len(THINGS)


def test_nothing_is_written_where_nothing_changed_or_an_episode_begins(
    learned: tuple[EntityWrites, Tensor],
) -> None:
    held, (writes, unit) = memory(), learned
    here, there = torch.zeros(ROWS, SIZE), torch.ones(ROWS, SIZE)
    begins = torch.tensor([False, True])
    held.write_pairs(writes.pairs(here, here, unit, begins))
    assert not held.values.any()
    held.write_pairs(writes.pairs(here, there, unit, begins))
    assert held.values[0].any()
    assert not held.values[1].any()


def test_a_pair_moves_values_as_equation_20_says() -> None:
    held, key = memory(sharpness=2.0), torch.eye(SIZE)
    query = torch.stack([key[0], (key[0] + 0.5 * key[1]) / 1.25**0.5])
    first, then = torch.randn(2, ROWS, 1, 2 * SIZE)
    held.write_pairs(Pairs(queries=query[:1].expand(ROWS, 1, -1), values=first))
    held.write_pairs(Pairs(queries=query[1:].expand(ROWS, 1, -1), values=then))
    similarity = torch.exp(2.0 * (query[0] @ query[1] - 1))
    weight = similarity / (0.1 + similarity)
    expected = weight * then + (1 - weight) * first
    assert np.allclose(held.values[:, :1], expected.numpy(), atol=1e-6)
    assert (held.used >= 0).sum() == ROWS


def test_a_full_memory_overwrites_the_entry_used_least_recently() -> None:
    held, key, value = memory(rows=1, slots=2), torch.eye(SIZE), torch.ones(1, 1, 2 * SIZE)
    for step, axis in enumerate([0, 1, 0, 2]):
        held.steps = step
        held.write_pairs(Pairs(queries=key[axis].view(1, 1, -1), values=value))
    assert held.keys[0].argmax(-1).tolist() == [0, 2]


def test_pairs_of_another_size_are_refused() -> None:
    pairs = Pairs(queries=torch.ones(ROWS, 1, 3), values=torch.ones(ROWS, 1, 2 * SIZE))
    with pytest.raises(MessageError, match=r"Pairs.queries: expected 16 numbers each, got 3"):
        memory().write_pairs(pairs)


def state(latent: Tensor, goal: Tensor) -> State:
    rows, none = len(latent), torch.zeros(len(latent))
    return State(
        latent=latent, hidden=torch.zeros(rows, 0), signals=torch.zeros(rows, len(SIGNALS)),
        ended=none, uncertainty=none, goal=goal,
    )  # fmt: skip


def test_reading_is_equations_15_to_17_and_trains_its_query() -> None:
    held, key = memory(rows=1), torch.eye(SIZE)
    here = state(torch.randn(1, SIZE), torch.eye(len(THINGS))[:1])
    assert not held.recall(here).readout.any()
    values = torch.randn(1, 2, 2 * SIZE)
    held.write_pairs(Pairs(queries=key[:2].unsqueeze(0), values=values))
    # Before training the query is 0: both entries weigh 1 / (γ + 2).
    untrained = held.recall(here)
    assert torch.allclose(untrained.readout, values.sum(1) / 2.1)
    assert untrained.weights[0].tolist() == pytest.approx([1 / 2.1] * 2 + [0] * 10)
    with torch.no_grad():
        held.query.last.bias[0], held.query.last.bias[1] = 3.0, -1.0
    terms = torch.tensor([3.0, -1.0]).exp()
    expected = (terms / (0.1 + terms.sum())) @ values[0]
    assert torch.allclose(held.recall(here).readout[0], expected, atol=1e-5)
    held._read(here.latent, here.goal, torch.from_numpy(held.keys)).square().sum().backward()
    assert held.query.last.bias.grad is not None
    assert bool(held.query.last.bias.grad[:2].any())


def test_a_large_query_does_not_overflow() -> None:
    held = memory(rows=1)
    held.write_pairs(Pairs(queries=torch.eye(SIZE)[:2][None], values=torch.ones(1, 2, 2 * SIZE)))
    with torch.no_grad():
        held.query.last.bias[0] = 1000.0
        held.query.last.bias[1] = -1000.0
    recalled = held.recall(state(torch.zeros(1, SIZE), torch.zeros(1, len(THINGS))))
    assert recalled.weights[0, :2].tolist() == pytest.approx([1, 0])
    assert bool(recalled.readout.isfinite().all())


@pytest.mark.parametrize("reads_state", [True, False])
def test_a_query_of_the_goal_alone_reads_the_same_wherever_the_agent_is(reads_state: bool) -> None:
    held = memory(rows=1, query_reads_state=reads_state)
    entries = Pairs(queries=torch.eye(SIZE)[:2][None], values=torch.ones(1, 2, 2 * SIZE))
    held.write_pairs(entries)
    torch.nn.init.normal_(held.query.last.weight)

    def weights(place: float, thing: int) -> Tensor:
        return held.recall(state(torch.full((1, SIZE), place), torch.eye(3)[[thing]])).weights

    assert torch.equal(weights(0.1, 0), weights(2.0, 0)) == (not reads_state)
    assert not torch.equal(weights(0.1, 0), weights(0.1, 1))


def test_each_of_several_queries_reads_for_itself_and_what_they_read_is_joined() -> None:
    held = memory(rows=1, reads=3)
    values = torch.randn(1, 2, 2 * SIZE)
    held.write_pairs(Pairs(queries=torch.eye(SIZE)[:2][None], values=values))
    # The first reads both entries alike, the second the first of them, the third the other.
    with torch.no_grad():
        held.query.last.bias[SIZE] = held.query.last.bias[2 * SIZE + 1] = 50.0
    recalled = held.recall(state(torch.randn(1, SIZE), torch.eye(len(THINGS))[:1]))
    first, second = values[0]
    expected = torch.cat([(first + second) / 2.1, first, second])
    torch.testing.assert_close(recalled.readout[0], expected)
    assert recalled.weights[0, :2].tolist() == pytest.approx([(1 / 2.1 + 1) / 3] * 2)
    assert held.initial(4).readout.shape == (4, 6 * SIZE)


def test_a_query_of_the_goal_alone_needs_goals() -> None:
    aimless = WORLD.model_copy(update={"goal": None})
    recall = Associative(config=Associative.Config(), world=aimless, rows=1, latent_size=SIZE)
    config = WorldStateMemory.Config(capacity=100, query_reads_state=False)
    with pytest.raises(ConfigError, match=r"memory.query_reads_state: expected true .* got false"):
        WorldStateMemory(config=config, recall=recall, world=aimless, rows=1, latent_size=SIZE)
