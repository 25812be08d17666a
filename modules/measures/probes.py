"""Probes: how well a target can be read from features, on samples held out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HELD_OUT = 0.25
"""Share of the samples, the last ones, on which a probe is judged."""

RIDGE = 1e-4
"""Penalty on the weights of a linear probe, per sample, for features of unit variance."""


def r_squared(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - Σ error² / Σ (target - mean)² of each target, [E], of [M E]; 1 is exact, 0 the mean.

    NaN where a target is constant.
    """
    error = (predicted - target).double().square().sum(0)
    spread = (target.double() - target.double().mean(0)).square().sum(0)
    return torch.where(spread > 0, 1 - error / spread, torch.nan)


def linear_probe(features: Tensor, targets: Tensor) -> Tensor:
    """Held-out R² [E] of a linear read-out of `targets` [M E] from `features` [M D]."""
    cut = _cut(features)
    weights = fit_linear(features[:cut], targets[:cut])
    return r_squared(read_linear(weights, features[cut:]), targets[cut:])


def fit_linear(features: Tensor, targets: Tensor) -> Tensor:
    """Weights [D+1 E] of a ridge regression with an offset, in the last row."""
    features, targets = features.double(), targets.double()
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    scaled = (features - mean) / scale
    gram = scaled.T @ scaled + RIDGE * len(scaled) * torch.eye(features.shape[1]).double()
    offset = targets.mean(0)
    weights = torch.linalg.solve(gram, scaled.T @ (targets - offset)) / scale[:, None]
    return torch.cat([weights, (offset - mean @ weights)[None]])


def read_linear(weights: Tensor, features: Tensor) -> Tensor:
    """What `fit_linear` reads from `features` [M D], [M E]."""
    return features.double() @ weights[:-1] + weights[-1]


def mlp_probe(
    features: Tensor, targets: Tensor, seed: int = 0, width: int = 64, updates: int = 1000
) -> Tensor:
    """Held-out R² [E] of a read-out by a network of one hidden layer, trained for `updates` of 128.

    Reads what a linear probe cannot, such as a phase from its picture.
    """
    cut = _cut(features)
    mean, scale = features[:cut].mean(0), features[:cut].std(0).clamp_min(1e-6)
    offset, unit = targets[:cut].mean(0), targets[:cut].std(0).clamp_min(1e-6)
    scaled, read = ((features - mean) / scale).float(), ((targets - offset) / unit).float()
    generator = torch.Generator().manual_seed(seed)
    # Seeded without touching the program's own random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(features.shape[1], width), nn.ReLU(), nn.Linear(width, targets.shape[1])
        )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    with torch.enable_grad():
        for _ in range(updates):
            batch = torch.randint(cut, (128,), generator=generator)
            loss = (network(scaled[batch]) - read[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return r_squared(network(scaled[cut:]), read[cut:])


def _cut(features: Tensor) -> int:
    return len(features) - max(1, round(HELD_OUT * len(features)))
