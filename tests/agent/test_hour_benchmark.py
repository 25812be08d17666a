"""`examples/benchmarks/hour.py`: usage, the choice of agents at a mark, table and picture."""

import importlib.util
import json

import pytest

from tests.programs import benchmark

hour, peers = benchmark("hour"), benchmark("peers")


def result(learner, game, seed, mean):
    judged = {"mean": mean, "low": mean - 1, "high": mean + 1, "size": 2, "returns": [mean] * 2}
    points = [
        {"minutes": mark, "cpu": mark, "steps": 1000 * mark, "100k": judged, "v5": judged}
        for mark in hour.MARKS
    ]
    return {"learner": learner, "game": game, "seed": seed, "points": points}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--games", "CartPole"], "--games: expected Atari games, got 'CartPole'"),
        (["--learners", "a2c", "--games", "Pong"], "--learners: expected some of sextet"),
        (["--learners", "sextet", "--seeds", "x"], "--seeds: expected numbers"),
        (["--table", "--results", "none"], "--results: expected results in 'none'"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(words, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hour.UsageError, match=line.replace("(", "\\(")):
        hour.bench(words)
    assert list(tmp_path.iterdir()) == []


def test_peers_are_refused_where_their_library_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(hour.UsageError, match="not installed"):
        hour.bench(["--games", "Pong"])
    assert list(tmp_path.iterdir()) == []


def test_the_best_agent_so_far_is_judged_at_each_mark():
    snapshots = [
        peers.Snapshot(minutes, steps, mean, {"at": minutes})
        for minutes, steps, mean in ((10.1, 100, 1.0), (20.2, 200, 5.0), (60.0, 600, 3.0))
    ]
    points = peers.judged(snapshots, [10, 20, 60], lambda one: {"best": one.mean})
    assert [(point["steps"], point["best"]) for point in points] == [(100, 1), (200, 5), (600, 5)]


def test_table_and_picture_of_what_is_done(tmp_path, capsys):
    for one in (
        result("sextet", "Boxing", 0, 50.0), result("sextet", "Boxing", 1, 60.0),
        result("ppo", "Boxing", 0, 10.0), result("sextet", "Pong", 0, 20.0),
    ):  # fmt: skip
        name = f"{one['learner']}-{one['game']}-{one['seed']}.json"
        (tmp_path / name).write_text(json.dumps(one))
    assert hour.bench(["--table", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| Boxing | 55 [" in printed
    assert "2 s., 60k | 10 [9, 11], 1 s., 60k | – |" in printed
    assert (tmp_path / "hour.png").stat().st_size > 5000
