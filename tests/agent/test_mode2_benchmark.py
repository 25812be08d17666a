"""`examples/benchmarks/mode2.py`: what thinking brings, in pairs."""

import argparse
import json
import sys

import pytest
import torch
from programs import benchmark

from agent.config import preset

mode2 = benchmark("mode2")


def test_a_ratio_of_pairs_is_as_sure_as_the_pairs_are():
    games = [torch.tensor([0.5, 1.0, 3.0, 0.2]), torch.tensor([2.0, 2.5, 0.1, 4.0])]
    assert mode2.interval(games, games) == pytest.approx((1, 1, 1))
    assert mode2.interval([2 * game for game in games], games) == pytest.approx((2, 2, 2))
    ratio, low, high = mode2.interval([game.flip(0) for game in games], games)
    assert ratio == pytest.approx(1)
    assert low < 0.8
    assert high > 1.2


def test_distil_learns_from_what_rollouts_plans():
    thinks, learns = preset("rollouts"), preset("distil")
    assert thinks["configurator"] == learns["configurator"]
    assert thinks["actor"]["planner"] == learns["actor"]["planner"]
    assert learns["training"]["evaluation"]["configurator"] == {"mode": 1}


def test_what_fails_or_has_no_human_score_is_said_in_a_line(tmp_path, monkeypatch):
    words = ["--agents", "cartpole", "--episodes", "1", "--out", str(tmp_path), "--arms", "Mode-1"]
    monkeypatch.setattr(sys, "argv", ["mode2.py", *words, "--protocol", "none"])
    with pytest.raises(SystemExit, match="mode2: sextet eval cartpole failed"):
        mode2.main()
    said = {"human_normalised": None, "world": "CartPole-v1", "protocol": "none", "episodes": 1}
    (tmp_path / "cartpole-Mode-1.json").write_text(json.dumps(said))
    with pytest.raises(SystemExit, match=r"wanted a game with human scores, got CartPole-v1"):
        mode2.main()


def test_what_was_played_otherwise_is_played_again(tmp_path, monkeypatch):
    said = {"human_normalised": 1.0, "world": "ALE/Pong-v5", "protocol": "100k", "episodes": 5}
    (tmp_path / "pong-Mode-1.json").write_text(json.dumps(said))
    anew = {**said, "human_normalised": 2.0}
    monkeypatch.setattr(mode2, "sextet", lambda words, log: json.dumps(anew))
    given = argparse.Namespace(out=tmp_path, protocol="100k", episodes=5, steps=1)
    assert mode2.played("pong", "Mode-1", given, []) == said
    given.episodes = 6
    assert mode2.played("pong", "Mode-1", given, []) == anew
