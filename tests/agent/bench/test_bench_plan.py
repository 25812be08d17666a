"""The comparison of planners: its models are the worlds, its table has what it promises."""

import json
import sys

import numpy as np
import pytest
import torch
from programs import benchmark

from agent.bench import plan
from agent.bench.support import known_dynamics as known
from modules.messages import State
from modules.ports import World
from worlds.make import make_world
from worlds.point_rooms import FourRooms, TwoRooms
from worlds.walls import moved


@pytest.mark.parametrize("rooms", [TwoRooms, FourRooms])
@pytest.mark.parametrize("length", [1, 30])
def test_many_points_move_as_one_does(rooms, length):
    env = rooms(observation="state")
    env.reset(seed=0)
    luck = np.random.default_rng(0)
    places = [tuple(place) for place in luck.uniform(5, 59, (500, 2)).tolist()]
    places = [place for place in places if not any(wall.holds(place) for wall in env.walls)]
    steps = luck.normal(0, length, (len(places), 2))
    steps[::7, 0] = 0
    for _ in range(4):
        alone = [moved(a, tuple(b), env.walls) for a, b in zip(places, steps, strict=True)]
        together = known.moved_together(np.array(places), steps, env.walls)
        assert np.array_equal(together, np.array(alone))
        places = alone


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [("sextet/Rocket-state-v0", "KnownRocket", {"limits": True}),
     ("sextet/TwoRooms-state-v0", "KnownRooms", {}),
     ("sextet/FourRooms-state-v0", "KnownRooms", {"rooms": 4})],
)  # fmt: skip
def test_a_model_predicts_what_the_world_does(name, kind, settings):
    world: World = make_world(
        name, 3, settings={k: v for k, v in settings.items() if k == "limits"}
    )
    cls = getattr(known, kind)
    model = cls(config=cls.Config(**settings), world=world.spec)
    seen = world.reset(2)
    columns = [
        place for place, signal in enumerate(world.spec.signals)
        if signal.startswith("achieved") or signal in ("error", "fuel")
    ]  # fmt: skip
    luck = torch.Generator().manual_seed(0)
    for _ in range(30):
        action = torch.rand(3, 2, generator=luck) * 2 - 1
        before = state_of(seen)
        expected = model.step(model.start(Now(before), None), action)
        seen = world.step(action)
        torch.testing.assert_close(
            expected.signals[:, columns].float(), seen.signals[:, columns], atol=1e-4, rtol=1e-4
        )
    world.close()


class Now:
    """What a model reads of a situation."""

    def __init__(self, state):
        self.state = state


def state_of(seen):
    rows = len(seen.signals)
    return State(
        latent=torch.zeros(rows, 1),
        hidden=torch.zeros(rows, 0),
        signals=seen.signals,
        ended=torch.zeros(rows),
        uncertainty=torch.zeros(rows),
        goal=seen.goal,
    )


def test_the_table_has_a_row_for_each_planner_and_share(monkeypatch, capsys):
    monkeypatch.setattr(plan, "SAMPLES", 40)
    monkeypatch.setattr(plan, "ITERATIONS", 4)
    monkeypatch.setattr(plan, "HORIZON", 6)
    words = [
        "--starts",
        "2",
        "--worlds",
        "rocket limits",
        "--planners",
        "icem, held 4",
        "gradient",
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["planners.py", *words])
    benchmark("planners").main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["planner"] for row in rows] == [
        "cem 300×30",
        *["icem, held 4"] * 3,
        *["gradient"] * 3,
    ]
    whole = 40 * 4 * 6
    for row, share in zip(rows, (1, *plan.SHARES, *plan.SHARES), strict=True):
        assert 0 < row["model_calls"] <= share * whole
        assert row["low"] <= row["ratio"] <= row["high"]
    assert rows[0]["ratio"] == 1


def test_the_bench_says_calls_seconds_and_cost_of_each_planner(monkeypatch):
    monkeypatch.setattr(plan, "SAMPLES", 40)
    monkeypatch.setattr(plan, "ITERATIONS", 4)
    monkeypatch.setattr(plan, "HORIZON", 6)
    figures = plan.run(starts=2, worlds=("rocket",))
    whole = 40 * 4 * 6
    for name in plan.PLANNERS:
        arm = f"rocket_{name.replace(', ', '_').replace(' ', '_')}"
        assert 0 < figures[f"{arm}_calls"] <= whole / 4
        assert figures[f"{arm}_s"] >= 0
        assert figures[f"{arm}_cost"] >= figures["rocket_optimum_cost"] > 0
