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


def test_what_is_best_in_one_life_is_judged_in_another(monkeypatch, capsys):
    words = ["--agents", "road_runner", "--states", "8", "--steps", "3", "--depths", "1"]
    noisy = [*words, "--lives", "3", "--noise", "0.5"]
    out = looked_at(monkeypatch, capsys, *noisy)
    worth = re.search(r"^  other lives +(\S+) +(\S+) ± ", out, re.MULTILINE)
    assert worth
    assert float(worth[1]) < 1  # by the lives it was chosen in, it would be 1
    assert looked_at(monkeypatch, capsys, *noisy) == out
    assert "other lives" not in looked_at(monkeypatch, capsys, *words)


def test_halves_of_lives_choose_for_each_other():
    found = foresight.Foresight([1], 1, lives=2, noise=0.5)
    # In one life the first action is best, in the other the last; by neither is anything gained.
    one = torch.tensor([-3.0, 0.0, 3.0]).double().expand(1, 2, 3)
    found.came, found.depths = [torch.cat([one, -one])], []
    found.said = {"critic": [torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]]).double()]}
    critic, others = found.lines()[-2:]
    assert critic.split()[-3:] == ["0.000", "±", "0.000"]
    assert others.split()[2:4] == ["-1.00", "-3.000"]


def test_the_share_that_strays_is_any_action():
    key, action = torch.arange(400), torch.eye(4)[torch.zeros(1600, dtype=torch.long)]
    assert foresight.strayed(action, 0.0, key, "a").equal(action)
    strayed = foresight.strayed(action, 0.4, key, "a")
    assert strayed.sum(1).eq(1).all()
    # Of those that stray a quarter is as it was.
    assert strayed[:, 1:].sum() == pytest.approx(0.3 * 1600, rel=0.15)
    assert not strayed.equal(foresight.strayed(action, 0.4, key, "b"))


def test_what_actions_add_is_about_their_mean():
    said = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert foresight.about_mean(said).tolist() == [[-1, 0, 1], [0, 0, 0]]
    assert foresight.correlation(said, -2 * said + 1) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--agents", "ALE/Pong-v5"), "foresight: ALE/Pong-v5: agent: expected one whose critic"),
        (("--agents", "Pendulum-v1", "--protocol", "none"), "foresight: Pendulum-v1: "),
        (("--agents", "boxing", "--states", "0"), "--states: invalid number value: '0'"),
        (("--agents", "boxing", "--depths", "1,x"), "--depths: invalid numbers value: '1,x'"),
        (("--agents", "boxing", "--noise", "2"), "--noise: invalid share value: '2'"),
        (("--agents", "boxing", "--lives", "3"), "--lives, --noise: expected several lives with"),
        (("--agents", "boxing", "--noise", ".1"), "--lives, --noise: expected several lives with"),
        (("--agents", "boxing", "--steps", "3"), "--depths: expected at most --steps 3, got 5"),
    ],
)
def test_what_it_cannot_look_at_is_said_in_a_line(monkeypatch, capsys, words, wanted):
    monkeypatch.setattr(sys, "argv", ["foresight.py", *words])
    with pytest.raises(SystemExit) as ended:
        foresight.main()
    assert ended.value.code == 2
    assert wanted in capsys.readouterr().err
