"""Signals that an environment declares: observed, restored, imagined, from another process."""

from typing import ClassVar

import gymnasium
import numpy as np
import pytest
import torch

from modules.messages import SIGNALS, WorldError
from tests.worlds import foreign
from worlds.make import make_world, world_spec

ID = "tests.worlds.foreign:ForeignSignals-v0"
OWN = ("height", "hit")


@pytest.fixture
def register():
    """A function that registers Signals with arguments until the test ends, and returns its id."""
    ids = []

    def add(make=foreign.Signals, **arguments):
        ids.append(f"SextetSignals{len(ids)}-v0")
        gymnasium.register(ids[-1], make, kwargs=arguments)
        return ids[-1]

    yield add
    for id in ids:
        del gymnasium.registry[id]


def actions(steps, rows=2):
    return torch.eye(2)[np.random.default_rng(0).integers(2, size=(steps, rows))]


def same(one, other):
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    return all(b is None if a is None else a.equal(b) for (_, a), (_, b) in pairs)


def test_they_follow_those_of_every_world_and_are_the_values_of_info():
    world = make_world(ID, 2)
    assert world.spec.signals == (*SIGNALS, *OWN) == world_spec(ID).signals
    plain = gymnasium.make("ForeignSignals-v0")
    for episode in range(2):
        observed = world.reset(7) if episode == 0 else world.step(actions(1)[0])
        assert observed.signals[:, len(SIGNALS) :].tolist() == [[0.5, 0.0]] * 2
        plain.reset(seed=int(world._rows[1].env.env.np_random_seed))
        for step, action in enumerate(actions(10), 1):
            observed = world.step(action)
            info = plain.step(0)[-1]
            assert observed.signals[1, -2:].tolist() == pytest.approx(
                [info["height"], float(step % 3 == 0)]
            )


def test_entries_of_the_observation_follow_them():
    world = make_world(ID, 1, observation_signals=(0,))
    assert world.spec.signals == (*SIGNALS, *OWN, "observation_0")
    world.reset(0)
    for action in actions(4, 1):
        signals = world.step(action).signals[0, len(SIGNALS) :]
    assert 0 < signals[0] < 1
    assert signals[1:].tolist() == pytest.approx([0, 0.4])


def test_they_are_restored_and_imagined():
    world, restored = make_world(ID, 2), make_world(ID, 2)
    assert world.rehearse() is None
    world.require_simulation()
    world.reset(5)
    for action in actions(6):
        observed = world.step(action)
    assert observed.signals[0, -1] == 1
    assert same(restored.restore(world.snapshot()), observed)
    handle = world.save_state(1)
    foreseen, fair, other = (world.simulate(handle, 0, seed) for seed in (None, 1, 2))
    observed = world.step(torch.eye(2)[[0, 0]])
    assert same(restored.step(torch.eye(2)[[0, 0]]), observed)
    assert torch.equal(torch.tensor(foreseen.signals), observed.signals[1])
    assert fair.signals[-2] != other.signals[-2]
    assert fair.signals[-1] == observed.signals[1, -1]
    for _ in range(3):
        world.step(torch.eye(2)[[0, 0]])
    ended = world.save_state(0)
    assert ended.ended
    assert world.simulate(ended, 0, None).signals == (0.0,) * 8


def test_they_come_from_another_process_too():
    isolated, plain = (make_world(ID, 2, isolate=flag) for flag in (True, False))
    assert isolated.spec == plain.spec
    assert same(isolated.reset(3), plain.reset(3))
    for action in actions(12):
        assert same(isolated.step(action), plain.step(action))
    assert isolated.snapshot() == plain.snapshot()
    isolated.close()


def test_a_signal_that_replay_does_not_repeat_is_named(register):
    id = register(odd=lambda info: info | {"height": np.random.default_rng().random()})
    assert make_world(id, 1).rehearse().startswith("signal height 0.")


@pytest.mark.parametrize(
    ("info", "line"),
    [
        ({"height": 1.0}, "info.hit: expected one finite number, got None"),
        ({"height": "high", "hit": 0}, "info.height: expected one finite number, got 'high'"),
        ({"height": 1, "hit": float("nan")}, "info.hit: expected one finite number, got nan"),
        ({"height": 1e39, "hit": 0}, "info.height: expected one finite number, got 1e+39"),
        ({"height": np.ones(2), "hit": 0}, "info.height: expected one finite number, got an array"),
        (None, "info: expected a mapping with keys height, hit, got None"),
    ],
)
def test_a_value_that_is_no_number_is_one_line(register, info, line):
    id = register(odd=lambda _: info)
    world = make_world(id, 2)
    world.reset(0)
    for action in actions(4):
        world.step(action)
    with pytest.raises(WorldError) as caught:
        world.step(action)
    assert str(caught.value).startswith(f"world {id}: row 0, step 5: {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ("height", "expected a tuple of names, got 'height'"),
        (("height", 3), "expected a tuple of names, got 2 values"),
        (("my height",), "expected names of letters, digits and _, got 'my height'"),
        (("reward",), "expected other names than reward, life_lost, .*, got 'reward'"),
        (("observation_0",), "expected other names than .*, got 'observation_0'"),
        (("achieved_0",), "expected other names than .*, got 'achieved_0'"),
        (("hit", "hit"), "expected each name once, got 'hit' twice"),
    ],
)
def test_other_declarations_are_refused_in_one_line(register, declared, line):
    with pytest.raises(WorldError, match=rf"row 0: metadata\['signals'\]: {line}"):
        make_world(register(declared=declared), 1)


class Timed(gymnasium.Wrapper):
    """Declares a signal more than what it wraps."""

    metadata: ClassVar = {"render_modes": [], "signals": ["hit", "late"]}

    def step(self, action):
        *step, info = self.env.step(action)
        return *step, {**info, "late": self.env.unwrapped.t > 2}


def test_an_instance_and_a_wrapper_declare_them(register):
    assert world_spec(register(declared=("hit",))).signals[6:] == ("hit",)
    assert world_spec(register(declared=())).signals == SIGNALS
    world = make_world(register(lambda: Timed(foreign.Signals())), 1)
    assert world.spec.signals[6:] == ("hit", "late")
    world.reset(0)
    late = [world.step(action).signals[0, -1].item() for action in actions(4, 1)]
    assert late == [0, 0, 1, 1]
