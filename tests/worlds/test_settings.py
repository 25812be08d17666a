"""Settings of a world: arguments of its constructor, checked, saved, part of its snapshots."""

from contextlib import closing

import gymnasium
import pytest
import torch

from agent.api.play import play
from agent.assembly.load import load
from agent.cli import run
from modules.messages import ConfigError, WorldError
from worlds.make import make_world, world_spec

ROAD, STATE = "sextet/Road-v0", "sextet/Road-state-v0"


class Corridor(gymnasium.Env):
    """Its length and its walls are settings; it writes into the list that it gets."""

    observation_space = gymnasium.spaces.Box(0, 10, (2,), "float32")
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=3, walls=(), **others):
        self.length, self.walls, self.others = length, walls, others
        if isinstance(walls, list):
            walls.append("end")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return torch.tensor([self.length, len(self.walls)]).float().numpy(), {}

    def step(self, action):
        return self.reset()[0], 0.0, False, False, {}


@pytest.fixture
def corridor():
    gymnasium.register("Corridor-v0", Corridor, max_episode_steps=5)
    yield "Corridor-v0"
    del gymnasium.registry["Corridor-v0"]


def test_settings_reach_the_constructor_of_every_row(corridor):
    with closing(make_world(corridor, 2, settings={"length": 7, "walls": ["a"]})) as world:
        assert world.reset(0).vector.tolist() == [[7, 2], [7, 2]]
    with closing(make_world(corridor)) as world:
        assert world.reset(0).vector.tolist() == [[3, 0]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"wnid": 0.3}, "config world.settings: sextet/Road-v0: 'wnid' is not one of observation, "
         "wind, leaves, collision_cost. Did you mean 'wind'?"),
        ({"render_mode": "human"}, "'render_mode' is not one of"),
        ({"max_episode_steps": 3}, "'max_episode_steps' is not one of"),
    ],
)  # fmt: skip
def test_an_unknown_setting_is_refused_in_one_line(settings, words):
    with pytest.raises(ConfigError) as caught:
        make_world(ROAD, settings=settings)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_constructor_of_any_arguments_takes_any_but_those_of_gymnasium(corridor):
    with closing(make_world(corridor, settings={"colour": "red"})):
        pass
    for name in ("render_mode", "max_episode_steps", "disable_env_checker"):
        with pytest.raises(ConfigError, match=f"{name!r} is not one of length, walls"):
            make_world(corridor, settings={name: 1})


def test_an_atari_game_has_none():
    with pytest.raises(ConfigError, match="expected none in ALE/Pong-v5, an Atari game, got speed"):
        make_world("ALE/Pong-v5", settings={"speed": 2})


@pytest.mark.parametrize("value", [-1, float("inf"), "strong"])
def test_a_value_that_the_road_does_not_take_is_one_line(value):
    with pytest.raises(WorldError, match="wind: expected a finite number of at least 0, got "):
        make_world(ROAD, settings={"wind": value})


def test_the_spec_is_that_with_the_settings():
    assert world_spec(ROAD, settings={"observation": "state"}).vector == 16
    assert world_spec(ROAD).pixels == (64, 64, 3)


def test_a_process_of_its_own_gets_them():
    settings = {"observation": "state"}
    with closing(make_world(ROAD, isolate=True, settings=settings)) as world:
        assert world.reset(0).vector.shape == (1, 16)


def test_a_snapshot_is_of_a_world_with_the_same_settings():
    with (
        closing(make_world(STATE, settings={"wind": 0.3})) as world,
        closing(make_world(STATE, settings={"wind": 0.3})) as same,
        closing(make_world(STATE)) as other,
    ):
        world.reset(0)
        step = world.step(torch.eye(9)[5:6])
        assert same.restore(world.snapshot()).vector.equal(step.vector)
        with pytest.raises(WorldError, match="settings"):
            other.restore(world.snapshot())


def test_a_run_keeps_them_and_another_may_change_them(tmp_path, capsys):
    played = play(ROAD, "world.settings.leaves=0.5", steps=3, seed=0, run=tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "settings:\n    leaves: 0.5" in text
    assert played is not None
    player = load(ROAD, "world.settings={leaves: 0, wind: 0.3}")
    with closing(player.world):
        env = player.world._rows[0].env.env.unwrapped
        assert (env.contrast, env.wind) == (0, 0.3)
    assert run(["play", ROAD, "--no-live", "--world.settings.leavs=1"]) == 2
    error = capsys.readouterr().err
    assert "Did you mean 'leaves'?" in error
    assert len(error.splitlines()) == 1
