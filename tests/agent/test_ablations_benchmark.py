"""`examples/benchmarks/ablations.py`: every arm changes one setting that there is; one table."""

import subprocess
import sys

import pytest
from programs import benchmark

from agent.assembly.load import RunRequest, resolved

ablations = benchmark("ablations")


@pytest.mark.parametrize("arm", [arm for arm in ablations.ARMS if arm != "preset"])
def test_an_arm_changes_the_preset(arm):
    plain, changed = (
        resolved(
            RunRequest(
                "ALE/Boxing-v5",
                preset="atari-small",
                overrides=tuple(word.removeprefix("--") for word in words),
            )
        )
        for words in ((), ablations.ARMS[arm])
    )
    assert plain.tree() != changed.tree()


def test_table_has_what_the_arms_came_to(tmp_path):
    for arm, score in (("preset", "30"), ("resets", "12.25")):
        (tmp_path / arm).mkdir()
        (tmp_path / arm / "scores.csv").write_text(
            "game,mean_return,low,high,human_normalised,train_minutes\n"
            f"Boxing,{score},10,40,2.5,14\nPong,-20,-21,-19,0.5,16\n"
        )
    assert ablations.table(tmp_path, ["preset", "resets", "n-3"], ["Boxing", "Pong"]).splitlines()[
        2:
    ] == [
        "| preset | 30 [10, 40] | -20 [-21, -19] | 1.50 | 15 |",
        "| resets | 12.25 [10, 40] | -20 [-21, -19] | 1.50 | 15 |",
    ]


def test_a_mean_is_of_the_games_asked_for_and_of_all_of_them(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "scores.csv").write_text(
        "game,mean_return,low,high,human_normalised,train_minutes\n"
        "Boxing,30,10,40,2.5,14\nPong,-20,-21,-19,0.5,16\n"
    )
    said = {games: ablations.table(tmp_path, ["preset"], games.split(",")).splitlines()[2:]
            for games in ("Boxing", "Boxing,Krull", "Krull")}  # fmt: skip
    assert said == {
        "Boxing": ["| preset | 30 [10, 40] | 2.50 | 14 |"],
        "Boxing,Krull": ["| preset | 30 [10, 40] | – | – | 14 |"],
        "Krull": [],
    }


def test_games_by_the_lot_are_those_there_are(tmp_path):
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "scores.csv").write_text("game\nPong\nBoxing\n")
    assert ablations.games_of(tmp_path, ["preset", "n-3"], "26") == ["Boxing", "Pong"]
    assert ablations.games_of(tmp_path, ["preset"], "Krull, Pong") == ["Krull", "Pong"]


def test_unknown_arm_is_one_line():
    done = subprocess.run(
        [sys.executable, ablations.__file__, "--arms", "magic"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "magic" in done.stderr
