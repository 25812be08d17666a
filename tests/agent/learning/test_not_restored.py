"""A training in a world that replay does not restore goes on with new episodes, and says so."""

import shutil

import pytest

from agent import train
from agent.recording import checkpoint
from tests.worlds import foreign  # noqa: F401  registers the environments

SMALL = (
    "perception.width=16", "world_model.width=16", "world_model.blocks=1", "cost.critic.width=16",
    "learner.batch=4", "learner.warmup_steps=24", "learner.replay_ratio=0.1",
    "training.checkpoint_every=35", "training.evaluate_every=0", "training.evaluate_episodes=1",
)  # fmt: skip


def interrupted(id, place):
    """A whole training, a copy of it cut off after its first checkpoint, and what each noted."""
    notes = [], []
    options = {"num_envs": 2, "steps": 70, "seed": 2, "preset": "learn-actions"}
    settings = SMALL
    if "Arm" in id:
        options["preset"] = "learn-model"
        settings = (*SMALL[:3], *SMALL[4:], "configurator.mode=1")
    train(id, *settings, run=place / "whole", on_note=notes[0].append, **options)
    shutil.copytree(place / "whole", place / "cut")
    shutil.rmtree(place / "cut/checkpoints/70")
    train(resume=place / "cut", on_note=notes[1].append)
    kept = [checkpoint.newest(place / run / "checkpoints")[1] for run in ("whole", "cut")]
    return kept, tuple([note for note in run if note.startswith("world ")] for run in notes)


def test_what_is_not_restored_goes_on_with_new_episodes(tmp_path):
    (whole, cut), notes = interrupted("ForeignLevels-v0", tmp_path)
    for noted, line in zip(notes, ("--resume will begin", "not restored"), strict=True):
        assert len(noted) == 1
        assert noted[0].startswith("world ForeignLevels-v0: ")
        assert line in noted[0]
        assert "reward 2.0 instead of 1.0" in noted[0]
    for one in (whole, cut):
        assert one.facts["steps"] == 70
        assert one.facts["updates"] == whole.facts["updates"]
    memory = cut.tensors["memory"]
    # 36 steps before the checkpoint, 18 a row, the last of them cut; then a new episode.
    assert memory["vectors"][:36].equal(whole.tensors["memory"]["vectors"][:36])
    assert memory["truncated"].view(-1, 2).any(1).nonzero().flatten().tolist() == [17]
    assert memory["began"].view(-1, 2)[18].tolist() == [18, 18]
    assert memory["vectors"].view(-1, 2, 2)[18].eq(0).all()


@pytest.mark.parametrize("id", ["ForeignArm-v0", "ForeignLucky-numpy-v0"])
def test_what_is_restored_goes_on_exactly(id, tmp_path):
    (whole, cut), notes = interrupted(id, tmp_path)
    assert notes == ([], [])
    for name in ("weights", "learner", "memory"):
        mine, theirs = whole.tensors[name], cut.tensors[name]
        assert all(mine[key].equal(theirs[key]) for key in mine)
    assert whole.blobs["world"] == cut.blobs["world"]
