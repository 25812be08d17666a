"""`examples/rocket.py`: its references, its bars, and what its learned model owes to its parts."""

import json
import sys

import pytest
import torch

import rocket
from worlds.rocket import WEAK_THRUST, dynamics, riccati

STARTS = torch.tensor([[7.0, -3.0, 0.1, 0.2], [-6.0, 5.0, 0.0, 0.1]], dtype=torch.float64)
IN_OPEN = {"true model": [{"plan": 1.005}], "learned": [{"flight": 1.05}]}
LIMITED = {f"true model, {name}": [{"plan": 1.1}] for name in rocket.LIMITED_PLANNERS}
PAIRED = "Mode-1 less Mode-2, paired"
WEIGHTS = {PAIRED: [{"weight 10": 0.5}, {"weight 10": 0.6}, {"weight 10": 0.7}]}


@pytest.mark.parametrize("fuel_weight", [1.0, 10.0])
def test_the_least_cost_is_that_of_riccatis_thrusts(fuel_weight):
    (a, b), (feedback, _) = dynamics(), riccati(20, fuel_weight=fuel_weight)
    ship, thrusts = STARTS, []
    for gain in torch.from_numpy(feedback):
        thrusts.append(-ship @ gain.T)
        ship = ship @ torch.from_numpy(a).T + thrusts[-1] @ torch.from_numpy(b).T
    plan = torch.stack(thrusts, 1)
    fuel = 0.5 * plan.square().sum((1, 2))
    paid = rocket.cost_of(STARTS, plan) + (fuel_weight - 1) * fuel
    torch.testing.assert_close(paid, rocket.least_cost(STARTS, 20, fuel_weight))


def test_the_least_cost_with_limits_is_a_bound_and_exact_where_limits_do_not_matter():
    near = STARTS / 200  # the best thrusts are below the limit
    torch.testing.assert_close(
        rocket.least_cost_with_limits(near, 20), rocket.least_cost(near, 20), rtol=1e-6, atol=0
    )
    least = rocket.least_cost_with_limits(STARTS, 20)
    assert (least > 2 * rocket.least_cost(STARTS, 20)).all()
    luck = torch.Generator().manual_seed(0)
    for _ in range(20):
        thrusts = torch.rand(2, 20, 2, generator=luck, dtype=torch.float64) * 2 - 1
        assert (rocket.cost_of(STARTS, WEAK_THRUST * thrusts) > least).all()


def test_costates_by_gradients_are_the_riccati_solutions():
    assert rocket.costate_error(2) < 1e-9


@pytest.mark.parametrize(
    "missed",
    [
        {"costates": 1e-3},
        {"in_open": IN_OPEN | {"true model": [{"plan": 1.02}]}},
        {"in_open": IN_OPEN | {"learned": [{"flight": 1.2}]}},
        {"limited": LIMITED | {f"true model, {rocket.PLAIN}": [{"plan": 1.0}]}},
        {"weights": {PAIRED: [{"weight 10": 0.5}, {"weight 10": -0.6}, {"weight 10": 0.1}]}},
    ],
)
def test_each_bar_can_be_missed(missed):
    good = {"costates": 1e-9, "in_open": IN_OPEN, "limited": LIMITED, "weights": WEIGHTS}
    assert all(rocket.bars_of(**good).values())
    assert list(rocket.bars_of(**good | missed).values()).count(False) == 1


@pytest.mark.slow
def test_the_command_trains_plans_flies_and_draws(tmp_path, monkeypatch, capsys):
    places = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "a.png")]
    monkeypatch.setattr(sys, "argv", ["rocket.py", "--quick", "--json", *places])
    rocket.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == {"in the open", "limits", "new weights"}
    assert (tmp_path / "a.png").stat().st_size > 3000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "good"), [("learned", True), ("signal head mlp", False)])
def test_plans_are_nearly_the_best_with_quadratic_signals_and_not_without(tmp_path, name, good):
    size = rocket.Size(episodes=8)
    run = rocket.run_of(tmp_path, name, 0, size)
    plan = rocket.planned(run, 0, size, *rocket.iterations_of(size))
    assert (rocket.of_the_least(*plan) < 1.3) == good
