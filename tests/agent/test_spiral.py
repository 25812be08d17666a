"""`examples/spiral.py`: what tests and regularisers see of a spiral; the command."""

import json
import sys

import numpy as np
import pytest
import torch
from programs import ROOT, loaded

from modules import chance

spiral = loaded(ROOT / "examples" / "spiral.py")
SMALL = spiral.Size(points=200, draws=2, permutations=19, embeddings=3)


def rng(*seed):
    return np.random.default_rng(seed or 0)


def output_of(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["spiral.py", *words])
    spiral.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("turns", spiral.TURNS)
def test_a_spiral_is_turned_and_scaled_and_stays_a_spiral(turns):
    drawn = spiral.Spiral(turns, rng(1))
    points = drawn.draw(50_000, 0.0, rng(2))
    np.testing.assert_allclose(np.cov(points.T), np.eye(2), atol=0.02)
    plain = points @ np.linalg.inv(drawn._axes) + drawn._mean
    radius = np.linalg.norm(plain, axis=1)
    # Nearly uniform along the arc: half of the points lie within the radius √½.
    assert np.mean(radius < 0.5**0.5) == pytest.approx(0.5, abs=0.02)
    angle = 2 * np.pi * turns * radius
    np.testing.assert_allclose(plain / radius[:, None], np.stack([np.cos(angle), np.sin(angle)], 1))
    noisy = drawn.draw(50_000, 0.2, rng(2))
    assert (noisy - points).std(0) == pytest.approx(0.2, abs=0.01)


def test_a_permutation_keeps_the_marginals():
    points = spiral.Spiral(2, rng(1)).draw(100, 0.0, rng(2))
    control = spiral.permuted(points, rng(3))
    assert np.array_equal(np.sort(control, 0), np.sort(points, 0))
    assert np.array_equal(control[:, 0], points[:, 0])
    assert not np.array_equal(control[:, 1], points[:, 1])


def test_shares_have_the_interval_of_wilson():
    share = spiral.Share.of_draws(2, 20)
    z, p, n = 1.959964, 0.1, 20
    centre, reach = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    expected = [(centre - reach) / (1 + z**2 / n), (centre + reach) / (1 + z**2 / n)]
    assert [share.low, share.high] == pytest.approx(expected, abs=1e-6)


def test_a_contrast_is_in_deviations_of_the_difference():
    values = rng(1).standard_normal((4000, 2)) * 3 + [6.0, 0.0]
    contrast = spiral.Contrast.of_draws(*values.T)
    assert contrast.effect == pytest.approx(6 / 18**0.5, abs=0.05)
    assert contrast.low < contrast.effect < contrast.high
    rounded = spiral.Contrast.of_draws(values[:, 0], values[:, 0] * (1 + 1e-6))
    assert rounded == spiral.Contrast(0, 0, 0)


def test_the_interval_of_an_effect_covers_it():
    effect, covered = 2.0, 0
    for seed in range(400):
        differences = rng(seed).standard_normal(20) + effect
        contrast = spiral.Contrast.of_draws(differences, np.zeros(20))
        covered += contrast.low <= effect <= contrast.high
    assert covered / 400 == pytest.approx(0.95, abs=0.035)


def test_only_objectives_beyond_second_moments_tell_a_spiral():
    rows = spiral.regularisers_of(0, SMALL._replace(points=1000, embeddings=10))
    assert len(rows) == 15
    effects = {(row.name, row.turns): row.contrasts for row in rows}
    for turns in spiral.TURNS:
        for reference in spiral.REFERENCES:
            assert effects["SIGReg", turns][reference].low > 2
            # The spiral is preferred to both.
            assert effects["InfoNCE", turns][reference].high < 0
            for name in ("VICReg, variance", "VICReg, covariance", "Barlow Twins"):
                assert abs(effects[name, turns][reference].effect) < 0.8
        assert effects["VICReg, variance", turns]["permuted"].effect == 0


def test_infonce_reads_no_relation_of_angle_and_radius():
    """Radii permuted among the points of a spiral, which then is none, leave the penalty."""
    values = []
    for draw in range(10):
        points = spiral.Spiral(2, rng(1)).draw(1000, 0.0, rng(2, draw))
        radius = np.linalg.norm(points, axis=1, keepdims=True)
        others = (
            points,
            points / radius * rng(3, draw).permutation(radius),
            rng(4, draw).normal(size=(1000, 2)),
        )
        key = chance.keys(0, 1, draw)
        noise = spiral.VIEW_NOISE * rng(5, draw).standard_normal(points.shape)
        values.append([spiral.penalties(one, one + noise, key)["InfoNCE"] for one in others])
    same, permuted, gaussian = np.mean(values, 0)
    assert abs(same - permuted) < 0.1 * abs(same - gaussian)


def test_penalties_are_those_of_the_objectives():
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double().numpy()
    values = spiral.penalties(points, points[::-1].copy(), chance.keys(0, 1, 0))
    deviation = (np.var(points, 0, ddof=1) + 1e-4) ** 0.5
    assert values["VICReg, variance"] == pytest.approx(
        4 * np.maximum(0, 1 - deviation).mean(), rel=1e-3
    )
    assert values["VICReg, covariance"] == pytest.approx(np.cov(points.T)[0, 1] ** 2, rel=1e-3)
    matrix = np.corrcoef(points.T, points[::-1].T)[:2, 2:]
    both = ((1 - np.diag(matrix)) ** 2).sum() + (matrix**2).sum() - (np.diag(matrix) ** 2).sum()
    assert values["Barlow Twins"] == pytest.approx(0.05 * both, rel=1e-3)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    logits = unit @ unit[::-1].T / 0.1
    expected = np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
    assert values["InfoNCE"] == pytest.approx(expected, rel=1e-3)


def test_the_command_prints_tables_and_draws(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(spiral, "QUICK", SMALL)
    words = ("--quick", "--json", "--out", str(tmp_path / "new" / "spiral.png"))
    lines = output_of(monkeypatch, capsys, *words).splitlines()
    assert (tmp_path / "new" / "spiral.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    figures = json.loads(lines[-1], parse_constant=pytest.fail)
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    for cell in figures["cells"]:
        (row,) = (r for r in rows if r[:2] == [str(cell["turns"]), str(cell["noise"])])
        for name, text in zip(spiral.TESTS, row[2:5], strict=True):
            assert text.split()[0] == f"{cell['rejected'][name]['count']}/2"
    assert figures["all"]["rejected"]["Pearson"]["of"] == 18
    assert [figures[name] for name in SMALL._fields] == list(SMALL)
    for bar, met in figures["bars"].items():
        assert f"{'met' if met else 'falls short'}: {bar}" in lines
    assert output_of(monkeypatch, capsys, *words).splitlines() == lines
    assert output_of(monkeypatch, capsys, *words, "--seed", "1").splitlines()[:-1] != lines[:-1]


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
    monkeypatch.setattr(sys, "argv", ["spiral.py", *words])
    with pytest.raises(SystemExit) as ended:
        spiral.main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def bars_met(size):
    return list(spiral.bars_of(spiral.cells_of(0, size)).values())


def with_a_correlation_for_hsic(monkeypatch):
    monkeypatch.setitem(spiral.TESTS, "HSIC", spiral.TESTS["Pearson"])


def test_one_cell_meets_the_bars_by_hsic_alone(monkeypatch):
    monkeypatch.setattr(spiral, "TURNS", (2,))
    monkeypatch.setattr(spiral, "NOISE", (0.1,))
    size = spiral.Size(points=500, draws=20, permutations=99)
    monkeypatch.delitem(spiral.TESTS, "KSG")
    assert bars_met(size)[:2] == [True, True]
    with_a_correlation_for_hsic(monkeypatch)
    assert bars_met(size)[:2] == [True, False]


@pytest.mark.slow
def test_all_cells_meet_the_bars_by_hsic_alone(monkeypatch):
    size = spiral.Size(points=600, draws=12, permutations=99)
    assert bars_met(size) == [True, True, True]
    with_a_correlation_for_hsic(monkeypatch)
    assert bars_met(size) == [True, False, True]
