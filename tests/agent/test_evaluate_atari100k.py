"""`examples/benchmarks/atari100k.py`: games side by side, a row each, resumable."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import benchmark

atari100k = benchmark("atari100k")


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_games_are_named_singly_or_by_the_lot():
    assert atari100k.games_named("Pong, Boxing") == ["Pong", "Boxing"]
    assert len(atari100k.games_named("26")) == 26
    assert len(atari100k.games_named("57")) == 57
    assert atari100k.games_named("AirRaid") == ["AirRaid"]  # can be played, if not normalised


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--games", "Pongg"], "'Pong'"),
        (["--seeds", "0,x"], "--seeds"),
        (["--steps", "0"], "at least 1"),
        (["--preset", "nothing"], "atari-small"),
        (["--protocol", "v6"], "100k"),
        (["--out", "file/there"], "file/there"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["atari100k.py", *words])
    assert atari100k.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_scores_are_written_anew_from_what_is_evaluated(tmp_path: Path):
    for game, seed, mean in (("Pong", 1, 3.0), ("Boxing", 0, 20.0)):
        folder = tmp_path / f"{game}-{seed}"
        folder.mkdir()
        kept = {"game": game, "run_seed": seed, "seed": 9, "preset": "p", "protocol": "100k",
                "trained_steps": 300, "steps": 77, "episodes": 2, "mean_return": mean,
                "interval": [1.0, 5.0], "std_return": 1.0, "human_normalised": None,
                "commit": "abc"}  # fmt: skip
        (folder / atari100k.EVALUATION).write_text(json.dumps(kept))
    (tmp_path / "Pong-1" / "result.json").write_text('{"seconds": 90}')
    (tmp_path / "Krull-0").mkdir()
    assert atari100k.write_scores(tmp_path) == 2
    assert atari100k.write_scores(tmp_path) == 2
    rows = rows_of(tmp_path)
    assert [(row["game"], row["seed"], row["steps"]) for row in rows] == [
        ("Boxing", "0", "300"), ("Pong", "1", "300"),
    ]  # fmt: skip
    assert (rows[1]["train_minutes"], rows[1]["low"], rows[1]["run"]) == ("1.5", "1.0", "Pong-1")
    assert rows[0]["train_minutes"] == rows[0]["human_normalised"] == ""


def trained(out: Path, steps: int, episodes: int) -> Path:
    """A folder in which a run of Pong was trained and evaluated."""
    folder = out / "Pong-0"
    folder.mkdir()
    (folder / "config.yaml").write_text(f"training: {{steps: {steps}}}")
    (folder / "result.json").write_text(json.dumps({"steps": steps, "stopped": False}))
    said = {"game": "Pong", "run_seed": 0, "trained_steps": steps, "episodes": episodes,
            "mean_return": 1.0, "interval": None}  # fmt: skip
    (folder / atari100k.EVALUATION).write_text(json.dumps(said))
    return folder


def test_done_is_what_was_trained_and_judged_as_long_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["atari100k.py", "--games", "Pong", "--out", str(tmp_path), "--episodes", "2"]
    # Settings of a request that was refused, and began nothing, hold nobody back.
    (tmp_path / "settings.json").write_text(json.dumps({"more": ["--learner.bach=64"]}))
    folder, asked_for = tmp_path / "Pong-0", list[list[str]]()

    def sextet(self: object, words: list[str], log: Path) -> list[str]:
        asked_for.append(words)
        (folder / "result.json").write_text('{"steps": 408, "stopped": false}')
        (folder / "config.yaml").write_text("training: {steps: 400}")
        return [json.dumps({"episodes": 2, "mean_return": 2.0, "interval": None})]

    monkeypatch.setattr(atari100k.Deadline, "run", sextet)
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "300", "--minutes", "0"])
    assert atari100k.main() == 3
    trained(tmp_path, 300, 2)
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "300"])
    assert atari100k.main() == 0
    assert not asked_for
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "400"])
    (folder / "checkpoints" / "300").mkdir(parents=True)
    assert atari100k.main() == 0
    assert [told[:3] for told in asked_for] == [
        ["train", "--resume", str(folder)], ["eval", str(folder), "--protocol"],
    ]  # fmt: skip
    assert rows_of(tmp_path)[0]["steps"] == "400"
    assert atari100k.main() == 0  # several worlds took their last step together: it is done
    assert len(asked_for) == 2
    capsys.readouterr()
    for wrong, said in (
        (["--steps", "300"], "expected at most 300 steps of training, got 400"),
        (["--steps", "400", "--preset", "model-free"], "holds runs with preset 'atari-small'"),
        (["--steps", "400", "--learner.batch=64"], "got ['--learner.batch=64']; try another"),
    ):
        monkeypatch.setattr(sys, "argv", [*words, *wrong])
        assert atari100k.main() == 2
        assert said in capsys.readouterr().err
    assert len(asked_for) == 2


@pytest.mark.slow
def test_two_games_are_trained_stopped_and_gone_on_with(tmp_path: Path):
    """Real trainings of 300 steps. Nothing is learned in them: a beginner that has learned a
    little may never serve a ball, and its game last for half an hour.
    """
    words = [sys.executable, atari100k.__file__, "--games", "Breakout,Pong", "--steps", "300",
             "--episodes", "1", "--jobs", "2", "--out", str(tmp_path),
             "--learner.warmup_steps=1000", "--training.evaluate_episodes=1",
             "--memory.capacity=1000"]  # fmt: skip
    stopped = subprocess.run([*words, "--minutes", "0"], check=False, timeout=300)
    assert stopped.returncode == 3
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 1
    ended = subprocess.Popen(words)
    while not (tmp_path / "Pong-0" / "config.yaml").is_file():
        time.sleep(0.1)
    ended.terminate()
    assert ended.wait(timeout=300) == 3
    assert subprocess.run(words, check=False, timeout=900).returncode == 0
    rows = rows_of(tmp_path)
    assert [(row["game"], row["steps"], row["episodes"]) for row in rows] == [
        ("Breakout", "300", "1"), ("Pong", "300", "1"),
    ]  # fmt: skip
    assert -21 <= float(rows[1]["mean_return"]) <= 21
    # What is done is not done again; what was not evaluated is.
    (tmp_path / "Pong-0" / atari100k.EVALUATION).unlink()
    before = (tmp_path / "Breakout-0" / atari100k.EVALUATION).stat().st_mtime_ns
    trained = (tmp_path / "Pong-0" / "metrics.jsonl").read_bytes()
    assert subprocess.run(words, check=False, timeout=900).returncode == 0
    assert (tmp_path / "Breakout-0" / atari100k.EVALUATION).stat().st_mtime_ns == before
    assert (tmp_path / "Pong-0" / "metrics.jsonl").read_bytes() == trained
    again = rows_of(tmp_path)
    assert [row["mean_return"] for row in again] == [row["mean_return"] for row in rows]
