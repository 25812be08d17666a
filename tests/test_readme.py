"""What README shows works as shown."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from agent.cli import run

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.M | re.S)
API, PLUGIN = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, text in BLOCKS
    if not language
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("sextet ")
]


def test_there_is_something_to_try():
    assert len(COMMANDS) >= 8


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "yours.py").write_text(PLUGIN)
    # It lies in the current folder, which an installed command does not look into of itself.
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("yours", None)


SMALL = {
    "play": {"--steps": "12", "--directive.model_calls": "24"},
    "train": {"--steps": "40", "--learner.warmup_steps": "20", "--training.evaluate_episodes": "1"},
    "eval": {"--steps": "20"},
    "fork": {"--at": "4", "--steps": "3"},
    "view": {"--export": "page.html"},
}
"""What a verb is cut down to; all else is taken as README has it."""


def made_small(words):
    """The words of a command, made small enough for a test."""
    words = [*words, *(["--no-live"] if words[0] == "play" else [])]
    for flag, value in SMALL.get(words[0], {}).items():
        if flag in words:
            words[words.index(flag) + 1] = value
        elif not ("." in flag and "--resume" in words):
            words += [flag, value]
    return words


def test_commands_in_order(plugin, capsys):
    """Every command in the order of the page, each finding what those before it left."""
    for words in map(made_small, COMMANDS):
        assert run(words) == 0, (words, capsys.readouterr().err)
        said = capsys.readouterr().out
        if words[0] == "fork":
            assert ('"identical": true' in said) is ("--set" not in words)


def test_the_plugin_is_the_example():
    example = Path(__file__).parent.parent / "examples" / "restless.py"
    assert example.read_text(encoding="utf-8").endswith(PLUGIN)


def test_python_from_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(API, "README.md", "exec"), {})
    (line,) = capsys.readouterr().out.splitlines()
    assert "over 3 episodes" in line
