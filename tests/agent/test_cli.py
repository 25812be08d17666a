"""The command as a user types it: what it prints, how it leaves, what it leaves behind."""

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agent.assembly.resolve import presets
from agent.cli import app, gather_overrides, run

QUICK = ("--steps", "6", "--no-live", "--json")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def play(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    code = run(["play", *arguments])
    shown = capsys.readouterr()
    assert code == 0, shown.err
    return json.loads(shown.out.splitlines()[-1])


def test_dotted_overrides_are_gathered_in_both_spellings():
    assert gather_overrides(["play", "X", "--a.b=c", "--a.d", "3", "--seed", "4"]) == [
        "play", "X", "--set", "a.b=c", "--set", "a.d=3", "--seed", "4",
    ]  # fmt: skip
    assert gather_overrides(["--", "--a.b=c"]) == ["--", "--a.b=c"]
    assert gather_overrides(["--a.b=x=y"]) == ["--set", "a.b=x=y"]


@pytest.mark.parametrize("world", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_a_world_is_played_and_counted(world: str, capsys: pytest.CaptureFixture[str]):
    figures = play(capsys, world, *QUICK)
    assert list(figures) == [
        "world", "steps", "episodes", "episodes_requested", "mean_return", "score", "steps_per_s",
            "mode2_share", "model_calls", "run", "trace_digest",
    ]  # fmt: skip
    assert figures["world"] == world
    assert figures["steps"] == 6
    folder = Path(figures["run"])
    for name in ("config.yaml", "trace.sqlite", "summary.png"):
        assert (folder / name).is_file()


def test_the_same_command_lives_the_same_life_and_another_seed_another(
    capsys: pytest.CaptureFixture[str],
):
    digests = [
        play(capsys, "ALE/Pong-v5", "--seed", seed, *QUICK)["trace_digest"]
        for seed in ("3", "3", "4")
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_config_of_a_run_gives_the_same_run(capsys: pytest.CaptureFixture[str]):
    first = play(
        capsys, "CartPole-v1", "--seed", "9", "--num-envs", "2", "--tokens.width=8", *QUICK
    )
    by_folder = play(capsys, first["run"], "--no-live", "--json")
    by_file = play(capsys, "--config", f"{first['run']}/config.yaml", "--no-live", "--json")
    assert first["trace_digest"] == by_folder["trace_digest"] == by_file["trace_digest"]


def test_config_shows_what_play_would_write(capsys: pytest.CaptureFixture[str]):
    asked = ("CartPole-v1", "--seed", "9", "--steps", "6", "--preset", "deliberate")
    assert run(["config", *asked]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    figures = play(capsys, *asked, "--no-live", "--json")
    assert yaml.safe_load((Path(figures["run"]) / "config.yaml").read_text()) == shown
    assert figures["mode2_share"] == 1


def test_a_flag_swaps_a_module_and_a_file_stands_below_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "mine.yaml").write_text(
        "seed: 6\nactor: {planner: {kind: beam, action_repeat: 2}}\n"
    )
    asked = ["config", "CartPole-v1", "--config", "mine.yaml", "--seed", "7"]
    assert run(asked) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["seed"], shown["actor"]["planner"]["action_repeat"]) == (7, 2)
    assert run([*asked, "--actor.planner.kind", "cem-categorical"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["actor"]["planner"]["kind"] == "cem-categorical"


def test_episodes_end_a_run(capsys: pytest.CaptureFixture[str]):
    figures = play(capsys, "CartPole-v1", "--episodes", "2", "--preset", "reactive",
                   "--no-live", "--json")  # fmt: skip
    assert figures["episodes"] == 2
    assert figures["mean_return"] > 0


def test_eval_plays_whole_episodes(capsys: pytest.CaptureFixture[str]):
    assert run(["eval", "CartPole-v1", "--episodes", "3", "--num-envs", "2", "--preset",
                "reactive", "--json"]) == 0  # fmt: skip
    figures = last_json(capsys)
    assert list(figures) == [
        "agent", "world", "protocol", "episodes", "episodes_requested", "mean_return", "std_return",
        "human_normalised", "steps", "mode2_share", "model_calls", "ms_per_step",
        "interval", "seed", "checkpoint", "compared", "returns",
    ]  # fmt: skip
    assert figures["episodes"] == 3
    assert figures["human_normalised"] is None
    assert not Path("runs").exists()


@pytest.mark.parametrize("what", ["games", "worlds", "modules", "agents", "presets"])
def test_lists_have_an_id_first_on_each_line(what: str, capsys: pytest.CaptureFixture[str]):
    assert run(["list", what]) == 0
    ids = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    wanted = {
        "games": "ALE/Pong-v5", "worlds": "CartPole-v1", "modules": "clairvoyant",
        "agents": "showpiece", "presets": presets()[0],
    }  # fmt: skip
    assert wanted[what] in ids
    if what == "games":
        assert len(set(ids)) == len(ids) >= 100


BAD: list[tuple[list[str], str, list[str]]] = [
    (["play", "ALE/Pongg-v5"], "ALE/Pong-v5", ["play", "ALE/Pong-v5"]),
    (["play", "CartPole-v9"], "CartPole-v1", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--world_model.kind=jpea"], "'jepa'",
     ["play", "CartPole-v1", "--world_model.kind=jepa"]),
    (["play", "CartPole-v1", "--actor.planner.action_repeet=2"], "'action_repeat'",
     ["play", "CartPole-v1", "--actor.planner.action_repeat=2"]),
    (["play", "CartPole-v1", "--actor.planner.action_repeat=0"], "at least 1",
     ["play", "CartPole-v1", "--actor.planner.action_repeat=1"]),
    (["play", "CartPole-v1", "--num-envs", "0"], "world.num_envs",
     ["play", "CartPole-v1", "--num-envs", "1"]),
    (["play", "CartPole-v1", "--config", "none.yaml"], "none.yaml", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--config", "broken.yaml"], "line 1", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--run", "there"], "exists",
     ["play", "CartPole-v1", "--run", "elsewhere"]),
    (["play", "CartPole-v1", "--run", "broken.yaml/run"], "broken.yaml/run",
     ["play", "CartPole-v1", "--run", "fine/run"]),
    (["play", "CartPole-v1", "--preset", "reactiv"], "'reactive'",
     ["play", "CartPole-v1", "--preset", "reactive"]),
    (["play", "CartPole-v1", "--plugin", "no_such_package"], "no_such_package",
     ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--actor.planner.kind=cem"], "discrete",
     ["play", "CartPole-v1", "--actor.planner.kind=cem-categorical"]),
    (["play", "there"], "config.yaml", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--stpes", "3"], "--steps", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--device", "tpu9"], "device", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--a.b"], "expected a value", ["play", "CartPole-v1"]),
    (["tutor", "CartPole-v1"], "tutor is now tune", ["play", "CartPole-v1"]),
    (["plya", "CartPole-v1"], "'play'", ["play", "CartPole-v1"]),
    (["play", "CartPole-v1", "--worlds", "2"], "--worlds is now --num-envs",
     ["play", "CartPole-v1", "--num-envs", "2"]),
    (["play", "CartPole-v1", "--protocol", "v6"], "v6", ["play", "CartPole-v1"]),
]  # fmt: skip


PROVEN: set[tuple[str, ...]] = set()
"""Corrected commands that have been seen to work; the same one need not be run again."""


@pytest.mark.parametrize(("wrong", "said", "right"), BAD, ids=[" ".join(b[0][1:]) for b in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    wrong: list[str], said: str, right: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    (tmp_path / "there").mkdir()
    (tmp_path / "broken.yaml").write_text("a: [1, 2}\n")
    before = sorted(tmp_path.rglob("*"))
    assert run([*wrong, *QUICK]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert said in line
    assert shown.out == ""
    assert sorted(tmp_path.rglob("*")) == before
    if tuple(right) not in PROVEN:
        assert run([*right, *QUICK]) == 0, capsys.readouterr().err
        PROVEN.add(tuple(right))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_place_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert run(["play", "CartPole-v1", "--run", "locked/run", *QUICK]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_process_leaves_with_the_code_and_one_line():
    done = subprocess.run(
        [sys.executable, "-c",
         f"import sys; sys.path.insert(1, {str(Path(__file__).parents[2])!r});"
         "from agent.cli import main; main()", "play", "ALE/Pongg-v5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [(KeyboardInterrupt, 130, ["sextet: stopped"]), (BrokenPipeError(32, "gone"), 0, [])],
)
def test_ctrl_c_and_a_reader_that_left_have_their_codes(monkeypatch, capsys, raised, code, said):
    def leaves(**_: object) -> None:
        raise raised

    before = sys.stdout
    monkeypatch.setattr(sys, "stdout", before)
    monkeypatch.setattr("agent.commands.listing.listing", leaves)
    assert run(["list", "games"]) == code
    if sys.stdout is not before:  # nowhere, for what is still to be said
        sys.stdout.close()
    assert capsys.readouterr().err.splitlines() == said


def test_every_verb_has_a_command_that_takes_its_options():
    verbs = [info.callback for info in app.registered_commands]
    assert len(verbs) >= 10
    for verb in verbs:
        module = importlib.import_module(f"agent.commands.{verb.__name__}")
        options = dict.fromkeys(inspect.signature(verb).parameters)
        inspect.signature(getattr(module, verb.__name__)).bind(**options)


def test_load_gives_a_player_that_acts():
    from agent import live, load

    player = load("CartPole-v1", "configurator.kind=fixed", seed=2)
    observation = player.world.reset(2)
    acted = []
    for _ in range(5):
        acted.append(player.act(observation).argmax(-1))
        observation = player.world.step(player.moment.plan.action)
    lived = live(player.agent, player.world, 5, 2)
    assert [moment.plan.action.argmax(-1) for moment in lived] == acted
