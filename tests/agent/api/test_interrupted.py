"""Runs that are stopped, killed or cannot write keep what they have, and go on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.api import stopping
from agent.api.failure import RunInterrupted
from agent.api.train import train
from agent.cli import run
from agent.learning.learner import Learner
from agent.learning.metrics import JSONLines
from agent.recording import checkpoint
from agent.recording.atomic import WriteError, new_folder
from agent.recording.run_folder import RunFolder
from modules.messages import ConfigError

SMALL = (
    "learner.warmup_steps=10", "learner.batch=4", "learner.replay_ratio=2",
    "memory.capacity=200", "training.report_every=20", "training.checkpoint_every=20",
    "training.evaluate_every=40", "training.evaluate_episodes=1", "world_model.width=16",
    "perception.width=16", "cost.critic.width=16",
)  # fmt: skip


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def final(folder: str, steps: int) -> dict[str, object]:
    """All that the last checkpoint of a run holds, without the times."""
    saved = checkpoint.load(Path(folder, "checkpoints", str(steps)))
    tensors = {f"{g}/{n}": t for g, named in saved.tensors.items() for n, t in named.items()}
    facts = {n: v for n, v in saved.facts.items() if n not in ("seconds", "cpu_seconds")}
    return {**{n: t.tolist() for n, t in tensors.items()}, **saved.blobs, **facts}


def figures(folder: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    return [{n: v for n, v in line.items() if n != "steps_per_s"} for line in lines]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """A training of 60 steps that was not disturbed."""
    place = tmp_path_factory.mktemp("whole") / "whole"
    train("CartPole-v1", *SMALL, seed=1, steps=60, run=place)
    return str(place)


def test_killed_before_its_first_checkpoint_it_begins_again(whole, monkeypatch):
    notes: list[str] = []
    with monkeypatch.context() as within:
        within.setattr(JSONLines, "write", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        if (child := os.fork()) == 0:
            train("CartPole-v1", *SMALL, seed=1, steps=60, run="r")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert not checkpoint.numbers(Path("r/checkpoints"))
    Path(f"r/.result.json.{child}.partial").write_text("{")
    assert train(resume="r", on_note=notes.append).resumed_at is None
    assert "step 0" in notes[0]
    assert final("r", 60) == final(whole, 60)
    assert figures("r") == figures(whole)
    assert not list(Path("r").glob(".*"))


def test_a_run_that_is_no_training_is_not_begun_as_one():
    assert run(["play", "CartPole-v1", "--steps", "5", "--run", "p", "--no-live"]) == 0
    with pytest.raises(ConfigError, match=r"expected a checkpoint .* --config p/config\.yaml"):
        train(resume="p")


def test_a_folder_is_there_whole_or_not_at_all():
    def killed(_: RunFolder) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        RunFolder.create("new/r", "x", killed)
    os.waitpid(child, 0)
    assert not Path("new/r").exists()
    assert len(list(Path("new").iterdir())) == 1
    RunFolder.create("new/r", "x", lambda folder: folder.write_config({}))
    assert [path.name for path in Path("new").iterdir()] == ["r"]
    with pytest.raises(ZeroDivisionError), new_folder(Path("other/r")):
        raise ZeroDivisionError
    assert not Path("other").exists()


def test_stopped_amid_the_updates_of_a_step_it_goes_on_bit_for_bit(whole, monkeypatch):
    update, count = Learner.update, []

    def interrupting(self):
        count.append(1)
        if len(count) in (20 * 2 + 1, 25 * 2 + 1):
            os.kill(os.getpid(), signal.SIGINT)
        return update(self)

    monkeypatch.setattr(Learner, "update", interrupting)
    with pytest.raises(RunInterrupted) as stopped:
        train("CartPole-v1", *SMALL, seed=1, steps=60, run="r")
    saved = checkpoint.newest(Path("r/checkpoints"))
    assert saved is not None
    assert saved[1].facts["owed"] >= 1
    assert stopped.value.run.stopped
    with pytest.raises(RunInterrupted):
        train(resume="r")
    assert train(resume="r").steps == 60
    assert final("r", 60) == final(whole, 60)
    assert figures("r") == figures(whole)


def test_an_update_without_an_end_does_not_hold_a_training(monkeypatch):
    def endless(_):
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(Learner, "update", endless)
    monkeypatch.setattr(stopping, "STOP_S", 0.2)
    with pytest.raises(KeyboardInterrupt):
        train("CartPole-v1", *SMALL, steps=60, run="r")
    assert RunFolder.open("r").config.is_file()


def test_a_signal_that_comes_twice_does_not_break_the_checkpoint(monkeypatch):
    """`timeout` and a parent may both send SIGTERM."""

    def twice(_):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunInterrupted) as stopped:
        train("CartPole-v1", *SMALL, steps=60, run="r", on_progress=twice)
    assert Path("r/checkpoints", str(stopped.value.run.steps)).is_dir()


def test_an_older_checkpoint_is_resumed_and_newer_ones_are_set_aside(whole, capsys):
    shutil.copytree(whole, "r")
    assert run(["train", "--resume", "r", "--from-step", "30", "--no-live"]) == 2
    assert "('20, 40, 60')" not in (error := capsys.readouterr().err)
    assert "(20, 40, 60), got 30" in error
    assert run(["train", "--resume", "r", "--from-step", "20", "--no-live", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["resumed_at"] == 20
    names = {path.name for path in Path("r/checkpoints").iterdir()}
    assert names == {"20", "40", "60", "40.newer", "60.newer", "best", "best.newer"}
    assert final("r", 60) == final(whole, 60)
    assert figures("r") == figures(whole)
    assert run(["train", "CartPole-v1", "--from-step", "20"]) == 2
    assert "a run to --resume" in capsys.readouterr().err


def test_as_many_checkpoints_are_kept_as_are_asked_for():
    train("CartPole-v1", *SMALL, "training.keep_checkpoints=1", steps=60, run="r")
    assert checkpoint.numbers(Path("r/checkpoints")) == [60]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(whole, capsys):
    shutil.copytree(whole, "r")
    Path("r/checkpoints/60/facts.json").write_text("{")
    assert run(["train", "--resume", "r", "--no-live"]) == 0
    assert "falls back to the checkpoint at step 40" in capsys.readouterr().err
    for place in Path("r/checkpoints").glob("[0-9]*/facts.json"):
        place.write_text("{")
    assert run(["train", "--resume", "r", "--no-live"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "damaged ones alone (20, 40, 60)" in line


def test_the_best_weights_are_found_while_they_are_replaced(whole, capsys):
    shutil.copytree(whole, "r")
    Path("r/checkpoints/best").rename("r/checkpoints/.best.old")
    assert run(["eval", "r", "--episodes", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == "r/checkpoints/.best.old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_one_line(whole, capsys, monkeypatch, number):
    shutil.copytree(whole, "r")

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoint, "_write", fails)
    assert run(["train", "--resume", "r", "--steps", "80", "--no-live"]) == 1
    errors = capsys.readouterr().err.splitlines()
    (line,) = [line for line in errors if not line.startswith("note ")]
    assert os.strerror(number) in line
    assert "(kept: r)" in line
    assert checkpoint.numbers(Path("r/checkpoints")) == [20, 40, 60]
    assert not list(Path("r/checkpoints").glob(".*"))
    monkeypatch.undo()
    with pytest.raises(WriteError), new_folder(Path("s")):
        raise WriteError("full")
    assert not Path("s").exists()


def test_what_cannot_be_written_is_named_by_its_place(monkeypatch):
    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("agent.recording.atomic.os.fsync", fails)
    with pytest.raises(WriteError, match=r"^r/config\.yaml: .* full; free some space$"):
        RunFolder.create("r", "x", lambda folder: folder.write_config({}))
    assert not Path("r").exists()


def test_sigterm_ends_a_command_like_ctrl_c():
    verbs = (
        ("play", "CartPole-v1", "--episodes", "100000", "--run", "p", "--no-live"),
        ("eval", "CartPole-v1", "--episodes", "100000"),
        ("tune", "CartPole-v1", "--generations", "100000", "--run", "t", "--steps", "20"),
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", "import agent.cli; print(1, flush=True); agent.cli.main()",
             *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for words in verbs
    ]  # fmt: skip
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
    time.sleep(4)
    for child in children:
        child.send_signal(signal.SIGTERM)
    for child in children:
        _, error = child.communicate(timeout=60)
        assert (child.returncode, error.splitlines()[-1]) == (130, "sextet: stopped")
