"""`examples/benchmarks/foresight.py`: costs by critic and model against the emulator."""

import re
import sys

import pytest
import torch
from programs import benchmark

foresight = benchmark("foresight")


def output_of(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["foresight.py", *words])
    foresight.main()
    return capsys.readouterr().out


def test_the_emulator_to_the_last_step_is_the_reference(monkeypatch, capsys):
    words = ["--agents", "road_runner", "--states", "8", "--steps", "4", "--depths", "1,4"]
    out = output_of(monkeypatch, capsys, *words)
    rows = {
        row[1].strip(): (float(row[2]), row[3])
        for row in re.finditer(r"^  (.{14}) +(-?[\d.]+|nan) +(-?[\d.]+)", out, re.MULTILINE)
    }
    assert rows["emulator, 4"] == (1, rows["reference"][1])
    assert rows["emulator, 1"] != rows["emulator, 4"]
    # A learned model is neither the emulator nor a prediction of no change.
    assert rows["model, 4"][0] < 1
    errors = [float(e) for e in re.findall(r"squared error ([\d.]+) of that", out)]
    assert len(errors) == 2
    assert all(0 < error != 1 for error in errors)
    assert "other futures" not in out


def test_what_is_best_in_one_life_is_evaluated_in_another(monkeypatch, capsys):
    words = ["--agents", "road_runner", "--states", "8", "--steps", "3", "--depths", "1"]
    noisy = [*words, "--lives", "3", "--noise", "0.5"]
    out = output_of(monkeypatch, capsys, *noisy)
    worth = re.search(r"^  other futures +(\S+) +(\S+) ± ", out, re.MULTILINE)
    assert worth
    assert float(worth[1]) < 1  # by the lives it was chosen in, it would be 1
    assert output_of(monkeypatch, capsys, *noisy) == out


def test_halves_of_lives_choose_for_each_other():
    results = foresight.Foresight([1], 1, lives=2, noise=0.5)
    # In one life the first action is best, in the other the last; by neither is anything gained.
    one = torch.tensor([-3.0, 0.0, 3.0]).double().expand(1, 2, 3)
    results.references, results.depths = [torch.cat([one, -one])], []
    results.costs = {"critic": [torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]]).double()]}
    critic, others = results.lines()[-2:]
    assert critic.split()[-3:] == ["0.000", "±", "0.000"]
    assert others.split()[2:4] == ["-1.00", "-3.000"]


def test_the_noisy_share_of_actions_is_random():
    key, action = torch.arange(400), torch.eye(4)[torch.zeros(1600, dtype=torch.long)]
    assert foresight.with_noise(action, 0.0, key, "a").equal(action)
    noisy = foresight.with_noise(action, 0.4, key, "a")
    assert noisy.sum(1).eq(1).all()
    # A quarter of the random actions equals the original one.
    assert noisy[:, 1:].sum() == pytest.approx(0.3 * 1600, rel=0.15)
    assert not noisy.equal(foresight.with_noise(action, 0.4, key, "b"))


def test_costs_are_centred_over_actions():
    costs = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
    assert foresight.centred(costs).tolist() == [[-1, 0, 1], [0, 0, 0]]
    assert foresight.correlation(costs, -2 * costs + 1) == pytest.approx(-1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--agents", "ALE/Pong-v5"), "foresight: ALE/Pong-v5: agent: expected a critic"),
        (("--agents", "Pendulum-v1", "--protocol", "none"), "foresight: Pendulum-v1: "),
        (("--agents", "boxing", "--states", "0"), "--states: invalid number value: '0'"),
        (("--agents", "boxing", "--depths", "1,x"), "--depths: invalid numbers value: '1,x'"),
        (("--agents", "boxing", "--noise", "2"), "--noise: invalid share value: '2'"),
        (("--agents", "boxing", "--lives", "3"), "--lives, --noise: expected several lives with"),
        (("--agents", "boxing", "--noise", ".1"), "--lives, --noise: expected several lives with"),
        (("--agents", "boxing", "--steps", "3"), "--depths: expected at most --steps 3, got 5"),
    ],
)
def test_wrong_input_is_refused_in_a_line(monkeypatch, capsys, words, wanted):
    monkeypatch.setattr(sys, "argv", ["foresight.py", *words])
    with pytest.raises(SystemExit) as ended:
        foresight.main()
    assert ended.value.code == 2
    assert wanted in capsys.readouterr().err
