"""The commands, code and notebook of docs/configurator.md run, made small."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import yaml

from agent.cli import run
from agent.studies.study import study_of

HOME = Path(__file__).parents[3]
PAGE = (HOME / "docs" / "configurator.md").read_text(encoding="utf-8")
NOTEBOOK = HOME / "examples" / "configurator.ipynb"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)


def blocks(language):
    return [text for name, text in BLOCKS if name == language]


def commands():
    return [
        shlex.split(line, comments=True)[1:]
        for text in blocks("")
        for line in text.replace("\\\n", " ").splitlines()
        if line.startswith("sextet ")
    ]


def test_every_command_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (file,) = blocks("yaml")
    Path("boxing.yaml").write_text(file)
    study_of(yaml.safe_load(file), "boxing.yaml")
    assert len(commands()) == 7
    for words in commands():
        if words[0] == "play":
            at = words.index("--steps")
            words[at + 1] = "3"
            words.append("--no-live")
        if words[0] == "study" and "--resume" not in words and "--quick" not in words:
            words.append("--quick")
        if words[0] == "study" and "--resume" not in words:
            words += ["--seeds", "0"]
        if words[:2] == ["study", "modes"]:
            words += ["--worlds", "CartPole-v1"]
        if "--jobs" in words:
            words[words.index("--jobs") + 1] = "1"
        assert run(words) == 0, (words, capsys.readouterr().err)
    assert "Falls short" not in Path("modes/report.md").read_text()
    assert Path("boxing/report.html").is_file()


def test_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert "quick=True" in code
    exec(
        compile(code.replace("quick=True", "quick=True, seeds=[0]"), "configurator.md", "exec"), {}
    )
    assert "4 of 4" in capsys.readouterr().out


def test_figures_are_there_and_small():
    shown = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", PAGE)
    assert shown
    for name in shown:
        assert (HOME / "docs" / name).is_file(), name
    figures = list((HOME / "docs" / "figures").iterdir())
    # README's two pictures among them: what a clone has to fetch stays small.
    assert sum(path.stat().st_size for path in figures) < 1_500_000


def test_the_notebook(tmp_path, monkeypatch, capsys):
    """Its cells run in order, without Jupyter, and print as many lines as the stored outputs have;
    with one seed of three and a fifth of the steps.
    """
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    names: dict[str, object] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    for cell in cells:
        code = "".join(cell["source"])
        for whole, small in (("steps: 30", "steps: 6"), ("seeds: [0, 1, 2]", "seeds: [0]")):
            assert (whole in code) == (cell is cells[0])
            code = code.replace(whole, small)
        exec(compile(code, "configurator.ipynb", "exec"), names)
        printed = capsys.readouterr().out
        stored = "".join(
            "".join(output["text"])
            for output in cell["outputs"]
            if output["output_type"] == "stream"
        )
        # Figures move with every change of an agent; the number of lines does not.
        assert len(printed.splitlines()) == len(stored.splitlines())


def test_the_page_has_its_answer():
    assert "<!--" not in PAGE
