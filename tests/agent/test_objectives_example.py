"""`examples/objectives.py`: Pong's truth, rows, rank correlations; a training without objective."""

import json
import sys

import numpy as np
import pytest
import torch
from programs import ROOT, loaded

from agent.api.training import training_config
from agent.assembly.build import assemble, known_kinds
from agent.assembly.load import request_for
from worlds.make import make_world

objectives = loaded(ROOT / "examples" / "objectives.py")
SMALL = objectives.Size(1, 400, 2, 4, 1, 30, ("vicreg", "none, fast target"))


def test_ball_and_paddles_are_where_their_colours_are():
    screen = np.full((210, 160, 3), (144, 72, 17), np.uint8)
    screen[24:34] = screen[194:200] = 236  # walls
    screen[1:20, 30:40] = (213, 130, 74)  # the score
    screen[34 + 50 : 34 + 54, 80:82] = 236
    screen[34 + 10 : 34 + 26, 16:20] = (213, 130, 74)
    places = objectives.located(screen)
    assert places["ball"] == (51.5, 80.5)
    assert places["left"] == (17.5, 17.5)
    assert np.isnan(places["right"]).all()


def test_places_agree_with_the_memory_of_the_console():
    """Addresses 49 and 54, 50 and 51 (Anand et al. 2019, AtariARI)."""
    world = make_world(objectives.PONG, num_envs=1, sensor=objectives.PONG_SENSOR)
    world.reset(5)
    generator, rows = torch.Generator().manual_seed(0), []
    for _ in range(150):
        memory = world._rows[0].emulator.getRAM()
        at = objectives.located(world.render()[0].numpy())
        seen = [at["ball"][1], at["ball"][0], at["left"][0], at["right"][0]]
        rows.append([*memory[[49, 54, 50, 51]].tolist(), *seen])
        action = torch.randint(6, (1,), generator=generator)
        world.step(torch.nn.functional.one_hot(action, 6).float())
    world.close()
    table = np.array(rows)
    for place in range(4):
        seen = np.isfinite(table[:, 4 + place])
        assert seen.sum() > 60
        assert np.corrcoef(table[seen, place], table[seen, 4 + place])[0, 1] > 0.999


def test_held_out_games_are_those_of_their_actions():
    held = objectives.pong_held_out(25, rows=2, seed=7)
    assert held.frames.shape == (2, 25, 84, 84, 1)
    assert held.truth["ball"].shape == held.truth["paddles"].shape == (2, 25, 2)
    world = make_world(objectives.PONG, num_envs=2, sensor=objectives.PONG_SENSOR)
    observation = world.reset(7)
    for t in range(20):
        assert torch.equal(observation.pixels, held.frames[:, t])
        hot = torch.nn.functional.one_hot(held.actions[:, t], 6).float()
        observation = world.step(hot)
    world.close()


@pytest.mark.parametrize("world", [objectives.road.ID, objectives.PONG])
@pytest.mark.parametrize("objective", [name for name in objectives.OBJECTIVES if name != "hog"])
def test_each_row_is_a_training(world, objective):
    settings = objectives.settings_of(world, objective, objectives.Size())
    request = request_for(world, settings, seed=0, config=objectives.SETTINGS)
    assembly = assemble(training_config(request), known_kinds(), training=True)
    assembly.world.close()
    settings = assembly.config.settings
    assert settings.training.steps == 3000
    assert settings.learner.replay_ratio * 2000 == pytest.approx(100)


def test_ranks_that_agree_correlate_and_seeds_of_one_objective_are_one_draw():
    first = [np.array([float(i), i + 0.5]) for i in range(8)]
    same = objectives.rank_correlation(first, [of**3 for of in first], draws=200)
    assert (same.rho, same.low, same.high) == pytest.approx((1, 1, 1))
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=2) for _ in range(30)]
    rising = [np.array([float(i), i + 0.5]) for i in range(30)]
    none = objectives.rank_correlation(rising, noise, draws=200)
    assert none.low < 0 < none.high
    # The same values, each ten times: not more is known.
    noise = noise[:8]
    often = [np.repeat(of[:1], 10) for of in noise]
    once = [of[:1] for of in noise]
    wide = objectives.rank_correlation([of[:1] for of in first], once, draws=400)
    again = objectives.rank_correlation([np.repeat(of[:1], 10) for of in first], often, draws=400)
    assert again.rho == pytest.approx(wide.rho)
    assert again.high - again.low == pytest.approx(wide.high - wide.low, abs=0.05)


def test_runs_without_a_finite_figure_are_left_out():
    first = [np.array([0.0]), np.array([1.0]), np.array([np.nan]), np.array([2.0])]
    second = [np.array([0.0]), np.array([1.0]), np.array([9.0]), np.array([2.0])]
    assert objectives.rank_correlation(first, second, draws=50).rho == pytest.approx(1)


def test_a_fast_target_that_does_not_collapse_falls_short():
    rows = {"none, fast target": [{"collapsed": 1.0}, {"collapsed": 0.0}]}
    assert not any(objectives.bars_of({"road": rows}).values())


@pytest.mark.slow
def test_the_command_trains_and_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(objectives, "QUICK", SMALL)
    words = ["--quick", "--json", "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", ["objectives.py", *words])
    objectives.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures["tables"]["road"]) == set(SMALL.objectives)
    assert set(figures["spearman"]["pong"]) == {*objectives.MEASURES, "ball"}


@pytest.mark.slow
def test_plans_in_what_was_learned_heed_collisions_and_an_objective_keeps_dimensions(tmp_path):
    """Measured with seed 0: progress and collisions of plans 113 and 2.0; with collisions of weight
    35 in place of 300, which so short a training hardly foresees, 197 and 6.9. Effective rank 18,
    without objective 10; cars at R² .88 and .79.
    """
    size = objectives.Size(seeds=1)
    held = objectives.study.held_out(objectives.study.WORLDS["strong"], size.probes)
    figures = {}
    for name in ("vicreg", "none"):
        run, result = objectives.run_of(tmp_path, objectives.road.ID, name, 0, size)
        figures[name] = objectives.figures_of(run, result, held)
        if name == "vicreg":
            blind = objectives.planned(run, 0, 4, 'directive.u={pain: 0, "signal:collision": 0}')
            heedful = objectives.planned(run, 0, 4, objectives.CAUTIOUS)
    assert blind["progress"] > 180
    assert heedful["collisions"] < blind["collisions"] / 2
    assert heedful["progress"] > 75  # an always slower car makes 67
    assert figures["vicreg"]["cars"] > 0.83
    assert figures["none"]["rank"] < 0.75 * figures["vicreg"]["rank"]
