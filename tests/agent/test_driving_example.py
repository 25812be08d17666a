"""`examples/driving.py`: drives, bars and a trend; a plan without its collisions."""

import json
import sys

import pytest
from programs import ROOT, loaded

from worlds.road import STEPS

driving = loaded(ROOT / "examples" / "driving.py")
SMALL = driving.Size(seeds=1, steps=400, updates=2, episodes=1, risk_episodes=1, risks=(0.0, 2.0))


def test_the_slow_constant_makes_a_third_of_the_way():
    slow = driving.constant(driving.SLOW, 0, 2)
    assert slow["progress"] == pytest.approx(STEPS / 3)
    assert driving.constant(driving.FAST, 0, 2)["progress"] > 180
    assert driving.constant(None, 0, 4)["collisions"] > slow["collisions"] / 2


def test_plans_that_do_not_change_with_risk_have_no_trend():
    def rows(slope):
        plans = {
            f"futures, risk {risk:g}": [
                {"progress": 90 - slope * risk + seed, "collisions": 0.5 - slope * risk / 40}
                for seed in range(3)
            ]
            for risk in driving.Size().risks
        }
        others = {
            "random": (60, 7),
            "slow": (67, 5),
            "fast": (190, 6),
            "plans, strong": (90, 0.5),
            "plans, none": (90, 0.5),
        }
        means = {
            name: [dict(zip(("progress", "collisions"), two, strict=True))]
            for name, two in others.items()
        }
        return plans | means

    assert all(driving.bars_of(rows(5)).values())
    fallen = [name for name, met in driving.bars_of(rows(0)).items() if not met]
    assert len(fallen) == 2
    assert all("fall with risk" in name for name in fallen)


@pytest.mark.slow
def test_the_command_trains_drives_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(driving, "QUICK", SMALL)
    place = tmp_path / "a.png"
    words = ["--quick", "--json", "--runs", str(tmp_path / "runs"), "--out", str(place)]
    monkeypatch.setattr(sys, "argv", ["driving.py", *words])
    driving.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures["rows"]) == {
        "random", "slow", "fast", "plans, strong", "plans, none",
        "futures, risk 0", "futures, risk 2",
    }  # fmt: skip
    assert place.stat().st_size > 10_000
