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
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    shlex.split(line, comments=True)[1:]
    for language, text in BLOCKS
    if not language
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("sextet ")
]


def test_there_is_something_to_try():
    assert len(PYTHON) == 2
    assert len(COMMANDS) >= 8


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "yours.py").write_text(PYTHON[0])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("yours", None)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands(words, plugin, capsys):
    """Each command is understood as written; playing is cut to a few steps."""
    if words[0] in ("play", "train"):
        words = [w for w in words if w not in ("--json", "--no-live")]
        while "--steps" in words:
            at = words.index("--steps")
            del words[at : at + 2]
        if words[0] == "play":
            words += ["--steps", "3", "--no-live"]
        else:
            words += ["--steps", "40", "--learner.warmup_steps=20"]
            words += ["--training.evaluate_episodes=1"]
    if words[0] == "eval":
        words += ["--steps", "20"]
    assert run(words) == 0, capsys.readouterr().err


def test_the_plugin_is_the_example():
    example = Path(__file__).parent.parent / "examples" / "restless.py"
    assert example.read_text(encoding="utf-8").endswith(PYTHON[0])


def test_python_from_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[1], "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 50
