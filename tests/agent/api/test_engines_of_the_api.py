"""Evaluations, tunings and one training with workers: the same on every engine, for any number."""

from __future__ import annotations

import json

import pytest
import torch

from agent import evaluate, train
from agent.api import training
from agent.assembly.load import RunRequest
from agent.cli import run as command
from agent.engines.processes import ProcessEngine
from agent.engines.serial import SerialEngine
from agent.learning.blocks import BLOCK, block_seed
from agent.recording import checkpoint
from agent.tuning.evolution import Tuning, tune
from modules.messages import ConfigError

PLAYER = ("configurator.kind=fixed", "configurator.mode=1", "world.episode_steps=20")


@pytest.fixture(scope="module")
def pool():
    with ProcessEngine(2) as engine:
        yield engine


def test_an_evaluation_in_blocks_is_the_same_on_every_engine(pool):
    """Ten episodes: two blocks of four environments, and one of two."""
    results = [
        evaluate("CartPole-v1", *PLAYER, episodes=10, engine=engine, seed=3)
        for engine in (SerialEngine(), pool)
    ]
    assert results[0].returns == results[1].returns
    assert (results[0].steps, results[0].interval) == (results[1].steps, results[1].interval)
    assert results[0].episodes == 10
    # The first block has the seed of the run: its episodes are those without an engine.
    alone = evaluate("CartPole-v1", *PLAYER, episodes=BLOCK, num_envs=BLOCK, seed=3)
    assert results[0].returns[:BLOCK] == alone.returns


def test_a_limit_of_steps_cuts_blocks_as_it_cuts_one_batch():
    cut = evaluate("CartPole-v1", *PLAYER, episodes=10, steps=30, jobs=1, seed=3)
    assert cut.episodes < 10
    assert cut.mean_return is None
    assert cut.steps == 30


def test_seeds_of_blocks_differ_and_are_no_seeds_of_trainings():
    seeds = [block_seed(5, block) for block in range(50)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 50
    assert min(seeds[1:]) >= 2**30


def test_a_tuning_is_the_same_on_every_engine(pool, tmp_path):
    request = RunRequest(
        agent="CartPole-v1",
        overrides=("world_model.kind=persistence", "directive.horizon_steps=3",
                   "directive.model_calls=8", "directive.commit_steps=2"),
    )  # fmt: skip
    tuning = Tuning(price=1.0, generations=1, population=4, episodes=2, steps=12, seed=5)
    notes = []
    for name, engine in (("serial", None), ("processes", pool)):
        tune(request, tmp_path / name, tuning, engine=engine)
        notes.append(json.loads((tmp_path / name / "tuning.json").read_text()))
    assert notes[0] == notes[1]


SMALL = (
    "learner.batch=8", "learner.warmup_steps=64", "learner.replay_ratio=0.05",
    "training.evaluate_every=0", "training.evaluate_episodes=1", "training.checkpoint_every=400",
    "memory.capacity=2000", "world.num_envs=6", "world.episode_steps=30",
)  # fmt: skip


def weights(place):
    return checkpoint.newest(place / "checkpoints")[1].tensors


def test_one_training_has_the_same_weights_with_one_and_two_workers_and_resumed(tmp_path):
    """Six environments: a block of four and one of two; three segments."""
    one, two = tmp_path / "one", tmp_path / "two"
    trained = train("CartPole-v1", *SMALL, "training.workers=1", steps=1000, run=one,
                    engine=SerialEngine())  # fmt: skip
    train("CartPole-v1", *SMALL, "training.workers=2", steps=1000, run=two)
    assert trained.updates > 20
    expected = weights(one)

    def equal(place):
        found = weights(place)
        return found.keys() == expected.keys() and all(
            torch.equal(found[group][name], expected[group][name])
            for group in expected
            for name in expected[group]
        )

    assert equal(two)
    where = json.loads((two / "workers.json").read_text())
    assert where.keys() == {"worker 0", "worker 1"}
    # From the middle of a segment.
    resumed = train(resume=two, from_step=402, engine=SerialEngine())
    assert resumed.resumed_at == 402
    assert equal(two)


def test_a_single_worker_has_a_process_of_its_own(tmp_path, monkeypatch):
    made = []

    class Counted(ProcessEngine):
        def __init__(self, jobs):
            made.append(jobs)
            super().__init__(jobs)

    monkeypatch.setattr(training, "ProcessEngine", Counted)
    train("CartPole-v1", *SMALL, "training.workers=1", steps=400, run=tmp_path / "one")
    assert made == [1]


def test_what_workers_cannot_do_is_one_line(tmp_path, capsys):
    for words, line in (
        (["--engine", "processes"], "expected several --seeds or --training.workers=N"),
        (["--training.workers=2", "--training.segment_steps=8"], "greater than or equal to 64"),
    ):
        run = ["train", "CartPole-v1", "--steps", "40", "--run", str(tmp_path / "r"), *words]
        assert command(run) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
    assert not (tmp_path / "r").exists()
    with pytest.raises(ConfigError, match="'rya' is not one of serial, processes, ray"):
        evaluate("CartPole-v1", engine="rya")
