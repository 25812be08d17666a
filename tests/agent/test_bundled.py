"""Agents that come along: where they come from is told, and they play."""

import json

import pytest
import torch

from agent import load
from agent.assembly.load import bundled_agents
from agent.assembly.resolve import BUNDLED
from agent.cli import run
from agent.learning.evaluation import whole_episodes
from modules.messages import ConfigError

TRAINED = [name for name in bundled_agents() if (BUNDLED / name / "checkpoints").is_dir()]


def test_there_are_some_of_atari_and_one_of_cart_pole():
    games = {"pong", "breakout", "boxing", "freeway", "krull", "road_runner"}
    assert games | {"cartpole"} <= set(TRAINED)


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_small_and_tells_where_it_comes_from(name):
    files = [file for file in (BUNDLED / name).rglob("*") if file.is_file()]
    assert {file.suffix for file in files} <= {".yaml", ".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    told = json.loads((BUNDLED / name / "provenance.json").read_text())
    assert told["command"].startswith("sextet train ")
    assert len(told["commit"]) >= 7
    assert told["cpu_seconds"] > 0
    assert told["evaluations"]
    for evaluation in told["evaluations"]:
        assert evaluation["episodes"] == 30
        assert evaluation["interval"][0] <= evaluation["mean_return"] <= evaluation["interval"][1]


def test_the_list_says_how_each_plays(capsys):
    assert run(["list", "agents"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for name in TRAINED:
        told = json.loads((BUNDLED / name / "provenance.json").read_text())
        assert f"{told['steps']} steps" in lines[name]
        for evaluation in told["evaluations"]:
            assert f"{evaluation['mean_return']:.1f}" in lines[name]
    assert set(lines) == set(bundled_agents())


@pytest.mark.parametrize("name", TRAINED)
def test_it_was_given_its_weights(name):
    player = load(name, seed=1)
    observation = player.world.reset(1)
    for _ in range(3):
        observation = player.world.step(player.act(observation))
    player.world.close()
    critic = player.moment.energies.critic_actions
    assert critic is not None
    assert bool(torch.isfinite(critic).all())
    assert float(critic.std()) > 0


def test_the_emulator_can_stand_in_for_the_model_that_was_learned():
    emulator = ("world_model.kind=clairvoyant", "actor.planner.kind=rollout")
    thinks = ("configurator.mode=2", "directive.horizon_steps=2", "directive.model_calls=12")
    player = load("pong", *emulator, *thinks, seed=1)
    observation = player.world.reset(1)
    for _ in range(12):
        observation = player.world.step(player.act(observation))
    player.world.close()
    assert int(player.moment.plan.mode) == 2
    # What was expected is what came: no learned model is so right.
    assert float(player.moment.surprise) < 1e-6
    with pytest.raises(ConfigError, match=r"expected \(256, 128\) of float32, got \(256, 256\)"):
        load("pong", "world_model.width=128")


def test_a_critic_is_not_taken_for_one_of_other_drives():
    """Its heads would fit, and hold values in another unit."""
    with pytest.raises(ConfigError, match=r"cost\.drives: expected pain, score, whose values"):
        load("pong", "cost.drives=[signal:-reward,pain]", preset="fair")
    load("pong", preset="fair").world.close()


def test_cart_pole_is_balanced():
    player = load("cartpole", num_envs=2)
    returns = whole_episodes(player.agent, player.world, 2, seed=5).returns
    player.world.close()
    assert min(returns) >= 400
