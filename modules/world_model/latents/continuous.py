"""Continuous latent variables, limited by noise or by sparsity (§4.4, criterion 4)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from modules import chance
from modules.messages import Frozen, LatentSpec, WorldSpec
from modules.nets.mlp import MLP
from modules.objectives.vicreg import covariance_penalty, variance_hinge
from modules.world_model.latents.latent import Error, Explained, input_size

_LOG_2PI = math.log(2 * math.pi)


class _Mixture(nn.Module):
    """p(z | s, a): a mixture of normal distributions with independent dimensions (Bishop 1994).

    A single one cannot have several branches: between two of them it is as likely as at them.
    """

    def __init__(
        self,
        inputs: int,
        size: int,
        components: int,
        least_std: float,
        width: int,
        token_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        self.size, self.components, self.least_std = size, components, least_std
        self.net = MLP(inputs, width, components * (1 + 2 * size), 2, token_shape, zero_output=True)
        with torch.no_grad():  # equal components would stay equal
            self.net.last.bias[components : components * (1 + size)].normal_()

    def forward(self, inputs: Tensor, tokens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights [M C], means [M C d] and standard deviations [M C d]."""
        out, c = self.net(inputs, tokens), self.components
        means, stds = out[:, c:].unflatten(1, (2, c, self.size)).unbind(1)
        return (
            torch.log_softmax(out[:, :c], -1),
            means,
            self.least_std + softplus(stds),
        )

    def log_density(self, inputs: Tensor, tokens: Tensor | None, z: Tensor) -> Tensor:
        """The log density log p(z | s, a), [M]."""
        log_weights, means, stds = self(inputs, tokens)
        scaled = (z.unsqueeze(1) - means) / stds
        each = -(scaled.square() / 2 + stds.log() + _LOG_2PI / 2).sum(-1)
        return torch.logsumexp(log_weights + each, -1)

    def sample(
        self, inputs: Tensor, tokens: Tensor | None, luck: Tensor, temperature: Tensor
    ) -> Tensor:
        """Draws z [M d]: the first number of `luck` [M 1+d] chooses the component, the others place
        z within it.
        """
        log_weights, means, stds = self(inputs, tokens)
        flat = log_weights / temperature.clamp_min(1e-6)[:, None]
        reached = torch.softmax(flat, -1).cumsum(-1)
        which = (reached < luck[:, :1] * reached[:, -1:]).sum(-1).clamp_max(self.components - 1)
        row = torch.arange(len(inputs))
        normal = torch.special.ndtri(luck[:, 1:].double()).to(means.dtype)
        spread = temperature.sqrt()[:, None] * stds[row, which]
        drawn: Tensor = means[row, which] + spread * normal
        # Comparisons with NaN are false: weights that are not finite would choose the first one.
        return drawn.masked_fill(reached[:, -1:].isnan(), torch.nan)


class _Continuous(nn.Module, ABC):
    """d numbers, inferred by a network (amortised inference) and refined by gradient steps."""

    kind: ClassVar[str]
    input_scale = 1.0

    def __init__(
        self,
        *,
        config: GaussianLatent.Config | SparseLatent.Config,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        self.config, size, width = config, config.size, config.width
        inputs = input_size(world, latent_size)
        self.spec = LatentSpec.model_validate({"kind": self.kind, "size": size, "luck": 1 + size})
        self.encoder = MLP(inputs + latent_size, width, size, 2, token_shape)
        self.prior = _Mixture(inputs, size, config.components, config.noise, width, token_shape)

    def sample(
        self, inputs: Tensor, tokens: Tensor | None, luck: Tensor, temperature: Tensor
    ) -> Tensor:
        """Draws z [M Z] from the mixture."""
        return self.prior.sample(inputs, tokens, luck, temperature)

    def log_prior(self, inputs: Tensor, tokens: Tensor | None, z: Tensor) -> Tensor:
        """The log density of z, nats, [M]."""
        return self.prior.log_density(inputs, tokens, z)

    def _encode(self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor) -> Tensor:
        """The mean of q(z | s, a, s'), [M Z]."""
        mean: Tensor = self.encoder(torch.cat([inputs, outcome], -1), tokens)
        return mean

    def infer(self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor, error: Error) -> Tensor:
        """A z [M Z] of little error: the best of the encoder's and of the prior's components, then
        `refine_steps` of normalised gradient descent, of which the best is taken.
        """
        rows = len(inputs)
        with torch.no_grad():
            _, means, _ = self.prior(inputs, tokens)
            tried = torch.cat([self._encode(inputs, tokens, outcome).unsqueeze(1), means], 1)
            row = torch.arange(rows).repeat_interleave(tried.shape[1])
            errors = error(tried.flatten(0, 1), row).view(rows, -1)
            best, place = errors.min(-1)
            z = tried[torch.arange(rows), place]
        now, every = z, torch.arange(rows)
        for step in range(self.config.refine_steps):
            with torch.enable_grad():
                now = now.detach().requires_grad_(True)
                (slope,) = torch.autograd.grad(error(now, every).sum(), now)
            length = 0.5 * self.config.noise * 0.7**step
            now = (now - length * nn.functional.normalize(slope, dim=-1)).detach()
            with torch.no_grad():
                here = error(now, every)
            z = torch.where((here < best)[:, None], now, z)
            best = torch.minimum(here, best)
        return z

    def explain(
        self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor, error: Error, key: Tensor
    ) -> Explained:
        """A draw from q = N(encoder, noise²), and the terms that limit what it says."""
        mean = self._encode(inputs, tokens, outcome)
        noise = chance.normal(key, "posterior", *mean.shape)[0].to(mean)
        z = mean + self.config.noise * noise
        return Explained(z, self._terms(inputs, tokens, mean, z))

    @abstractmethod
    def _terms(
        self, inputs: Tensor, tokens: Tensor | None, mean: Tensor, z: Tensor
    ) -> dict[str, Tensor]:
        """Losses of each row, [M] each."""

    def on_update(self) -> None:
        """There is no schedule."""

    def on_reset(self) -> None:
        """There is no schedule."""


class GaussianLatent(_Continuous):
    """d numbers with noise: what z can say is limited by KL(q ‖ p) for q = N(encoder(s, a, s'),
    noise²) and the learned prior p, a mixture of `components` normal distributions; 1: the single
    normal distribution of a variational autoencoder (Kingma & Welling 2014).
    """

    class Config(Frozen):
        """Numbers with noise.

        `size` d. `noise`: standard deviation of q. `components` of the prior. `width` of both
        networks. `weight`: of the divergence, per nat, against the error of the prediction.
        `refine_steps`: of inference.
        """

        size: int = Field(default=2, ge=1, le=256)
        noise: float = Field(default=0.4, gt=0, le=10)
        components: int = Field(default=8, ge=1, le=256)
        width: int = Field(default=64, ge=8, le=8192)
        weight: float = Field(default=0.05, ge=0, le=1000)
        refine_steps: int = Field(default=5, ge=0, le=100)

    config: Config
    kind = "gaussian"

    def _terms(
        self, inputs: Tensor, tokens: Tensor | None, mean: Tensor, z: Tensor
    ) -> dict[str, Tensor]:
        """`latent`: an unbiased estimate of KL(q ‖ p) from the one draw, weighted."""
        noise = self.config.noise
        entropy = self.spec.size * (math.log(noise) + (1 + _LOG_2PI) / 2)
        divergence = -self.prior.log_density(inputs, tokens, z) - entropy
        return {"latent": self.config.weight * divergence}


class SparseLatent(_Continuous):
    """d numbers most of which are near 0: an L1 penalty, with the variance and covariance terms of
    VICReg and a mean of 0 so that a small scale is no way out, and noise on the draw.
    """

    class Config(Frozen):
        """Sparse numbers.

        `size` d. `noise`: standard deviation of q. `components` of the prior. `width` of both
        networks. `weight`: of the L1 penalty, against the error of the prediction. `spread_weight`:
        of the variance, covariance and mean terms. `prior_weight`: of the prior's likelihood, whose
        gradient does not reach z. `refine_steps`: of inference.
        """

        size: int = Field(default=3, ge=1, le=256)
        noise: float = Field(default=0.5, gt=0, le=10)
        components: int = Field(default=8, ge=1, le=256)
        width: int = Field(default=64, ge=8, le=8192)
        weight: float = Field(default=0.05, ge=0, le=1000)
        spread_weight: float = Field(default=0.5, ge=0, le=1000)
        prior_weight: float = Field(default=0.3, ge=0, le=1000)
        refine_steps: int = Field(default=5, ge=0, le=100)

    config: Config
    kind = "sparse"

    def _terms(
        self, inputs: Tensor, tokens: Tensor | None, mean: Tensor, z: Tensor
    ) -> dict[str, Tensor]:
        """`latent`: sparsity; `latent spread`; `latent prior`."""
        terms = {
            "latent": self.config.weight * mean.abs().mean(-1),
            "latent prior": -self.config.prior_weight
            * self.prior.log_density(inputs, tokens, z.detach()),
        }
        if len(mean) > 1:
            spread = variance_hinge(mean, 1.0) + covariance_penalty(mean)
            spread = spread + mean.mean(0).square().mean()
            terms["latent spread"] = (self.config.spread_weight * spread).expand(len(mean))
        else:
            terms["latent spread"] = torch.zeros(len(mean), device=mean.device)
        return terms
