"""A step that branches at random with known rates, as batches for a latent-variable world model.

Half of the states stand at a fork, whose three branches are equally far from each other; at the
others the next state is certain. The branch moves two of six numbers of the latent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules import chance
from modules.messages import SIGNALS, ActionSpec, Experience, State, WorldSpec
from modules.objectives.none import Unregularised
from modules.ports import Batch, encoded_states
from modules.world_model.latent_jepa import LatentJEPA
from modules.world_model.latents.latent import LatentVariable

D = 6
WORLD = WorldSpec(
    id="test/Branch-v0",
    pixels=None,
    vector=D,
    signals=SIGNALS,
    actions=ActionSpec(discrete=True, size=3),
)
PLACES = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
PLACES = PLACES - PLACES.mean(0)
RATES = torch.tensor([0.5, 0.3, 0.2])


def drawn(
    rows: int, luck: torch.Generator, fork: bool | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States [B D], actions [B 3], next states [B D], branches [B]; `fork`: all at one, or none."""
    place = torch.randn(rows, D - 3, generator=luck)
    at_fork = (torch.rand(rows, 1, generator=luck) < 0.5).float()
    if fork is not None:
        at_fork = torch.full((rows, 1), float(fork))
    action = torch.eye(3)[torch.randint(3, (rows,), generator=luck)]
    branch = torch.multinomial(RATES, rows, True, generator=luck)
    noise = 0.02 * torch.randn(rows, 2, generator=luck)
    state = torch.cat([place, torch.zeros(rows, 2), at_fork], 1)
    after = torch.cat([0.9 * place + 0.1 * action, at_fork * PLACES[branch] + noise, at_fork], 1)
    return state, action, after, branch


def state_of(latent: Tensor) -> State:
    rows = len(latent)
    return State.unchecked(
        latent=latent,
        hidden=torch.zeros(rows, 0),
        signals=torch.zeros(rows, len(SIGNALS)),
        ended=torch.zeros(rows),
        uncertainty=torch.zeros(rows),
    )


def batch_of(state: Tensor, action: Tensor, after: Tensor) -> Batch:
    rows, latents = len(state), torch.stack([state, after], 1)
    none = torch.zeros(rows, 2, dtype=torch.bool)
    experience = Experience.unchecked(
        frames=None,
        vectors=latents,
        actions=torch.stack([action, action], 1),
        signals=torch.zeros(rows, 2, len(SIGNALS)),
        terminated=none,
        truncated=none,
        mask=~none,
        importance_weights=torch.ones(rows),
        indices=torch.arange(rows),
    )
    states = encoded_states(experience, latents)
    return Batch(experience, states[:1], states)


def latent_jepa(kind: type[LatentVariable], seed: int = 0, **settings: float) -> LatentJEPA:
    torch.manual_seed(seed)
    config = kind.Config(**settings)  # type: ignore[attr-defined]
    variable = kind(config=config, world=WORLD, latent_size=D, token_shape=(0, 0))  # type: ignore[call-arg]
    return LatentJEPA(
        config=LatentJEPA.Config(width=64, blocks=2, unroll_steps=1),
        world=WORLD,
        latent_size=D,
        token_shape=(0, 0),
        objective=Unregularised(),
        latent=variable,
    )


def trained(model: LatentJEPA, updates: int, seed: int = 0) -> LatentJEPA:
    luck = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=updates)
    for update in range(updates):
        state, action, after, _ = drawn(192, luck)
        losses, _ = model.losses(batch_of(state, action, after), chance.keys(seed, 1, update))
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        schedule.step()
        model.on_update()
    return model


@torch.no_grad()
def branches_drawn(model: LatentJEPA, samples: int = 2000) -> tuple[Tensor, float]:
    """The rates [3] at which drawn futures end at each branch, and the share on no branch: farther
    than a quarter of the distance between two from all.
    """
    luck = torch.Generator().manual_seed(1)
    latent, action, _, _ = drawn(samples, luck, fork=True)
    state, uniform = state_of(latent), torch.rand(samples, model.latent.luck, generator=luck)
    z = model.sample_latent(state, action, uniform, torch.ones(samples))
    distance = torch.cdist(model.step(state, action, z).latent[:, D - 3 : D - 1], PLACES)
    rates = torch.bincount(distance.argmin(1), minlength=3) / samples
    return rates, float((distance.amin(1) > 0.25).float().mean())
