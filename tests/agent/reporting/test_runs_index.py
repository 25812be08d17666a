"""`sextet report`: what is read from run folders, how it is joined, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from agent.cli import run
from agent.learning.metrics import JSONLines
from agent.recording.run_folder import RunFolder
from agent.reporting.curves import curve
from agent.reporting.runs_index import (
    EVALUATION,
    Point,
    TrainedRun,
    _setting,
    find_runs,
    read_run,
    results,
    setting_names,
)
from agent.reporting.score_table import Played, as_markdown, score_table
from modules.messages import ConfigError
from worlds.scores import human_normalised


def trained(place: Path, world: str, seed: int, end: float, steps: int = 300) -> Path:
    """A run folder as a training leaves it, whose evaluations rise to `end`."""
    folder = RunFolder.create(place, "train")
    folder.write_config({"world": {"id": world, "protocol": "100k"}, "seed": seed,
                         "training": {"steps": steps}})  # fmt: skip
    lines = JSONLines(folder.metrics)
    for done in range(100, steps + 1, 100):
        value = end * done / steps
        axes = {"steps": done, "frames": done * 4}
        lines.write({**axes, "return": value - 1 if done > 100 else None, "updates": done})
        lines.write({**axes, "evaluation": value, "evaluation_low": value - 2,
                     "evaluation_high": value + 2, "evaluation_episodes": 5})  # fmt: skip
    return folder.path


def test_a_run_is_read_as_it_was_measured(tmp_path: Path):
    path = trained(tmp_path / "run", "ALE/Pong-v5", 3, 9.0)
    found = read_run(path)
    assert (found.world, found.protocol, found.seed) == ("ALE/Pong-v5", "100k", 3)
    assert found.evaluations[0] == Point(100, 400, 3.0, 1.0, 5.0, 5)
    assert [point.steps for point in found.training_returns] == [200, 300]
    assert (found.final.mean, found.final.low, found.final.high) == (9.0, 7.0, 11.0)
    (path / EVALUATION).write_text(json.dumps(
        {"world": "ALE/Pong-v5", "protocol": "v5", "mean_return": 4.0, "returns": [3.0, 5.0],
         "episodes": 2}
    ))  # fmt: skip
    kept = read_run(path).final
    assert (kept.mean, kept.returns, kept.protocol) == (4.0, (3.0, 5.0), "v5")


def test_a_line_under_way_is_left_out_and_a_damaged_one_is_said(tmp_path: Path):
    path = trained(tmp_path / "run", "CartPole-v1", 0, 9.0)
    metrics = path / "metrics.jsonl"
    whole = metrics.read_text()
    metrics.write_text(whole + '{"steps": 400, "eval')
    assert read_run(path).final.mean == 9.0
    metrics.write_text("nonsense\n" + whole)
    with pytest.raises(ConfigError, match="line 1: expected JSON"):
        read_run(path)
    metrics.write_text('{"steps": 5, "frames": 5, "return": null}\n')
    with pytest.raises(ConfigError, match="none yet"):
        read_run(path)


def test_runs_are_found_below_a_place_once(tmp_path: Path):
    for seed in (0, 1):
        trained(tmp_path / "several" / f"seed-{seed}", "CartPole-v1", seed, 9.0)
    assert len(find_runs([tmp_path, tmp_path / "several" / "seed-0"])) == 2
    with pytest.raises(ConfigError, match="elsewhere"):
        find_runs([tmp_path, tmp_path / "elsewhere"])


def test_a_curve_is_the_mean_over_seeds_where_all_are():
    one = [Point(0, 0, 0.0), Point(100, 400, 10.0), Point(300, 1200, 30.0)]
    two = [Point(100, 400, 20.0), Point(200, 800, 30.0)]
    made = curve([one, two])
    assert made.steps.tolist() == [100, 200]
    assert made.mean.tolist() == [15.0, 25.0]
    assert made.low is not None
    assert made.high is not None
    assert (made.low <= made.mean).all()
    assert (made.high >= made.mean).all()
    assert curve([one]).low is None
    alone = curve([[Point(0, 0, 1.0, 0.5, 2.0), Point(10, 10, 3.0, 1.5, 4.0)]])
    assert alone.low is not None
    assert alone.low.tolist() == [0.5, 1.5]


def test_games_together_are_mean_median_and_iqm_of_human_normalised_scores():
    scores = {"Pong": (10.0, 14.0), "Boxing": (50.0, 70.0), "Krull": (3000.0, 5000.0)}
    played = [
        Played(f"ALE/{game}-v5", "100k", seed, value)
        for game, values in scores.items()
        for seed, value in enumerate(values)
    ]
    table = score_table([*played, Played("CartPole-v1", None, 0, 400.0)], ["SPR"])
    assert [row.world for row in table.rows][-1] == "CartPole-v1"
    assert table.games == 3
    hns = np.array(
        [[human_normalised(f"ALE/{g}-v5", v) for v in values] for g, values in scores.items()],
        dtype=np.float64,
    )
    means = hns.mean(1)
    for name, wanted in (
        ("mean", means.mean()),
        ("median", np.median(means)),
        ("iqm", np.sort(hns.ravel())[1:5].mean()),
    ):
        value, low, high = table.together[name]
        assert value == pytest.approx(wanted)
        assert low is not None
        assert high is not None
        assert low <= value <= high
    # Stratified: of two runs a game, a mean can be no lower than that of all the worse ones.
    assert table.together["mean"].low == pytest.approx(hns.min(1).mean(), rel=0.2)
    spr = [human_normalised("ALE/Pong-v5", -5.4), human_normalised("ALE/Boxing-v5", 35.7),
           human_normalised("ALE/Krull-v5", 3681.6)]  # fmt: skip
    assert table.compared["SPR"]["median"] == pytest.approx(np.median(spr))


def test_runs_of_other_settings_are_no_seeds_of_one():
    plain = [Played("ALE/Pong-v5", "100k", seed, value) for seed, value in enumerate((1.0, 3.0))]
    other = [run._replace(mean=run.mean + 10, setting="model-free") for run in plain]
    table = score_table([*plain, *other], ["SPR"])
    assert [(row.setting, row.runs, row.score.value) for row in table.rows] == [
        ("", 2, 2.0), ("model-free", 2, 12.0),
    ]  # fmt: skip
    assert (table.games, table.together, table.compared) == (1, {}, {})
    assert "| ALE/Pong-v5 model-free | 100k | 2 |" in as_markdown(table)
    sticky = [run._replace(protocol="v5") for run in plain]
    assert score_table([*plain, *sticky]).together == {}


def test_settings_are_named_by_as_much_of_their_paths_as_it_takes(tmp_path: Path):
    def run(setting: str, *parts: str) -> TrainedRun:
        nothing = Played("ALE/Pong-v5", None, 0, 0.0)
        place = tmp_path.joinpath(*parts)
        return TrainedRun(place, "ALE/Pong-v5", None, 0, setting, (), (), nothing, None)

    one = [run("a", "x", "seed-0"), run("a", "x", "seed-1")]
    assert setting_names(one) == {"a": ""}
    assert setting_names([*one, run("b", "y", "seed-0")]) == {"a": "x", "b": "y"}
    arms = [run("a", "preset", "Pong-0"), run("b", "sigreg", "Pong-0")]
    assert setting_names(arms) == {"a": "preset/Pong-0", "b": "sigreg/Pong-0"}
    assert [played.setting for played in results(arms)] == ["preset/Pong-0", "sigreg/Pong-0"]
    assert setting_names([run("a", "x", "seed-0"), run("b", "x", "seed-1")]) == {
        "a": "seed-0", "b": "seed-1",
    }  # fmt: skip


def test_a_setting_an_earlier_version_did_not_know_has_its_default():
    old = {"world": {"id": "CartPole-v1"}, "learner": {"batch": 8}, "seed": 1}
    new = {**old, "learner": {"batch": 8, "critic_unroll_steps": 0}, "seed": 2}
    other = {**old, "learner": {"batch": 8, "critic_unroll_steps": 1}}
    assert _setting(old) == _setting(new) != _setting(other)


def test_one_runs_interval_is_of_its_episodes_and_one_figure_has_none():
    returns = tuple(float(value) for value in range(30))
    (row,) = score_table([Played("ALE/Pong-v5", "v5", 0, 14.5, returns)]).rows
    assert (row.over, row.episodes) == ("episodes", 30)
    assert row.score.low is not None
    assert 10 < row.score.low < 14.5
    # Without its episodes, its interval as it was measured is that of all one game together.
    run_alone = Played("ALE/Pong-v5", "v5", 0, 14.5, low=7.0, high=22.0)
    told = score_table([run_alone]).together["iqm"]
    assert told.low == pytest.approx(human_normalised("ALE/Pong-v5", 7.0), abs=0.02)
    assert told.high == pytest.approx(human_normalised("ALE/Pong-v5", 22.0), abs=0.02)
    table = score_table([Played("ALE/Pong-v5", "v5", 0, 14.5)])
    assert table.rows[0].score == (14.5, None, None)
    assert table.together["iqm"].low is None
    assert "**IQM HNS**, 1 games" in as_markdown(table)


def test_the_command_writes_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for world, end in (("ALE/Pong-v5", 5.0), ("CartPole-v1", 200.0)):
        for seed in (0, 1):
            trained(Path(f"all/{world.split('/')[-1]}-{seed}"), world, seed, end + seed)
    assert run(["report", "all", "--out", "made", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["runs"], figures["games"]) == (4, 1)
    assert figures["worlds"][0]["return"][0] == 5.5
    assert figures["worlds"][0]["compared"]["SPR"] == -5.4
    page = Path("made/report.md").read_text()
    assert "| ALE/Pong-v5 | 100k | 2 |" in page
    for name in ("curves.png", "scores.png"):
        assert f"({name})" in page
        picture = imread(Path("made") / name)
        assert picture[..., :3].std() > 0.01


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "nowhere"], "nowhere"),
        (["report", "empty"], "empty"),
        (["report", "all", "--compare", "SPRR"], "'SPR'"),
        (["report", "all", "--out", "empty"], "exists"),
        (["report", "all", "--out", "file/there"], "file/there"),
        (["eval", "CartPole-v1", "--compare", "SPRR"], "'SPR'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    trained(Path("all"), "CartPole-v1", 0, 9.0)
    before = sorted(tmp_path.rglob("*"))
    assert run(words) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert said in line
    assert shown.out == ""
    assert sorted(tmp_path.rglob("*")) == before
