"""The views of a run: words for every module, the dashboard, and plain lines."""

import io
import os
import pty
import re
import termios
import time

import numpy as np
import pytest
import torch
from rich.console import Console

from agent.reporting.text import MODULES, Words, number, signed
from agent.view.dashboard import Dashboard, HalfBlocks, ProgressLines, screen, sparkline
from agent.view.keys import Keys, steerable

DRIVES, HEADS = ("score", "pain"), ("score", "pain")


@pytest.fixture
def words(pong):
    return Words(pong, DRIVES, HEADS)


def test_numbers_are_short():
    values = (0.0, 0.001, -0.8, 1.0, 12.34, -1234.5, 100.0, 0.5)
    assert [number(v) for v in values] == ["0", "0", "−0.8", "1", "12.3", "−1234", "100", "0.5"]
    assert [signed(v) for v in (0.0, 1.0, -2.0)] == ["0", "+1", "−2"]


def test_each_module_is_described(words, life):
    moments = life(26)
    lines = words.lines(moments[9], moments[8])
    assert tuple(lines) == MODULES
    assert lines["perception"][0] == "signals: reward +1, 3 lives"
    assert lines["perception"][1].startswith("sees 40×32 pixels×3, latent of 32")
    assert lines["world model"][0].startswith("predicted nothing, observed reward +1; surprise 0.")
    assert lines["cost"][0].startswith("drives score ")
    assert lines["memory"] == ["familiarity 90 %, novelty 10 %", "similar: 30, 9, 4 steps ago"]
    assert lines["configurator"][0] == "row 0: surprise 3.1 above its usual 2.0, plan"
    assert words.lines(moments[24], None)["perception"][0].startswith("signals: life lost +1")
    assert words.lines(moments[0], None)["perception"][0].startswith("a new episode; ")
    assert words.lines(moments[0], None)["world model"][0] == "no prediction yet"


def test_prediction_and_observation_are_compared(words, life):
    before, moment = life(12)[8:10]
    signals = before.expected.signals.clone()
    signals[:, 0] = -2.0
    before = before.replace(expected=before.expected.replace(signals=signals))
    assert words.world_model(moment, before, 0)[0].startswith(
        "predicted reward −2, observed reward +1; surprise"
    )


def test_plans_and_reactions(words, life):
    moments = life(4)
    planned = moments[3]
    actions = torch.eye(4)[torch.tensor([3, 3, 1, 2, 2])].repeat(2, 1, 1)
    planned = planned.replace(plan=planned.plan.replace(actions=actions))
    lines = words.actor(planned, 0)
    assert lines[0] == "plan LEFT LEFT FIRE RIGHT RIGHT"
    assert lines[1] == "energy −0.8, 182 imagined steps"
    assert re.fullmatch(r"other plans \w+ −0\.5", lines[2])
    assert words.actor(moments[1], 0)[0].endswith(", by the policy")
    actions = torch.eye(4)[torch.tensor([0, 3, 3, 3, 1])].repeat(2, 1, 1)
    planned = planned.replace(plan=planned.plan.replace(actions=actions))
    assert words.actor(planned, 1)[0] == "plan NOOP LEFT×3 FIRE"


def test_sparkline():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 2) == "▁█"
    assert sparkline([3, 3], 5) == "▁▁"
    assert sparkline([], 5) == ""
    assert sparkline([float("nan"), 0, float("inf"), 1], 5) == "·▁·█"


def test_half_blocks_show_two_pixels_a_character():
    picture = np.zeros((4, 2, 3), np.uint8)
    picture[0, 0], picture[1, 0], picture[3, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", width=10, height=5
    )
    console.print(HalfBlocks(picture, 2, 2), end="")
    assert console.file.getvalue().count("▀") == 4
    first = console.file.getvalue().split("▀")[0]
    assert "38;2;255;0;0" in first
    assert "48;2;0;255;0" in first
    assert "48;2;0;0;255" in console.file.getvalue()


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 42), (200, 60)])
def test_the_dashboard_fits_its_terminal(pong, life, size):
    console = Console(file=io.StringIO(), width=size[0], height=size[1], force_terminal=True)
    frame = torch.randint(256, (2, 210, 160, 3), dtype=torch.uint8)
    board = Dashboard(pong, DRIVES, HEADS, lambda: frame, console=console)
    for moment in life(60):
        board.show(moment)
    lines = console.render_lines(board.picture(moment), pad=False)
    text = ["".join(segment.text for segment in line) for line in lines]
    assert len(text) <= size[1]
    assert max(map(len, text)) <= size[0]
    whole = "\n".join(text)
    for expected in (*MODULES, "row 0: ", "ALE/Pong-v5", "episode 2", "surprise", "mode", "▀"):
        assert expected in whole, expected
    assert "last 5" in text[0]


def test_the_dashboard_draws_into_a_terminal_at_most_every_interval(pong, life):
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system="truecolor")
    moments, drawn = life(50), []

    def render():
        drawn.append(1)
        return torch.zeros(210, 160, 3, dtype=torch.uint8)

    with Dashboard(pong, DRIVES, HEADS, render, console=console, every_s=0.05) as board:
        began = time.monotonic()
        while time.monotonic() - began < 0.6:
            for moment in moments:
                board.show(moment)
        elapsed_s = time.monotonic() - began
    # At most one picture each .05 s; how few there are depends on the load of the machine.
    assert 1 <= len(drawn) <= 1 + elapsed_s / 0.05
    assert "perception" in out.getvalue()
    # The screen and the cursor of the terminal are restored.
    assert out.getvalue().rstrip().endswith(("\x1b[?1049l", "\x1b[?25h"))


def test_without_pixels_and_without_a_picture(pong, life):
    console = Console(file=io.StringIO(), width=80, height=24)
    board = Dashboard(pong, DRIVES, HEADS, None, console=console)
    (moment,) = life(1, pixels=None)
    board.show(moment)
    console.print(board.picture(moment))
    assert "no picture" in console.file.getvalue()
    assert "sees 3 numbers" in console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal(pong, life, capsys):
    shown = screen(pong, DRIVES, HEADS, None)
    assert isinstance(shown, ProgressLines)
    out = io.StringIO()
    with ProgressLines(pong, out, every_s=0.0) as lines:
        for moment in life(30):
            lines.show(moment)
    last = out.getvalue().splitlines()[-1]
    assert re.fullmatch(r"ALE/Pong-v5  step 60  \d+ steps/s  score 6  Mode-2 33 %", last), last
    quiet = io.StringIO()
    with ProgressLines(pong, quiet, every_s=60.0) as lines:
        for moment in life(5):
            lines.show(moment)
    assert quiet.getvalue() == ""


class Steered:
    """Records the pressed keys."""

    def __init__(self):
        self.pressed: list[str] = []

    @property
    def keys(self):
        return {"m": "other mode", "+": "look further"}

    @property
    def status(self):
        return f"{len(self.pressed)} pressed"

    def press(self, key):
        self.pressed.append(key)
        return "done"


def test_the_last_line_of_the_dashboard_lists_the_keys(pong, life):
    console = Console(
        file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None
    )
    board = Dashboard(pong, DRIVES, HEADS, None, console=console, steered=Steered())
    console.print(board.picture(life(1)[0]))
    lines = console.file.getvalue().rstrip("\n").split("\n")
    assert lines[-1].rstrip() == " 0 pressed   m other mode  + look further"
    assert len(lines) <= 30


def test_keys_reach_the_steered_module_and_the_terminal_is_restored():
    ours, theirs = pty.openpty()
    steered = Steered()
    with open(theirs) as source:
        before = termios.tcgetattr(theirs)

        def pressing():
            with Keys(steered, source):
                assert not termios.tcgetattr(theirs)[3] & termios.ICANON
                os.write(ours, b"m+")
                until = time.monotonic() + 30
                while len(steered.pressed) < 2 and time.monotonic() < until:
                    time.sleep(0.01)
                os.write(ours, b"\x1b[A")
                raise KeyError

        with pytest.raises(KeyError):
            pressing()
        assert termios.tcgetattr(theirs) == before
    os.close(ours)
    assert steered.pressed == ["m", "+"]


def test_without_a_terminal_keys_are_silent():
    steered = Steered()
    with Keys(steered, io.StringIO("m")):
        pass
    assert steered.pressed == []


def test_the_steered_module_may_be_wrapped():
    class Around:
        def __init__(self, wrapped):
            self.wrapped = wrapped

    steered = Steered()
    assert steerable(Around(Around(steered))) is steered
    assert steerable(Around(object())) is None
