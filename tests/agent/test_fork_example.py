"""`examples/fork.py`: what models with and without z learn of a fork; agents; the command."""

import json
import sys

import pytest
import torch
from programs import ROOT, loaded

import fork_planning as planning
import fork_prediction as prediction
from branching_step import BRANCHES, RATES, SYNTHETIC, steps_of, world_space
from modules.world_model.latent_jepa import LatentJEPA

fork = loaded(ROOT / "examples" / "fork.py")
SMALL = fork.Size(seeds=1, updates=4, world_updates=4, agents=1, steps=60, episodes=10)


def luck(seed=0):
    return torch.Generator().manual_seed(seed)


def output_of(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["fork.py", *words])
    fork.main()
    return capsys.readouterr().out


def test_branches_are_equally_far_and_happen_at_their_rates():
    assert torch.pdist(BRANCHES).allclose(torch.ones(3))
    assert pytest.approx(0.436, abs=1e-3) == prediction.MIDDLE
    assert pytest.approx(1.0297, abs=1e-3) == SYNTHETIC.entropy
    steps = steps_of(20_000, luck(), fork=True)
    rates = torch.bincount(steps.branch) / 20_000
    torch.testing.assert_close(rates, RATES, atol=0.02, rtol=0)
    reached = steps.ends[torch.arange(20_000), steps.branch]
    torch.testing.assert_close(reached, steps.after, atol=0.12, rtol=0)
    certain = steps_of(50, luck(), fork=False)
    assert (certain.ends - certain.ends[:, :1]).abs().max() == 0
    assert 0.4 < steps_of(1000, luck()).state[:, -1].mean() < 0.6


@pytest.mark.parametrize("pixels", [False, True])
def test_the_steps_of_the_world_are_its_own(pixels):
    space = world_space(pixels, episodes=600)
    steps = space.steps(5000, luck(), True)
    rates = torch.bincount(steps.branch) / 5000
    torch.testing.assert_close(rates, space.rates, atol=0.08, rtol=0)
    assert pytest.approx(1.0889, abs=1e-3) == space.entropy
    reached = steps.ends[torch.arange(5000), steps.branch]
    assert reached.equal(steps.after)
    assert (steps.ends[:, 0] != steps.ends[:, 1]).any(-1).all()
    certain = space.steps(500, luck(), False)
    assert certain.ends[:, 0].equal(certain.ends[:, 2])
    assert certain.ends[:, 0].equal(certain.after)
    if pixels:
        # The start, 2 steps of 3 routes before the fork, 3 of their 3 branches each behind it.
        assert len(space.frames) == 1 + 3 * 2 + 3 * 3 * 3
        before, after = (space.frames[steps.state[0]], space.frames[steps.after[0]])
        assert not before.equal(after)
    else:
        assert steps.state[:, 0].eq(steps.state[0, 0]).all()
        assert steps.state[:, 1:4].equal(steps.place)
        every = space.steps(5000, luck(), None)
        assert 0.15 < every.state[:, 0].eq(steps.state[0, 0]).float().mean() < 0.25


class Known(LatentJEPA):
    """A model that knows the step, and draws branches at rates of the test."""

    def __init__(self, model, rates):
        torch.nn.Module.__init__(self)
        self.__dict__.update(model.__dict__)
        self.rates = rates

    def step(self, state, action, z=None):
        place = 0.9 * state.latent[:, :3] + 0.1 * action
        fork_flag = state.latent[:, -1:]
        middle = (RATES @ BRANCHES).expand(len(place), -1)
        branch = middle if z is None else z[:, :3] @ BRANCHES
        return state.replace(latent=torch.cat([place, fork_flag * branch, fork_flag], 1))

    def sample_latent(self, state, action, luck, temperature):
        code = (luck > self.rates.cumsum(0)).sum(1).clamp_max(2)
        return torch.eye(self.latent.size)[code]

    def infer_latent(self, state, action, outcome):
        codes = torch.eye(self.latent.size)[:3]
        each = torch.stack(
            [self.step(state, action, c.expand(len(action), -1)).latent for c in codes], 1
        )
        each = (each - outcome.latent[:, None]).norm(dim=-1)
        return codes[each.argmin(1)], each.amin(1)

    def posterior(self, state, action, outcome):
        z, _ = self.infer_latent(state, action, outcome)
        log_q, log_p = (z + 1e-30).log(), torch.full_like(z, -50.0)
        log_p[:, :3] = self.rates.log()
        certain = state.latent[:, -1:] == 0
        return log_p.where(certain, log_q), log_p


@pytest.mark.parametrize("rates", [(0.5, 0.3, 0.2), (0.8, 0.15, 0.05)])
def test_a_row_measures_what_is_known(rates):
    rates = torch.tensor(rates)
    model = Known(prediction.trained("categorical", "fixed", 0, 1).model, rates)
    result = prediction.Trained(model, torch.nn.Identity())
    row, futures = prediction.row_of(result, "categorical", "fixed", 0)
    assert row.rates == pytest.approx(rates.tolist(), abs=0.02)
    assert row.off == 0
    assert row.off_by == pytest.approx(float((rates - RATES).abs().max()), abs=0.02)
    assert row.nearest == pytest.approx(prediction.MIDDLE, abs=1e-5)
    assert row.log_likelihood == pytest.approx(float(RATES @ rates.log()), abs=0.03)
    assert row.inferred == 1
    cross = -float(RATES @ rates.log())
    assert row.divergence_fork == pytest.approx(cross, abs=0.03)
    assert row.divergence_off == pytest.approx(0, abs=1e-5)
    assert row.r2 < 0.02
    assert futures.shape == (prediction.FUTURES, 2)
    close = torch.cdist(futures, BRANCHES).amin(1)
    assert close.max() < 1e-5


def test_a_return_says_its_route(monkeypatch):
    class Scores:
        returns = (41.9, -4.8, 25.6, 6.0, 6.0, 18.1, 4.3)

    monkeypatch.setattr(planning, "train", lambda *words, **options: None)
    monkeypatch.setattr(planning, "evaluate", lambda *words, **options: Scores)
    ways = planning.ways_of(0, 60, 7)
    assert [way.routes for way in ways] == [[2, 3, 2]] * len(planning.WAYS)
    assert [way.right for way in ways[:3]] == [2, 3, 2]
    bars = planning.bars_of(ways)
    assert [name for name, met in bars.items() if met] == [name for name in bars if "less" in name]


def test_the_command_prints_tables_and_draws(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fork, "QUICK", SMALL)
    monkeypatch.setattr(
        planning, "TRAINING", (*planning.TRAINING, "learner.warmup_steps=30", "learner.batch=8")
    )
    words = ("--quick", "--json", "--out", str(tmp_path / "new" / "fork.png"))
    lines = output_of(monkeypatch, capsys, *words).splitlines()
    assert (tmp_path / "new" / "fork.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    figures = json.loads(lines[-1], parse_constant=pytest.fail)
    rows = [(row["kind"], row["encoder"]) for row in figures["rows"]]
    assert rows == list(prediction.ROWS)
    assert [way["name"] for way in figures["ways"]] == list(planning.WAYS)
    assert all(sum(way["routes"]) == 10 for way in figures["ways"])
    assert [figures[name] for name in SMALL._fields] == list(SMALL)
    for bar, met in figures["bars"].items():
        assert f"{'met' if met else 'falls short'}: {bar}" in lines


def test_one_part_alone_is_printed_and_drawn(monkeypatch, capsys, tmp_path):
    ways = [planning.Way(name, 0, [6, 3, 1], 5.0) for name in planning.WAYS]
    monkeypatch.setattr(fork, "planned", lambda seed, size: ways)
    monkeypatch.setattr(fork, "predicted", lambda seed, size: pytest.fail("not asked for"))
    words = ("--only", "planning", "--json", "--out", str(tmp_path / "fork.png"))
    lines = output_of(monkeypatch, capsys, *words).splitlines()
    assert (tmp_path / "fork.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    figures = json.loads(lines[-1])
    assert "rows" not in figures
    assert "| risk .8, 8 futures | 6/10 [0.31, 0.83] | 3/10 [0.11, 0.60] |" in lines[5 + 1]
    assert len(figures["bars"]) == len(planning.WAYS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--seed", "-1"), "--seed: expected an integer of at least 0, got '-1'"),
        (("--out", "."), "--out: expected the path of a PNG, got the folder '.'"),
        (("--out", "file/x.png"), "--out: expected a path that can be written, got "),
    ],
)
def test_bad_input_is_refused_in_a_line(monkeypatch, capsys, tmp_path, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["fork.py", *words])
    with pytest.raises(SystemExit) as ended:
        fork.main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def row_after(kind, encoder):
    return prediction.row_of(prediction.trained(kind, encoder, 0, 1000), kind, encoder, 0)[0]


@pytest.mark.slow
def test_z_draws_the_branches_and_one_normal_distribution_what_never_happens():
    for kind, most in (("categorical", 0.05), ("gaussian", 0.1), ("sparse", 0.1)):
        row = row_after(kind, "fixed")
        assert row.off_by <= 0.05
        assert row.off <= most
        assert row.surplus <= 0.05
    assert row_after("gaussian, 1 component", "fixed").off > 0.1
    assert row_after("none", "fixed").nearest >= 0.9 * prediction.MIDDLE


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["learned", "state"])
def test_an_encoder_drops_the_branch_without_z_and_keeps_it_with_z(encoder):
    assert row_after("none", encoder).separation <= 0.2
    row = row_after("categorical", encoder)
    assert row.separation >= 0.3
    assert row.inferred >= 0.97


@pytest.mark.slow
def test_without_the_gradient_into_what_is_predicted_the_branch_stays(monkeypatch):
    monkeypatch.setattr(prediction, "TARGET_GRAD_SCALE", 0.0)
    assert row_after("none", "learned").separation > 0.2


@pytest.mark.slow
def test_an_agent_takes_three_ways_with_many_futures_and_not_with_one():
    ways = {way.name: way.right for way in planning.ways_of(0, fork.Size().steps, 40)}
    assert min(right for name, right in ways.items() if "16 futures" in name) >= 38
    assert max(right for name, right in ways.items() if "1 future" in name) < 38
