"""`examples/benchmarks/foresight.py`: what critic and model say, against what really follows."""

import re
import sys

import pytest
import torch
from programs import benchmark

foresight = benchmark("foresight")


def looked_at(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["foresight.py", *words])
    foresight.main()
    return capsys.readouterr().out


def test_looking_as_far_as_the_truth_is_the_truth(monkeypatch, capsys):
    words = ["--agents", "road_runner", "--states", "16", "--steps", "4", "--depths", "1,4"]
    out = looked_at(monkeypatch, capsys, *words)
    rows = {
        found[1].strip(): (float(found[2]), found[3])
        for found in re.finditer(r"^  (.{14}) +(-?[\d.]+|nan) +(-?[\d.]+)", out, re.MULTILINE)
    }
    assert rows["emulator, 4"] == (1, rows["the truth"][1])
    assert rows["emulator, 1"] != rows["emulator, 4"]
    # A model that was learned is neither the emulator nor "nothing changes".
    assert rows["model, 4"][0] < 1
    errors = [float(e) for e in re.findall(r"error ([\d.]+) of nothing", out)]
    assert len(errors) == 2
    assert all(0 < error != 1 for error in errors)
    assert looked_at(monkeypatch, capsys, *words) == out


def test_what_actions_add_is_about_their_mean():
    said = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert foresight.about_mean(said).tolist() == [[-1, 0, 1], [0, 0, 0]]
    assert foresight.correlation(said, -2 * said + 1) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--agents", "ALE/Pong-v5"), "foresight: ALE/Pong-v5: agent: wanted one whose critic"),
        (("--agents", "Pendulum-v1", "--protocol", "none"), "foresight: Pendulum-v1: "),
        (("--agents", "boxing", "--states", "0"), "--states: invalid number value: '0'"),
        (("--agents", "boxing", "--depths", "1,x"), "--depths: invalid numbers value: '1,x'"),
        (("--agents", "boxing", "--steps", "3"), "--depths: wanted at most --steps 3, got 5"),
    ],
)
def test_what_it_cannot_look_at_is_said_in_a_line(monkeypatch, capsys, words, wanted):
    monkeypatch.setattr(sys, "argv", ["foresight.py", *words])
    with pytest.raises(SystemExit) as ended:
        foresight.main()
    assert ended.value.code == 2
    assert wanted in capsys.readouterr().err
