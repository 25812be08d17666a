"""Objectives of views and trajectories against their formulas in loops, gradients included."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modules import chance
from modules.messages import SIGNALS, ActionSpec, Experience, WorldSpec
from modules.objectives.barlow import BarlowTwins
from modules.objectives.cosine_centered import CosineCentered
from modules.objectives.infonce import InfoNCE
from modules.objectives.inverse_dynamics import InverseDynamics
from modules.objectives.none import Unregularised
from modules.objectives.objective import Encodings, Objective, encodings_of
from modules.objectives.smoothness import Smoothness
from modules.objectives.straightening import Straightening
from modules.objectives.sum import ObjectiveSum
from modules.objectives.vicreg import VICReg
from modules.ports import Batch, encoded_states

KEY = chance.keys(7, 1, 0)
ROWS, STEPS, SIZE, ACTIONS = 5, 4, 3, 2

DISCRETE = ActionSpec(discrete=True, size=ACTIONS)
CONTINUOUS = ActionSpec(discrete=False, size=ACTIONS, low=(-1.0, 0.0), high=(1.0, 2.0))


def inverse_dynamics(actions: ActionSpec = DISCRETE, **settings: float) -> InverseDynamics:
    torch.manual_seed(3)
    world = WorldSpec(id="t/T-v0", pixels=None, vector=4, signals=SIGNALS, actions=actions)
    config = InverseDynamics.Config(width=8, **settings)
    return InverseDynamics(config=config, world=world, latent_size=SIZE).double()


def barlow(**settings: float) -> BarlowTwins:
    return BarlowTwins(config=BarlowTwins.Config(**settings))


def infonce(**settings: float) -> InfoNCE:
    return InfoNCE(config=InfoNCE.Config(**settings))


def smoothness(**settings: float) -> Smoothness:
    return Smoothness(config=Smoothness.Config(**settings))


def straightening(**settings: float) -> Straightening:
    return Straightening(config=Straightening.Config(**settings))


def sum_of(*parts: Objective) -> ObjectiveSum:
    return ObjectiveSum(config=ObjectiveSum.Config(), parts=parts)


def _experience(mask: Tensor, actions: Tensor, over: Tensor) -> Experience:
    rows, steps = mask.shape
    experience = Experience(
        frames=None,
        vectors=torch.zeros(rows, steps, 1),
        actions=actions.float(),
        signals=torch.zeros(rows, steps, len(SIGNALS)),
        terminated=over,
        truncated=over,
        mask=mask,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )
    return experience.replace(actions=actions)


def encodings(windows: Tensor, lengths: list[int], seed: int = 0, **views: Tensor) -> Encodings:
    """Windows [B T D] of which `lengths` steps are valid, by the function that the JEPA calls."""
    rows, steps, size = windows.shape
    torch.manual_seed(seed)
    mask = torch.arange(steps)[None] < torch.tensor(lengths)[:, None]
    over = torch.zeros(rows, steps, dtype=torch.bool)
    actions = torch.nn.functional.one_hot(torch.randint(ACTIONS, (rows, steps)), ACTIONS)
    # What is done on the last step of an episode leads nowhere.
    leads = torch.arange(steps)[None] < torch.tensor(lengths)[:, None] - 1
    filling = views.get("filling", torch.tensor(0.0)).to(windows.dtype)
    actions = torch.where(leads[..., None], actions.to(windows.dtype), filling)
    experience = _experience(mask, actions, over)
    other = views.get("other", torch.randn(rows, size, dtype=windows.dtype))
    batch = Batch(
        experience, encoded_states(experience, windows), encoded_states(experience, other[:, None])
    )
    return encodings_of(batch, windows[mask], windows, mask, over)


# -- the formulas ---------------------------------------------------------------------------


def naive_barlow(given: Encodings, weight: float, redundancy_weight: float) -> Tensor:
    rows = [b for b in range(len(given.mask)) if given.mask[b, 0]]

    def standard(view: Callable[[int], Tensor], d: int) -> list[Tensor]:
        values = [view(b)[d] for b in rows]
        mean = sum(values) / len(rows)
        variance = sum((v - mean) ** 2 for v in values) / len(rows)
        return [(v - mean) / (variance + 1e-5) ** 0.5 for v in values]

    first = [standard(lambda b: given.windows[b, 0], d) for d in range(SIZE)]
    second = [standard(lambda b: given.other_view[b], d) for d in range(SIZE)]
    total: Any = 0.0
    for i in range(SIZE):
        for j in range(SIZE):
            c = sum(x * y for x, y in zip(first[i], second[j], strict=True)) / len(rows)
            total = total + ((1 - c) ** 2 if i == j else redundancy_weight * c**2)
    return weight * total


def naive_infonce(given: Encodings, weight: float, temperature: float) -> Tensor:
    rows, total = [b for b in range(len(given.mask)) if given.mask[b, 0]], 0.0
    for b in rows:
        x = given.windows[b, 0]
        powers = {}
        for k in rows:
            y = given.other_view[k]
            cosine = (x * y).sum() / (x * x).sum().sqrt() / (y * y).sum().sqrt()
            powers[k] = (cosine / temperature).exp()
        total = total - (powers[b] / sum(powers.values())).log()
    return weight * total / len(rows)


def naive_trajectories(given: Encodings, steps: int, term: Callable[[int, int], Tensor]) -> Tensor:
    """The mean of `term(row, t)` over all rows and t whose `steps` steps from t on are valid."""
    terms = [
        term(b, t)
        for b in range(len(given.mask))
        for t in range(given.mask.shape[1] - steps + 1)
        if all(given.mask[b, t : t + steps])
    ]
    return sum(terms) / len(terms)  # type: ignore[return-value]


def naive_smoothness(given: Encodings, weight: float) -> Tensor:
    z = given.windows
    return weight * naive_trajectories(
        given, 2, lambda b, t: sum((z[b, t + 1, d] - z[b, t, d]) ** 2 for d in range(SIZE)) / SIZE
    )


def naive_straightening(given: Encodings, weight: float) -> Tensor:
    def bend(b: int, t: int) -> Tensor:
        v = given.windows[b, t + 1] - given.windows[b, t]
        w = given.windows[b, t + 2] - given.windows[b, t + 1]
        return 1 - (v * w).sum() / ((v * v).sum() * (w * w).sum()).sqrt()

    return weight * naive_trajectories(given, 3, bend)


def naive_inverse_dynamics(given: Encodings, weight: float, objective: InverseDynamics) -> Tensor:
    def error(b: int, t: int) -> Tensor:
        x = torch.cat([given.windows[b, t], given.windows[b, t + 1]])
        for linear in objective.network.hidden:
            x = linear.weight @ x + linear.bias
            x = x / (1 + (-x).exp())
        x = objective.network.last.weight @ x + objective.network.last.bias
        action = given.actions[b, t]
        if objective.discrete:
            return -(x[int(action.argmax())].exp() / x.exp().sum()).log()
        return sum((x[a] - action[a]) ** 2 for a in range(ACTIONS)) / ACTIONS

    return weight * naive_trajectories(given, 2, error)


INVERSE, CONTINUOUS_INVERSE = inverse_dynamics(weight=2.0), inverse_dynamics(CONTINUOUS, weight=2.0)
CASES: dict[str, tuple[Objective, Callable[[Encodings], Tensor]]] = {
    "barlow": (
        barlow(weight=0.3, redundancy_weight=0.2),
        lambda given: naive_barlow(given, 0.3, 0.2),
    ),
    "infonce": (
        infonce(weight=0.7, temperature=0.4),
        lambda given: naive_infonce(given, 0.7, 0.4),
    ),
    "smoothness": (smoothness(weight=3.0), lambda given: naive_smoothness(given, 3.0)),
    "straightening": (straightening(weight=0.5), lambda given: naive_straightening(given, 0.5)),
    "inverse-dynamics": (INVERSE, lambda given: naive_inverse_dynamics(given, 2.0, INVERSE)),
    "inverse-dynamics, continuous": (
        CONTINUOUS_INVERSE,
        lambda given: naive_inverse_dynamics(given, 2.0, CONTINUOUS_INVERSE),
    ),
}
LENGTHS = ([4, 4, 4, 4, 4], [4, 2, 0, 3, 1])


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("kind", CASES)
def test_a_loss_and_its_gradients_are_those_of_the_formula(kind: str, lengths: list[int]) -> None:
    objective, naive = CASES[kind]
    torch.manual_seed(1)
    windows = torch.randn(ROWS, STEPS, SIZE, dtype=torch.float64, requires_grad=True)
    given = encodings(windows, lengths)
    wrt = [windows, *(objective.parameters() if isinstance(objective, nn.Module) else ())]
    ((_, loss),) = objective.penalties(given, KEY).items()
    expected = naive(given)
    torch.testing.assert_close(loss, expected)
    assert loss.item() > 1e-3
    for own, theirs in zip(
        torch.autograd.grad(loss, wrt, retain_graph=True),
        torch.autograd.grad(expected, wrt),
        strict=True,
    ):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(own, theirs)


@pytest.mark.parametrize("kind", CASES)
def test_what_lies_outside_the_mask_has_no_effect_even_if_it_is_not_finite(kind: str) -> None:
    objective, _ = CASES[kind]
    torch.manual_seed(1)
    plain = torch.randn(ROWS, STEPS, SIZE, dtype=torch.float64)
    lengths = LENGTHS[1]
    beyond = torch.arange(STEPS)[None] >= torch.tensor(lengths)[:, None]
    results = []
    for filling in (0.0, float("nan")):
        windows = torch.where(beyond[..., None], filling, plain).requires_grad_()
        other = torch.where(beyond[:, :1], filling, plain[:, 1] + 1)
        given = encodings(windows, lengths, other=other, filling=torch.tensor(filling))
        ((_, loss),) = objective.penalties(given, KEY).items()
        wrt = [windows, *(objective.parameters() if isinstance(objective, nn.Module) else ())]
        gradient, *own = torch.autograd.grad(loss, wrt)
        assert all(g.isfinite().all() for g in own)
        assert not gradient[beyond].any()
        results.append((loss, gradient))
    assert results[0][0].equal(results[1][0])
    assert results[0][1].equal(results[1][1])


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("lengths", [[0] * ROWS, [1] + [0] * (ROWS - 1)])
def test_nothing_to_compare_is_no_loss(kind: str, lengths: list[int]) -> None:
    windows = torch.randn(ROWS, STEPS, SIZE, dtype=torch.float64, requires_grad=True)
    ((_, loss),) = CASES[kind][0].penalties(encodings(windows, lengths), KEY).items()
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, windows)
    assert not gradient.any()


def test_windows_end_with_their_episode_and_a_step_that_is_not_valid() -> None:
    windows = torch.randn(4, 4, SIZE)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 2] = False
    mask[2, 0] = False
    over = torch.zeros(4, 5, dtype=torch.bool)
    over[3, 1] = True
    actions = torch.randn(4, 5, ACTIONS)
    experience = _experience(mask, actions, over)
    states = encoded_states(experience, windows)
    given = encodings_of(Batch(experience, states, states), windows[0], windows, mask, over)
    assert given.mask.sum(1).tolist() == [4, 2, 0, 2]
    assert given.mask.tolist() == [[t < n for t in range(4)] for n in (4, 2, 0, 2)]
    for b, n in enumerate((3, 1, 0, 1)):
        assert given.actions[b, :n].equal(actions[b, :n])
        assert not given.actions[b, n:].any()
    assert given.actions.shape == (4, 3, ACTIONS)


# -- properties -----------------------------------------------------------------------------


def loss_of(objective: Objective, given: Encodings) -> float:
    return sum(loss.item() for loss in objective.penalties(given, KEY).values())


def test_barlow_is_0_of_equal_views_without_redundancy_and_does_not_depend_on_scale() -> None:
    torch.manual_seed(0)
    drawn = torch.randn(64, SIZE, dtype=torch.float64)
    clean = 8 * torch.linalg.qr(drawn - drawn.mean(0))[0].unsqueeze(1)
    objective, whole = barlow(weight=1.0, redundancy_weight=1.0), [1] * 64
    assert loss_of(objective, encodings(clean, whole, other=clean[:, 0])) < 1e-6
    noisy, other = clean @ torch.randn(SIZE, SIZE, dtype=torch.float64), clean[:, 0].flip(1)
    base = loss_of(objective, encodings(noisy, whole, other=other))
    scales = torch.tensor([2.0, 30.0, 0.5], dtype=torch.float64)
    moved = encodings(noisy * scales + 5, whole, other=other * 3 - 1)
    assert base > 0.1
    assert loss_of(objective, moved) == pytest.approx(base, rel=1e-3)


@pytest.mark.parametrize("objective", [barlow(), infonce()])
def test_a_collapse_is_penalised_where_views_are_compared(objective: Objective) -> None:
    torch.manual_seed(0)
    spread = torch.randn(64, 1, SIZE, dtype=torch.float64)
    constant = spread[:1].expand(64, 1, SIZE)
    line = spread @ torch.tensor([[1.0, 1, 1]] + [[0.0, 0, 0]] * (SIZE - 1), dtype=torch.float64)
    whole = [1] * 64
    good = loss_of(objective, encodings(spread, whole, other=spread[:, 0]))
    for collapsed in (constant, line):
        assert loss_of(objective, encodings(collapsed, whole, other=collapsed[:, 0])) > 1.5 * good


@pytest.mark.parametrize("objective", [barlow(weight=1.0, redundancy_weight=0.5), infonce()])
def test_descending_a_comparison_of_views_undoes_a_collapse(objective: Objective) -> None:
    torch.manual_seed(0)
    latents = (torch.randn(64, 1) @ torch.ones(1, SIZE) + torch.randn(64, SIZE) * 0.05) * 0.1
    latents.requires_grad_(True)
    descent = torch.optim.Adam([latents], lr=0.05)
    for _ in range(200):
        descent.zero_grad()
        given = encodings(latents[:, None], [1] * 64, other=latents.detach())
        sum(objective.penalties(given, KEY).values()).backward()  # type: ignore[union-attr]
        descent.step()
    spectrum = torch.linalg.svdvals(latents.detach() - latents.detach().mean(0))
    assert spectrum[-1] > 0.4 * spectrum[0]


def test_infonce_of_equal_latents_is_the_entropy_of_a_guess_and_scale_does_not_matter() -> None:
    windows = torch.ones(8, 1, SIZE, dtype=torch.float64)
    guess = loss_of(infonce(), encodings(windows, [1] * 8, other=windows[:, 0]))
    assert guess == pytest.approx(torch.tensor(8.0).log().item())
    torch.manual_seed(0)
    windows, other = torch.randn(8, 1, SIZE).double(), torch.randn(8, SIZE).double()
    base = loss_of(infonce(), encodings(windows, [1] * 8, other=other))
    assert loss_of(infonce(), encodings(windows * 40, [1] * 8, other=other / 7)) == pytest.approx(
        base
    )
    # A window of another batch is no negative of this one.
    cut = encodings(windows, [1] * 5 + [0] * 3, other=other)
    alone = encodings(windows[:5], [1] * 5, other=other[:5])
    assert loss_of(infonce(), cut) == pytest.approx(loss_of(infonce(), alone))


def test_a_straight_path_has_no_curvature_a_reversal_2_and_a_right_angle_1() -> None:
    start, v = torch.randn(1, SIZE).double(), torch.tensor([[3.0, 0, 4]]).double()
    w = torch.tensor([[4.0, 0, -3]]).double() * 7
    for steps, expected in (((v, 2 * v, 0.1 * v), 0), ((v, -3 * v, v), 2), ((v, w, v), 1)):
        path = torch.stack([start, *(start + sum(steps[: i + 1]) for i in range(3))], 1)
        for scale in (1, 100):
            got = loss_of(straightening(), encodings(path * scale, [4]))
            assert got == pytest.approx(expected, abs=1e-9)


def test_a_still_scene_has_no_direction_and_no_gradient() -> None:
    windows = torch.randn(2, 1, SIZE).double().repeat(1, 5, 1)
    windows[1, 2:] += torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]]).double()
    windows.requires_grad_()
    (loss,) = straightening().penalties(encodings(windows, [5, 5]), KEY).values()
    assert loss.item() == pytest.approx(1)  # of the second row's last two right angles
    (gradient,) = torch.autograd.grad(loss, windows)
    assert not gradient[0].any()
    assert 0 < gradient[1].abs().max() < 10


def test_smoothness_is_0_at_rest_and_grows_with_the_square() -> None:
    rest = torch.randn(3, 1, SIZE).double().expand(3, 4, SIZE)
    assert loss_of(smoothness(), encodings(rest, [4] * 3)) == 0
    windows = torch.randn(3, 4, SIZE).double()
    base = loss_of(smoothness(), encodings(windows, [4] * 3))
    assert loss_of(smoothness(), encodings(3 * windows + 8, [4] * 3)) == pytest.approx(9 * base)


def test_latents_without_the_action_cannot_be_inverted() -> None:
    """Trained on its own: collapsed latents leave the entropy of the actions, others nothing."""
    losses = []
    for collapsed in (True, False):
        objective = inverse_dynamics()
        descent = torch.optim.Adam(objective.parameters(), lr=0.02)
        torch.manual_seed(0)
        windows = torch.randn(64, 1, SIZE).double().repeat(1, STEPS, 1)
        given = encodings(windows, [STEPS] * 64)
        if not collapsed:
            windows[:, 1:, 0] += given.actions[..., 0].cumsum(1)
            given = encodings(windows, [STEPS] * 64)
        if collapsed:
            given = given._replace(windows=torch.zeros_like(windows))
        for _ in range(150):
            descent.zero_grad()
            (loss,) = objective.penalties(given, KEY).values()
            loss.backward()
            descent.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.69, abs=0.02)
    assert losses[1] < 0.2


# -- the sum --------------------------------------------------------------------------------


def test_a_sum_is_the_penalties_of_its_parts_and_the_error_of_the_first() -> None:
    first, second = smoothness(weight=2.0), smoothness(weight=5.0)
    vicreg = VICReg(config=VICReg.Config())
    objective = sum_of(vicreg, INVERSE, first, second, sum_of(first, vicreg))
    given = encodings(torch.randn(ROWS, STEPS, SIZE).double(), LENGTHS[1])
    got = objective.penalties(given, KEY)
    expected = {
        **vicreg.penalties(given, KEY),
        **INVERSE.penalties(given, KEY),
        **first.penalties(given, KEY),
        "smoothness 2": second.penalties(given, KEY)["smoothness"],
        "smoothness 3": first.penalties(given, KEY)["smoothness"],
        **{f"{name} 2": loss for name, loss in vicreg.penalties(given, KEY).items()},
    }
    assert list(got) == list(expected)
    torch.testing.assert_close(got, expected)
    measured = torch.randn(4, 2, SIZE), torch.randn(4, SIZE), torch.ones(SIZE)
    for one, other in ((vicreg, CosineCentered()), (CosineCentered(), vicreg)):
        assert sum_of(one, other).error(*measured).equal(one.error(*measured))
    assert not vicreg.error(*measured).equal(CosineCentered().error(*measured))


def test_a_sum_needs_what_its_parts_need_and_holds_their_weights() -> None:
    plain = sum_of(Unregularised(), VICReg(config=VICReg.Config()))
    assert (plain.online_steps, plain.compares_views) == (1, False)
    assert not list(plain.parameters())
    mixed = sum_of(smoothness(), straightening(), infonce(), INVERSE)
    assert isinstance(mixed, Objective)
    assert (mixed.online_steps, mixed.compares_views) == (3, True)
    names = {f"networks.3.{name}": value for name, value in INVERSE.state_dict().items()}
    assert mixed.state_dict().keys() == names.keys()
    assert {id(p) for p in mixed.parameters()} == {id(p) for p in INVERSE.parameters()}
    # Averages are copies: a copy computes with the weights that it registers.
    copied = copy.deepcopy(mixed)
    assert copied.parts[3] is copied.networks["3"]
    assert copied.parts[3] is not INVERSE
