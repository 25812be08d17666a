"""Training from the command line, as a user does it."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from agent import load
from agent.api.train import train
from agent.api.training import training_config
from agent.assembly.load import RunRequest
from agent.cli import run
from agent.learning.evaluation import Evaluation
from agent.learning.training import Progress
from agent.recording import checkpoint
from agent.view.progress import LiveProgress, PlainProgress, grouped, lasting
from modules.messages import ConfigError


@pytest.mark.parametrize("worlds", [1, 3])
def test_train_leaves_a_run_that_can_be_evaluated_and_resumed(
    tmp_path, capsys, monkeypatch, worlds
):
    monkeypatch.chdir(tmp_path)
    small = (
        "learner.warmup_steps=20", "training.evaluate_every=60", "training.evaluate_episodes=2",
        "training.checkpoint_every=60", "training.report_every=30",
    )  # fmt: skip
    result = train("CartPole-v1", *small, seed=1, steps=90, num_envs=worlds, run="run")
    assert (result.steps, result.resumed_at) == (90, None)
    assert (tmp_path / "run/checkpoints/best/weights.safetensors").is_file()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines if "evaluation" in line] == [60, 90]

    result = train(resume="run", steps=150)
    assert (result.steps, result.resumed_at) == (150, 90)
    written = json.loads(Path("run/result.json").read_text())
    assert json.loads(json.dumps(result.as_dict())) == written
    assert capsys.readouterr().out == ""


def test_going_on_for_longer_is_kept_where_the_next_looks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["--steps", "40", "--learner.warmup_steps=20", "--training.evaluate_episodes=1",
             "--training.evaluate_every=0", "--no-live"]  # fmt: skip
    assert run(["train", "CartPole-v1", *short, "--run", "one"]) == 0
    assert run(["train", "CartPole-v1", *short, "--seeds", "0,1", "--run", "two"]) == 0
    assert run(["train", "--resume", "one", "--steps", "60", "--no-live"]) == 0
    assert run(["train", "--resume", "two", "--steps", "60", "--no-live"]) == 0
    for place in ("one", "two/seed-0", "two/seed-1"):
        assert yaml.safe_load(Path(place, "config.yaml").read_text())["training"]["steps"] == 60
        assert json.loads(Path(place, "result.json").read_text())["steps"] == 60
    # A stopped one of several, whose own configuration did not hear of it, goes on as far as all.
    assert json.loads(Path("two/seeds.json").read_text())["config"]["training"]["steps"] == 60
    capsys.readouterr()
    for place in ("one", "two"):
        assert run(["train", "--resume", place, "--steps", "50"]) == 2
        assert "expected at least the 60 that are done, got 50" in capsys.readouterr().err
    assert json.loads(Path("two/seeds.json").read_text())["config"]["training"]["steps"] == 60
    # One may go on by itself, and of what all are asked for then keeps what it has.
    assert run(["train", "--resume", "two/seed-0", "--steps", "80", "--no-live"]) == 0
    config = Path("two/seed-0/config.yaml")
    config.write_text(config.read_text().replace("steps: 80", "steps: 90"))
    Path("two/seed-0/result.json").unlink()  # stopped on the way to 90
    assert run(["train", "--resume", "two", "--no-live", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["steps"] for one in figures["results"]] == [90, 60]


def test_a_last_turn_of_several_worlds_may_lead_further(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--num-envs", "8", "--steps", "60", "--learner.warmup_steps=90", "--no-live",
             "--training.evaluate_episodes=1", "--training.evaluate_every=0"]  # fmt: skip
    assert run(["train", "CartPole-v1", *asked, "--run", "r"]) == 0
    assert json.loads(Path("r/result.json").read_text())["steps"] == 64
    assert run(["train", "--resume", "r", "--steps", "60", "--no-live"]) == 0


def test_stopped_in_its_last_evaluation_a_training_is_not_over(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--steps", "40", "--learner.warmup_steps=20", "--training.evaluate_episodes=1",
             "--no-live", "--json"]  # fmt: skip

    def interrupted(*_: object, stop: Callable[[], bool], **__: object) -> Evaluation:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        return Evaluation([], None, whole=False)  # type: ignore[arg-type]

    with monkeypatch.context() as within:
        within.setattr("agent.api.training.whole_episodes", interrupted)
        assert run(["train", "CartPole-v1", *asked, "--seeds", "0,1", "--run", "r"]) == 130
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(one["seed"], one["steps"], one["stopped"]) for one in figures["results"]] == [
        (0, 40, True)
    ]
    assert run(["train", "--resume", "r", "--no-live", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["stopped"] for one in figures["results"]] == [False, False]
    assert all(one["evaluation"] is not None for one in figures["results"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.steps=90"], "settings --training.steps=90"),
        (["--preset", "model-free"], "--preset model-free"),
        (["--seed", "0"], "--seed 0"),
        (["--num-envs", "2"], "--num-envs 2"),
        (["--intervene", "clamp:mode=1"], "--intervene clamp:mode=1"),
        (["--run", "other"], "--run other"),
    ],
)
def test_what_goes_on_takes_no_other_settings(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "--resume", "r", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"but for --steps, got {said};" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["CartPole-v1", "--learner.train_modules=[perception]"], "expected one that has losses"),
        (
            ["ALE/Pong-v5", "--world_model.kind=fair", "--learner.critic_unroll_steps=1"],
            "memory holds",
        ),
        (
            ["ALE/Pong-v5", "--world_model.kind=clairvoyant", "--learner.imagination_horizon=1"],
            "jepa",
        ),
        (
            ["sextet/Orchard-v0", "--learner.imagination_horizon=1"],
            "imagined rollouts have no task",
        ),
        (
            ["CartPole-v1", "--learner.train_modules=[perception]", "--seeds", "0,1"],
            "that has losses",
        ),
    ],
)
def test_what_cannot_learn_is_said_before_a_folder_is_made(
    tmp_path, capsys, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *words, "--run", "r"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(tmp_path.iterdir())


def test_resuming_what_has_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="checkpoint"):
        train(resume=tmp_path)


def test_sub_goals_are_looked_at_like_any_heads(tmp_path, capsys, monkeypatch):
    """There are more of them than drives."""
    monkeypatch.chdir(tmp_path)
    asked = ["--num-envs", "4", "--steps", "720", "--learner.warmup_steps=100", "--learner.batch=8",
             "--training.report_every=240", "--training.evaluate_episodes=1", "--no-live",
             "--training.evaluate_every=0", "--run", "r"]  # fmt: skip
    assert run(["train", "sextet/Orchard-v0", *asked]) == 0
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    looked = [line for line in lines if "health/critic_deviation" in line]
    assert looked[-1]["updates"] > 100
    assert not any("dead: the critic prefers" in said for said in looked[-1]["warnings"])


SHOWN = {"world_model/prediction": 0.31, "world_model/ended": 0.02, "cost/critic": 4.0, "total": 9}


def test_losses_are_shown_by_module():
    assert grouped(SHOWN) == {
        "world model": "prediction 0.31  ended 0.02", "cost": "critic 4", "learner": "total 9",
    }  # fmt: skip
    assert [lasting(s) for s in (5, 65, 3723)] == ["0:05", "1:05", "1:02:03"]


def test_the_page_says_where_it_stands():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110, color_system=None)
    progress = Progress(
        steps=500, of_steps=2000, frames=2000, steps_per_s=100, remaining_s=15, losses=SHOWN,
        warnings=["perception pixels-small: representation collapsed"], best=3.0,
    )  # fmt: skip
    progress.returns.extend([1.0, 2.0])
    with LiveProgress("Pong", console) as view:
        view.show(progress)
    shown = out.getvalue()
    for part in ("Pong", "25%", "500 of 2 000 steps", "2 000 frames", "100/s", "left 0:15",
                 "1.5 over the last 2", "prediction 0.31", "warning   perception"):  # fmt: skip
        assert part in shown


def test_plain_lines_say_a_warning_once(capsys):
    progress = Progress(steps=5, of_steps=10, warnings=["it sank"], fresh=True)
    with PlainProgress("Pong") as view:
        view.show(progress)
        view.show(progress)
        progress.fresh = False
        view.show(progress)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines.count("warning   it sank") == 1


QUICK = (
    "--learner.warmup_steps=20", "--learner.batch=8", "--training.evaluate_every=60",
    "--training.evaluate_episodes=2", "--training.checkpoint_every=30",
    "--training.report_every=30", "--no-live", "--json",
)  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict, str]:
    code = run(list(arguments))
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out.splitlines()[-1]), shown.out


def test_train_then_evaluate_load_and_resume_as_a_user_would(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figures, shown = said(capsys, "train", "CartPole-v1", "--steps", "90", "--run", "r", *QUICK)
    for command in ("sextet eval r", "sextet play r", "sextet train --resume r --steps 180"):
        assert command in shown
    low, high = figures["interval"]
    assert low <= figures["evaluation"] <= high
    evaluated, _ = said(capsys, "eval", "r", "--episodes", "2", "--json")
    assert evaluated["episodes"] == 2

    player = load("r")
    observation = player.world.reset(seed=0)
    action = player.act(observation)
    assert action.shape == (1, 2)
    player.world.step(action)

    figures, _ = said(capsys, "train", "--resume", "r", "--steps", "120", "--json", "--no-live")
    assert (figures["resumed_at"], figures["steps"]) == (90, 120)


def test_seeds_are_trained_one_by_one_and_summed_up(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("train", "CartPole-v1", "--steps", "60", "--run", "all", *QUICK)
    figures, shown = said(capsys, *asked, "--seeds", "3,4")
    assert [r["seed"] for r in figures["results"]] == [3, 4]
    means = [r["evaluation"] for r in figures["results"]]
    assert figures["evaluation"] == pytest.approx(sum(means) / 2)
    assert figures["interval"] == pytest.approx([min(means), max(means)])
    assert "over 2 of 2 seeds" in shown
    alone, _ = said(capsys, *asked[:4], "--run", "alone", *QUICK, "--seed", "4")
    one, other = (
        Path(p, "checkpoints/60/weights.safetensors").read_bytes() for p in ("all/seed-4", "alone")
    )
    assert one == other

    # A seed that never got to a checkpoint, and one that must go further.
    shutil.rmtree("all/seed-3/checkpoints")
    Path("all/seed-3/result.json").unlink()
    figures, _ = said(capsys, "train", "--resume", "all", "--json", "--no-live")
    assert [r["resumed_at"] for r in figures["results"]] == [None, None]
    assert figures["results"][1] | {"run": ""} == alone | {
        "run": "", **{k: figures["results"][1][k] for k in ("seconds", "cpu_seconds")},
    }  # fmt: skip
    figures, _ = said(
        capsys, "train", "--resume", "all", "--steps", "90", "--jobs", "1", "--json", "--no-live"
    )
    assert [r["resumed_at"] for r in figures["results"]] == [60, 60]
    assert [r["steps"] for r in figures["results"]] == [90, 90]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["train", "CartPole-v1", "--seeds", "1,x"], "0,1,2"),
        (["train", "CartPole-v1", "--seeds", "1,1"], "different"),
        (["train", "CartPole-v1", "--seeds", "1,2", "--seed", "1"], "--seeds"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["train"], "WORLD"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    tmp_path, capsys, monkeypatch, arguments, wanted
):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert wanted in shown.err
    assert len(shown.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(capsys, "train", "CartPole-v1", "--steps", "60", "--run", "r", *QUICK)
    place = Path("r/checkpoints/60/learner.safetensors")
    place.write_bytes(place.read_bytes()[:-9])
    assert run(["train", "--resume", "r", "--json", "--no-live"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[-1])["resumed_at"] == 30
    assert "passed over" in shown.err
    assert "learner.safetensors" in shown.err


@pytest.mark.parametrize("words", [["play", "r"], ["train", "r", "--run", "s"]])
def test_a_training_without_a_checkpoint_is_refused(tmp_path, capsys, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    said(capsys, "train", "CartPole-v1", "--steps", "60", "--run", "r", *QUICK)
    shutil.rmtree("r/checkpoints")
    assert run([*words, "--no-live"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'r': expected a checkpoint of this training, got none" in line
    assert [place.name for place in tmp_path.iterdir()] == ["r"]


def test_ctrl_c_keeps_a_checkpoint_and_leaves_well(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "train", "CartPole-v1", "--steps", "100000", "--run",
         "r", *QUICK, "--training.checkpoint_every=0"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("60/"):
            break
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    rest = child.stdout.read().splitlines()
    assert child.wait() == 130
    child.stdout.close()
    figures = json.loads(rest[-1])
    assert figures["stopped"]
    assert figures["steps"] >= 60
    found = checkpoint.newest(tmp_path / "r" / "checkpoints")
    assert found is not None
    assert found[1].facts["steps"] == figures["steps"]
    assert "sextet train --resume r" in rest[-2]


def test_tensorboard_is_asked_for_by_name_where_it_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["train", "CartPole-v1", "--tensorboard", "--run", "r"]) == 2
    assert "pip install 'sextet[tb]'" in capsys.readouterr().err
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("world", "more"),
    [
        ("CartPole-v1", ()),
        ("ALE/Breakout-v5", ("--num-envs", "2", "--perception.latent_size=16",
                             "--training.evaluation.actor.policy.epsilon=1.0")),
    ],
)  # fmt: skip
def test_model_free_learns_without_a_world_model(tmp_path, capsys, monkeypatch, world, more):
    monkeypatch.chdir(tmp_path)
    asked = ("--preset", "model-free", "--steps", "60", "--run", "r", *QUICK, *more)
    figures, _ = said(capsys, "train", world, *asked, "--training.evaluate_episodes=1")
    assert figures["updates"] > 5
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert "cost/critic" in names
    assert not any(name.startswith("world_model/") for name in names)
    before, after = (
        checkpoint.load(Path("r/checkpoints") / at, only=("weights",)).tensors["weights"]
        for at in ("30", "60")
    )
    assert any(n.startswith("perception/") and not before[n].equal(after[n]) for n in after)


def test_a_training_begins_with_a_trained_agent_and_mode_1_learns_what_mode_2_would_do(
    tmp_path, monkeypatch, capsys
):
    """§3.1.3: the policy of a trained agent comes to do what its planner does; all else stays."""
    monkeypatch.chdir(tmp_path)
    shape = ["--world_model.width=32", "--perception.width=32", "--cost.critic.width=32",
             "--memory.capacity=2000", "--learner.warmup_steps=100"]  # fmt: skip
    schedule = ["--training.evaluate_every=0", "--training.evaluate_episodes=1",
                "--training.report_every=200", "--no-live"]  # fmt: skip
    assert run(["train", "CartPole-v1", "--steps", "300", "--seed", "1", "--run", "first",
                *schedule, *shape]) == 0  # fmt: skip
    told = ["train", "first", "--preset", "distil", "--num-envs", "4", "--steps", "800",
            "--learner.warmup_steps=100", *schedule]  # fmt: skip
    capsys.readouterr()
    assert run([*told, "--run", "second", "--json"]) == 0
    assert "actor begins fresh" in capsys.readouterr().err
    old, new = (
        checkpoint.load(checkpoint.newest(tmp_path / place / "checkpoints")[0]).tensors["weights"]
        for place in ("first", "second")
    )
    assert set(old) < set(new)
    assert all(new[name].equal(value) for name, value in old.items())
    lines = [
        json.loads(line) for line in (tmp_path / "second/metrics.jsonl").read_text().splitlines()
    ]
    apart = [line["actor/distillation"] for line in lines if "actor/distillation" in line]
    assert apart[-1] < 0.8 * torch.log(torch.tensor(2.0)), apart
    assert run([*told, "--run", "third", "--learner.train_modules=[cost]"]) == 2
    assert "another actor, and that is not to learn" in capsys.readouterr().err
    assert run([*told, "--run", "third", "--training.init_from=firts"]) == 2
    assert "'firts' is neither a trained run" in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize(
    ("envs", "steps", "warmup", "ratio", "updates"),
    [(1, 40, 41, 1, 0), (1, 40, 40, 1, 1), (1, 40, 40, 0.5, 0), (1, 41, 40, 0.5, 1),
     (8, 60, 62, 0.125, 1), (8, 60, 65, 1, 0), (8, 60, 10, 0, 0), (8, 60, 60, 0.1, 0)],
)  # fmt: skip
def test_a_training_that_ends_before_its_first_update_says_so(
    envs, steps, warmup, ratio, updates, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert run(["train", "CartPole-v1", "--run", "a", "--steps", str(steps), "--no-live",
                "--num-envs", str(envs), "--training.evaluate_every=0",
                "--training.evaluate_episodes=1", "--memory.capacity=100",
                f"--learner.warmup_steps={warmup}",
                f"--learner.replay_ratio={ratio}"]) == 0  # fmt: skip
    said = "learns nothing: no update is due" in capsys.readouterr().err
    assert json.loads((tmp_path / "a/result.json").read_text())["updates"] == updates
    assert said == (updates == 0)


def test_of_another_kind_of_module_the_parts_that_fit_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--steps", "120", "--no-live", "--training.evaluate_every=0",
             "--training.evaluate_episodes=1", "--learner.warmup_steps=100"]  # fmt: skip
    assert run(["train", "CartPole-v1", "--run", "first", *words]) == 0
    wide = ["train", "first", "--world_model.unroll_steps=3", "--cost.kind=inferred", *words]
    assert run([*wide, "--learner.learning_rate=1e-30", "--run", "second"]) == 0
    told = capsys.readouterr().err
    assert "cost.network begins fresh" in told
    assert "cost.critic begins fresh" not in told
    old, new = (
        checkpoint.load(checkpoint.newest(tmp_path / place / "checkpoints")[0]).tensors["weights"]
        for place in ("first", "second")
    )
    kept = [name for name in old if name.startswith("cost/critic.members")]
    assert kept
    assert all(new[name].equal(old[name]) for name in kept)


def test_an_agent_that_was_never_trained_begins_fresh():
    assert training_config(RunRequest(agent="showpiece"))["training"]["init_from"] is None
    assert training_config(RunRequest(agent="krull"))["training"]["init_from"] == "krull"


def test_averaged_weights_of_a_memory_that_learns_are_resumed(tmp_path):
    small = (
        "learner.average_share=0.5", "learner.warmup_steps=64", "learner.replay_ratio=0.125",
        "world.num_envs=8", "training.evaluate_episodes=1", "training.checkpoint_every=320",
    )  # fmt: skip
    for name, steps in (("whole", 640), ("part", 320)):
        train("sextet/Rooms-state-v0", *small, preset="recall", steps=steps, run=tmp_path / name)
    train(resume=tmp_path / "part", steps=640)
    whole, part = (checkpoint.load(tmp_path / n / "checkpoints/640") for n in ("whole", "part"))
    for group in ("weights", "learner"):
        for key, tensor in whole.tensors[group].items():
            assert tensor.equal(part.tensors[group][key]), key
    assert any(key.startswith("ema/cost") for key in whole.tensors["learner"])
