"""A training that was stopped anywhere continues as if it had not been."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator

import pytest
from small_training import learner_of, made, trained

from agent.learning.training import Training
from agent.recording import checkpoint
from modules.messages import SextetError


def test_resumed_life_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = trained(tmp_path / "whole", 150)
    for cut in (50, 100):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "whole" / "checkpoints" / str(cut), folder / "checkpoints/x")
        kept = checkpoint.load(folder / "checkpoints/x")
        assert kept.facts["steps"] == cut
        again = trained(folder, 150, kept)
        for mine, theirs in (
            (whole.learner.weights(), again.learner.weights()),
            (whole.learner.tensors(), again.learner.tensors()),
            (whole.agent.memory.tensors(), again.agent.memory.tensors()),
        ):
            assert mine.keys() == theirs.keys()
            assert all(mine[name].equal(theirs[name]) for name in mine)


def test_metrics_after_a_resume_are_those_of_the_uninterrupted_run(tmp_path):
    trained(tmp_path / "whole", 150)
    folder = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "50", folder / "checkpoints" / "50")
    shutil.copy(tmp_path / "whole" / "metrics.jsonl", folder / "metrics.jsonl")
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as out:
        out.write('{"steps": 1')  # killed while it wrote
    trained(folder, 150, checkpoint.load(folder / "checkpoints" / "50"))
    wall = {"steps_per_s"}
    lines = [
        [
            {name: value for name, value in json.loads(line).items() if name not in wall}
            for line in (at / "metrics.jsonl").read_text().splitlines()
        ]
        for at in (tmp_path / "whole", folder)
    ]
    assert lines[0] == lines[1]
    assert [line["steps"] for line in lines[0]] == [20, 40, 60, 80, 100, 120, 140, 150, 150]
    assert all(line["frames"] == line["steps"] for line in lines[0])


def test_stopped_anywhere_it_goes_on_to_the_same_end(tmp_path):
    whole = trained(tmp_path / "whole", 150)
    folder = tmp_path / "stopped"
    folder.mkdir()
    assembly = made(reset_every=17, imagination_horizon=2)
    schedule = Training.Config(steps=150, report_every=20, evaluate_every=0, checkpoint_every=50)
    training = Training(
        assembly.agent, assembly.world, learner_of(assembly), folder, schedule,
        evaluate=lambda: [1.0], seed=3,
    )  # fmt: skip
    for progress in training.run():
        if progress.steps == 87:
            training.stopping = True
    found = checkpoint.newest(folder / "checkpoints")
    assert found is not None
    assert found[1].facts["steps"] == 88
    again = trained(folder, 150, found[1])
    assert all(whole.learner.weights()[n].equal(t) for n, t in again.learner.weights().items())
    mine, theirs = whole.agent.memory.tensors(), again.agent.memory.tensors()
    assert all(mine[name].equal(theirs[name]) for name in mine)


def test_an_evaluation_that_was_told_to_stop_is_made_up_for(tmp_path):
    def once(answers: Iterator[list[float] | None]) -> Training:
        assembly = made()
        return Training(
            assembly.agent, assembly.world, learner_of(assembly), tmp_path,
            Training.Config(steps=40, report_every=0, evaluate_every=20, checkpoint_every=0),
            evaluate=lambda: next(answers), seed=3,
        )  # fmt: skip

    first = once(iter(()))

    def interrupted() -> None:
        first.stopping = True

    first.evaluate = interrupted
    list(first.run())
    assert first.progress.steps == 20
    assert first.progress.evaluation is None
    found = checkpoint.newest(tmp_path / "checkpoints")
    assert found is not None
    second = once(iter([[5.0], [7.0]]))
    list(second.run(found[1]))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [(line["steps"], line["evaluation"]) for line in lines if "evaluation" in line]
    assert values == [(20, 5.0), (40, 7.0)]
    assert second.progress.best == 7.0


def test_an_evaluation_that_is_no_number_is_never_the_best(tmp_path):
    assembly = made()
    evaluations = iter([[math.nan, 1.0], [2.0], [math.inf], [], [3.0]])
    training = Training(
        assembly.agent, assembly.world, learner_of(assembly), tmp_path,
        Training.Config(steps=50, report_every=0, evaluate_every=10, checkpoint_every=0),
        evaluate=lambda: next(evaluations), seed=3,
    )  # fmt: skip
    for _ in training.run():
        pass
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    lines = [line for line in map(json.loads, text.splitlines()) if "evaluation" in line]
    assert [line["evaluation"] for line in lines] == [None, 2.0, None, None, 3.0]
    assert [line["best"] for line in lines] == [None, 2.0, 2.0, 2.0, 3.0]
    assert checkpoint.load(tmp_path / "checkpoints" / "best").facts["best"] == 3.0


def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path):
    training = trained(tmp_path, 60)
    learner, memory = training.learner, training.agent.modules.memory
    for part, of_part in (("weights", learner.weights), ("learner", learner.tensors)):
        number = next(t for t in of_part().values() if t.is_floating_point()).view(-1)[:1]
        before = number.clone()
        number.fill_(math.nan)
        with pytest.raises(
            SextetError, match=f"^checkpoint 61: {part} .*: expected finite numbers"
        ):
            training.save("61")
        number.copy_(before)
    memory._fields["signals"][7, 0] = math.inf
    with pytest.raises(SextetError, match=r"^checkpoint 61: memory signals: .*got inf"):
        training.save("61")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "50",
        "60",
        "best",
    ]
