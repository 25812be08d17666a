"""The cost inferred from an expert: identities of its head, and what it learns."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from modules.cost.cost import Cost
from modules.cost.critic import ActionCritic, ScalarCritic
from modules.cost.drives import IntrinsicCost, ScoreDrive
from modules.cost.inferred import EXPERT, InferredCost
from modules.messages import SIGNALS, ActionSpec, Experience, State, WorldSpec
from modules.ports import Batch, encoded_states
from modules.ports import Cost as Port

LATENT = 3
WORLD = WorldSpec(
    id="test/World-v0", pixels=None, vector=3, signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=4),
)  # fmt: skip
KEY = torch.tensor([5])


def make(critic_kind=ScalarCritic) -> tuple[InferredCost, Cost]:
    """The cost, and a plain one with the same critic."""
    torch.manual_seed(0)
    critic = critic_kind(
        config=critic_kind.Config(ensemble_size=1), world=WORLD, latent_size=LATENT,
        heads=("score",), discount=0.9,
    )  # fmt: skip
    for member in critic.members:
        torch.nn.init.normal_(member.last.weight)
    facts = {"intrinsic_cost": IntrinsicCost({"score": ScoreDrive()}, SIGNALS), "critic": critic,
             "world": WORLD}  # fmt: skip
    settings = InferredCost.Config(drives=("score",))
    return InferredCost(config=settings, latent_size=LATENT, **facts), Cost(
        config=Cost.Config(drives=("score",)), **facts
    )


def state(latent: torch.Tensor) -> State:
    rows = len(latent)
    return State(
        latent=latent, hidden=torch.zeros(rows, 0), signals=torch.randn(rows, len(SIGNALS)),
        ended=torch.zeros(rows), uncertainty=torch.zeros(rows),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [ScalarCritic, ActionCritic])
def test_the_head_is_one_more_of_whatever_critic(kind):
    cost, plain = make(kind)
    assert isinstance(cost, Port)
    assert cost.heads == ("score", EXPERT)
    here = state(torch.randn(5, LATENT))
    assert not cost.expert_energy(here.latent).any()  # untrained
    torch.nn.init.normal_(cost.network.last.weight)
    own, v = cost.expert_energy(here.latent), torch.tensor([[1.0, 3.0]]).expand(5, 2)
    assert 0 <= own.min() < own.max() <= 1
    torch.testing.assert_close(
        cost.critic_value(here, v), plain.critic_value(here, v[:, :1]) + 3 * own
    )
    energy, other = cost.energy(here), plain.energy(here)
    energy.check({"B": 5, "K": 1, "L": 2})
    values, expected = cost.action_values(here, v), plain.action_values(here, v[:, :1])
    if kind is ActionCritic:
        torch.testing.assert_close(values, expected + 3 * own.unsqueeze(1))
        torch.testing.assert_close(energy.critic_actions[..., 0], other.critic_actions[..., 0])
        torch.testing.assert_close(energy.critic_actions[:, 2, 1], own)
    else:
        assert values is None
        torch.testing.assert_close(energy.critic, torch.cat([other.critic, own[:, None]], 1))


def test_an_untrained_critic_beside_a_trained_head_counts():
    cost, plain = make()
    for member in plain.critic.members:
        torch.nn.init.zeros_(member.last.weight)
    assert not cost.is_initialised()
    torch.nn.init.normal_(cost.network.last.weight)
    assert cost.is_initialised()


def experience(latents: torch.Tensor, expert: torch.Tensor | None) -> Batch:
    rows = len(latents)
    none = torch.zeros(rows, 2, dtype=torch.bool)
    windows = Experience(
        frames=None, vectors=torch.zeros(rows, 2, 3), actions=torch.zeros(rows, 2, 4),
        signals=torch.zeros(rows, 2, len(SIGNALS)), terminated=none, truncated=none.clone(),
        mask=~none, importance_weights=torch.ones(rows), indices=torch.arange(rows),
        expert_mask=None if expert is None else expert[:, None].expand(rows, 2).contiguous(),
    )  # fmt: skip
    states = encoded_states(windows, torch.stack([latents, latents], 1))
    return Batch(windows, states[:1], states)


def test_the_loss_weighs_expert_and_others_alike_and_stops_at_the_latents():
    cost, _ = make()
    torch.nn.init.normal_(cost.network.last.weight)
    latents = torch.randn(8, LATENT, requires_grad=True)
    expert = torch.arange(8) < 2
    losses, _ = cost.losses(experience(latents, expert), KEY)
    logits = cost.network(latents.detach()).squeeze(-1)
    expected = cross_entropy(logits[:2], torch.ones(2)) + cross_entropy(logits[2:], torch.zeros(6))
    torch.testing.assert_close(losses["expert"], expected / 2)
    losses["expert"].backward()
    assert latents.grad is None
    for lacking in (None, torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)):
        assert cost.losses(experience(latents, lacking), KEY)[0]["expert"] == 0


def test_it_learns_to_be_low_where_the_expert_goes_and_high_elsewhere():
    cost, _ = make()
    descent = torch.optim.AdamW(cost.network.parameters(), lr=5e-3)
    for update in range(200):
        torch.manual_seed(update)
        latents = torch.rand(96, LATENT) * 2 - 1
        expert = torch.arange(96) < 48
        # The expert is never where the first number is above 0; the others are everywhere.
        latents[:48, 0] = -latents[:48, 0].abs()
        losses, _ = cost.losses(experience(latents, expert), KEY)
        descent.zero_grad()
        losses["expert"].backward()
        descent.step()
    torch.manual_seed(1000)
    seen = torch.rand(500, LATENT) * 2 - 1
    energies = cost.expert_energy(seen)
    assert energies[seen[:, 0] > 0.1].mean() > 0.8
    # There the others go half as often as the expert.
    assert not energies[seen[:, 0] < -0.1].any()
