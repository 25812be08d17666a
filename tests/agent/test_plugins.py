"""A module from somewhere else, used through `--plugin`; and one that is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import run

POLICY = '''
from typing import Literal
import torch
from pydantic import BaseModel, ConfigDict, Field

class Stubborn:
    """Always the same action."""

    class Config(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["stubborn"] = "stubborn"
        action: int = Field(1, ge=0)

    def __init__(self, *, config, world):
        self.action, self.size = config.action, world.actions.size

    def act(self, situation, directive):
        actions = torch.zeros(situation.batch, self.size)
        actions[:, self.action] = 1
        return actions

MODULES = {"policy": {"stubborn": Stubborn}}
'''

BROKEN = """
from typing import Literal
import torch
from pydantic import BaseModel, ConfigDict
from modules.perception.vectors import Vectors

class TooWide(Vectors):
    class Config(Vectors.Config):
        kind: Literal["too-wide"] = "too-wide"

    def perceive(self, observation, before):
        state = super().perceive(observation, before)
        if before.step < 4:
            return state
        return state.replace(latent=torch.zeros(len(state.latent), 3))

class Greedy:
    class Config(BaseModel):
        kind: Literal["needy"] = "needy"

    def __init__(self, *, moon):
        self.moon = moon

MODULES = {"perception": {"too-wide": TooWide}, "policy": {"needy": Greedy}}
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "stubborn_policy.py").write_text(POLICY)
    (place / "broken_modules.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(place)
    for name in ("stubborn_policy", "broken_modules"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return place


def test_a_plugin_plays_and_the_run_remembers_it(
    packages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """First as a process with the package on PYTHONPATH."""
    home = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli",
         "play", "CartPole-v1", "--plugin", "stubborn_policy", "--steps", "30",
         "--actor.policy.kind=stubborn", "--actor.policy.action=0", "--preset", "reactive",
         "--json", "--no-live", "--run", "first"],
        env={**os.environ, "PYTHONPATH": f"{home}:{packages}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout.splitlines()[-1])
    assert first["episodes"] >= 2  # Always left: the pole falls within about ten steps.
    written = (tmp_path / "first" / "config.yaml").read_text()
    assert "stubborn_policy" in written

    assert run(["play", "first", "--no-live", "--run", "second"]) == 2
    assert "give --plugin stubborn_policy" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()

    words = ["--plugin", "stubborn_policy", "--json", "--no-live", "--run", "second"]
    assert run(["play", "first", *words]) == 0
    second = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert second["trace_digest"] == first["trace_digest"]


@pytest.mark.usefixtures("packages")
def test_a_wrong_shape_stops_the_run_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [
        "play", "CartPole-v1", "--plugin", "broken_modules", "--steps", "30",
        "--perception.kind=too-wide", "--no-live", "--run", "kept",
    ]  # fmt: skip
    assert run(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("step 5", "perception (TooWide)", "State.latent", "expected", "[1, 3]", "kept"):
        assert part in line
    assert (tmp_path / "kept" / "trace.sqlite").is_file()


@pytest.mark.usefixtures("packages")
def test_a_constructor_that_asks_for_the_moon_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [
        "play", "CartPole-v1", "--plugin", "broken_modules", "--run", "none",
        "--actor.policy.kind=needy",
    ]  # fmt: skip
    assert run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "actor.policy" in line
    assert "'moon'" in line
    assert not (tmp_path / "none").exists()


WORLD = """
import gymnasium
import numpy as np

class Still(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, self.steps == 5, False, {}

gymnasium.register("Still-v0", Still)
"""


def test_the_commands_that_a_training_proposes_open_its_run(tmp_path):
    """A world of a module of one's own is imported only where the command names the module."""
    (tmp_path / "still.py").write_text(WORLD)

    def sextet(*words):
        return subprocess.run(
            [sys.executable, "-m", "agent.cli", *words], cwd=tmp_path, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip

    trained = sextet(
        "train", "still:Still-v0", "--steps", "20", "--run", "r", "--no-live",
        "--learner.warmup_steps=10", "--learner.batch=4", "--training.evaluate_episodes=1",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    (proposed,) = [line for line in trained.stdout.splitlines() if line.startswith("next")]
    words = proposed.split()[2:]
    assert words == ["eval", "r", "--episodes", "20", "--plugin", "still"]
    opened = sextet(*words)
    assert opened.returncode == 0, opened.stderr
    assert sextet(*words[:-2]).returncode == 2
