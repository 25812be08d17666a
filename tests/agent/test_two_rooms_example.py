"""`examples/two_rooms.py`: what is read from frames, its bars, and the command."""

import json
import sys

import numpy as np
import pytest

import two_rooms
from worlds.point_rooms import TwoRooms

GOOD = {"touched": 0.99, "held": 0.96, "CPU, s an episode": 0.4, "training, CPU min": 4.0}


def test_the_point_is_read_where_it_is():
    env = TwoRooms()
    env.reset(seed=0)
    places = [(7.2, 50.0), (50.4, 8.8), (31.6, 20.0)]
    found = two_rooms.point_in(np.stack([env.picture(place) for place in places]))
    assert found.tolist() == [[round(x), round(y)] for x, y in places]


@pytest.mark.parametrize(
    ("figure", "value"),
    [("touched", 0.97), ("held", 0.94), ("CPU, s an episode", 0.6), ("training, CPU min", 6.0)],
)
def test_each_bar_can_be_missed(figure, value):
    assert all(two_rooms.bars_of({"plans": [GOOD]}).values())
    met = two_rooms.bars_of({"plans": [GOOD | {figure: value}]})
    assert list(met.values()).count(False) == 1


@pytest.mark.slow
def test_the_command_trains_plans_and_draws(tmp_path, monkeypatch, capsys):
    words = [
        "--quick",
        "--json",
        "--runs",
        str(tmp_path / "runs"),
        "--out",
        str(tmp_path / "a.png"),
    ]
    monkeypatch.setattr(sys, "argv", ["two_rooms.py", *words])
    two_rooms.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert set(rows) == {"random", "straight line", "Mode-1, by hindsight", "plans"}
    assert rows["random"][0]["held"] < 0.1 < 0.3 < rows["straight line"][0]["held"] < 0.5
    assert 0 < rows["plans"][0]["place, R²"] <= 1
    assert (tmp_path / "a.png").stat().st_size > 3000


@pytest.mark.slow
def test_plans_go_through_the_door_by_the_time_to_the_goal(tmp_path):
    """Two fifths of the updates. A straight line touches .36, and so does Mode-1 at best."""
    size = two_rooms.Size(steps=12_000, updates=700)
    run = two_rooms.run_of(tmp_path, 0, size)
    plans, _ = two_rooms.planned(run, 0, 20)
    aimless, _ = two_rooms.planned(run, 0, 20, "directive.v={goal: 0}")
    assert plans["touched"] >= 0.7
    assert aimless["touched"] <= 0.2
