"""Memory: stored moments are retrieved exactly by time, and by similarity as in eqs. 15-20."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from agent.bench import memory as bench
from modules import chance
from modules.memory.associative import Associative
from modules.memory.priority import SumTree
from modules.memory.ring import Ring
from modules.messages import (
    SIGNALS,
    ActionSpec,
    ConfigError,
    Experience,
    MessageError,
    Moment,
    WorldSpec,
)

ROWS, LATENT = 3, 16
DISCRETE = ActionSpec(discrete=True, size=4)
CONTINUOUS = ActionSpec(discrete=False, size=2, low=(-1.0, -1.0), high=(1.0, 1.0))


def spec(pixels: tuple[int, int, int] | None, actions: ActionSpec = DISCRETE) -> WorldSpec:
    return WorldSpec(
        id="small", pixels=pixels, vector=None if pixels else 5, signals=SIGNALS, actions=actions,
        goal=None if pixels else 2,
    )  # fmt: skip


def lengths(row: int) -> int:
    """Episodes of row 0 take 5 steps, of row 1 6 steps, of row 2 7."""
    return 5 + row


def life(steps: int, world: WorldSpec, dtype: torch.dtype = torch.uint8) -> list[Moment]:
    """Moments whose numbers name row and step: frame, vector and reward are step + 1000 times the
    row (bytes: modulo 251), the discrete action is step modulo 4.
    """
    moments = []
    for step in range(-1, steps):
        row = torch.arange(ROWS)
        within = torch.tensor([step % lengths(r) for r in range(ROWS)])
        last = torch.tensor([step % lengths(r) == lengths(r) - 1 for r in range(ROWS)])
        odd = torch.tensor([(step // lengths(r)) % 2 == 1 for r in range(ROWS)])
        if step < 0:
            last = odd = torch.zeros(ROWS, dtype=torch.bool)
        name = (step + 1000 * row).float()
        blank = bench.moment(ROWS, step)
        signals = torch.zeros(ROWS, len(SIGNALS))
        signals[:, 0] = name
        if world.actions.discrete:
            action = world.actions.encode(torch.full((ROWS,), step % 4))
        else:
            action = torch.stack([name, -name], -1) / 5000
        frames = vector = goal = None
        if world.pixels is not None:
            frames = (name % 251).view(-1, 1, 1, 1).expand(ROWS, *world.pixels).to(dtype)
        else:
            vector, goal = name[:, None].expand(-1, 5).clone(), name[:, None].expand(-1, 2) / 2
        state = blank.state.replace(
            latent=chance.normal(chance.keys(3, ROWS, step + 1), "state", LATENT),
            signals=signals,
        )
        moments.append(
            blank.replace(
                observation=blank.observation.replace(
                    pixels=frames, vector=vector, goal=goal, signals=signals,
                    first=within == 0, terminated=last & ~odd, truncated=last & odd,
                ),
                state=state,
                expected=state,
                plan=blank.plan.replace(
                    actions=action.unsqueeze(1),
                    candidates=torch.zeros(ROWS, 0, 1, world.actions.size),
                ),
            )
        )  # fmt: skip
    return moments


def ring(world: WorldSpec, capacity: int = 300, context: int = 3, **settings: float) -> Ring:
    recall = Associative(
        config=Associative.Config(slots=6), world=world, rows=ROWS, latent_size=LATENT
    )
    config = Ring.Config(capacity=capacity, **settings)
    return Ring(config=config, recall=recall, world=world, rows=ROWS, context_frames=context)


def filled(memory: Ring, moments: list[Moment]) -> Ring:
    memory.reset(moments[0])
    for moment in moments[1:]:
        memory.write(moment)
    return memory


def key(number: int = 0) -> Tensor:
    return chance.keys(7, 1, number)


def windows(experience: Experience) -> Iterator[tuple[int, int, int, int]]:
    """Number, row, first step and valid length of each window, from its index."""
    for i in range(experience.batch):
        start, row = divmod(int(experience.indices[i]), ROWS)
        yield i, row, start, int(experience.mask[i].sum())


# -- by time ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "dtype"),
    [((8, 6, 1), torch.uint8), ((5, 9, 3), torch.float32), (None, torch.float32)],
)
@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("exponent", [0.0, 0.7])
@pytest.mark.parametrize(("capacity", "steps"), [(300, 60), (60, 47)])
def test_a_window_holds_the_moments_that_were_written(
    pixels: tuple[int, int, int] | None,
    dtype: torch.dtype,
    actions: ActionSpec,
    exponent: float,
    capacity: int,
    steps: int,
) -> None:
    """Against the moments themselves, before and after the ring has come round."""
    world, window, context = spec(pixels, actions), 4, 3 if pixels else 0
    moments = life(steps, world, dtype)
    memory = filled(ring(world, capacity, priority_exponent=exponent), moments)
    sampled = memory.sample(200, window, key())
    written = moments[1:]
    for i, row, start, real in windows(sampled):
        size = lengths(row)
        born, over = start - start % size, start - start % size + size - 1
        assert real == min(window, over - start + 1, steps - start) >= 2
        assert sampled.mask[i].tolist() == [True] * real + [False] * (window - real)
        for t in range(window):
            moment_then = written[min(start + t, start + real - 1)]
            expected = moment_then.observation
            if t >= real:
                assert not sampled.actions[i, t].any()
                assert not sampled.signals[i, t].any()
                assert not sampled.terminated[i, t]
                assert not sampled.truncated[i, t]
            else:
                assert torch.equal(sampled.actions[i, t], moment_then.plan.action[row])
                assert torch.equal(sampled.signals[i, t], expected.signals[row])
                assert sampled.terminated[i, t] == expected.terminated[row]
                assert sampled.truncated[i, t] == expected.truncated[row]
            if sampled.vectors is not None and sampled.goals is not None:
                assert expected.vector is not None
                assert expected.goal is not None
                assert torch.equal(sampled.vectors[i, t], expected.vector[row])
                assert torch.equal(sampled.goals[i, t], expected.goal[row])
        if sampled.frames is not None:
            assert sampled.frames.dtype is dtype
            assert sampled.frames.shape[1] == window + context
            for f in range(window + context):
                at = min(max(start - context + f, born), start + real - 1)
                pixels_then = written[at].observation.pixels
                assert pixels_then is not None
                assert torch.equal(sampled.frames[i, f], pixels_then[row])


def test_every_step_with_a_successor_is_drawn_equally() -> None:
    """Only ends, and starts with no whole window before now, are left out."""
    steps, window = 30, 3
    memory = filled(ring(spec(None)), life(steps, spec(None)))
    counts: dict[tuple[int, int], int] = {}
    for _, row, start, _ in windows(memory.sample(12_000, window, key())):
        counts[start, row] = counts.get((start, row), 0) + 1
    expected = {
        (t, r)
        for t in range(steps - window + 1)
        for r in range(ROWS)
        if t % lengths(r) != lengths(r) - 1
    }
    assert set(counts) == expected
    mean = 12_000 / len(expected)
    assert max(abs(n - mean) for n in counts.values()) < 5 * math.sqrt(mean)


def test_a_key_decides_the_sample() -> None:
    memory = filled(ring(spec(None)), life(30, spec(None)))
    first, again, other = (memory.sample(16, 3, key(n)).indices for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_previous_is_the_message_written_and_the_initial_one_after_an_end() -> None:
    world = spec((8, 6, 1))
    moments = life(7, world)
    memory = ring(world)
    memory.reset(moments[0])
    assert memory.previous() is moments[0]
    for moment in moments[1:]:
        memory.write(moment)
        ended = moment.observation.ended
        latest = memory.previous()
        if not ended.any():
            assert latest is moment
        for row in range(ROWS):
            source = moments[0] if ended[row] else moment
            assert torch.equal(latest.state.latent[row], source.state.latent[row])
            assert latest.episode_step[row] == source.episode_step[row]
    memory.reset(moments[0])
    assert memory.previous() is moments[0]
    with pytest.raises(MessageError, match="an empty one"):
        memory.sample(1, 2, key())


def test_priorities_decide_what_is_drawn() -> None:
    memory = filled(ring(spec(None), priority_exponent=1.0), life(40, spec(None)))
    every = memory.sample(4000, 2, key())
    starts = torch.unique(every.indices)
    # One window gets half of all priority, the rest share the other half.
    priorities = torch.ones(len(starts))
    priorities[5] = float(len(starts) - 1)
    memory.update_priorities(starts, priorities)
    drawn = memory.sample(4000, 2, key(1))
    share = (drawn.indices == starts[5]).float().mean()
    assert abs(share - 0.5) < 0.01
    # (N p)^-0.5, the largest being 1.
    rare = drawn.importance_weights[drawn.indices != starts[5]]
    often = drawn.importance_weights[drawn.indices == starts[5]]
    torch.testing.assert_close(rare, torch.ones_like(rare))
    torch.testing.assert_close(often, torch.full_like(often, (len(starts) - 1) ** -0.5))


def test_overwritten_windows_take_no_priorities() -> None:
    memory = filled(ring(spec(None), capacity=30, priority_exponent=1.0), life(9, spec(None)))
    old = memory.sample(64, 2, key()).indices
    for moment in life(60, spec(None))[10:]:
        memory.write(moment)
    before = memory.tensors()["priorities"]
    memory.update_priorities(old, torch.full((64,), 1e6))
    assert torch.equal(memory.tensors()["priorities"], before)


def test_a_step_without_successor_takes_no_priority() -> None:
    memory = filled(ring(spec(None), priority_exponent=1.0), life(1, spec(None)))
    only = memory.sample(8, 2, key())
    assert only.mask.sum(1).tolist() == [1] * 8
    memory.update_priorities(only.indices, torch.ones(8))
    assert not memory.tensors()["priorities"].any()


def test_sum_tree_against_a_plain_list() -> None:
    draw = np.random.default_rng(0)
    tree, plain = SumTree(37), np.zeros(37)
    for _ in range(50):
        index = draw.integers(0, 37, 5)
        values = draw.random(5) * (draw.random(5) > 0.4)
        for i, v in zip(index, values, strict=True):
            plain[i] = v
        tree.put(index, values)
        assert tree.total == pytest.approx(plain.sum())
    shares = (np.arange(1000) + 0.5) / 1000
    places = np.searchsorted(np.cumsum(plain) / plain.sum(), shares, side="right")
    assert np.array_equal(tree.draw(shares), places)
    assert plain[tree.draw(np.array([0.0, 1.0]))].min() > 0


@pytest.mark.parametrize("exponent", [0.0, 0.7])
def test_a_restored_memory_continues_exactly(exponent: float) -> None:
    world = spec((8, 6, 1))
    moments = life(70, world)
    memory = filled(ring(world, 120, priority_exponent=exponent), moments[:50])
    stored = memory.tensors()
    other = ring(world, 120, priority_exponent=exponent)
    other.reset(moments[0])
    other.load_tensors(stored)
    assert torch.equal(other.previous().state.latent, memory.previous().state.latent)
    for moment in moments[50:]:
        for either in (memory, other):
            either.recall(moment.state)
            either.write(moment)
    mine, theirs = memory.tensors(), other.tensors()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    one, two = memory.sample(32, 4, key()), other.sample(32, 4, key())
    for (name, a), (_, b) in zip(one.tensors(), two.tensors(), strict=True):
        assert (a is None and b is None) or torch.equal(a, b), name  # type: ignore[arg-type]
    smaller = ring(world, 90, priority_exponent=exponent)
    smaller.reset(moments[0])
    with pytest.raises(MessageError, match="90 steps"):
        smaller.load_tensors(stored)


def test_too_small_or_for_other_rows_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"memory.capacity: expected at least 15 for 3 rows, got 9"
    ):
        ring(spec((8, 6, 1)), capacity=9)
    with pytest.raises(MessageError, match="3 rows"):
        ring(spec((8, 6, 1))).reset(bench.moment(2, -1))


def test_main_memory_grows_with_the_steps_stored() -> None:
    world = spec((84, 84, 1))
    memory = filled(ring(world, capacity=3_000_000), life(10, world))
    taken = memory.bytes_per_step * memory._allocated * ROWS
    assert taken < 40e6
    assert memory.bytes_per_step <= 7300


# -- by similarity ------------------------------------------------------------------------------


def associative(rows: int = ROWS, **settings: float) -> Associative:
    config = Associative.Config(**settings)  # type: ignore[arg-type]
    return Associative(config=config, world=spec(None), rows=rows, latent_size=LATENT)


class Naive:
    """Equations 15 to 20 for one row, slot by slot."""

    def __init__(self, slots: int, scale: float, gamma: float) -> None:
        self.slots, self.scale, self.gamma = slots, scale, gamma
        self.queries: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.used: list[int] = []

    def near(self, q: Tensor) -> list[float]:
        out: list[float] = []
        if not self.queries:
            return out
        queries = torch.stack(self.queries)
        spread = float(((queries - queries.mean(0)) ** 2).sum(-1).mean())
        whole = max(2 * spread, 1e-6 * float((q**2).sum()) / self.scale)
        for k in self.keys:
            apart = float(((q - k) ** 2).sum()) / whole
            out.append(math.exp(-apart / self.scale))
        return out

    def read(self, q: Tensor) -> tuple[Tensor | float, float]:
        e = self.near(q)
        total = self.gamma + sum(e)
        mean = sum((x / total * v for x, v in zip(e, self.values, strict=True)), 0.0)
        return mean, self.gamma / total

    def write(self, q: Tensor, r: Tensor, now: int) -> None:
        e = self.near(q)
        self.queries.append(q)
        total = self.gamma + sum(e)
        if not e or max(e) < self.gamma:
            if len(self.keys) == self.slots:
                gone = self.used.index(min(self.used))
                self.keys[gone], self.values[gone], self.used[gone] = q, r, now
            else:
                self.keys.append(q)
                self.values.append(r)
                self.used.append(now)
            return
        for j, x in enumerate(e):
            c = x / total
            self.values[j] = c * r + (1 - c) * self.values[j]
        self.used[e.index(max(e))] = now


def test_reading_and_writing_are_equations_15_to_20() -> None:
    """Rows of states that drift, come back and jump, against a naive loop for each row."""
    slots, scale, gamma = 6, 0.12, 0.1
    memory = associative(slots=slots, bandwidth=scale, gamma=gamma, top_k=3)
    naive = [Naive(slots, scale, gamma) for _ in range(ROWS)]
    moments = life(80, spec(None))[1:]
    places = chance.normal(key(9), "places", 12, LATENT)[0]
    new = 0
    for now, moment in enumerate(moments):
        where = chance.integers(chance.keys(5, ROWS, now), "where", min(12, 4 + now // 8))
        latent = places[where] + 0.2 * moment.state.latent
        moment = moment.replace(state=moment.state.replace(latent=latent))
        recollection = memory.recall(moment.state)
        for row in range(ROWS):
            q = (latent @ torch.from_numpy(memory.projection))[row]
            mean, novelty = naive[row].read(q)
            torch.testing.assert_close(
                recollection.novelty[row].item(), novelty, rtol=1e-3, atol=1e-5
            )
            expected = torch.as_tensor(mean).expand_as(recollection.readout[row]).float()
            torch.testing.assert_close(recollection.readout[row], expected, rtol=1e-3, atol=1e-2)
            ended = bool(moment.observation.ended[row])
            action = moment.plan.action[row] * (not ended)
            before = [id(known) for known in naive[row].keys]
            naive[row].write(q, torch.cat([moment.state.signals[row], action]), now)
            new += before != [id(known) for known in naive[row].keys]
            assert (recollection.weights[row, :-1] >= recollection.weights[row, 1:]).all()
        memory.write(moment)
    assert ROWS * slots < new < ROWS * 80
    for row in range(ROWS):
        torch.testing.assert_close(
            torch.from_numpy(memory.values[row]), torch.stack(naive[row].values),
            rtol=1e-3, atol=1e-2,
        )  # fmt: skip
        assert memory.used[row].tolist() == naive[row].used


@pytest.mark.parametrize(("nudge", "slots"), [(0.999, 2), (1.001, 1)])
def test_a_slot_is_allocated_just_beyond_the_threshold(nudge: float, slots: int) -> None:
    """e^{-m} of the second state is `nudge` times γ."""
    gamma, scale = 0.1, 0.2
    memory = associative(rows=1, slots=8, bandwidth=scale, gamma=gamma)
    blank = bench.moment(1, 0)
    blank = blank.replace(
        plan=blank.plan.replace(
            actions=blank.plan.actions[:, :, :4], candidates=blank.plan.candidates[..., :4]
        )
    )
    first = chance.normal(key(1), "first", LATENT)
    length = float((first @ torch.from_numpy(memory.projection)).norm())
    spread = length**2
    # Scaled by s the query is (1-s)|q| away: m = (1-s)² / (2·scale), to be -ln(nudge·γ).
    s = 1 - math.sqrt(-math.log(nudge * gamma) * 2 * scale)
    for latent in (first, first * s):
        state = blank.state.replace(latent=latent)
        memory.write(blank.replace(state=state, expected=state))
        memory.spread[:] = spread
    assert int((memory.used >= 0).sum()) == slots


def test_a_state_met_again_is_not_novel_and_its_value_is_read() -> None:
    memory = associative(top_k=2, bandwidth=0.02)
    moments = life(4, spec(None))[1:]
    assert memory.recall(moments[0].state).novelty.tolist() == [1.0] * ROWS
    for moment in moments:
        memory.write(moment)
    recollection = memory.recall(moments[1].state)
    value = torch.cat([moments[1].state.signals, moments[1].plan.action], -1)
    torch.testing.assert_close(recollection.values[:, 0], value)
    torch.testing.assert_close(recollection.readout, value / 1.1, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(recollection.weights[:, 0], torch.full((ROWS,), 1 / 1.1))
    torch.testing.assert_close(recollection.ages[:, 0], torch.full((ROWS,), 3.0))
    assert (recollection.novelty < 0.1).all()
    for (name, a), (_, b) in zip(
        recollection.tensors(), memory.initial(ROWS).tensors(), strict=True
    ):
        assert a is not None
        assert b is not None
        assert a.shape == b.shape, name


def test_rows_do_not_share_slots() -> None:
    """A row's recollections do not depend on the other rows."""
    together, alone = (
        associative(slots=5, bandwidth=0.3),
        associative(rows=1, slots=5, bandwidth=0.3),
    )
    for moment in life(40, spec(None))[1:]:
        only = moment.select(torch.tensor([1]))
        recollection, expected = together.recall(moment.state), alone.recall(only.state)
        for (name, a), (_, b) in zip(recollection.tensors(), expected.tensors(), strict=True):
            assert a is not None
            torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-4, msg=name)
        together.write(moment)
        alone.write(only)
    assert not np.array_equal(together.keys[0], together.keys[1])


def test_recall_changes_nothing_and_tensors_are_copies() -> None:
    memory = associative(slots=4)
    moments = life(12, spec(None))[1:]
    for moment in moments[:-1]:
        memory.write(moment)
    before = memory.tensors()
    memory.recall(moments[-1].state)
    after = memory.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)
    memory.write(moments[-1])
    assert not torch.equal(after["keys"], memory.tensors()["keys"])
