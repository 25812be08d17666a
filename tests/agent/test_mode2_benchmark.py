"""`examples/benchmarks/mode2.py`: what thinking brings, in pairs."""

import argparse
import json
import sys

import pytest
import torch
from programs import benchmark

from agent.assembly.resolve import preset

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
    evaluated = learns["training"]["evaluation"]
    assert evaluated["configurator"] == {"mode": 1}
    assert evaluated["actor"]["policy"]["temperature"] > 0  # else it may wait for ever


def test_what_fails_or_has_no_human_score_is_said_in_a_line(tmp_path, monkeypatch):
    words = ["--agents", "cartpole", "--episodes", "1", "--out", str(tmp_path), "--arms", "Mode-1"]
    monkeypatch.setattr(sys, "argv", ["mode2.py", *words, "--protocol", "none"])
    with pytest.raises(SystemExit, match="mode2: sextet eval cartpole failed"):
        mode2.main()
    said = {"human_normalised": None, "world": "CartPole-v1", "protocol": "none", "episodes": 1}
    (tmp_path / "cartpole-Mode-1.json").write_text(json.dumps(said))
    with pytest.raises(SystemExit, match=r"expected a game with human scores, got CartPole-v1"):
        mode2.main()


def test_a_folder_holds_results_of_the_same_settings_alone(tmp_path, monkeypatch, capsys):
    said = {"human_normalised": 1.0, "world": "ALE/Pong-v5", "returns": [1.0, 2.0]}
    said |= {"interval": [1, 2], "mean_return": 1.5, "model_calls": 0, "steps": 1, "ms_per_step": 1}
    played = []
    monkeypatch.setattr(
        mode2, "sextet", lambda words, log: played.append(words) or json.dumps(said)
    )

    def run(*more):
        words = ["--agents", "pong", "--out", str(tmp_path), "--arms", "Mode-1,Mode-2", *more]
        monkeypatch.setattr(sys, "argv", ["mode2.py", *words])
        mode2.main()

    run("--actor.planner.min_gain_std=1")
    run("--actor.planner.min_gain_std=1")
    assert len(played) == 2
    for other, wrong in (
        ([], "more ['--actor.planner.min_gain_std=1'], got []"),
        (["--actor.planner.min_gain_std=1", "--episodes", "6"], "episodes 10, got 6"),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(*other)
        assert f"was played with {wrong}; try another folder" in capsys.readouterr().err
    assert len(played) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arms", "Mode-1,Mode2"], "'Mode2' is not one of Mode-1, Mode-2, distilled"),
        (["--seed", "7"], "--seed: is the same for every arm"),
        (["--num-envs=2"], "--num-envs=2: is the same for every arm"),
    ],
)
def test_what_would_break_the_pairs_is_refused(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.setattr(sys, "argv", ["mode2.py", "--out", str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit, match="2"):
        mode2.main()
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_agents_of_one_name_in_two_places_are_two():
    names = [mode2.file_name(agent) for agent in ("boxing", "a/seed-0", "b/seed-0", "./boxing")]
    assert names == ["boxing", "run-a-seed-0", "run-b-seed-0", "run-boxing"]


def test_a_stopped_distillation_is_gone_on_with_and_never_played(tmp_path, monkeypatch):
    given = argparse.Namespace(out=tmp_path, steps=9, episodes=1, protocol="100k")
    who, said = tmp_path / "pong-distilled", list[list[str]]()

    def sextet(words, log):
        said.append(words)
        (who / "checkpoints" / "5").mkdir(parents=True, exist_ok=True)
        (who / "result.json").write_text(json.dumps({"stopped": len(said) < 2}))
        return json.dumps({"human_normalised": 1.0})

    monkeypatch.setattr(mode2, "sextet", sextet)
    with pytest.raises(SystemExit, match="was stopped; the same command continues"):
        mode2.played("pong", "distilled", given, [])
    mode2.played("pong", "distilled", given, [])
    assert [words[:2] for words in said] == [["train", "pong"], ["train", "--resume"],
                                             ["eval", str(who)]]  # fmt: skip
