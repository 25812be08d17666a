"""Whether replay restores a world is found out before it is promised."""

import pytest
import torch

from modules.messages import WorldError
from tests.worlds import foreign
from worlds.make import make_world


@pytest.mark.parametrize(
    "id",
    ["ForeignPlain-v0", "ForeignArm-v0", "ForeignNever-v0", "ForeignLucky-python-v0",
     "ForeignLucky-numpy-v0", "ForeignLucky-module-v0", "CartPole-v1", "sextet/Orchard-v0"],
)  # fmt: skip
def test_what_replay_restores(id):
    assert make_world(id, 1).rehearse() is None


@pytest.mark.parametrize(
    ("id", "field"),
    [
        ("ForeignLevels-v0", "reward 2.0 instead of 1.0 after a reset with the same seed"),
        ("ForeignLucky-own-v0", "reward "),
        ("ForeignLucky-own_python-v0", "reward "),
        ("ForeignLucky-system-v0", "reward "),
    ],
)
def test_what_it_does_not(id, field):
    world = make_world(id, 1)
    assert world.rehearse().startswith(field)
    # Tested once.
    assert world.rehearse() is world.rehearse()


def test_it_is_tested_in_one_copy_where_no_second_can_be_opened(monkeypatch):
    worlds = [make_world(f"Foreign{id}-v0", 1) for id in ("Levels", "Plain")]

    def refuse(self, render_mode=None):
        raise OSError("port in use")

    monkeypatch.setattr(foreign.Levels, "__init__", refuse)
    monkeypatch.setattr(foreign.Plain, "__init__", refuse)
    assert worlds[0].rehearse().startswith("reward 21.0 instead of 1.0")
    assert worlds[1].rehearse() is None


def test_a_fault_in_the_rehearsal_is_a_reason():
    fault = make_world("ForeignFault-reward_nan-5-v0", 1).rehearse()
    assert "rehearsal, step 5: reward: expected one finite number" in fault


def test_restore_compares_signals_too():
    """A level is in no observation; where the test did not see it, the snapshot does."""
    world, fresh = (make_world("ForeignLevels-v0", 1) for _ in range(2))
    world.reset(0)
    for _ in range(14):
        world.step(torch.eye(2)[:1])
    with pytest.raises(WorldError, match="expected the recorded signals, got another"):
        fresh.restore(world.snapshot())
