"""Studies: the file, paired runs, resuming, results that do not depend on the number of jobs."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import yaml

from agent.assembly.load import resolved
from agent.assembly.resolve import BUNDLED
from agent.cli import run as command
from agent.engines.processes import ProcessEngine
from agent.engines.serial import SerialEngine
from agent.learning.training import Training
from agent.recording.run_folder import RunFolder
from agent.studies.findings import find
from agent.studies.grid import check, runs_of, settings_of_arm, stages, training_of
from agent.studies.measures import MEASURES, TIMED, Series, SeriesRecorder, measured
from agent.studies.report import as_markdown, write_report
from agent.studies.runner import begin, reopen, results_in, run_study
from agent.studies.study import branch, chosen, quick, read_study, shipped, study_of
from modules.messages import ConfigError

TINY = {
    "name": "tiny",
    "question": "Does <thinking> pay?",
    "worlds": [{"id": "CartPole-v1", "steps": 12}],
    "base": {
        "directive": {"model_calls": 12, "horizon_steps": 4},
        "memory.capacity": 100,
        "actor.replan_threshold": 100,
    },
    "arms": {
        "acts": {"settings": {"configurator": {"kind": "fixed", "mode": 1}}},
        "acts-too": {"settings": {"configurator.kind": "fixed", "configurator.mode": 1}},
        "thinks": {
            "settings": {"configurator": {"kind": "fixed", "mode": 2}, "directive.commit_steps": 3}
        },
        "random": {
            "settings": {"configurator.kind": "random-rate", "directive.commit_steps": 1},
            "match": {
                "arm": "thinks",
                "measure": "thought_share",
                "setting": "configurator.rate",
            },
        },
    },
    "seeds": [0, 1, 2],
    "measures": ["return", "model_calls", "energy.score"],
    "comparisons": [{"arms": ["acts-too", "thinks"], "against": "acts"}],
    "gap": {"low": "acts", "high": "thinks", "arms": {"random": "acts"}, "keep": 0.8},
    "trends": [{"measure": "model_calls", "arms": ["acts", "thinks"], "direction": "rises"}],
    "distances": [["acts", "acts-too"], ["acts", "thinks"]],
    "curves": ["thinks"],
    "energies": ["acts", "thinks"],
}


def with_arm(**parts):
    return {"arms": {**TINY["arms"], "x": parts}}


def tiny(**changes):
    return study_of({**TINY, **changes}, "tiny")


def silent(_):
    return None


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished study's folder, not to be written to."""
    folder = begin(tiny(), tmp_path_factory.mktemp("study") / "tiny")
    reports = []
    run_study(tiny(), folder, SerialEngine(), reports.append)
    write_report(folder)
    assert [progress.done for progress in reports] == list(range(1, 13))
    assert reports[-1].remaining_s == 0
    return folder


def figures(folder):
    return {
        (one["world"], one["arm"], one["seed"]): {
            name: value for name, value in one["measures"].items() if name not in TIMED
        }
        for one in results_in(folder)
    }


# -- the file -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "Did you mean 'seeds'"),
        ({"worlds": [{"id": "CartPole-v1", "step": 3}]}, "Did you mean 'steps'"),
        ({"measures": ["retrun"]}, "Did you mean 'return'"),
        ({"curves": ["think"]}, "Did you mean 'thinks'"),
        ({"gap": {"low": "act", "high": "thinks", "arms": {}}}, "Did you mean 'acts'"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": []}, "at least 1 item"),
        ({"trends": [{"measure": "return", "arms": ["acts", "thinks"], "direction": "up"}]},
         "rise"),
        ({"question": None}, "string"),
        (with_arm(tune={"seed": 1}), "uses seed 2"),
        ({**with_arm(tune={"seed": 7}), "seeds": [100_008]}, "uses seed 100008"),
        (with_arm(tune={"population": 5}), "multiple of 2"),
        (with_arm(tune={"steps": 1}), "tune.steps"),
        (with_arm(tune={"price": float("inf")}), "finite"),
        (with_arm(tune={}, train={"steps": 9}), "tune and train"),
        (with_arm(agent_of="act"), "Did you mean 'acts'"),
        (with_arm(agent_of="acts"), "'acts' has no training"),
        (with_arm(agent_of="acts", train={"steps": 9}), "leave one out"),
        ({"worlds": [*TINY["worlds"], {"id": "Acrobot-v1"}],
          "arms": {**TINY["arms"], "learns": {"train": {"steps": 9}, "worlds": ["CartPole-v1"]},
                   "x": {"agent_of": "learns"}}}, "'learns' is not trained in Acrobot-v1"),
        (with_arm(tune={}, settings={"configurator.kind": "fixed"}), "'fixed' cannot be tuned"),
        (with_arm(tune={}), "'surprise' cannot be tuned"),
        ({"arms": {**TINY["arms"], "Acts_too": {}}}, "'Acts_too' and 'acts-too' would share"),
        ({"arms": {**TINY["arms"], "думает": {}}}, "a-z"),
        ({"worlds": [{"id": "ALE/Pong-v5"}, {"id": "ale-pong-v5"}]}, "would share the folder"),
        ({"measures": ["energy.pian"]}, "Did you mean 'energy.pain'"),
        ({"trends": [{"measure": "signal.scores", "arms": ["acts", "thinks"],
                      "direction": "rises"}]}, "trends.0.measure"),
        ({"arms": {**TINY["arms"], "x": {"match": {**TINY["arms"]["random"]["match"],
                                                    "arm": "random"}}}}, "plain arm"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(change, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(yaml.safe_dump({**TINY, **change}))
    assert command(["study", "s.yaml"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study", "mods"], "Did you mean 'modes'"),
        (["study"], "one of the two"),
        (["study", "s.yaml", "--seeds", "0,x"], "like 0,1,2 or 0-11"),
        (["study", "s.yaml", "--worlds", "CartPol-v1"], "CartPole-v1"),
        (["study", "--resume", "nowhere"], "study.yaml"),
        (["study", "--resume", "nowhere", "--quick"], "as it was begun"),
        (["study", "s.yaml", "--quick"], "Did you mean 'generations'"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    learned = with_arm(tune={}, settings={"configurator.kind": "learned"})
    Path("s.yaml").write_text(
        yaml.safe_dump({**TINY, **learned, "quick": {"tune": {"generation": 1}}})
    )
    assert command(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_a_wrong_setting_of_an_arm_is_found_before_anything_runs(tmp_path):
    wrong = tiny(
        arms={**TINY["arms"], "x": {"settings": {"configurator": {"kind": "fixed", "mood": 1}}}}
    )
    with pytest.raises(ConfigError, match=r"arm 'x'.*mood.*Did you mean 'mode'"):
        begin(wrong, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_dotted_keys_are_a_tree():
    assert branch({"a.b": 1, "a": {"c.d": 2}}) == {"a": {"b": 1, "c": {"d": 2}}}


def test_a_study_survives_its_file(done):
    assert reopen(done) == tiny()


def test_other_seeds_and_worlds():
    other = chosen(tiny(), (7, 8), ("CartPole-v1", "Acrobot-v1"))
    assert other.seeds == (7, 8)
    assert [(world.id, world.steps) for world in other.worlds] == [
        ("CartPole-v1", 12), ("Acrobot-v1", 12)
    ]  # fmt: skip
    assert chosen(tiny(), None, None) == tiny()


def test_a_tuning_does_not_use_its_first_seed():
    study_of({**TINY, **with_arm(tune={"seed": 2})}, "tiny")


def test_quick_keeps_the_settings_of_a_world(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    acrobot = {"id": "Acrobot-v1", "price": 0.5, "settings": {"memory.capacity": 50}}
    few = {name: TINY["arms"][name] for name in ("acts", "acts-too")}
    small = {
        "worlds": [*TINY["worlds"], acrobot], "arms": few, "measures": ["return"],
        "comparisons": [], "gap": None, "trends": [], "distances": [], "curves": [],
        "energies": [], "quick": {"steps": 3, "worlds": ["CartPole-v1"]},
    }  # fmt: skip
    Path("s.yaml").write_text(yaml.safe_dump({**TINY, **small}))
    words = ["study", "s.yaml", "--quick", "--worlds", "Acrobot-v1", "--seeds", "7", "--jobs", "1"]
    assert command([*words, "--run", "out"]) == 0
    small_study = reopen(Path("out"))
    (world,) = small_study.worlds
    assert (world.id, world.steps, world.price) == ("Acrobot-v1", 3, 0.5)
    assert world.settings == acrobot["settings"]
    assert small_study.seeds == (7,)
    # Where nothing is named, the study says what is small.
    assert quick(tiny()).seeds == (0, 1)


def test_a_trained_agent_plays_under_its_own_rules(tmp_path):
    worlds = [{"id": "ALE/Boxing-v5", "agent": "boxing"}, {"id": "ALE/Pong-v5"}]
    study = tiny(worlds=worlds, arms={"acts": {}, "trained": {"train": {"steps": 9}}},
                 comparisons=[], gap=None, trends=[], distances=[], curves=[], energies=[],
                 measures=["return"])  # fmt: skip
    check(study)
    runs = runs_of(study, [(world["id"], "acts") for world in worlds], {}, tmp_path)
    protocols = [resolved(run.request()).settings.world.protocol for run in runs[:2]]
    assert protocols == ["100k", "v5"]
    learned = resolved(training_of(study, study.worlds[0], "trained", 0))
    assert learned.settings.world.protocol == "100k"
    world = study.worlds[0].model_copy(update={"protocol": "v5"})
    assert settings_of_arm(study, world, "acts", {})["world"]["protocol"] == "v5"


def test_the_plan_is_every_arm_in_every_world_with_every_seed(tmp_path):
    study = tiny()
    first, last = stages(study)
    assert last == [("CartPole-v1", "random")]
    runs = runs_of(study, first, {}, tmp_path)
    assert len(runs) == 9
    assert len({run.name for run in runs}) == 9
    assert [run.seed for run in runs] == [0] * 3 + [1] * 3 + [2] * 3
    world = study.worlds[0]
    tree = settings_of_arm(study, world, "random", {"configurator.rate": 0.5})
    assert tree["configurator"] == {"kind": "random-rate", "rate": 0.5}
    assert tree["directive"] == {"model_calls": 12, "horizon_steps": 4, "commit_steps": 1}


# -- the runs -----------------------------------------------------------------------------------


def test_every_run_is_a_whole_folder(done):
    folders = sorted(path.name for path in (done / "runs").iterdir())
    assert len(folders) == 12
    assert "cartpole-v1--thinks--2" in folders
    for name in folders:
        files = {path.name for path in (done / "runs" / name).iterdir()}
        assert files == {"config.yaml", "result.json", "series.npz"}


def test_equal_arms_have_equal_measures(done):
    measures = figures(done)
    for seed in (0, 1, 2):
        assert measures["CartPole-v1", "acts", seed] == measures["CartPole-v1", "acts-too", seed]
    # Other seeds differ, or pairing by seed would have no effect.
    assert len({measures["CartPole-v1", "acts", seed]["effort"] for seed in (0, 1, 2)}) > 1


def test_measures_are_those_of_the_moments(done):
    result = json.loads((done / "runs" / "cartpole-v1--thinks--0" / "result.json").read_text())
    series = Series.load(done / "runs" / "cartpole-v1--thinks--0" / "series.npz")
    again = measured(series, result["drives"], result["signals"])
    assert {**result["measures"], **again} == result["measures"]
    assert again["mode2_share"] == 1
    thoughts = -(-again["length"] // 3)
    assert again["thought_share"] == pytest.approx(thoughts / again["length"])
    assert again["model_calls"] == series.calls.sum()
    assert set(MEASURES) - set(TIMED) <= set(again)


def test_a_matched_arm_takes_the_mean_of_the_other(done):
    config = yaml.safe_load((done / "runs" / "cartpole-v1--random--1" / "config.yaml").read_text())
    rates = [figures(done)["CartPole-v1", "thinks", seed]["thought_share"] for seed in (0, 1, 2)]
    assert config["configurator"]["rate"] == pytest.approx(np.mean(rates))


def test_a_study_continues_where_it_was_interrupted(done, tmp_path, monkeypatch):
    folder = begin(tiny(), tmp_path / "stopped")

    def stop(progress):
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(tiny(), folder, SerialEngine(), stop)
    assert len(results_in(folder)) == 5
    half = folder / "runs" / ".part-cartpole-v1--random--1"
    half.mkdir()
    (half / "result.json").write_text("{")
    times = {p: p.stat().st_mtime_ns for p in (folder / "runs").glob("c*/result.json")}
    write_report(folder)
    assert "Unfinished: 7 of 12" in (folder / "report.md").read_text()
    reports = []
    run_study(reopen(folder), folder, SerialEngine(), reports.append)
    assert len(reports) == 7
    assert {p: p.stat().st_mtime_ns for p in times} == times
    assert not half.exists()
    assert figures(folder) == figures(done)


def test_a_tuned_arm_has_the_agent_of_its_world(tmp_path):
    """The agent of the world is tuned; the setting of the match is added for the runs."""
    arms = {
        "acts": {"settings": {"configurator": {"kind": "fixed", "mode": 1}}},
        "learned": {
            "settings": {
                "configurator.kind": "learned",
                "directive": {"model_calls": 8, "horizon_steps": 2},
            },
            "tune": {"generations": 1, "population": 2, "episodes": 1, "steps": 2},
            "match": {"arm": "acts", "measure": "length", "setting": "directive.risk"},
        },
    }
    study = study_of(
        {"name": "learned", "question": "?", "arms": arms, "seeds": [0], "measures": ["return"],
         "worlds": [{"id": "CartPole-v1", "agent": "cartpole", "steps": 3}]}, "learned",
    )  # fmt: skip
    folder = begin(study, tmp_path / "learned")
    run_study(study, folder, SerialEngine(), silent)
    tuned = folder / "tuned" / "cartpole-v1--learned"
    own = RunFolder(BUNDLED / "cartpole").read_config()
    config = yaml.safe_load((tuned / "config.yaml").read_text())
    # What is written is whole; the agent's own file lacks settings that are newer than it.
    critic = {**config["cost"]["critic"], **own["cost"]["critic"]}
    assert {**own["cost"], "critic": critic} == config["cost"]
    file = folder / "runs" / "cartpole-v1--learned--0" / "config.yaml"
    settings = yaml.safe_load(file.read_text())
    assert settings["configurator"]["weights"] == str(tuned)
    assert settings["directive"]["risk"] == 3


def test_arms_play_the_agent_that_is_trained_for_another(tmp_path):
    arms = {
        "acts": {"train": {"steps": 40, "settings": {"learner.warmup_steps": 20}}},
        "same": {"agent_of": "acts"},
        "short": {"agent_of": "acts", "settings": {"directive.horizon_steps": 3},
                  "interventions": ["clamp:risk=1"]},
    }  # fmt: skip
    study = study_of(
        {"name": "trained", "question": "?", "arms": arms, "seeds": [0, 1], "measures": ["return"],
         "worlds": [{"id": "CartPole-v1", "steps": 30}]}, "trained",
    )  # fmt: skip
    folder = begin(study, tmp_path / "trained")
    run_study(study, folder, SerialEngine(), silent)
    trained = sorted((folder / "trained").iterdir())
    assert [place.name for place in trained] == [f"cartpole-v1--acts--{seed}" for seed in (0, 1)]
    learned = yaml.safe_load((trained[0] / "config.yaml").read_text())
    played = yaml.safe_load((folder / "runs/cartpole-v1--short--0/config.yaml").read_text())
    assert (learned["interventions"], played["interventions"]) == ([], ["clamp:risk=1"])
    assert learned["directive"]["horizon_steps"] != 3 == played["directive"]["horizon_steps"]
    of_arm = figures(folder)
    for seed in (0, 1):
        assert of_arm["CartPole-v1", "same", seed] == of_arm["CartPole-v1", "acts", seed]
    assert "plays the agent of acts" in as_markdown(study, find(study, [], tmp_path), {})


def test_an_interrupted_training_is_done_again(tmp_path, monkeypatch):
    arms = {"acts": {"train": {"steps": 40, "settings": {"learner.warmup_steps": 20}}}}
    study = study_of(
        {"name": "trained", "question": "?", "arms": arms, "seeds": [0], "measures": ["return"],
         "worlds": [{"id": "CartPole-v1", "steps": 3}]}, "trained",
    )  # fmt: skip
    folder = begin(study, tmp_path / "trained")
    whole = Training.run

    def interrupted(self, checkpoints):
        os.kill(os.getpid(), signal.SIGINT)
        yield from whole(self, checkpoints)

    with monkeypatch.context() as within:
        within.setattr(Training, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_study(study, folder, SerialEngine(), silent)
    assert not list((folder / "trained").glob("cartpole*"))
    assert list((folder / "trained").glob(".part-*"))
    run_study(reopen(folder), folder, SerialEngine(), silent)
    results = list((folder / "trained").glob("*/result.json"))
    assert [json.loads(one.read_text())["steps"] for one in results] == [40]
    assert not list((folder / "trained").glob(".part-*"))
    assert len(results_in(folder)) == 1


def test_two_jobs_at_a_time_have_the_same_results(done, tmp_path):
    folder = begin(tiny(), tmp_path / "two")
    run_study(tiny(), folder, ProcessEngine(2), silent)
    assert figures(folder) == figures(done)


def test_a_run_that_fails_is_named_and_nothing_finished_is_lost(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    no_figures = {"gap": None, "trends": [], "distances": [], "curves": [], "energies": []}
    Path("s.yaml").write_text(yaml.safe_dump({**TINY, **no_figures, "seeds": [0]}))
    assert command(["study", "s.yaml", "--run", "out", "--jobs", "1"]) == 0
    shutil.rmtree("out/runs/cartpole-v1--thinks--0")
    monkeypatch.setattr("agent.studies.worker.measured", lambda *_: 1 / 0)
    assert command(["study", "--resume", "out", "--jobs", "1"]) == 1
    message = capsys.readouterr().err
    assert "thinks · CartPole-v1 · seed 0: ZeroDivisionError" in message
    assert message.count("\n") == 1
    assert not Path("out/runs/cartpole-v1--thinks--0").exists()
    assert len(results_in(Path("out"))) == 3
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert command(["study", "--resume", "out", "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["runs"] == 4
    assert last["missing"] == 0


# -- the measures ---------------------------------------------------------------------------


def test_the_first_episode_alone_counts(life, pong):
    recorder = SeriesRecorder(pong.actions, rows=2)
    over = [recorder.add(moment) for moment in life(60)]
    # The game of the example is over at its 50th moment, whose signals still count.
    assert over.index(True) == 49
    series = recorder.series()
    assert series.counts.sum() == 2 * 50
    values = measured(series, ("score", "pain"), pong.signals)
    assert values["return"] == 5
    assert values["lives_lost"] == 2
    assert values["length"] == 49
    thinking = [step % 3 == 0 for step in range(49)]
    assert values["mode2_share"] == pytest.approx(np.mean(thinking))
    assert values["model_calls"] == 182 * sum(thinking)
    assert values["return_per_kcall"] == pytest.approx(5000 / (182 * sum(thinking)))
    assert values["dwell_2"] == 1
    assert values["switch_rate"] == pytest.approx(100 * 32 / 48)
    assert values["signal.lives"] == pytest.approx(sum(3.0 - step // 25 for step in range(50)))


# -- findings and report ------------------------------------------------------------------------


def test_the_same_arm_twice_is_no_difference_and_no_distance(done):
    findings = find(tiny(), results_in(done), done)
    same = next(c for c in findings.contrasts if c.arm == "acts-too")
    assert (same.difference.mean, same.difference.low, same.difference.high) == (0, 0, 0)
    assert same.p == 1
    apart = {(d.arms, d.what): d for d in findings.distances}
    assert apart[("acts", "acts-too"), "actions"].apart.mean == 0
    assert apart[("acts", "acts-too"), "places"].apart.mean == 0
    assert apart[("acts", "thinks"), "actions"].apart.mean > 0
    (trend,) = findings.trends
    assert trend.monotone
    assert trend.tau.mean == 1
    assert trend.means[0].mean == 0
    assert findings.curves["thinks"]["surprise"][0].share.mean == 1
    assert min(point.share.mean for point in findings.thoughts["thinks"]["surprise"]) < 1
    assert findings.missing == []


def test_findings_of_known_runs(tmp_path):
    """The runs are constructed, so the findings are known."""
    study = tiny(distances=[], curves=[], energies=[], seeds=list(range(12)))
    luck = np.random.default_rng(0).normal(0, 0.1, 12)
    levels = {"acts": (0, 0), "acts-too": (0, 0), "thinks": (10, 1000), "random": (9, 250)}
    runs = [
        {"world": "CartPole-v1", "arm": arm, "seed": seed, "drives": [], "signals": [],
         "measures": {"return": level + luck[seed], "model_calls": calls, "length": 12}}
        for arm, (level, calls) in levels.items() for seed in range(12)
    ]  # fmt: skip
    findings = find(study, runs, tmp_path)
    assert findings.gap is not None
    assert findings.gap.worlds == ("CartPole-v1",)
    (share,) = findings.gap.shares
    assert share.share.mean == pytest.approx(0.9)
    assert share.calls.mean == pytest.approx(0.25)
    assert share.control_share.mean == pytest.approx(0)
    assert share.control_calls.mean == pytest.approx(0)
    assert share.over_control.low == pytest.approx(0.9)
    assert [v.met for v in findings.verdicts] == [True, True, True]
    thinks = next(c for c in findings.contrasts if c.arm == "thinks")
    assert thinks.difference.mean == pytest.approx(10)
    assert thinks.p == 2 / 2**12
    assert thinks.p_corrected == pytest.approx(4 / 2**12)
    # The same with a high arm no better than the low one: there is no gap to keep.
    flat = [one if one["arm"] != "thinks" else {**one, "measures": runs[one["seed"]]["measures"]}
            for one in runs]  # fmt: skip
    assert find(study, flat, tmp_path).gap.worlds == ()
    assert not any(v.met for v in find(study, flat, tmp_path).verdicts)


def test_the_worlds_on_which_a_trend_holds_are_counted_for_each_trend(tmp_path):
    trends = [
        {"measure": "model_calls", "arms": ["acts", arm], "direction": "rises"}
        for arm in ("thinks", "random")
    ]
    study = tiny(trends=trends, trend_worlds=2, distances=[], curves=[], energies=[])
    runs = [
        {"world": "CartPole-v1", "arm": arm, "seed": seed, "drives": [], "signals": [],
         "measures": {"return": seed, "model_calls": 100 * (arm in ("thinks", "random"))}}
        for arm in study.arms for seed in study.seeds
    ]  # fmt: skip
    findings = find(study, runs, tmp_path)
    assert all(trend.holds for trend in findings.trends)
    rises = [verdict for verdict in findings.verdicts if "rises" in verdict.text]
    assert [verdict.met for verdict in rises] == [False, False]
    assert "acts, thinks" in rises[0].text
    assert "on 1 of 1 worlds (bar: 2)" in rises[0].text


def test_the_report_names_agents_and_trainings(tmp_path):
    def lines_of(study):
        return as_markdown(study, find(study, [], tmp_path), {}).splitlines()

    world = {"id": "CartPole-v1", "agent": "cartpole", "price": 0.25, "settings": {"discount": 0.9}}
    arms = {**TINY["arms"], "x": {"train": {"steps": 77, "preset": "learn-actions"}}}
    lines = lines_of(tiny(worlds=[world], arms=arms))
    (line,) = [line for line in lines if line.startswith("- World CartPole-v1")]
    assert all(part in line for part in ("cartpole", "0.25", "discount: 0.9"))
    (line,) = [line for line in lines if line.startswith("- Arm x")]
    assert "steps: 77" in line
    assert "learn-actions" in line
    assert not any(line.startswith("- World ") for line in lines_of(tiny()))


def test_the_report_stands_by_itself(done):
    page = (done / "report.html").read_text()
    assert "&lt;thinking&gt;" in page
    assert "<thinking>" not in page
    assert "http" not in page
    text = (done / "report.md").read_text()
    drawn = sorted(path.name for path in (done / "figures").iterdir())
    assert drawn == ["curves.png", "energies.png", "front.png", "measures.png", "trends.png"]
    assert page.count("data:image/png;base64,") == len(drawn)
    assert all(f"figures/{name}" in text for name in drawn)
    assert "Falls short" in text
    lines = list(csv.DictReader((done / "results.csv").read_text().splitlines()))
    assert len(lines) == 12
    assert float(lines[-1]["model_calls"]) > 0
    json.loads((done / "results.json").read_text(), parse_constant=lambda name: 1 / 0)


# -- those that come with the package -----------------------------------------------------------


def test_ten_studies_come_with_the_package(capsys):
    assert set(shipped()) == {
        "modes", "surprise-threshold", "reweighting", "priming", "ablate-each-output",
        "swap-each-module", "learned-configurator", "uncertainty", "subgoals", "memory",
    }  # fmt: skip
    assert command(["list", "studies"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(shipped())


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_study_is_sound(name):
    """Every setting of every arm is known; nothing is run."""
    study = read_study(name)
    assert study.name == name
    check(study)


# `modes`, `reweighting` and `surprise-threshold` also run in `test_study_documents.py`.
@pytest.mark.parametrize(
    "name",
    [
        name if name == "learned-configurator" else pytest.param(name, marks=pytest.mark.slow)
        for name in shipped()
    ],
)
def test_a_shipped_study_runs(name, tmp_path, monkeypatch, capsys):
    """Made small, with all of its trainings, tunings, matches and its report."""
    monkeypatch.chdir(tmp_path)
    words = ["study", name, "--quick", "--seeds", "0", "--jobs", "1", "--run", "out", "--json"]
    assert command(words) == 0, capsys.readouterr().err
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    small = quick(read_study(name))
    assert last["runs"] == len(small.pairs())
    assert last["missing"] == 0
    assert Path("out/report.html").is_file()


# -- version 0.1 --------------------------------------------------------------------------------

OLD = {
    "name": "old", "question": "?", "seeds": [0], "measures": ["return"],
    "worlds": [{"id": "CartPole-v1", "rows": 2, "steps": 3, "settings": {"world.rows": 2}}],
    "base": {"actor.replan_surprise": 100, "memory": {"capacity": 50}},
    "arms": {"school": {"school": {"steps": 40, "settings": {"learner.warmup_steps": 20,
                                                            "learner.ports": ["cost"]}}}},
    "quick": {"school": {"steps": 9}},
}  # fmt: skip


def test_a_study_folder_of_version_0_1_is_resumed_and_a_file_refused(tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(OLD))
    study = reopen(tmp_path)
    (world,) = study.worlds
    assert (world.num_envs, world.settings) == (2, {"world": {"num_envs": 2}})
    assert study.base["actor"] == {"replan_threshold": 100}
    # The arm's own name stays.
    lesson = study.arms["school"].train
    assert lesson is not None
    assert lesson.settings["learner"] == {"warmup_steps": 20, "train_modules": ["cost"]}
    assert study.quick.train == {"steps": 9}
    with pytest.raises(ConfigError, match=r"worlds.0.rows: is called num_envs now"):
        study_of(OLD, "old")
    with pytest.raises(ConfigError, match=r"arms.school.school: is called train now"):
        study_of({**OLD, "worlds": [{"id": "CartPole-v1"}]}, "old")


def test_a_study_of_version_0_1_keeps_its_folders(tmp_path):
    """Its trained agents are not trained again."""
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(OLD))
    study, place = reopen(tmp_path), tmp_path / "schooled" / "cartpole-v1--school--0"
    place.mkdir(parents=True)
    (run,) = runs_of(study, [("CartPole-v1", "school")], {}, tmp_path)
    assert run.agent == str(place)
