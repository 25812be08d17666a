"""Programs and commands of docs/train.md, modules.md, worlds.md and watching.md, made small."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import gymnasium
import pytest

import watch
from agent.cli import run
from agent.recording.trace import Trace

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [code for name, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
            if name == language]  # fmt: skip


KIND = re.compile(r'MODULES = \{"(\w+)": \{"([\w-]+)"')
PLUGINS = {KIND.search(code)[2]: code for code in blocks("modules.md", "python")}  # type: ignore[index]
"""The plugins of docs/modules.md by the kind each adds."""


def test_there_is_an_example_for_each_port():
    slots = {KIND.search(code)[1] for code in PLUGINS.values()}
    assert slots == {
        "perception", "world_model", "objective", "drive", "recall", "planner", "configurator"
    }  # fmt: skip


@pytest.mark.parametrize("kind", PLUGINS)
def test_a_worked_example_keeps_its_contract_and_plays(kind, tmp_path, monkeypatch, capsys):
    name = "plugin_" + kind.replace("-", "_")
    (tmp_path / f"{name}.py").write_text(PLUGINS[kind])
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.chdir(tmp_path)
    assert run(["check-module", kind, "--plugin", name]) == 0, capsys.readouterr()
    slot = KIND.search(PLUGINS[kind])[1]
    path = {
        "recall": "memory.recall", "planner": "actor.planner", "objective": "world_model.objective"
    }.get(slot, slot)  # fmt: skip
    setting = f"--{path}.kind={kind}" if slot != "drive" else f"--cost.drives=[score,{kind}]"
    world = "Acrobot-v1" if slot == "drive" else "CartPole-v1"
    words = ["play", world, "--steps", "12", "--no-live", "--json", "--plugin", name]
    assert run([*words, setting]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 12


def test_training_from_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("train.md", "python")
    exec(compile(code, "train.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_command_with_a_sum_of_objectives(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (text,) = (code for code in blocks("train.md", "") if "objective.parts" in code)
    words = shlex.split(text.replace("\\\n", " "))[1:]
    small = ["--steps", "40", "--learner.warmup_steps=20", "--training.evaluate_episodes=1"]
    assert run([*words, *small, "--run", "run", "--no-live"]) == 0, capsys.readouterr().err
    metrics = Path("run/metrics.jsonl").read_text()
    for name in ("variance", "covariance", "inverse dynamics", "smoothness"):
        assert f'"world_model/{name}"' in metrics


def test_the_commands_with_goals_of_the_page_on_worlds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(
        r"^sextet (play sextet/.*Rooms-.*)$", (DOCS / "worlds.md").read_text(), re.M
    )
    assert len(commands) == 2
    for command in commands:
        words = [*shlex.split(command), "--steps", "6", "--no-live", "--json"]
        assert run([*words, "--directive.model_calls=40"]) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 6


def test_the_environment_of_the_page_on_worlds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    Path("mine.py").write_text(blocks("worlds.md", "python")[0])
    try:
        assert run(["play", "mine:Corridor-v0", "--steps", "12", "--no-live"]) == 0
        assert "cell: Discrete(10) → 10 (one-hot)" in capsys.readouterr().out
    finally:
        gymnasium.registry.pop("Corridor-v0", None)
        sys.modules.pop("mine", None)


def test_the_signals_of_the_page_on_worlds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    Path("cliff.py").write_text(blocks("worlds.md", "python")[1])
    (command,) = re.findall(r"^sextet (play cliff:.*)$", (DOCS / "worlds.md").read_text(), re.M)
    try:
        assert run([*command.split(), "--steps", "20", "--no-live", "--run", "run"]) == 0
        trace = Trace.open("run/trace.sqlite")
        assert trace.world.signals[6:] == ("progress", "fall")
        for moment in trace:
            progress, fall = moment.observation.signals[0, 6:].tolist()
            assert moment.energies.intrinsic[0].tolist() == [fall, -progress]
            assert moment.directive.u[0].tolist() == [5, 1]
    finally:
        gymnasium.registry.pop("Cliff-v0", None)
        sys.modules.pop("cliff", None)


def test_the_commands_of_the_page_on_watching(tmp_path, monkeypatch, capsys):
    """In their order, each finding what those before it left; films lie there."""
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    short = [tuple(one[:12] for one in watch.walk(number)) for number in range(2)]
    watch.filmed(Path("runs/film"), short, 0)
    watch.filmed(Path("runs/expert-film"), short, 1)
    watch.filmed(Path("runs/tries"), [tuple(one[:61] for one in watch.walk(7))], 1)
    text = "".join(blocks("watching.md", "")).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True)[1:] for line in text.splitlines()]
    assert [words[0] for words in commands] == ["play", *2 * ["train"], "export", *5 * ["train"]]
    settings = str(DOCS.parent / "examples" / "two_rooms.yaml")
    small = ["--training.evaluate_episodes=1", "--learner.batch=4", "--no-live",
             "--world.episode_steps=40", "--learner.warmup_steps=2"]  # fmt: skip
    for words in commands:
        words = [settings if word.startswith("examples/") else word for word in words]
        if words[0] == "play":
            words = [{"20": "2"}.get(word, word) for word in words]
        elif words[0] == "train":
            words = [word.replace("=600", "=3") for word in words]
            words = [*(word for word in words if word not in ("--steps", "400")), *small]
            words += ["--steps", "4"]
        assert run(words) == 0, (words, capsys.readouterr().err)
