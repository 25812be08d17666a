"""The hierarchical JEPA: its levels learn what k steps do, and imagination steps through them."""

import pytest
import torch

from modules import chance
from modules.messages import ActionSpec, ConfigError, Experience, State, WorldSpec
from modules.objectives.vicreg import VICReg
from modules.ports import Batch, encoded_states
from modules.world_model.hierarchical import HierarchicalJEPA
from modules.world_model.level import Bounds

K, D, ROWS = 4, 3, 64
WORLD = WorldSpec(
    id="line",
    pixels=None,
    vector=D,
    signals=("reward", "life_lost", "lives", "end", "effort", "novelty"),
    actions=ActionSpec(discrete=False, size=2, low=(-1, -1), high=(1, 1)),
)


def model(**settings) -> HierarchicalJEPA:
    small = {
        "pool_steps": K, "coarse_width": 64, "width": 16, "unroll_steps": 1, "coarse_size": 4,
        "ensemble_size": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    return HierarchicalJEPA(
        config=HierarchicalJEPA.Config(**{**small, **settings}),
        world=WORLD,
        latent_size=D,
        token_shape=(1, 2),
        objective=VICReg(config=VICReg.Config()),
    )


def experience(steps: int, seed: int = 0, rows: int = ROWS) -> tuple[Experience, torch.Tensor]:
    """A point in the plane, moved by actions that are held for 4 steps, and its latents [B W D]."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.rand(rows, steps // K + 1, 2, generator=generator) * 2 - 1
    actions = held.repeat_interleave(K, 1)[:, :steps]
    start = torch.rand(rows, 1, 2, generator=generator) * 8 - 4
    moved = torch.cat([torch.zeros(rows, 1, 2), actions[:, :-1].cumsum(1)], 1)
    place = start + 0.3 * moved
    latents = torch.cat([place, place[..., :1] + place[..., 1:]], -1)
    zeros = torch.zeros(rows, steps, dtype=torch.bool)
    return Experience(
        frames=None, vectors=latents, actions=actions, signals=torch.zeros(rows, steps, 6),
        terminated=zeros, truncated=zeros, mask=~zeros, importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    ), latents  # fmt: skip


def batch(steps: int, seed: int = 0, **changes) -> Batch:
    lived, latents = experience(steps, seed)
    lived = lived.replace(**changes)
    states = encoded_states(lived, latents)
    return Batch(lived, states[:2], states)


def trained(whole: HierarchicalJEPA, updates: int = 250) -> HierarchicalJEPA:
    optimiser = torch.optim.AdamW(whole.parameters(), lr=3e-3)
    for update in range(updates):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - update / updates)
        losses, _ = whole.losses(batch(whole.window_steps(), update), chance.keys(0, 1, update))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    return whole


def state(latent: torch.Tensor, levels: torch.Tensor) -> State:
    zeros = torch.zeros(len(latent))
    return State(
        latent=latent, hidden=torch.zeros(len(latent), 2), signals=torch.zeros(len(latent), 6),
        ended=zeros, uncertainty=zeros, levels=levels,
    )  # fmt: skip


@pytest.fixture(scope="module")
def learned() -> HierarchicalJEPA:
    return trained(model(macro_size=2))


def test_a_level_predicts_where_macro_actions_lead(learned):
    lived, latents = experience(3 * K + 1, seed=99_000)
    level = learned.levels[0]
    with torch.no_grad():
        now = state(latents[:, 0], level.encode(latents[:, 0]).unsqueeze(1))
        for macro in range(3):
            actions = lived.actions[:, macro * K : (macro + 1) * K]
            now = learned.coarser.step(now, level.macro_action(actions))
            end = latents[:, (macro + 1) * K]
            error = (now.latent - end).square().sum(-1).mean()
            still = (latents[:, 0] - end).square().sum(-1).mean()
            assert error < 0.1 * still


def test_without_the_anti_collapse_terms_the_coarse_latents_are_correlated(learned):
    """Three numbers of which one is a sum of the others, in four coarser ones."""
    without = trained(model(macro_size=2, coarse_std_coeff=0, coarse_cov_coeff=0))
    _, latents = experience(1, seed=99_001)
    spreads = []
    for one in (learned, without):
        with torch.no_grad():
            coarse = one.levels[0].encode(latents[:, 0])
        spreads.append(float(torch.linalg.eigvalsh(coarse.T.cov())[-2]))
    assert spreads[0] > 0.3
    assert spreads[1] < 0.5 * spreads[0]


def test_macro_actions_are_bounded_by_the_percentiles_of_experience(learned):
    lived, _ = experience(K, seed=99_002, rows=2000)
    macros = learned.levels[0].macro_action(lived.actions).detach()
    outside = (macros.abs() > 1).float().mean(0) / 2
    assert bool((outside < 0.03).all())
    assert bool((macros.abs().amax(0) > 0.9).all())


def test_bounds_follow_the_share_and_map_it_to_1():
    bounds = Bounds(1, share=0.1)
    values = torch.linspace(0, 10, 1001).unsqueeze(1)
    bounds.update(values)
    assert float(bounds.low) == pytest.approx(1, abs=0.02)
    assert bounds.scaled(torch.tensor([[1.0], [5.0], [9.0]])).flatten().tolist() == (
        pytest.approx([-1, 0, 1], abs=0.01)
    )
    bounds.update(values + 100)
    assert float(bounds.low) == pytest.approx(51, abs=0.1)  # the mean of two batches


def test_levels_learn_from_below_and_send_no_gradient_there():
    whole = model()
    lived, latents = experience(whole.window_steps())
    latents.requires_grad_()
    states = encoded_states(lived, latents)
    losses, _ = whole.losses(Batch(lived, states[:2], states), chance.keys(0, 1, 0))
    above = {name for name in losses if name.startswith("level 2")}
    assert {"level 2 prediction", "level 2 variance", "level 2 read-out"} <= above
    sum(losses[name] for name in above).backward()
    assert latents.grad is None
    assert all(p.grad is not None for p in whole.levels[0].macro.parameters())
    # The read-out estimates the coarser latents and does not shape them.
    whole.zero_grad()
    losses, _ = whole.losses(Batch(lived, states[:2], states), chance.keys(0, 1, 0))
    losses["level 2 read-out"].backward()
    assert all(p.grad is None for p in whole.levels[0].encoder.parameters())


def test_the_steps_where_macro_actions_begin_are_encoded():
    whole, (lived, _) = model(), experience(3 * K + 1)
    assert whole.window_steps() == 3 * K + 1
    read = whole.target_mask(lived, 2)
    assert read[:, ::K].all()
    assert not read[:, 3].any()


def test_a_step_that_the_end_cuts_short_ends_there():
    whole, (lived, _) = model(), experience(3 * K + 1)
    over = torch.zeros_like(lived.mask)
    over[0, 6] = True
    mask = lived.mask.clone()
    mask[0, 7:] = False
    mask[1, 6:] = False  # a window that is shorter, without an end
    lived = lived.replace(terminated=over, mask=mask)
    place, counts = whole.levels[0].places(lived)
    assert place[0].tolist() == [0, 4, 6, 6]
    assert counts[:3].tolist() == [[True] * 3 + [False], [True] * 2 + [False] * 2, [True] * 4]
    pooled = whole.levels[0]._pooled(lived, place, counts)
    assert pooled.terminated[0].tolist() == [False, False, True, False]
    # No action counts that was not taken in the episode.
    other = lived.replace(actions=lived.actions.where(mask.unsqueeze(-1), 0.7))
    same = whole.levels[0]._pooled(other, place, counts)
    assert torch.equal(same.actions[0, :2], pooled.actions[0, :2])


def test_signals_are_pooled_to_their_mean():
    whole, (lived, _) = model(), experience(3 * K + 1)
    signals = torch.arange(3 * K + 1.0).repeat(ROWS, 1).unsqueeze(-1).repeat(1, 1, 6)
    place, counts = whole.levels[0].places(lived)
    pooled = whole.levels[0]._pooled(lived.replace(signals=signals), place, counts)
    assert pooled.signals[0, :, 0].tolist() == pytest.approx([0, 2.5, 6.5, 10.5])


def test_numbers_behind_an_end_change_nothing():
    results = []
    for filler in (0.0, float("nan")):
        whole, (lived, latents) = model(), experience(3 * K + 1)
        mask = lived.mask.clone()
        mask[::2, 6:] = False
        signals = lived.signals.masked_fill(~mask.unsqueeze(-1), filler)
        fields = {**lived.__dict__, "mask": mask, "signals": signals}
        fields["actions"] = lived.actions.masked_fill(~mask.unsqueeze(-1), filler)
        lived = Experience.unchecked(**fields)
        # Perception leaves the latents of steps that do not count at 0.
        states = encoded_states(lived, latents.masked_fill(~mask.unsqueeze(-1), 0.0))
        losses, _ = whole.losses(Batch(lived, states[:2], states), chance.keys(0, 1, 0))
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        gradients = [p.grad.sum() for p in whole.parameters() if p.grad is not None]
        results.append((float(total.detach()), float(torch.stack(gradients).sum())))
    assert results[0] == results[1]


def test_two_levels_pool_the_square_of_the_steps():
    whole = model(levels=2, coarse_unroll=2)
    assert whole.window_steps() == 2 * K**2 + 1
    lived = batch(whole.window_steps())
    losses, _ = whole.losses(lived, chance.keys(0, 1, 0))
    assert {"level 2 prediction", "level 3 prediction"} <= losses.keys()
    latents = torch.randn(5, D)
    assert whole.encoded_levels(latents).shape == (5, 2, 4)
    first, second = whole.coarser, whole.coarser.coarser
    assert second.coarser is None
    assert [one.pool_steps for one in (first, second)] == [K, K]
    above = state(latents, whole.encoded_levels(latents)[:, 1:])
    after = second.step(above, torch.zeros(5, 3))
    assert (after.latent.shape, after.levels.shape) == ((5, D), (5, 1, 4))
    assert not bool(second.steps_to(above, latents).any())


def test_more_steps_than_experience_has_are_refused():
    with pytest.raises(ConfigError, match=r"pool_steps: expected levels that read at most 1000"):
        model(levels=3, pool_steps=10)
