"""Environments in a process of their own: the same results, and no fault ends this process."""

import time

import pytest
import torch

from modules.messages import ConfigError, WorldError
from worlds.isolated import IsolatedWorld
from worlds.make import make_world

HERE = "tests.worlds.foreign"


def test_it_is_the_same_world():
    isolated, plain = (make_world("CartPole-v1", 2, isolate=flag) for flag in (True, False))
    assert isinstance(isolated, IsolatedWorld)
    assert isolated.spec == plain.spec
    assert isolated.rehearse() is None
    for made in (isolated, plain):
        made.reset(3)
    for step in range(30):
        action = torch.eye(2)[[step % 2, 1]]
        one, other = isolated.step(action), plain.step(action)
        assert all(
            a.equal(b) if a is not None else b is None
            for (_, a), (_, b) in zip(one.tensors(), other.tensors(), strict=True)
        )
    assert isolated.snapshot() == plain.snapshot()
    assert isolated.render().equal(plain.render())
    assert isolated.restore(plain.snapshot()).vector.equal(other.vector)
    process = isolated._process
    isolated.close()
    assert process.returncode is not None
    with pytest.raises(WorldError, match=r"expected reset\(seed\) first"):
        isolated.step(action)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("die", "got the end of its process (exit code 3)"),
        pytest.param("kill", "got the end of its process (signal SIGKILL)", marks=pytest.mark.slow),
        pytest.param("exit", "step failed (SystemExit: 0)", marks=pytest.mark.slow),
        pytest.param("hang", "step: expected an answer within 1 s", marks=pytest.mark.slow),
        # The process cannot interrupt C code; this one ends the process.
        ("stuck", "step: expected an answer within 1 s"),
    ],
)
def test_a_fault_is_one_line(fault, line):
    id = f"{HERE}:ForeignFault-{fault}-5-v0"
    world = make_world(id, 1, isolate=True, step_seconds=1)
    world.reset(0)
    for _ in range(4):
        world.step(torch.zeros(1, 2))
    began = time.monotonic()
    with pytest.raises(WorldError) as caught:
        world.step(torch.zeros(1, 2))
    assert time.monotonic() - began < 50
    assert str(caught.value).startswith(f"world {id}: row 0, step 5: step")
    assert line in str(caught.value)
    world.close()


@pytest.mark.slow
def test_an_unknown_world_is_refused_as_elsewhere():
    with pytest.raises(ConfigError, match="registers no 'Nothing-v0'"):
        make_world(f"{HERE}:Nothing-v0", 1, isolate=True)
