"""An expert's recording teaches: cloning, whatever chose the actions, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

import imitate
from agent import train
from agent.cli import run
from modules.messages import ConfigError

GOOD = [{"expert": 500.0, "random": 20.0, "clone": 490.0, "share": 0.98}]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def expert(name: str, *words: str) -> Path:
    common = ["--episodes", "4", "--num-envs", "4", "--run", name, "--no-live", "--steps", "2004"]
    assert run(["play", *words, *common]) == 0
    return Path(name)


def losses(run: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(one for one in reversed(lines) if "total" in one)


SMALL = ("training.evaluate_episodes=4", "perception.width=32", "perception.features=4")


def test_a_clone_of_an_expert_holds_the_pole_and_a_clone_of_noise_does_not():
    """The mechanism is what the expert did: the same training on random actions learns nothing."""
    bundled = expert("bundled", "cartpole")
    noise = expert("noise", "CartPole-v1", "--preset", "reactive")
    good = train("CartPole-v1", *SMALL, experts=[bundled], steps=400, run="good")
    bad = train("CartPole-v1", *SMALL, experts=[noise], steps=400, run="bad")
    assert good.frames == 0
    assert losses(good.folder)["actor/cloning"] < 0.6
    assert good.evaluation > 150 > 100 > bad.evaluation


def test_an_expert_among_other_recordings_alone_is_imitated():
    bundled = expert("bundled", "cartpole")
    noise = expert("noise", "CartPole-v1", "--preset", "reactive")
    both = train(None, *SMALL, recordings=[noise], experts=[bundled], steps=300, run="both")
    assert json.loads(Path("both/training.json").read_text())["experts"] == [
        str(bundled.absolute())
    ]
    assert losses(both.folder)["actor/cloning"] < 0.6
    again = train(resume="both", steps=310)
    assert again.resumed_at == 300


def test_a_policy_that_cannot_learn_is_refused_in_one_line():
    bundled = expert("bundled", "cartpole")
    with pytest.raises(ConfigError, match="expected a policy that learns"):
        train("CartPole-v1", experts=[bundled], preset="learn-actions", run="out")
    assert not Path("out").exists()


@pytest.mark.parametrize("name", imitate.USUAL)
def test_each_bar_can_be_missed(name):
    bar = imitate.TASKS[name].bar
    assert all(imitate.bars_of({name: GOOD}).values())
    assert not any(imitate.bars_of({name: [GOOD[0] | {"share": bar - 0.01}]}).values())


@pytest.mark.slow
def test_the_command_records_trains_and_prints(tmp_path, monkeypatch, capsys):
    words = ["--quick", "--json", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["imitate.py", *words])
    imitate.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == set(imitate.USUAL)
    # A tenth of the updates on a quarter of the episodes; an untrained policy's share is below 0.
    assert rows["CartPole, reacted"][0]["share"] > 0.4
    assert rows["CartPole, planned"][0]["share"] > 0.15
