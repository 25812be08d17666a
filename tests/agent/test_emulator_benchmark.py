"""`examples/benchmarks/emulator.py`: usage, plays that are not repeated, table and bars."""

import json

import pytest

from tests.programs import benchmark

emulator = benchmark("emulator")


def write(folder, game, preset, seed, scores, planner="default"):
    play = emulator.Play(game, preset, planner, seed)
    figures = {**play._asdict(), "steps": 400, "settings": [], "scores": scores, "episodes": 0}
    (folder / f"{play.name}.json").write_text(json.dumps(figures))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--games", "CartPole"], "--games: expected Atari games, got 'CartPole'"),
        (["--games", "Carnaval"], "Did you mean 'Carnival'"),
        (
            ["--presets", "reactive"],
            "--presets: expected some of clairvoyant, fair, got 'reactive'",
        ),
        (["--planners", "cem"], "--planners: expected some of default"),
        (["--seeds", "x"], "--seeds: expected numbers"),
        (["--steps", "0"], "--steps: expected at least 1, got 0"),
        (["directive.horizon_steps=4"], "expected a setting as --directive"),
        (["--table", "--results", "none"], "--results: expected results in 'none'"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["emulator.py", *words])
    assert emulator.main() == 2
    error = capsys.readouterr().err
    assert line in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_setting_that_does_not_exist_is_refused_before_any_play(tmp_path, monkeypatch, capsys):
    words = ["--games", "Pong", "--results", str(tmp_path / "new"), "--directive.horizon=3"]
    monkeypatch.setattr("sys.argv", ["emulator.py", *words])
    assert emulator.main() == 2
    assert "directive.horizon" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_plays_are_kept_and_not_repeated(tmp_path, capsys):
    words = [
        "--games", "Breakout", "--presets", "fair", "--planners", "tree,beam", "--seeds", "3",
        "--steps", "3", "--engine", "serial", "--results", str(tmp_path), "--json",
        "--directive.model_calls=8", "--directive.horizon_steps=4",
    ]  # fmt: skip
    assert emulator.bench(words) == 0
    names = ["Breakout-fair-beam-3", "Breakout-fair-tree-3", "Breakout-random"]
    assert sorted(path.stem for path in tmp_path.iterdir()) == names
    play = json.loads((tmp_path / "Breakout-fair-tree-3.json").read_text())
    assert (play["planner_kind"], play["steps"], play["model_calls"]) == ("tree", 3, 8)
    assert len(json.loads((tmp_path / "Breakout-random.json").read_text())["scores"]) == 16
    first = capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert emulator.bench(words) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert capsys.readouterr().out == first
    with pytest.raises(emulator.UsageError, match="try another folder"):
        emulator.bench([*words, "--directive.commit_steps=2"])


def test_ratios_intervals_and_bars(tmp_path, capsys):
    for game, random in (("Pong", 10.0), ("Boxing", 1.0), ("Krull", 100.0)):
        write(tmp_path, game, None, 0, [random - 1, random + 1] * 8)
    for seed in range(4):
        write(tmp_path, "Pong", "fair", seed, [40.0 + seed])
        write(tmp_path, "Boxing", "fair", seed, [3.0])
        write(tmp_path, "Krull", "fair", seed, [150.0])
    assert emulator.bench(["--table", "--json", "--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| Pong | 10 | 41.5, 4.15 [" in printed
    assert "2 of 3" in printed
    arm = json.loads(printed.splitlines()[-1])["arms"]["fair, default"]
    assert arm["games"]["Boxing"]["ratio"] == pytest.approx(3)
    assert arm["games"]["Krull"]["ratio"] == pytest.approx(1.5)
    assert arm["median"]["ratio"] == pytest.approx(3)
    assert arm["median"]["low"] <= 3 <= arm["median"]["high"]
    one = arm["games"]["Pong"]
    # By hand: the mean of 16 numbers 9 or 11 is within .5 of 10 in 95 of 100 resamples.
    assert 3.8 < one["low"] < 4.15 < one["high"] < 4.5
