"""Objectives against their formulas written out, and against collapse."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from modules import chance
from modules.objectives.cosine_centered import CosineCentered
from modules.objectives.none import Unregularised
from modules.objectives.objective import Encodings, Objective
from modules.objectives.sigreg import SIGReg, epps_pulley
from modules.objectives.vicreg import VICReg

KEY = torch.tensor([7])


def encodings_of_latents(latents: torch.Tensor) -> Encodings:
    """`latents` [M D] alone: M windows of one step, whose other view is the same."""
    valid = torch.ones(len(latents), 1, dtype=torch.bool)
    return Encodings(
        latents, latents.unsqueeze(1), valid, torch.zeros(len(latents), 0, 2), valid[:, 1:], latents
    )


def vicreg(**settings: float) -> VICReg:
    return VICReg(config=VICReg.Config(**settings))


def sigreg(**settings: float) -> SIGReg:
    return SIGReg(config=SIGReg.Config(**settings))


ALL = [vicreg, sigreg, Unregularised, CosineCentered]


@pytest.mark.parametrize("kind", ALL)
def test_every_objective_keeps_the_protocol(kind: Callable[[], Objective]) -> None:
    objective = kind()
    assert isinstance(objective, Objective)
    for rows in (0, 1, 16):
        for loss in objective.penalties(encodings_of_latents(torch.randn(rows, 4)), KEY).values():
            assert loss.shape == ()
            assert torch.isfinite(loss)
        error = objective.error(torch.randn(rows, 2, 4), torch.randn(rows, 4), torch.ones(4))
        assert error.shape == (rows, 2)
        assert torch.isfinite(error).all()


@pytest.mark.parametrize("kind", ALL)
def test_no_error_is_less_than_that_of_what_came(kind: Callable[[], Objective]) -> None:
    torch.manual_seed(0)
    objective = kind()
    target, unit = torch.randn(16, 4), torch.rand(4) + 0.5
    right = objective.error(target.unsqueeze(1), target, unit)
    assert torch.allclose(right, torch.zeros(16, 1), atol=1e-6)
    for _ in range(20):
        wrong = objective.error(target.unsqueeze(1) + torch.randn(16, 1, 4), target, unit)
        assert (wrong > right).all()


@pytest.mark.parametrize("kind", [vicreg, sigreg, Unregularised])
def test_an_error_is_a_mean_square_in_units(kind: Callable[[], Objective]) -> None:
    torch.manual_seed(0)
    predicted, target, unit = torch.randn(5, 2, 3), torch.randn(5, 3), torch.rand(3) + 0.5
    got = kind().error(predicted, target, unit)
    for m in range(5):
        for k in range(2):
            squares = [
                ((float(predicted[m, k, d]) - float(target[m, d])) / float(unit[d])) ** 2
                for d in range(3)
            ]
            assert float(got[m, k]) == pytest.approx(sum(squares) / 3, rel=1e-5)


def test_centred_is_a_cosine_about_the_mean_of_targets() -> None:
    torch.manual_seed(0)
    predicted, target = torch.randn(5, 2, 3) + 40, torch.randn(5, 3) + 40
    got = CosineCentered().error(predicted, target, torch.ones(3))
    centre = [sum(float(target[m, d]) for m in range(5)) / 5 for d in range(3)]
    for m in range(5):
        towards = [float(target[m, d]) - centre[d] for d in range(3)]
        for k in range(2):
            said = [float(predicted[m, k, d]) - centre[d] for d in range(3)]
            dot = sum(a * b for a, b in zip(said, towards, strict=True))
            cosine = dot / math.hypot(*said) / math.hypot(*towards)
            assert float(got[m, k]) == pytest.approx(2 - 2 * cosine, abs=1e-4)


def test_what_all_targets_share_earns_centred_nothing() -> None:
    torch.manual_seed(0)
    shared = 100 * torch.randn(8)
    target = shared + torch.randn(256, 8)
    blind = shared + 0.01 * torch.randn(256, 1, 8)
    assert torch.cosine_similarity(blind[:, 0], target).mean() > 0.99
    assert CosineCentered().error(blind, target, torch.ones(8)).mean() > 1.8


def test_vicreg_is_its_hinge_and_its_covariance() -> None:
    torch.manual_seed(0)
    rows, size = 9, 4
    latents = torch.randn(rows, size, dtype=torch.float64) * torch.tensor([0.1, 0.5, 1.5, 3.0])
    values = latents.tolist()
    means = [sum(v[d] for v in values) / rows for d in range(size)]

    def covariance(i: int, j: int) -> float:
        return sum((v[i] - means[i]) * (v[j] - means[j]) for v in values) / (rows - 1)

    hinge = sum(max(0.0, 1.2 - math.sqrt(covariance(d, d) + 1e-4)) for d in range(size)) / size
    off = sum(covariance(i, j) ** 2 for i in range(size) for j in range(size) if i != j) / size
    got = vicreg(std_coeff=3.0, cov_coeff=0.5, target_std=1.2).penalties(
        encodings_of_latents(latents), KEY
    )
    assert got["variance"].item() == pytest.approx(3.0 * hinge)
    assert got["covariance"].item() == pytest.approx(0.5 * off)


def test_sigreg_is_its_integral() -> None:
    torch.manual_seed(0)
    latents, knots = torch.randn(8, 3) * 1.3 + 0.2, 9
    lines = chance.normal(KEY, "sigreg", 3, 5)[0]
    total = 0.0
    for p in range(5):
        line = lines[:, p].tolist()
        length = math.sqrt(sum(x * x for x in line))
        points = [
            sum(a * b for a, b in zip(z, line, strict=True)) / length for z in latents.tolist()
        ]
        # Both halves of the axis here; the code doubles one.
        heights = []
        for k in range(-(knots - 1), knots):
            t = 4.0 * k / (knots - 1)
            found = sum(complex(math.cos(t * x), math.sin(t * x)) for x in points) / len(points)
            gauss = math.exp(-t * t / 2)
            heights.append(abs(found - gauss) ** 2 * gauss)
        step = 4.0 / (knots - 1)
        total += step * (sum(heights) - (heights[0] + heights[-1]) / 2)
    got = sigreg(weight=2.0, num_slices=5, num_points=knots).penalties(
        encodings_of_latents(latents), KEY
    )
    assert got["gaussian"].item() == pytest.approx(2.0 * total / 5, rel=1e-4)


def test_a_normal_sample_is_nearer_to_normal_than_others() -> None:
    torch.manual_seed(0)
    normal = torch.randn(2000, 1)
    others = torch.cat([normal * 0, normal * 3, normal + 1, normal.sign(), normal.exp()], 1)
    far = epps_pulley(others, 17)
    assert (far > 20 * epps_pulley(normal, 17)).all()


def test_sigreg_sees_what_a_covariance_does_not() -> None:
    # A ring: uncorrelated, of unit variance, and yet each coordinate all but follows from the
    # other (the spiral of the interview).
    angle = torch.linspace(0, 2 * math.pi, 513)[:-1]
    ring = torch.stack([angle.cos(), angle.sin()], 1) * math.sqrt(2)
    torch.manual_seed(0)
    cloud = torch.randn(512, 2)
    blind = vicreg()
    assert sum(blind.penalties(encodings_of_latents(ring), KEY).values()).item() < 1e-3
    sighted = sigreg()
    seen = sighted.penalties(encodings_of_latents(ring), KEY)["gaussian"]
    assert seen > 10 * sighted.penalties(encodings_of_latents(cloud), KEY)["gaussian"]


def test_sigreg_draws_new_lines_for_a_new_key() -> None:
    latents = torch.randn(16, 8).exp()
    objective = sigreg(num_slices=4)
    first = objective.penalties(encodings_of_latents(latents), KEY)["gaussian"]
    assert torch.equal(first, objective.penalties(encodings_of_latents(latents), KEY)["gaussian"])
    assert not torch.equal(
        first, objective.penalties(encodings_of_latents(latents), KEY + 1)["gaussian"]
    )


@pytest.mark.parametrize("objective", [vicreg(), sigreg(num_slices=64)])
def test_descending_undoes_a_collapse(objective: Objective) -> None:
    torch.manual_seed(0)
    latents = (torch.randn(64, 1) @ torch.ones(1, 6) + torch.randn(64, 6) * 0.05) * 0.1
    latents.requires_grad_(True)
    descent = torch.optim.Adam([latents], lr=0.05)
    for update in range(150):
        descent.zero_grad()
        sum(
            objective.penalties(encodings_of_latents(latents), torch.tensor([update])).values()
        ).backward()  # type: ignore[union-attr]
        descent.step()
    spectrum = torch.linalg.svdvals(latents.detach() - latents.detach().mean(0))
    assert spectrum[-1] > 0.4 * spectrum[0]
    assert latents.std(0).min() > 0.6
