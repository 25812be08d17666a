"""A world model whose z is the action: it learns from frames alone and from few actions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.measures.codes import (
    code_information,
    conditional_share,
    information_share,
    perplexity,
)
from modules.messages import SIGNALS, ActionSpec, Experience, State, WorldSpec
from modules.objectives.none import Unregularised
from modules.ports import Batch, LatentVariableModel, encoded_states
from modules.world_model.latent_action_jepa import LatentActionJEPA
from modules.world_model.latents.categorical import CategoricalLatent
from modules.world_model.latents.continuous import GaussianLatent

MOVES = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
"""What the four actions do to a place; two further numbers of a state are noise."""

DISCRETE = ActionSpec(discrete=True, size=4)
CONTINUOUS = ActionSpec(discrete=False, size=2, low=(-1.0, -1.0), high=(1.0, 1.0))


def world(actions: ActionSpec) -> WorldSpec:
    return WorldSpec(id="test/Plane", pixels=None, vector=4, signals=SIGNALS, actions=actions)


def model(actions: ActionSpec = DISCRETE, **settings: float) -> LatentActionJEPA:
    torch.manual_seed(0)
    spec = world(actions)
    facts = {"world": spec, "latent_size": 4, "token_shape": (1, 1)}
    latent = (
        CategoricalLatent(config=CategoricalLatent.Config(codes=4, anneal_updates=150), **facts)
        if actions.discrete
        else GaussianLatent(config=GaussianLatent.Config(size=2, noise=0.2), **facts)
    )
    config = LatentActionJEPA.Config(width=48, blocks=1, unroll_steps=2, **settings)
    return LatentActionJEPA(config=config, objective=Unregularised(), latent=latent, **facts)


def steps(rows: int, key: int, actions: ActionSpec = DISCRETE) -> tuple[Experience, Tensor, Tensor]:
    """Windows of three steps, their latents [B 3 4], and what was done, [B 3] or [B 3 2]."""
    draw = torch.Generator().manual_seed(key)
    if actions.discrete:
        done = torch.randint(4, (rows, 3), generator=draw)
        moves, encoded = MOVES[done], actions.encode(done)
    else:
        done = encoded = moves = torch.rand(rows, 3, 2, generator=draw) * 2 - 1
    place = torch.randn(rows, 1, 2, generator=draw)
    path = torch.cat([place, place + moves[:, :2].cumsum(1)], 1)
    noise = 0.05 * torch.randn(rows, 3, 2, generator=draw)
    none = torch.zeros(rows, 3, dtype=torch.bool)
    latents = torch.cat([path, noise], -1)
    return (
        Experience(
            frames=None, vectors=latents, actions=encoded,
            signals=torch.zeros(rows, 3, len(SIGNALS)), terminated=none, truncated=none.clone(),
            mask=~none, importance_weights=torch.ones(rows), indices=torch.arange(rows),
        ),
        latents,
        done,
    )  # fmt: skip


def taught(one: LatentActionJEPA, updates: int, known: float) -> LatentActionJEPA:
    """Trained on fresh windows; in a share `known` of them the actions are known."""
    descent = torch.optim.AdamW(one.parameters(), lr=4e-3)
    actions = DISCRETE if one.discrete else CONTINUOUS
    for update in range(updates):
        experience, latents, _ = steps(96, update, actions)
        mask = (torch.arange(96) < 96 * known)[:, None].expand(96, 3)
        experience = experience.replace(
            action_mask=mask.contiguous(), actions=experience.actions * mask.unsqueeze(-1)
        )
        states = encoded_states(experience, latents)
        losses, _ = one.losses(Batch(experience, states, states), torch.tensor([update]))
        descent.zero_grad()
        torch.stack([loss for name, loss in losses.items() if name != "signals"]).sum().backward()
        descent.step()
        one.on_update()
    return one


def state(latent: Tensor) -> State:
    rows = len(latent)
    return State(
        latent=latent, hidden=torch.zeros(rows, 1), signals=torch.zeros(rows, len(SIGNALS)),
        ended=torch.zeros(rows), uncertainty=torch.zeros(rows),
    )  # fmt: skip


@pytest.mark.slow
def test_codes_are_the_actions_and_a_few_labels_name_them() -> None:
    watched = taught(model(), 400, known=0.06)
    experience, latents, done = steps(2000, 10_000)
    z, _ = watched.infer_latent(
        state(latents[:, 0]), torch.zeros(2000, 4), state(latents[:, 1])
    )  # frames alone: no action is given
    codes, labels = z.argmax(-1).numpy(), done[:, 0].numpy()
    assert information_share(codes, labels) > 0.9
    noise = (latents[:, 1, 2] > 0).long().numpy()
    assert abs(information_share(codes, noise)) < 0.02
    after = watched.step(state(latents[:, 0]), experience.actions[:, 0])
    error = (after.latent - latents[:, 1])[:, :2].square().mean()
    assert error < 0.1  # .5 without the right code
    # Without labels the codes are as good, but the adapter cannot know which action is which.
    blind = taught(model(), 400, known=0.0)
    z, _ = blind.infer_latent(state(latents[:, 0]), torch.zeros(2000, 4), state(latents[:, 1]))
    assert information_share(z.argmax(-1).numpy(), labels) > 0.9
    after = blind.step(state(latents[:, 0]), experience.actions[:, 0])
    assert (after.latent - latents[:, 1])[:, :2].square().mean() > 0.3


@pytest.mark.slow
def test_continuous_actions_are_adapted_to_too() -> None:
    watched = taught(model(CONTINUOUS), 400, known=0.06)
    experience, latents, _ = steps(1000, 10_000, CONTINUOUS)
    after = watched.step(state(latents[:, 0]), experience.actions[:, 0])
    error = (after.latent - latents[:, 1])[:, :2].square().mean()
    assert error < 0.12  # the variance of a move is .33


def test_the_predictor_reads_z_and_the_prior_the_action() -> None:
    one = model()
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert isinstance(one, LatentVariableModel)
    here, actions = state(torch.randn(4, 4)), torch.eye(4)
    z = torch.eye(4)[[1, 1, 1, 1]]
    same = state(here.latent[:1].expand(4, 4))
    under = one.step(same, actions, z)
    assert under.latent[1:].allclose(under.latent[:1].expand(3, 4))
    assert not one.step(same, actions, torch.eye(4)).latent[0].allclose(under.latent[0])
    priors = one.log_prior(same, actions, z)
    assert len(set(priors.tolist())) == 4


def test_every_step_is_predicted_where_no_action_is_known() -> None:
    one = model()
    experience, latents, _ = steps(8, 0)
    hidden = experience.replace(action_mask=torch.zeros(8, 3, dtype=torch.bool))
    states = encoded_states(hidden, latents)
    losses, _ = one.losses(Batch(hidden, states, states), torch.tensor([1]))
    assert losses["prediction"] > 0
    assert losses["latent"] > 0


@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS])
def test_known_actions_count_as_often_as_is_set(actions) -> None:
    experience, latents, _ = steps(8, 0, actions)
    states = encoded_states(experience, latents)
    every = torch.ones(8, 3, dtype=torch.bool)

    def of(weight: float, known: Tensor) -> float:
        seen = experience.actions * known.unsqueeze(-1)
        batch = Batch(experience.replace(action_mask=known, actions=seen), states, states)
        one = model(actions, known_action_weight=weight)
        torch.manual_seed(3)
        return one.losses(batch, torch.tensor([1]))[0]["latent"].item()

    assert of(3.0, every) == pytest.approx(3 * of(1.0, every), rel=1e-5)
    assert of(3.0, ~every) == pytest.approx(of(1.0, ~every), rel=1e-5)


# -- measures -----------------------------------------------------------------------------------


def test_information_of_codes() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000)
    assert information_share(labels, labels) == pytest.approx(1)
    assert information_share((labels + 2) % 4, labels) == pytest.approx(1)
    assert abs(code_information(rng.integers(0, 8, 4000), labels)) < 0.005
    # Two of four labels share a code: half of the entropy is told.
    assert code_information(labels // 2, labels) == pytest.approx(math.log(2), abs=0.01)
    # To one who knows the state, a code may say what it says by itself of no label.
    state = rng.integers(0, 4, 4000)
    code = (labels + state) % 4
    assert abs(information_share(code, labels)) < 0.01
    assert conditional_share(code, labels, state) == pytest.approx(1)
    assert abs(conditional_share(rng.integers(0, 4, 4000), labels, state)) < 0.01
    assert conditional_share(labels // 2, labels, state) == pytest.approx(0.5, abs=0.01)
    assert perplexity(labels, 16) == pytest.approx(4, rel=0.01)
    assert perplexity(np.zeros(10, np.int64), 16) == pytest.approx(1)
