"""`examples/road.py`: truths, probes, drives and bars; a training without its mechanism."""

import json
import sys

import numpy as np
import pytest
import torch
from programs import ROOT, loaded

from agent import load
from worlds.road import CAR_LENGTH, CARS, LANES, OWN_TOP, STEPS, Road

road = loaded(ROOT / "examples" / "road.py")
SMALL = road.Size(seeds=1, steps=400, updates=2, probes=4, episodes=1, risks=(0.0, 2.0))


def test_in_each_lane_the_nearest_car_in_view_is_the_truth():
    env = Road()
    env.reset(seed=0)
    env.car_top = np.array([10.0, 30.0, -20.0, 60.0])
    env.car_lane = np.array([0, 0, 1, 2])
    env.car_left = env._left_of(env.car_lane)
    assert road.truth_of(env)["cars"].tolist() == [30, -CAR_LENGTH, -CAR_LENGTH]
    env.car_top = np.full(CARS, float(OWN_TOP))
    assert road.truth_of(env)["cars"].tolist() == [-CAR_LENGTH] * LANES
    leaves = road.truth_of(env)["leaves"]
    np.testing.assert_allclose(leaves[:24] ** 2 + leaves[24:] ** 2, 1)


def test_held_out_episodes_are_those_of_their_actions():
    held = road.held_out({"wind": 0.3, "leaves": 0.5}, 2, seed=7)
    assert held.frames.shape == (2, STEPS, 64, 64, 3)
    env = Road(wind=0.3, leaves=0.5)
    frame, _ = env.reset(seed=8)
    for t in range(20):
        assert np.array_equal(frame, held.frames[1, t].numpy())
        assert np.array_equal(road.truth_of(env)["cars"], held.truth["cars"][1, t].numpy())
        frame = env.step(held.actions[1, t].numpy())[0]


def test_leaves_and_ripples_are_the_pixels_beside_the_road_that_change():
    mask = road.leafy()
    assert mask[:, :16].float().mean() > 0.7
    assert mask[20:44, 50:].float().mean() > 0.7
    assert not mask[:, 17:47].any()
    assert not mask[:18, 50:].any()


def test_a_read_out_is_fitted_to_encodings_and_judged_on_other_episodes():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(8, 60, 3, generator=generator)
    mixed = truth @ torch.randn(3, 5, generator=generator)
    later = mixed[:, road.AHEAD_STEPS :]
    now, then = road.read_out(road.Latents(mixed, later, None), truth)
    assert now > 0.99
    assert then > 0.99
    noise = torch.randn(8, 60, 5, generator=generator)
    now, then = road.read_out(road.Latents(noise, later, None), truth)
    assert now < 0.05
    assert then < 0.05
    # What is predicted is compared with what happened that many steps later.
    _, then = road.read_out(road.Latents(mixed, mixed[:, : -road.AHEAD_STEPS], None), truth)
    assert then < 0.05


def test_predicted_latents_follow_the_actions_taken(tmp_path):
    run, _ = road.trained(tmp_path, "JEPA", "strong", 0, SMALL)
    held = road.held_out(road.WORLDS["strong"], 2)
    latents = road.latents_of(run, held)
    player = load(run)
    player.world.close()
    modules = player.agent.modules
    tokens = modules.configurator.initial(1).tokens
    stack = torch.stack([held.frames[1, 30], held.frames[1, 31]])[None]
    with torch.no_grad():
        latent = modules.perception.encode(stack, tokens)
        torch.testing.assert_close(latents.encoded[1, 31], latent[0], rtol=1e-3, atol=1e-4)
        first = modules.perception.initial(1).replace(latent=latents.encoded[1, 31:32])
        state = first.replace(hidden=tokens.flatten(1))
        for action in held.actions[1, 31 : 31 + road.AHEAD_STEPS]:
            hot = torch.nn.functional.one_hot(action, 9).float()[None]
            state = modules.world_model.step(state, hot)
    torch.testing.assert_close(latents.predicted[1, 31], state.latent[0], rtol=1e-3, atol=1e-4)


def test_the_slow_constant_makes_a_third_of_the_way():
    slow = road.constant(road.SLOW, 0, 2)
    assert slow["progress"] == pytest.approx(STEPS / 3)
    assert road.constant(road.FAST, 0, 2)["progress"] > 180
    assert road.constant(None, 0, 4)["collisions"] > slow["collisions"] / 2


def rows_of(**figures):
    return {name.replace("_", ", ", 1): [dict(one) for one in of] for name, of in figures.items()}


GOOD = {"cars": 0.92, "cars later": 0.8, "leaves": 0.0, "ripples": 0.05, "error": 0.2}
RECONSTRUCTED = GOOD | {"cars": 0.8, "cars later": 0.5, "leaves": 0.4}


@pytest.mark.parametrize(
    ("row", "change", "bar"),
    [
        ("JEPA, strong", {"cars": 0.89}, "cars at R²"),
        ("JEPA, strong", {"ripples": 0.16}, "leaves and ripples"),
        ("JEPA, none", {"error": 0.18}, "its error grows"),
        ("generative, strong", {"cars later": 0.85}, "cars later, the JEPA ahead"),
    ],
)
def test_each_bar_of_prediction_can_fall(row, change, bar):
    rows = {
        "JEPA, strong": [GOOD, GOOD],
        "JEPA, none": [GOOD, GOOD],
        "generative, strong": [RECONSTRUCTED, RECONSTRUCTED],
    }
    assert all(road.bars_of_prediction(rows).values())
    # One seed alone.
    rows[row] = [rows[row][0], rows[row][1] | change]
    rows["JEPA, none"] = [
        one | ({"error": 0.16} if "error" in change else {}) for one in rows["JEPA, none"]
    ]
    fallen = [name for name, met in road.bars_of_prediction(rows).items() if not met]
    assert len(fallen) == 1
    assert bar in fallen[0]


def test_plans_that_do_not_change_with_risk_have_no_trend():
    def rows(slope):
        plans = {
            f"plans, strong, risk {risk:g}": [
                {"progress": 90 - slope * risk + seed, "collisions": 0.5 - slope * risk / 40}
                for seed in range(3)
            ]
            for risk in road.Size().risks
        }
        others = {
            "random": (60, 7),
            "slow": (67, 5),
            "fast": (190, 6),
            "plans, none, risk 0": (90, 0.5),
        }
        means = {
            name: [dict(zip(("progress", "collisions"), two, strict=True))]
            for name, two in others.items()
        }
        return plans | means

    assert all(road.bars_of_driving(rows(5)).values())
    fallen = [name for name, met in road.bars_of_driving(rows(0)).items() if not met]
    assert len(fallen) == 2
    assert all("fall with risk" in name for name in fallen)


def test_a_report_has_means_with_intervals_and_the_bars():
    rows = {"JEPA, strong": [GOOD, GOOD | {"cars": 0.94}, GOOD | {"cars": 0.96}]}
    rows |= {"JEPA, none": [GOOD], "generative, strong": [RECONSTRUCTED] * 3}
    text = road.report("prediction", rows)
    assert "| JEPA, strong | 0.94 [" in text
    assert "met: JEPA, strong: cars at R²" in text


@pytest.mark.slow
def test_the_command_trains_reports_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(road, "QUICK", SMALL)
    words = [
        "--quick",
        "--json",
        "--runs",
        str(tmp_path / "runs"),
        "--out",
        str(tmp_path / "a.png"),
    ]
    for _ in range(2):
        # The second time trainings are read.
        monkeypatch.setattr(sys, "argv", ["road.py", *words])
        road.main()
    out, err = capsys.readouterr()
    assert err.count("training") == 5
    figures = json.loads(out.splitlines()[-1])
    assert set(figures["parts"]) == {"prediction", "driving"}
    assert set(figures["parts"]["prediction"]) == {
        "JEPA, strong", "JEPA, slow", "JEPA, none", "generative, strong", "generative, none"
    }  # fmt: skip
    assert (tmp_path / "a.png").stat().st_size > 10_000


SMALL_ENCODER = (
    "perception={kind: pixels-small, latent_size: 64, frame_stack: 2, frame_size: 0, "
    "grayscale: false, random_shift_pixels: 0, intensity_jitter_std: 0, subtract_mean_frame: true}"
)


@pytest.mark.slow
def test_what_leaves_out_the_leaves_and_what_keeps_the_cars(tmp_path):
    """R² and effective rank of 64 measured, at 100 updates:

                   cars   leaves   ripples   rank
    as it is       .89    .03      .06       19
    no gradient    .88    .18      .32       45      through the target
    no objective   .77    .01      .10       11
    """
    size = road.Size(seeds=1, steps=3000, updates=100, probes=16)
    held, figures = road.held_out(road.WORLDS["strong"], size.probes), {}
    changes = {
        "whole": (),
        "no gradient": ("world_model.target_grad_scale=0",),
        "no objective": ("world_model.objective.kind=none",),
    }
    for name, own in changes.items():
        run, _ = road.trained(tmp_path, name, "strong", 0, size, SMALL_ENCODER, *own)
        figures[name] = road.figures_of(run, held)
    whole, no_gradient, no_objective = figures.values()
    assert whole["cars"] > 0.83
    assert whole["leaves"] < 0.1
    assert whole["ripples"] < 0.15
    assert no_gradient["leaves"] > 0.1
    assert no_gradient["ripples"] > 0.2
    assert no_objective["cars"] < whole["cars"] - 0.05
    assert no_objective["rank"] < 0.75 * whole["rank"]
