"""n-step returns, and the schedule of n and γ while a critic learns."""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from modules.messages import Experience, Frozen


class NStepReturn(NamedTuple):
    """The target of each of the first T steps: energy_sum + bootstrap_discount · TC(bootstrap).

    `energy_sum` [B T L]: discounted energies of the next n steps. `bootstrap_discount` [B T]: γⁿ,
    0 where the episode has terminated. `bootstrap_step` [B T] (int64): the step whose critic value
    continues the sum. `mask` [B T] (bool): whether any later step was recorded.
    """

    energy_sum: Tensor
    bootstrap_discount: Tensor
    bootstrap_step: Tensor
    mask: Tensor


def n_step_return(
    energies: Tensor, terminated: Tensor, mask: Tensor, steps: int, discount: float, n_steps: int
) -> NStepReturn:
    """The targets of the first `steps` of windows: Σ_{i=1..n} γ^{i-1} IC(s_{t+i}) + γⁿ TC(s_{t+n}).

    `energies` [B W L]; `terminated`, `mask` [B W] (bool). n is `n_steps`, or the number of valid
    steps left in the window. A terminated episode adds nothing after its last step; a truncated
    episode and the end of a window bootstrap from TC.
    """
    now = torch.arange(steps, device=mask.device)
    energy_sum = torch.zeros_like(energies[:, :steps])
    for i in range(1, min(n_steps, mask.shape[1] - 1) + 1):
        valid = mask[:, i : i + steps]
        length = valid.shape[1]
        later = discount ** (i - 1) * energies[:, i : i + length] * valid.unsqueeze(-1)
        energy_sum[:, :length] += later
    bootstrap = bootstrap_step(mask, steps, n_steps)
    bootstrap_discount = discount ** (bootstrap - now) * ~terminated.gather(1, bootstrap)
    return NStepReturn(
        energy_sum, bootstrap_discount, bootstrap, (bootstrap > now) & mask[:, :steps]
    )


def until_life_lost(lost: Tensor, terminated: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`terminated` and `mask` [B W] (bool) of windows in which a lost life ends the episode: the
    first step after the beginning at which `lost` [B W] (bool) terminates, later ones are masked.
    """
    lost = lost & mask
    lost[:, 0] = False
    beyond = lost.cumsum(1) > lost.long()
    return terminated | lost, mask & ~beyond


def known_steps(experience: Experience) -> Tensor:
    """The steps [B W] (bool) that returns may read: up to the first, other than step 0, at which a
    recording lacks signals or whether the episode ended. Step 0's own energy is in no return.
    """
    mask = experience.mask
    for known in (experience.signals_mask, experience.ends_mask):
        if known is not None:
            known = known if known.dim() == 2 else known.all(-1)
            later = torch.cat([torch.ones_like(known[:, :1]), known[:, 1:]], 1)
            mask = mask & later.cumprod(1).bool()
    return mask


def bootstrap_step(mask: Tensor, steps: int, n_steps: int) -> Tensor:
    """The last valid step [B T] within `n_steps` of each of the first `steps` of `mask` [B W]."""
    step = torch.arange(steps, device=mask.device).repeat(len(mask), 1)
    for i in range(1, min(n_steps, mask.shape[1] - 1) + 1):
        valid = mask[:, i : i + steps]
        step[:, : valid.shape[1]] += valid.long()
    return step


class ReturnSchedule(Frozen):
    """n and γ of the n-step return, annealed geometrically over the first updates.

    `n_steps`: recorded energies summed before the critic's own estimate continues the return.
    `n_step_start`, `discount_start`: values of n and γ at update 0; None: no annealing. Over
    `annealing_updates`, n and 1-γ change by equal ratios to `n_steps` and the agent's discount
    (Fedus et al. 2019; Schwarzer et al. 2023): early in training, long returns rely less
    on an untrained critic. `life_ends_return`: a lost life ends the return as the end of an episode
    does (Mnih et al. 2015), so that a life has the worth of all that it earns.
    """

    n_steps: int = Field(3, ge=1, le=1000)
    n_step_start: int | None = Field(None, ge=1, le=1000)
    discount_start: float | None = Field(None, gt=0, lt=1)
    annealing_updates: int = Field(10_000, ge=1)
    life_ends_return: bool = False

    def n_steps_at(self, updates: int) -> int:
        """The number of steps n after so many updates."""
        first = self.n_steps if self.n_step_start is None else self.n_step_start
        ratio: float = (self.n_steps / first) ** self._progress(updates)
        return round(first * ratio)

    def discount_at(self, updates: int, discount: float) -> float:
        """γ after so many updates, where it ends at `discount`."""
        first = 1 - (discount if self.discount_start is None else self.discount_start)
        last = 1 - discount
        return discount if last <= 0 else 1 - first * (last / first) ** self._progress(updates)

    def _progress(self, updates: int) -> float:
        """The completed share of the annealing, 0 to 1."""
        return min(1.0, updates / self.annealing_updates)
