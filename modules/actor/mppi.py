"""Model-predictive path integral control: a softmax average of sampled plans."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.cem import rounds
from modules.actor.planner import Planned, comparable, held, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Imagination


def path_integral(
    sequences: Tensor, costs: Tensor, temperature: float, min_std: float
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of sequences [B N ...] under weights w ∝ exp(-(J - min J)/λ) of
    their costs J [B N], each [B ...].

    λ is `temperature` times the deviation of the N costs, so that it needs no unit.
    """
    scale = temperature * costs.std(1, correction=0, keepdim=True)
    weights = (-(costs - costs.amin(1, keepdim=True)) / scale.clamp_min(1e-12)).softmax(1)
    shares = weights.to(sequences.dtype).view(*costs.shape, *[1] * (sequences.dim() - 2))
    mean = (shares * sequences).sum(1)
    variance = (shares * (sequences - mean.unsqueeze(1)).square()).sum(1)
    return mean, variance.sqrt().clamp_min(min_std)


class MPPI:
    """Samples plans around a mean and replaces it by their softmax average, some times over.

    The average of information-theoretic control (Williams et al. 2017, eq. 26), a_t = Σ_n w_n a_t,n
    with w_n ∝ exp(-J_n / λ); the deviation is refitted by the same weights, as in TD-MPC (Hansen et
    al. 2022, eq. 4). Where CEM counts an elite by its rank, MPPI counts every plan by its cost.

    The first mean is the rest of the last plan; the mean itself and the best plan so far are among
    the samples of each round, so neither is lost.
    """

    class Config(Frozen):
        """Path integral control for continuous actions.

        `samples` a round and `iterations`: fewer where the budget is smaller. `temperature`: λ, in
        standard deviations of the costs of a round. `action_repeat`: every decision lasts this many
        steps. `init_std` and `min_std`: first and least standard deviation, actions being in
        [-1, 1].
        """

        samples: int = Field(64, ge=2, le=4096)
        iterations: int = Field(6, ge=1, le=64)
        temperature: float = Field(0.1, gt=0, le=100)
        action_repeat: int = Field(1, ge=1, le=32)
        init_std: float = Field(0.6, gt=0, le=2)
        min_std: float = Field(0.05, ge=0, le=1)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("mppi", world, discrete=False)
        self.config = config

    def size(self, horizon: int, budget: int) -> tuple[int, int, int]:
        """Horizon, samples and iterations, see `rounds`."""
        return rounds(budget, horizon, self.config.samples, self.config.iterations)

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        settings = self.config
        horizon, samples, iterations = self.size(proposals.shape[2], budget)
        carried = proposals[:, :samples, : horizon : settings.action_repeat]
        mean = carried[:, 0]
        std = torch.full_like(mean, settings.init_std)
        tried, costs = [], []
        for turn in range(iterations):
            fresh = samples - carried.shape[1]
            noise = chance.normal(key, f"mppi {turn}", fresh, *mean.shape[1:])
            drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1, 1)
            decisions = torch.cat([carried, drawn], 1)
            sequences = held(decisions, settings.action_repeat, horizon)
            if turn == 0:
                sequences[:, : carried.shape[1]] = proposals[:, : carried.shape[1], :horizon]
            cost = imagination.cost(imagination.rollout(sequences))
            tried.append(sequences)
            costs.append(cost)
            cost = comparable(cost)
            mean, std = path_integral(decisions, cost, settings.temperature, settings.min_std)
            best = decisions[torch.arange(len(cost)), cost.argmin(1)]
            carried = torch.stack([best, mean], 1)[:, :samples]
        return ranked(torch.cat(tried, 1), torch.cat(costs, 1))
