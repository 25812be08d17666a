import subprocess
import sys

import pytest

from modules.messages import ConfigError
from worlds.make import list_games, list_worlds, make_world
from worlds.scores import human_normalised, published


@pytest.mark.parametrize(
    "id", ["ALE/MsPacman-v5", "MsPacman", "ms_pacman", "mspacman", "MsPacman-v5"]
)
def test_a_game_has_many_names(id):
    assert make_world(id).spec.id == "ALE/MsPacman-v5"


@pytest.mark.parametrize(
    ("id", "hint"),
    [
        ("ALE/Pnog-v5", "Did you mean 'ALE/Pong-v5'?"),
        ("ALE/Pong-v4", "Did you mean 'ALE/Pong-v5'?"),
        ("breakuot", "Did you mean 'Breakout'?"),
        ("Cartpole-v1", "Did you mean 'CartPole-v1'?"),
        ("no_such_package:World-v0", "package 'no_such_package' cannot be imported"),
        ("worlds:World-v0", "worlds registers no 'World-v0'"),
        ("", "see `sextet list worlds`"),
    ],
)
def test_an_unknown_world_is_refused_in_one_line_with_a_suggestion(id, hint):
    with pytest.raises(ConfigError) as caught:
        make_world(id)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_envs": 0}, "num_envs: expected 1 or more, got 0"),
        ({"episode_steps": 0}, "episode_steps"),
        ({"chapter_steps": -1}, "chapter_steps"),
        ({"protocol": "v6"}, "'v6' is not one of v5, 100k. Did you mean 'v5'?"),
        ({"sensor": {"height": 0}}, "sensor height"),
        ({"sensor": {"heigth": 84}}, "sensor heigth"),
    ],
)
def test_wrong_settings_are_refused(arguments, words):
    with pytest.raises(ConfigError) as caught:
        make_world("pong", **arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_protocol_is_refused_outside_atari():
    with pytest.raises(ConfigError, match=r"none in CartPole-v1.*got 'v5'; leave it out"):
        make_world("CartPole-v1", protocol="v5")


@pytest.mark.parametrize(
    ("id", "entries", "hint"),
    [
        ("CartPole-v1", (0, 4), "of 4 numbers, got 4; try 0 to 3"),
        ("CartPole-v1", (-1,), "of 4 numbers, got -1; try 0 to 3"),
        ("pong", (0,), "ALE/Pong-v5: observation_signals: .* of 0 numbers, got 0; leave them out"),
    ],
)
def test_entries_beyond_the_observed_vector_are_refused(id, entries, hint):
    with pytest.raises(ConfigError, match=hint):
        make_world(id, observation_signals=entries)


def test_lists_contain_atari_and_other_environments():
    games = list_games()
    assert len(games) >= 100
    assert "ALE/Pong-v5" in games
    assert set(games) | {"CartPole-v1", "Pendulum-v1"} <= set(list_worlds())


def test_importing_make_imports_no_emulator():
    code = "import sys, worlds.make; sys.exit('ale_py' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scores_are_those_of_the_table():
    assert len(published()) == 57
    assert human_normalised("ALE/Pong-v5", published()["Pong"]["human"]) == 1
    assert human_normalised("ALE/Pong-v5", published()["Pong"]["random"]) == 0
    assert human_normalised("CartPole-v1", 200) is None
    assert all("human" in scores and "random" in scores for scores in published().values())


def test_an_environment_of_an_imported_package(tmp_path, monkeypatch):
    import gymnasium

    (tmp_path / "afterwards.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Late-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        world = make_world("afterwards:Late-v0", 2)
        assert world.reset(0).vector.shape == (2, 4)
        world.close()
        with pytest.raises(ConfigError, match="afterwards registers no 'Lat-v0'"):
            make_world("afterwards:Lat-v0", 1)
    finally:
        gymnasium.registry.pop("Late-v0", None)
        sys.modules.pop("afterwards", None)
