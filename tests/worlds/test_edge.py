"""The edge to foreign environments: what they raise and return becomes one line, or is taken."""

import logging
import random
import time

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from modules.messages import WorldError
from tests.worlds import foreign
from worlds import edge
from worlds.generators import SharedGenerators
from worlds.make import make_world
from worlds.pictures import Pictures
from worlds.returned import WrongValueError, element, flag, number


@pytest.fixture
def notes(caplog):
    edge.note.cache_clear()
    with caplog.at_level(logging.WARNING, logger="sextet"):
        yield lambda: [record.getMessage() for record in caplog.records]


def steps(world, count=20, action=(0.0, 1.0)):
    actions = torch.tensor([action] * world.num_envs)
    return [world.reset(0), *(world.step(actions) for _ in range(count))]


@pytest.mark.parametrize("fault", foreign.FAULTS)
def test_a_fault_of_a_step_is_one_line(fault):
    world = make_world(f"ForeignFault-{fault}-5-v0", 2)
    with pytest.raises(WorldError) as caught:
        steps(world)
    line = str(caught.value)
    assert line.startswith(f"world ForeignFault-{fault}-5-v0: row 0, step 5: ")
    assert foreign.FAULTS[fault] in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "fault", ["raise", "exit", "bare_exception", "observation_nan", "observation_shape", "bare"]
)
def test_a_fault_of_a_reset_is_one_line(fault):
    with pytest.raises(WorldError, match=f"world ForeignFault-{fault}-0-v0: row 0: "):
        make_world(f"ForeignFault-{fault}-0-v0", 1).reset(0)


def test_a_fault_of_the_construction_names_it():
    with pytest.raises(WorldError, match=r"row 0: construction failed \(RuntimeError: cannot be"):
        make_world("ForeignFault-construction-5-v0", 1)


def test_ctrl_c_is_no_fault(monkeypatch):
    world = make_world("ForeignPlain-v0", 1)
    world.reset(0)

    def interrupted(self, action):
        raise KeyboardInterrupt

    monkeypatch.setattr(foreign.Plain, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.step(torch.zeros(1, 2))


def test_a_close_that_raises_is_a_note(notes):
    world = make_world("ForeignFault-close-5-v0", 2)
    world.reset(0)
    world.close()
    assert [line for line in notes() if "close failed" in line] == [
        f"world ForeignFault-close-5-v0: row {row}: close failed (RuntimeError: cannot close)"
        for row in range(2)
    ]


@pytest.mark.parametrize("id", ["ForeignPlain-v0", "ForeignFunction-v0", "ForeignPassing-v0"])
def test_a_constructor_gets_no_argument_that_it_does_not_take(id):
    assert steps(make_world(id, 1))[-1].vector.shape == (1, 2)


def test_values_of_other_types_are_taken():
    plain, easy = (steps(make_world(f"Foreign{id}-v0", 1)) for id in ("Episodes", "Easy"))
    for one, other in zip(plain, easy, strict=True):
        assert one.vector.equal(other.vector)
        assert one.signals.equal(other.signals)
        assert one.terminated.equal(other.terminated)


def test_actions_and_observations_are_copied():
    world = make_world("ForeignArm-v0", 1)
    seen = steps(world, 9, (0.5, -1.0))
    continued = world.step(torch.tensor([[0.5, -1.0]]))
    restored = make_world("ForeignArm-v0", 1)
    world.reset(0)
    for _ in range(9):
        world.step(torch.tensor([[0.5, -1.0]]))
    assert restored.restore(world.snapshot()).vector.equal(seen[-1].vector)
    assert restored.step(torch.tensor([[0.5, -1.0]])).vector.equal(continued.vector)
    first, second = steps(make_world("ForeignReused-v0", 1), 2)[1:]
    assert not first.vector.equal(second.vector)


def test_an_episode_without_an_end_is_truncated(notes, monkeypatch):
    monkeypatch.setattr("worlds.gymnasium_rows.EPISODE_STEPS", 7)
    seen = steps(make_world("ForeignNever-v0", 2), 8)
    assert [bool(one.truncated.all()) for one in seen] == [*(False,) * 7, True, False]
    assert len(notes()) == 1
    assert "no time limit; its episodes are truncated after 7 steps" in notes()[0]
    steps(make_world("CartPole-v1", 1), 2)
    steps(make_world("ForeignNever-v0", 1, episode_steps=5), 2)
    assert len(notes()) == 1


def test_a_hanging_step_is_ended():
    world = make_world("ForeignFault-hang-5-v0", 1, step_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(WorldError, match=r"step 5: step: expected an answer within 0.5 s"):
        steps(world)
    assert time.monotonic() - began < 50


def test_a_film_keeps_its_size_and_colours():
    world = make_world("ForeignDrawn-v0", 2)
    world.reset(0)
    films = [world.render()]
    for _ in range(10):
        world.step(torch.eye(2))
        films.append(world.render())
    assert {(film.shape, film.dtype) for film in films} == {((2, 20, 30, 3), torch.uint8)}
    drawn = [film for step, film in enumerate(films) if step not in (1, 6, 7, 10)]
    assert all(bool((film == 100).all()) for film in drawn)
    # The taller one is scaled to fit, between black bars.
    assert 0 < int((films[6] == 100).sum()) < films[6].numel()


def test_a_failing_renderer_is_a_note(notes):
    world = make_world("ForeignDrawn-v0", 1)
    steps(world, 10)
    world.render()
    world.render()
    assert len([line for line in notes() if "render failed (SystemExit: 1)" in line]) == 1


def test_floats_of_a_film_are_read_alike_after_a_black_picture():
    pictures, seen = Pictures(), np.zeros(2)
    assert pictures.picture(np.zeros((4, 4, 3)), seen).max() == 0
    assert pictures.picture(np.full((4, 4, 3), 200.0), seen).max() == 200
    assert pictures.picture(np.full((4, 4, 3), 0.9), seen).max() == 1


# -- what is taken ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 1.5, True, np.float32(2), np.array([[3]]), np.int64(4)])
def test_numbers(value):
    assert number(value, "reward") == float(np.ravel(value)[0])


@pytest.mark.parametrize("value", [None, "1", [], [1, 2], np.nan, -np.inf, 1e39, 1j, {}])
def test_no_numbers(value):
    with pytest.raises(WrongValueError, match="reward: expected one finite number"):
        number(value, "reward")


@pytest.mark.parametrize("value", [0, 1, True, np.bool_(False), np.array([1]), [True]])
def test_flags(value):
    assert flag(value, "terminated") is bool(np.ravel(value)[0])


@pytest.mark.parametrize("value", [None, 2, -1, "no", [], [0, 1], np.nan])
def test_no_flags(value):
    with pytest.raises(WrongValueError, match="terminated: expected one boolean"):
        flag(value, "terminated")


BYTES = spaces.Box(0, 255, (2,), np.uint8)
FLOATS = spaces.Box(-np.inf, np.inf, (2,), np.float32)


@pytest.mark.parametrize(
    ("space", "value"),
    [
        (BYTES, [3.0, 255.0]),
        (FLOATS, [True, False]),
        (spaces.Box(0, 1, (1,), np.float32), 0.5),
        (spaces.Discrete(3, start=-1), np.array([1])),
        (spaces.MultiDiscrete([2, 3]), [1, 2]),
        (spaces.MultiBinary(2), [True, False]),
        (spaces.Tuple((spaces.Discrete(2), BYTES)), [1, (0, 1)]),
        (spaces.Dict(a=BYTES), {"a": [1, 2], "more": None}),
    ],
)
def test_elements(space, value):
    assert space.contains(element(space, value, "observation"))


@pytest.mark.parametrize(
    ("space", "value", "field"),
    [
        (BYTES, [3.5, 0], "observation"),
        (BYTES, [256, 0], "observation"),
        (BYTES, [-1, 0], "observation"),
        (FLOATS, [[1, 2]], "observation"),
        (FLOATS, [1e300, 0], "observation"),
        (FLOATS, [[1], [1, 2]], "observation"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [0, 1e300], "observation"),
        (spaces.Box(-np.inf, np.inf, (2,), np.float16), [0, 1e5], "observation"),
        (spaces.Discrete(3, start=-1), 2, "observation"),
        (spaces.Discrete(3), 0.5, "observation"),
        (spaces.MultiDiscrete([2, 3]), [2, 0], "observation"),
        (spaces.MultiBinary(2), [1, 2], "observation"),
        (spaces.Tuple((BYTES, FLOATS)), ([1, 2], [np.nan, 0]), r"observation\[1\]"),
        (spaces.Dict(a=BYTES), {"b": [1, 2]}, "observation"),
        (spaces.Dict(a=FLOATS), {"a": None}, r"observation\.a"),
    ],
)
def test_no_elements(space, value, field):
    with pytest.raises(WrongValueError, match=f"^{field}: expected"):
        element(space, value, "observation")


# -- random numbers beside np_random ----------------------------------------------------------

SOURCES = ["python", "numpy", "module"]


def rewards(seen):
    return torch.stack([one.signals[:, 0] for one in seen])


@pytest.mark.parametrize("source", SOURCES)
def test_rows_do_not_share_random_numbers(source):
    """Row 0 is the same beside another row, and so are the generators of all other code."""
    random.seed(1)
    np.random.seed(1)
    alone = rewards(steps(make_world(f"ForeignLucky-{source}-v0", 1)))[:, 0]
    beside = rewards(steps(make_world(f"ForeignLucky-{source}-v0", 2)))
    drawn = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    assert drawn == (random.random(), np.random.random())
    assert alone.equal(beside[:, 0])
    assert len(set(alone.tolist())) > 10
    assert not beside[:, 0].equal(beside[:, 1])


@pytest.mark.parametrize("source", [*SOURCES, "own", "own_python"])
def test_imagined_steps_draw_what_they_should(source):
    """Without a seed what will be drawn, with one something else; the life stays as it is."""
    world = make_world(f"ForeignLucky-{source}-v0", 1)
    world.require_simulation()
    world.reset(0)
    for _ in range(4):
        handle = world.save_state(0)
        seeded = [world.simulate(handle, 1, seed).signals[0] for seed in (1, 1, 2)]
        foreseen = world.simulate(handle, 1, None).signals[0]
        drawn = float(world.step(torch.tensor([[0.0, 1.0]])).signals[0, 0])
        assert foreseen == pytest.approx(drawn)
        assert seeded[0] == seeded[1] != seeded[2]
        assert foreseen not in seeded


def test_generators_that_cannot_be_seeded_are_no_simulator():
    with pytest.raises(WorldError, match=r"imagined with one seed.*world_model.kind=jepa"):
        make_world("ForeignLucky-system-v0", 1).require_simulation()


def test_what_cannot_be_copied_is_no_simulator(monkeypatch):
    world = make_world("ForeignPlain-v0", 1)

    def refuse(self, memo):
        raise TypeError("cannot be copied")

    monkeypatch.setattr(foreign.Plain, "__deepcopy__", refuse, raising=False)
    with pytest.raises(WorldError, match=r"copy failed \(TypeError: cannot be copied\)"):
        world.require_simulation()


def test_a_copy_that_shares_its_state_is_no_simulator(monkeypatch):
    world = make_world("ForeignPlain-v0", 1)
    monkeypatch.setattr(foreign.Plain, "__deepcopy__", lambda self, memo: self, raising=False)
    with pytest.raises(WorldError, match="expected a world that can be imagined from"):
        world.require_simulation()


def test_python_s_generator_is_left_alone_where_nothing_draws_from_it():
    """Saving it takes as long as a step; a module that imports `random` may draw from it."""
    draws = {
        id: SharedGenerators(gymnasium.make(id))._draws_python
        for id in ("CartPole-v1", "sextet/Orchard-v0", "ForeignPlain-v0")
    }
    assert draws == {"CartPole-v1": False, "sextet/Orchard-v0": False, "ForeignPlain-v0": True}


def test_gymnasium_make_gives_the_same_episodes():
    seen = steps(make_world("CartPole-v1", 1), 30, (1.0, 0.0))
    world = make_world("CartPole-v1", 1)
    world.reset(0)
    plain = gymnasium.make("CartPole-v1")
    expected = [plain.reset(seed=int(world._rows[0].env.env.np_random_seed))[0]]
    while len(expected) < 9:
        expected.append(plain.step(0)[0])
    assert np.array_equal(torch.stack([one.vector[0] for one in seen[:9]]).numpy(), expected)
