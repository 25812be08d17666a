"""Futures of a model against the branches that the world can take, and what a latent z leaks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modules.measures.probes import linear_probe


class BranchCoverage(NamedTuple):
    """`rates` [N]: the share of futures that lie on each branch; `off`: of those on none."""

    rates: Tensor
    off: float


def branch_coverage(futures: Tensor, branches: Tensor) -> BranchCoverage:
    """Where `futures` [M D] lie among `branches` [N D], the states after each branch.

    A future is on the nearest branch if it is nearer than a quarter of the least distance of two
    branches: the mean of two branches is on neither.
    """
    radius = torch.pdist(branches).min() / 4
    distance, nearest = torch.cdist(futures, branches).min(1)
    on = distance < radius
    counts = torch.bincount(nearest[on], minlength=len(branches))
    return BranchCoverage(counts / len(futures), float((~on).float().mean()))


def branch_separation(branches: Tensor, latents: Tensor) -> float:
    """The least distance of two branches' states [N D] over the total deviation of `latents` [M D].

    0 where an encoder erases which branch was taken.
    """
    deviation = latents.var(0, correction=0).sum().sqrt()
    return float(torch.pdist(branches).min() / deviation.clamp_min(1e-12))


def leakage(z: Tensor, after: Tensor) -> float:
    """How much of the next latents `after` [M D] the latent z [M Z] says by itself, 0 to 1.

    Held-out R² of a linear read-out, over all dimensions by their variance. A z that carries only
    what the state before cannot say leaks no more than the branch; near 1 it carries all (§4.5,
    criterion 4).
    """
    shares = after.double().var(0, correction=0)
    shares = shares / shares.sum().clamp_min(1e-12)
    return float((linear_probe(z, after).nan_to_num(0.0).clamp_min(0) * shares).sum())
