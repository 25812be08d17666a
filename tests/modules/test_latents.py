"""Latent variables of world models: draws, priors, inference, learning (LeCun 2022, §4.4)."""

import math

import pytest
import torch
from torch import distributions

from branching_step import (
    BRANCHES,
    PLACES,
    RATES,
    SIZE,
    WORLD,
    batch_of,
    fit,
    jepa,
    state_of,
    steps_of,
)
from modules import chance
from modules.messages import ConfigError
from modules.ports import LatentVariableModel
from modules.world_model.latents.categorical import CategoricalLatent
from modules.world_model.latents.continuous import GaussianLatent, SparseLatent

KEY = torch.tensor([7])
D = SIZE
INPUTS = D + 3


def latent_jepa(kind, seed=0, **settings):
    torch.manual_seed(seed)
    return jepa(kind, settings)


def drawn(rows, luck, fork=None):
    """States, actions, next states and branches of random steps."""
    steps = steps_of(rows, luck, fork)
    return steps.state, steps.action, steps.after, steps.branch


def windows(rows, seed=0):
    """A batch of random steps, the states themselves as latents."""
    steps = steps_of(rows, torch.Generator().manual_seed(seed))
    return batch_of(steps, torch.stack([steps.state, steps.after], 1))


def trained(model, updates, seed=0):
    fit(model, updates, seed)
    return model


@torch.no_grad()
def branches_drawn(model, samples=2000):
    """The rates [3] at which drawn futures end at each branch, and the share on no branch: farther
    than a quarter of the distance between two from all.
    """
    luck = torch.Generator().manual_seed(1)
    latent, action, _, _ = drawn(samples, luck, fork=True)
    state, uniform = state_of(latent), torch.rand(samples, model.latent.luck, generator=luck)
    z = model.sample_latent(state, action, uniform, torch.ones(samples))
    distance = torch.cdist(model.step(state, action, z).latent[:, PLACES : PLACES + 2], BRANCHES)
    rates = torch.bincount(distance.argmin(1), minlength=3) / samples
    return rates, float((distance.amin(1) > 0.25).float().mean())


def variable(kind, **settings):
    """A latent variable whose prior has random weights."""
    torch.manual_seed(0)
    made = kind(config=kind.Config(**settings), world=WORLD, latent_size=D, token_shape=(0, 0))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def stratified(rows, size):
    return ((torch.arange(rows) + 0.5) / rows)[:, None].expand(-1, size)


@pytest.mark.parametrize("kind", [CategoricalLatent, GaussianLatent, SparseLatent])
def test_a_model_with_z_is_a_latent_variable_model(kind):
    model = latent_jepa(kind)
    assert isinstance(model, LatentVariableModel)
    latent, action, after, _ = drawn(5, torch.Generator().manual_seed(0))
    state = state_of(latent)
    luck = torch.rand(5, model.latent.luck)
    z = model.sample_latent(state, action, luck, torch.ones(5))
    inferred, energy = model.infer_latent(state, action, state_of(after))
    assert z.shape == inferred.shape == (5, model.latent.size)
    assert (energy >= 0).all()
    assert model.log_prior(state, action, z).shape == (5,)


@pytest.mark.parametrize("kind", [CategoricalLatent, GaussianLatent, SparseLatent])
def test_a_draw_is_a_function_of_luck_and_temperature_0_is_the_most_likely(kind):
    z = variable(kind)
    inputs = torch.randn(1, INPUTS).expand(400, -1)
    luck = torch.rand(400, z.spec.luck)
    first = z.sample(inputs, None, luck, torch.ones(400))
    assert first.equal(z.sample(inputs, None, luck, torch.ones(400)))
    assert len(first.unique(dim=0)) > 1
    coldest = z.sample(inputs, None, luck, torch.zeros(400))
    assert len(coldest.unique(dim=0)) == 1
    most = z.log_prior(inputs[:1], None, coldest[:1])
    if kind is CategoricalLatent:
        assert (z.log_prior(inputs, None, first) <= most + 1e-6).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_codes_are_drawn_by_the_gibbs_distribution(temperature):
    z = variable(CategoricalLatent, codes=5, min_prob=0)
    inputs = torch.randn(1, INPUTS)
    codes = torch.eye(5)
    energies = -torch.stack([z.log_prior(inputs, None, code[None]) for code in codes])[:, 0]
    expected = torch.softmax(-energies / temperature, 0)
    rows = 20_000
    each = z.sample(
        inputs.expand(rows, -1), None, stratified(rows, 1), torch.full((rows,), temperature)
    )
    torch.testing.assert_close(each.mean(0), expected, atol=1e-3, rtol=0)


def test_rare_codes_are_not_drawn():
    z = variable(CategoricalLatent, codes=4, min_prob=0.05)
    with torch.no_grad():
        z.prior.last.weight.zero_()
        z.prior.last.bias.copy_(torch.tensor([0.6, 0.3, 0.08, 0.02]).log())
    rows = 2000
    each = z.sample(torch.zeros(rows, INPUTS), None, stratified(rows, 1), torch.ones(rows))
    torch.testing.assert_close(
        each.mean(0), torch.tensor([0.6, 0.3, 0.08, 0.0]) / 0.98, atol=1e-3, rtol=0
    )


def test_a_prior_of_equal_codes_below_the_threshold_still_draws():
    z = variable(CategoricalLatent, codes=64, min_prob=0.1)
    torch.nn.init.zeros_(z.prior.last.weight)
    torch.nn.init.zeros_(z.prior.last.bias)
    each = z.sample(torch.zeros(640, INPUTS), None, stratified(640, 1), torch.ones(640))
    assert each.sum(0).eq(10).all()


def test_probabilities_of_all_joint_codes_sum_to_1():
    z = variable(CategoricalLatent, variables=3, codes=4)
    every = z.all_codes()
    assert every.shape == (64, 12)
    inputs = torch.randn(1, INPUTS).expand(64, -1)
    total = z.log_prior(inputs, None, every).exp().sum()
    torch.testing.assert_close(total, torch.ones(()))
    assert variable(CategoricalLatent, variables=5, codes=4).all_codes() is None


@pytest.mark.parametrize("settings", [{"codes": 6}, {"variables": 3, "codes": 3}])
def test_the_prior_learns_by_the_gradient_of_the_free_energy(settings):
    """-log Σ_c p(c) exp(-e(c) / 2σ²), written out; its gradient in p is that of `latent`."""
    z = variable(CategoricalLatent, **settings)
    inputs, every = torch.randn(7, INPUTS), z.all_codes()
    errors = torch.rand(7, len(every)) * 0.1

    def error(codes, row):
        place = (codes.unsqueeze(1) == every).all(-1).float().argmax(1)
        return errors[row, place]

    explained = z.explain(inputs, None, torch.zeros(7, D), error, KEY)
    written = torch.autograd.grad(explained.terms["latent"].sum(), list(z.prior.parameters()))
    log_p = torch.stack([z.log_prior(inputs, None, code.expand(7, -1)) for code in every], 1)
    energy = -torch.logsumexp(log_p - errors / (2 * 0.3**2), 1)
    naive = torch.autograd.grad(energy.sum(), list(z.prior.parameters()))
    for one, other in zip(written, naive, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    log_q, log_prior = z.posterior(inputs, None, error)
    torch.testing.assert_close(log_prior, log_p)
    expected = torch.softmax(log_p - errors / (2 * 0.3**2), 1)
    torch.testing.assert_close(log_q.exp(), expected)


def test_one_variable_after_the_other_finds_what_trying_all_finds():
    """Where each variable's error is its own."""
    few, many = (variable(CategoricalLatent, variables=n, codes=4) for n in (3, 5))
    for z in (few, many):
        wanted = torch.randint(4, (6, z.variables))
        target = torch.nn.functional.one_hot(wanted, 4).flatten(1).float()
        found = z.infer(
            torch.randn(6, INPUTS),
            None,
            torch.zeros(6, D),
            lambda codes, row, target=target: (codes - target[row]).square().sum(-1),
        )
        assert found.equal(target)


def test_the_density_is_that_of_a_mixture():
    z = variable(GaussianLatent, size=2, components=3)
    inputs, numbers = torch.randn(5, INPUTS), torch.randn(5, 2)
    log_weights, means, stds = z.prior(inputs, None)
    mixture = distributions.MixtureSameFamily(
        distributions.Categorical(logits=log_weights),
        distributions.Independent(distributions.Normal(means, stds), 1),
    )
    torch.testing.assert_close(z.log_prior(inputs, None, numbers), mixture.log_prob(numbers))
    rows = 20_000
    luck = torch.rand(rows, 3, generator=torch.Generator().manual_seed(0))
    samples = z.sample(inputs[:1].expand(rows, -1), None, luck, torch.ones(rows))
    torch.testing.assert_close(samples.mean(0), mixture.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(samples.var(0), mixture.variance[0], atol=0.05, rtol=0.05)


def test_what_a_gaussian_z_says_is_charged_by_its_divergence_from_the_prior():
    z = variable(GaussianLatent, size=2, components=1, weight=1.0)
    inputs, outcome = torch.randn(1, INPUTS), torch.randn(1, D)
    many = 20_000
    terms = (
        z.explain(
            inputs.expand(many, -1), None, outcome.expand(many, -1), lambda z, row: z.sum(-1), KEY
        )
        .terms["latent"]
        .detach()
    )
    _, means, stds = z.prior(inputs, None)
    posterior = distributions.Normal(z._encode(inputs, None, outcome)[0], z.config.noise)
    prior = distributions.Normal(means[0, 0], stds[0, 0])
    exact = distributions.kl_divergence(posterior, prior).sum()
    torch.testing.assert_close(terms.mean(), exact.detach(), rtol=0.05, atol=0)


def test_inference_refines_what_the_encoder_says():
    wanted = torch.tensor([[0.7, -0.4]])
    errors = {}
    for steps in (0, 20):
        z = variable(GaussianLatent, size=2, refine_steps=steps)
        found = z.infer(
            torch.randn(4, INPUTS, generator=torch.Generator().manual_seed(0)),
            None,
            torch.zeros(4, D),
            lambda z, row: (z - wanted).square().sum(-1),
        )
        errors[steps] = (found - wanted).square().sum(-1)
    assert (errors[20] <= errors[0]).all()
    assert float(errors[20].mean()) < 0.3 * float(errors[0].mean())


def test_sparse_numbers_cannot_escape_by_a_small_scale():
    z = variable(SparseLatent)
    inputs = torch.zeros(64, INPUTS)
    mean = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    def total(scale):
        terms = z._terms(inputs, None, scale * mean, scale * mean)
        return float(terms["latent"].mean() + terms["latent spread"].mean())

    assert total(1.0) < total(0.05)
    z.config = z.config.model_copy(update={"spread_weight": 0.0})
    assert total(0.05) < total(1.0)


def test_learning_sends_no_gradient_of_z_into_the_latents():
    model = latent_jepa(CategoricalLatent)
    latent, action, after, _ = drawn(32, torch.Generator().manual_seed(0))
    latent.requires_grad_(True)
    hidden = torch.zeros(32, 0)
    features = model._learn_step(latent, action, None, hidden, after, KEY, 0)
    (gradient,) = torch.autograd.grad(features.terms["latent"].sum(), latent, allow_unused=True)
    assert gradient is None or not gradient.any()


def test_the_posterior_is_of_codes():
    model = latent_jepa(GaussianLatent)
    latent, action, after, _ = drawn(3, torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="posterior: expected a categorical z, got gaussian"):
        model.posterior(state_of(latent), action, state_of(after))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (CategoricalLatent, {"codes": 1}),
        (CategoricalLatent, {"variables": 0}),
        (CategoricalLatent, {"noise": 0}),
        (GaussianLatent, {"size": 0}),
        (GaussianLatent, {"noise": math.nan}),
        (SparseLatent, {"weight": -1}),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings):
    with pytest.raises(ValueError, match="1 validation error"):
        kind.Config(**settings)


# -- learning -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [CategoricalLatent, GaussianLatent, SparseLatent])
def test_futures_are_drawn_at_their_rates(kind):
    model = trained(latent_jepa(kind), 1000)
    rates, on_none = branches_drawn(model)
    assert (rates - RATES).abs().max() <= 0.05
    assert on_none <= 0.1
    latent, action, after, branch = drawn(1000, torch.Generator().manual_seed(2), fork=True)
    with torch.no_grad():
        z, _ = model.infer_latent(state_of(latent), action, state_of(after))
        reached = model.step(state_of(latent), action, z).latent[:, PLACES : PLACES + 2]
    assert float((torch.cdist(reached, BRANCHES).argmin(1) == branch).float().mean()) >= 0.99


@pytest.mark.slow
def test_a_plain_gaussian_prior_draws_futures_that_never_happen():
    model = trained(latent_jepa(GaussianLatent, components=1), 1000)
    assert branches_drawn(model)[1] > 0.15


@pytest.mark.slow
def test_z_says_nothing_where_the_next_state_is_certain():
    """Criterion 4 of §4.5, in nats: the entropy of the branch is 1.03."""
    model = trained(latent_jepa(CategoricalLatent, anneal_updates=500), 1000)
    said = {}
    for fork in (True, False):
        latent, action, after, _ = drawn(1000, torch.Generator().manual_seed(2), fork)
        with torch.no_grad():
            log_q, log_p = model.posterior(state_of(latent), action, state_of(after))
        said[fork] = float((log_q.exp() * (log_q - log_p)).sum(-1).mean())
    assert said[True] == pytest.approx(1.03, abs=0.08)
    assert said[False] <= 0.05


@pytest.mark.slow
def test_without_z_the_average_is_predicted_that_never_happens():
    """With a single code: .436 of the distance of two branches, as the rates give."""
    model = latent_jepa(CategoricalLatent, codes=2)
    model._condition = lambda action, z: torch.cat([action, 0 * z], -1)
    trained(model, 1000)
    latent, action, _, _ = drawn(1000, torch.Generator().manual_seed(2), fork=True)
    with torch.no_grad():
        place = model.step(state_of(latent), action).latent[:, PLACES : PLACES + 2]
    nearest = torch.cdist(place, BRANCHES).amin(1).mean()
    assert float(nearest) >= 0.9 * float((RATES @ BRANCHES - BRANCHES).norm(dim=1).min())


def test_the_schedule_of_the_noise_falls_and_begins_again():
    z = variable(CategoricalLatent, noise_start=0.4, noise=0.1, anneal_updates=2)
    values = []
    for _ in range(4):
        values.append(z._sigma())
        z.on_update()
    assert values == pytest.approx([0.4, 0.2, 0.1, 0.1])
    z.on_reset()
    assert z._sigma() == pytest.approx(0.4)


def test_the_surprise_is_that_of_the_best_z():
    """One branch instead of the more likely one is no surprise; what no z explains is one."""
    model = latent_jepa(CategoricalLatent)
    with torch.no_grad():
        torch.nn.init.normal_(model.change.weight)
    latent, action, _, _ = drawn(4, torch.Generator().manual_seed(0))
    start = state_of(latent)
    with torch.no_grad():
        expected = model.step(start, action)
        expected = expected.replace(hidden=torch.cat([latent, action], -1))
        other = torch.eye(8)[torch.full((4,), 5)]
        branch = model.step(start, action, other)
        surprise = model.surprise(expected, branch)
        distance = branch.distance(expected)
    assert (surprise <= 1e-6).all()
    assert (distance > 1e-3).any()
    elsewhere = branch.replace(latent=branch.latent + 30.0)
    assert (model.surprise(expected, elsewhere) > 0.1).all()


def test_losses_are_repeated_by_the_key():
    model = latent_jepa(GaussianLatent)
    batch = windows(16)
    first, _ = latent_jepa(GaussianLatent).losses(batch, chance.keys(0, 1, 3))
    again, _ = latent_jepa(GaussianLatent).losses(batch, chance.keys(0, 1, 3))
    assert model.latent.kind == "gaussian"
    for name, value in first.items():
        assert value.equal(again[name])
