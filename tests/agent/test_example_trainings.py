"""`examples/probing.py`: a training of an example is read where it is whole, and goes on else."""

import pytest

import probing
from agent import train

SETTINGS = (
    "memory.capacity=200", "learner.warmup_steps=20", "learner.batch=4", "learner.replay_ratio=0.1",
    "training.checkpoint_every=20", "training.evaluate_every=0", "training.evaluate_episodes=1",
    "world_model.width=16", "perception.width=16", "cost.critic.width=16",
    "world.episode_steps=10", "configurator.kind=fixed", "configurator.mode=1",
)  # fmt: skip


def stop_after(steps):
    def stop(progress):
        if progress.steps >= steps:
            raise KeyboardInterrupt

    return stop


def test_an_interrupted_training_goes_on_and_a_whole_one_is_read(tmp_path, capsys):
    place = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train("CartPole-v1", *SETTINGS, steps=60, run=place, on_progress=stop_after(40))
    result = probing.trained(place, "CartPole-v1", *SETTINGS, steps=60)
    assert (result["steps"], result["stopped"]) == (60, False)
    assert result["resumed_at"] >= 20
    assert probing.trained(place, "CartPole-v1") == result
    assert capsys.readouterr().err.count(": training") == 1


def test_one_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.yaml").write_text("cut o")
    assert probing.trained(place, "CartPole-v1", *SETTINGS, steps=20)["steps"] == 20
