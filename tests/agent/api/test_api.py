"""The API: functions that return data, print nothing and leave the process alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import agent
from agent import (
    ConfigError,
    RunFailedError,
    RunInterrupted,
    WorldError,
    evaluate,
    fork,
    live,
    load,
    play,
    study,
    train,
)
from agent.api.training import TrainingRun
from agent.recording import checkpoint

SMALL = (
    "learner.warmup_steps=20", "learner.batch=8", "training.evaluate_every=60",
    "training.evaluate_episodes=2", "training.checkpoint_every=30", "training.report_every=30",
)  # fmt: skip
HOME = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_name_is_there_and_none_is_a_module():
    for name in agent.__all__:
        assert callable(getattr(agent, name)), name
    assert (agent.train, agent.live, agent.study) == (train, live, study)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        agent.trian  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    done = subprocess.run(
        [sys.executable, "-c", "import agent, sys; sys.exit('torch' in sys.modules)"],
        cwd=HOME, check=False,
    )  # fmt: skip
    assert done.returncode == 0


def test_a_program_prints_its_scores_and_nothing_else(tmp_path):
    program = (
        "from agent import train, evaluate;"
        f"run = train('CartPole-v1', *{SMALL!r}, steps=60, seed=0);"
        "print(evaluate(run, episodes=3))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    assert line.startswith("CartPole-v1: ")
    assert line.endswith("over 3 episodes")
    assert done.stderr == ""


def test_a_training_is_data(tmp_path, capsys):
    steps = []
    run = train("CartPole-v1", *SMALL, steps=90, seed=2, run="r",
                on_progress=lambda progress: steps.append(progress.steps))  # fmt: skip
    assert isinstance(run, TrainingRun)
    assert list(dict.fromkeys(steps)) == list(range(1, 91))
    assert (run.world, run.seed, run.steps, run.stopped) == ("CartPole-v1", 2, 90, False)
    assert run.folder == Path("r")
    assert [at for at, _ in run.scores] == [60, 90]
    assert run.scores[-1][1] == run.evaluation
    assert [at for at, _ in run.curves["return"]] == [30, 60, 90]
    assert TrainingRun.read(run.folder) == TrainingRun(
        **{**vars(run), "interval": list(run.interval or ())}
    )
    scores = evaluate(run, episodes=2)
    assert (scores.episodes, len(scores.returns), scores.agent) == (2, 2, "r")
    assert scores.checkpoint == "r/checkpoints/best"
    assert evaluate(run, episodes=2).returns == scores.returns
    assert load(run.folder).world.spec.id == "CartPole-v1"
    with pytest.raises(ConfigError, match="preset reactive; leave that out"):
        train(resume=run, preset="reactive")
    longer = train(resume=run, steps=120)
    assert (longer.steps, longer.resumed_at) == (120, 90)
    assert capsys.readouterr().out == ""


def test_several_seeds_side_by_side_are_those_one_after_the_other(capsys):
    seen, notes = set(), []
    side = train("CartPole-v1", *SMALL, steps=40, seeds=(3, 4), jobs=2, run="side",
                 on_progress=lambda progress: seen.add((progress.seed, progress.fresh)),
                 on_note=notes.append)  # fmt: skip
    row = train("CartPole-v1", *SMALL, steps=40, seeds=(3, 4), run="row")
    assert [r.evaluation for r in side.results] == [r.evaluation for r in row.results]
    # From other processes only what has a new report is sent.
    assert seen == {(3, True), (4, True)}
    assert (side.finished, side.stopped) == (2, False)
    # Each seed introduces its world.
    assert [line.split()[0] for line in notes] == 2 * ["observes", "acts", "replay"]
    weights = [
        (place.folder / "seed-3/checkpoints/40/weights.safetensors").read_bytes()
        for place in (side, row)
    ]
    assert weights[0] == weights[1]
    assert capsys.readouterr().out == ""


def test_a_seed_that_fails_is_named_and_the_others_are_done(monkeypatch):
    whole = train("CartPole-v1", *SMALL, steps=40, seeds=(3, 4), run="r")
    for seed in (3, 4):
        Path(f"r/seed-{seed}/result.json").unlink()
    Path("r/seed-3/config.yaml").write_text("a: [")
    with pytest.raises(RunFailedError, match=r"seed 3: config .*\(kept: r\)"):
        train(resume="r")
    assert TrainingRun.read(whole.folder / "seed-4").steps == 40


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_keeps_a_checkpoint_of_each_seed_and_is_raised(jobs):
    fired = []

    def interrupt(progress):
        # Once: a second time it would end at once.
        if progress.steps >= 30 and not fired:
            fired.append(progress.steps)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as stopped:
        train("CartPole-v1", *SMALL, "training.checkpoint_every=0", steps=100_000, seeds=(3, 4),
              jobs=jobs, run="r", on_progress=interrupt)  # fmt: skip
    assert isinstance(stopped.value, RunInterrupted)
    run = stopped.value.run
    assert run.stopped
    assert run.results
    for one in run.results:
        newest = checkpoint.newest(one.folder / "checkpoints", only=())
        assert newest is not None
        assert newest[1].facts["steps"] == one.steps
    assert json.loads(Path("r/summary.json").read_text())["stopped"]


def test_ctrl_c_in_a_training_and_in_a_play():
    fired = []

    def interrupt(_):
        if not fired:
            fired.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RunInterrupted) as stopped:
        train("CartPole-v1", *SMALL, steps=1000, run="r", on_progress=interrupt)
    assert (stopped.value.run.steps, stopped.value.run.stopped) == (2, True)
    assert Path("r/checkpoints/2/manifest.json").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    fired.clear()
    with pytest.raises(RunInterrupted) as stopped:
        play("CartPole-v1", steps=50, run="p", on_moment=interrupt)
    assert stopped.value.run.folder == Path("p")
    assert Path("p/trace.sqlite").is_file()


def test_outside_the_main_thread_a_training_leaves_signals_alone():
    results = []
    thread = threading.Thread(
        target=lambda: results.append(train("CartPole-v1", *SMALL, steps=30, run="r"))
    )
    thread.start()
    thread.join()
    assert results[0].steps == 30


def test_a_signal_that_the_process_ignores_stays_ignored():
    """As Ctrl-C in the worker of an engine."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = train("CartPole-v1", *SMALL, steps=30, run="r",
                    on_progress=lambda _: os.kill(os.getpid(), signal.SIGINT))  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    assert (run.steps, run.stopped) == (30, False)


def test_a_play_is_data_and_can_be_forked(capsys):
    moments, started = [], []
    run = play("CartPole-v1", "configurator.kind=fixed", steps=8, seed=3, run="p",
               on_start=lambda player, folder: started.append((player.world.spec.id, folder)),
               on_moment=moments.append)  # fmt: skip
    assert started == [("CartPole-v1", Path("p"))]
    assert len(moments) == run.summary.steps == 8
    assert fork(run.folder, at=3, steps=4).identical
    assert capsys.readouterr().out == ""


def test_errors_have_types_and_create_nothing(tmp_path):
    for call in (train, evaluate, play):
        with pytest.raises(ConfigError, match=r"Did you mean 'batch'|Did you mean 'mode'"):
            call("CartPole-v1", "configurator.kind=fixed", "configurator.mood=1")
        with pytest.raises((ConfigError, WorldError), match="CartPole-v1"):
            call("CartPole-v9")
    with pytest.raises(ConfigError, match="the run of one seed, got list; of a training with"):
        evaluate([tmp_path], episodes=1)
    with pytest.raises(ConfigError, match="either --seed or --seeds"):
        train("CartPole-v1", seed=0, seeds=(1, 2))
    with pytest.raises(ConfigError, match="one of the two"):
        study()
    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_in_a_run_is_one_error_that_names_its_folder():
    def broken(_):
        raise ZeroDivisionError("by zero")

    with pytest.raises(RunFailedError, match=r"^ZeroDivisionError: by zero \(kept: r\)$"):
        train("CartPole-v1", *SMALL, steps=40, run="r", on_progress=broken)


def test_a_study_is_data(capsys):
    Path("s.yaml").write_text(
        "{name: s, question: '?', worlds: [{id: CartPole-v1, steps: 4}], seeds: [0, 1],"
        " measures: [return], base: {memory.capacity: 50},"
        " arms: {acts: {settings: {configurator: {kind: fixed, mode: 1}}}}}"
    )
    done = []
    run = study("s.yaml", run="out", jobs=1, on_progress=done.append)
    assert (run.study.name, run.folder) == ("s", Path("out"))
    assert [one.done for one in done] == [1, 2]
    assert str(done[-1]) == "2/2  left 00:00:00  acts · CartPole-v1 · seed 1"
    assert run.report.is_file()
    assert study(resume="out").findings.table == run.findings.table
    assert capsys.readouterr().out == ""
