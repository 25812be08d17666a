"""Published scores: completeness, consistency, and names of the games."""

import math

import pytest

from worlds.make import list_games
from worlds.scores import columns, game_of, human_normalised, published, published_score


def test_57_games_have_human_and_random_scores_and_26_have_agents():
    table = published()
    assert len(table) == 57
    assert all({"random", "human"} <= scores.keys() for scores in table.values())
    assert sum("SPR" in scores for scores in table.values()) == 26
    assert all(scores["human"] > scores["random"] for scores in table.values())
    assert all(math.isfinite(value) for scores in table.values() for value in scores.values())


def test_every_game_of_the_table_can_be_played():
    assert {f"ALE/{game}-v5" for game in published()} <= set(list_games())


def test_the_random_score_normalises_to_0_and_the_human_score_to_1():
    for game, scores in published().items():
        world = f"ALE/{game}-v5"
        assert human_normalised(world, scores["random"]) == 0
        assert human_normalised(world, scores["human"]) == 1
    # SPR's published mean over the 26 games (Schwarzer et al. 2021, as recomputed by DIAMOND).
    spr = [
        human_normalised(f"ALE/{game}-v5", scores["SPR"])
        for game, scores in published().items()
        if "SPR" in scores
    ]
    assert sum(spr) / 26 == pytest.approx(0.616, abs=0.001)


def test_unpublished_scores_are_none():
    assert game_of("CartPole-v1") is None
    assert game_of("Pong") is None
    assert human_normalised("ALE/AirRaid-v5", 100.0) is None
    assert published_score("ALE/Zaxxon-v5", "SPR") is None
    assert published_score("ALE/Pong-v5", "SPR") == -5.4
    assert {"SPR", "BBF_RR2"} <= set(columns())
    assert not {"game", "random", "human"} & set(columns())
