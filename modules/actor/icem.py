"""The improved cross-entropy method: coloured noise, fewer samples, elites kept."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.actor.cem import elites, refit_gaussian
from modules.actor.planner import Planned, held, ranked, require
from modules.messages import Frozen, WorldSpec
from modules.ports import Imagination


def coloured_noise(
    key: Tensor, name: str, samples: int, count: int, size: int, beta: float
) -> Tensor:
    """Normal numbers [B samples count size] of variance 1 whose power over the `count` decisions
    falls as f^-β (Timmer & König 1995): 0 is white noise, 2 a random walk.
    """
    if not samples:
        return torch.zeros(len(key), 0, count, size)
    noise = chance.normal(key, name, samples, size, 2, count // 2 + 1).double()
    # The lowest frequency that a sequence of this length has stands for all below it.
    frequencies = torch.fft.rfftfreq(count, dtype=torch.float64).clamp_min(1 / count)
    scale = frequencies ** (-beta / 2)
    spectrum = torch.complex(noise[:, :, :, 0], noise[:, :, :, 1])
    power = 2 * scale[0].square() + 4 * scale[1:].square().sum()
    # Without a phase: the mean, and the highest frequency of an even number of decisions.
    real = [0, -1] if count > 1 and count % 2 == 0 else [0]
    spectrum[..., real] = (spectrum[..., real].real * 2**0.5).to(spectrum.dtype)
    if len(real) == 2:
        power = power - 2 * scale[-1].square()
    drawn = torch.fft.irfft(spectrum * scale, n=count, norm="forward")
    coloured: Tensor = (drawn / power.sqrt()).float()
    return coloured.transpose(2, 3)


def decaying(samples: int, iterations: int, decay: float, least: int) -> list[int]:
    """Samples of each iteration: N · decay^-i, at least `least` (Pinneri et al. 2020, §3.1)."""
    return [max(min(samples, least), round(samples / decay**turn)) for turn in range(iterations)]


class ICEM:
    """CEM that reaches far with few samples (iCEM, Pinneri et al. 2020).

    What differs from CEM: plans are drawn with noise of power f^-β over time, so that they keep a
    direction; the number of samples shrinks from round to round; a share of the elites is kept for
    the next round; mean and deviation follow the elites with momentum; the last round tries the
    mean itself.

    The first mean is the rest of the last plan. Of the last plan's elites only the best is known,
    as one of the proposals; the paper shifts a share of them.
    """

    class Config(Frozen):
        """Improved CEM for continuous actions.

        `samples` of the first round and `iterations`: fewer where the budget is smaller.
        `sample_decay`: factor by which the samples shrink. `elite_fraction` of the first round's
        samples is refitted to, `kept_fraction` of those stays for the next round. `noise_beta`: β,
        0 white noise. `momentum`: weight of the last round's mean and deviation. `action_repeat`:
        every decision lasts this many steps. `init_std` and `min_std`: first and least standard
        deviation, actions being in [-1, 1].
        """

        samples: int = Field(64, ge=2, le=4096)
        iterations: int = Field(6, ge=1, le=64)
        sample_decay: float = Field(1.25, ge=1, le=4)
        elite_fraction: float = Field(0.15, gt=0, le=1)
        kept_fraction: float = Field(0.3, ge=0, le=1)
        noise_beta: float = Field(2.0, ge=0, le=8)
        momentum: float = Field(0.1, ge=0, lt=1)
        action_repeat: int = Field(1, ge=1, le=32)
        init_std: float = Field(0.6, gt=0, le=2)
        min_std: float = Field(0.02, ge=0, le=1)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("icem", world, discrete=False)
        self.config = config

    def size(self, horizon: int, budget: int) -> tuple[int, ...]:
        """Horizon, elites, and the samples of each iteration. A small budget reduces first the
        samples, down to an eighth of those configured, then the iterations, then the horizon.
        """
        settings = self.config
        fewest = max(2, settings.samples // 8)
        horizon = max(1, min(horizon, budget // fewest))
        affordable = budget // horizon
        iterations = settings.iterations
        while iterations > 1 and sum(self._samples(fewest, iterations)) > affordable:
            iterations -= 1
        samples = settings.samples
        while samples > 1 and sum(self._samples(samples, iterations)) > affordable:
            samples -= 1
        each = self._samples(samples, iterations)
        return horizon, max(1, round(settings.elite_fraction * samples)), *each

    def _samples(self, samples: int, iterations: int) -> list[int]:
        least = 2 * max(1, round(self.config.elite_fraction * samples))
        return decaying(samples, iterations, self.config.sample_decay, least)

    @torch.no_grad()
    def plan(
        self, imagination: Imagination, proposals: Tensor, key: Tensor, budget: int
    ) -> Planned:
        """See `Planner.plan`."""
        settings = self.config
        horizon, count, *samples = self.size(proposals.shape[2], budget)
        carried = proposals[:, : samples[0], : horizon : settings.action_repeat]
        mean = carried[:, 0]
        std = torch.full_like(mean, settings.init_std)
        carry = round(settings.kept_fraction * count)
        tried, costs = [], []
        for turn, number in enumerate(samples):
            fresh = max(0, number - carried.shape[1])
            noise = coloured_noise(
                key, f"icem {turn}", fresh, mean.shape[1], mean.shape[2], settings.noise_beta
            )
            drawn = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-1, 1)
            decisions = torch.cat([carried[:, :number], drawn], 1)
            sequences = held(decisions, settings.action_repeat, horizon)
            if turn == 0:
                sequences[:, : carried.shape[1]] = proposals[:, : carried.shape[1], :horizon]
            cost = imagination.cost(imagination.rollout(sequences))
            tried.append(sequences)
            costs.append(cost)
            best = elites(decisions, cost, min(count, number))
            fitted_mean, fitted_std = refit_gaussian(best, settings.min_std)
            mean = settings.momentum * mean + (1 - settings.momentum) * fitted_mean
            std = settings.momentum * std + (1 - settings.momentum) * fitted_std
            carried = best[:, : max(1, carry)]
            if turn == len(samples) - 2:
                carried = torch.cat([mean.unsqueeze(1), carried], 1)
        return ranked(torch.cat(tried, 1), torch.cat(costs, 1))
