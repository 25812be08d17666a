"""A discrete latent variable: one or several variables of a few codes each (§4.4, criterion 4)."""

from __future__ import annotations

import itertools

import torch
from pydantic import Field
from torch import Tensor, nn

from modules import chance
from modules.messages import Frozen, LatentSpec, WorldSpec
from modules.nets.mlp import MLP
from modules.world_model.latents.latent import Error, Explained, input_size

_ENUMERATED = 256
"""Joint codes up to which all are tried; beyond, one variable after the other."""

_SWEEPS = 2
"""Times that each variable is tried given the others."""


class CategoricalLatent(nn.Module):
    """n variables of k codes each, one-hot, z of n·k numbers; a learned prior for each variable.

    Learning is free energy, as expectation maximisation for a mixture: with the error e(c) of the
    prediction under code c, the posterior is q(c) ∝ p(c | s, a) exp(-e(c) / 2σ²), a code drawn from
    it is the one whose prediction learns, and the prior learns q by cross entropy. σ, the deviation
    of what happens about a code's prediction in units of an error, falls from `noise_start` to
    `noise`: were it larger than half the distance between two branches, one code would learn the
    middle of both; were it small from the beginning, codes that no outcome is near would not learn.

    Where the next state is certain, all codes predict the same, q is p, and z says nothing.
    """

    class Config(Frozen):
        """A discrete latent variable.

        `variables` n and `codes` k of each. `width` of the prior's network. `noise_start`,
        `noise`: σ at first and after `anneal_updates` updates. `min_prob`: a code of less
        probability is not drawn.
        """

        variables: int = Field(default=1, ge=1, le=64)
        codes: int = Field(default=8, ge=2, le=1024)
        width: int = Field(default=64, ge=8, le=8192)
        noise_start: float = Field(default=0.3, gt=0, le=100)
        noise: float = Field(default=0.1, gt=0, le=100)
        anneal_updates: int = Field(default=1000, ge=0)
        min_prob: float = Field(default=0.02, ge=0, le=0.5)

    updates: Tensor
    # Codes that hardly differ at first learn the same: at 1 two of three branches had one code in 3
    # of 5 trainings of `examples/fork.py`.
    input_scale = 6.0

    def __init__(
        self, *, config: Config, world: WorldSpec, latent_size: int, token_shape: tuple[int, int]
    ) -> None:
        super().__init__()
        self.config = config
        self.variables, self.codes = config.variables, config.codes
        size = config.variables * config.codes
        self.spec = LatentSpec(kind="categorical", size=size, luck=config.variables)
        inputs = input_size(world, latent_size)
        self.prior = MLP(inputs, config.width, size, 2, token_shape, zero_output=True)
        self.register_buffer("updates", torch.zeros(()))

    # -- the prior --------------------------------------------------------------------------

    def _log_probs(self, inputs: Tensor, tokens: Tensor | None) -> Tensor:
        """The log prior of each code of each variable, [M n k]."""
        logits = self.prior(inputs, tokens).view(-1, self.variables, self.codes)
        log_probs: Tensor = torch.log_softmax(logits, -1)
        return log_probs

    def sample(
        self, inputs: Tensor, tokens: Tensor | None, luck: Tensor, temperature: Tensor
    ) -> Tensor:
        """Draws z [M Z]: in each variable the code where the distribution function passes luck."""
        log_probs = self._log_probs(inputs, tokens)
        rare = log_probs < log_probs.amax(-1, keepdim=True).clamp_max(_log(self.config.min_prob))
        flat = log_probs.masked_fill(rare, -torch.inf) / temperature.clamp_min(1e-6)[:, None, None]
        reached = torch.softmax(flat, -1).cumsum(-1)
        code = (reached < luck.unsqueeze(-1) * reached[..., -1:]).sum(-1)
        z = self._one_hot(code.clamp_max(self.codes - 1))
        # Comparisons with NaN are false: a prior that is not finite would draw the first code.
        return z.masked_fill(reached[:, :, -1].isnan().any(-1, keepdim=True), torch.nan)

    def log_prior(self, inputs: Tensor, tokens: Tensor | None, z: Tensor) -> Tensor:
        """Σ over variables of log p(code), nats, [M]."""
        chosen = z.view(-1, self.variables, self.codes)
        log_prior: Tensor = (chosen * self._log_probs(inputs, tokens)).sum((1, 2))
        return log_prior

    def _one_hot(self, code: Tensor) -> Tensor:
        """The z [... Z] of the codes [... n]."""
        return nn.functional.one_hot(code, self.codes).flatten(-2).float()

    # -- inference --------------------------------------------------------------------------

    def all_codes(self) -> Tensor | None:
        """Every z [C Z], where there are at most 256; else None."""
        if self.codes**self.variables > _ENUMERATED:
            return None
        every = itertools.product(range(self.codes), repeat=self.variables)
        return self._one_hot(torch.tensor(list(every)))

    def _errors(self, rows: int, z: Tensor, error: Error) -> Tensor:
        """The error of each z [C Z] in each of `rows` M, [M C]."""
        row = torch.arange(rows).repeat_interleave(len(z))
        return error(z.repeat(rows, 1), row).view(rows, len(z))

    def posterior(
        self, inputs: Tensor, tokens: Tensor | None, error: Error
    ) -> tuple[Tensor, Tensor]:
        """The log posterior and log prior of every joint code, each [M C]; for up to 256 codes."""
        every = self.all_codes()
        assert every is not None
        return self._posterior(self._log_probs(inputs, tokens), every, error)

    def _posterior(self, log_probs: Tensor, every: Tensor, error: Error) -> tuple[Tensor, Tensor]:
        """As `posterior`, from the log prior of each variable [M n k] and `every` code [C Z]."""
        log_prior = log_probs.flatten(1) @ every.T
        errors = self._errors(len(log_probs), every, error)
        return torch.log_softmax(log_prior - errors / (2 * self._sigma() ** 2), -1), log_prior

    def infer(self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor, error: Error) -> Tensor:
        """The z [M Z] of least error: by trying all, or one variable after the other, twice, from
        the most likely codes on.
        """
        if (every := self.all_codes()) is not None:
            return every[self._errors(len(inputs), every, error).argmin(-1)]
        code = self._log_probs(inputs, tokens).argmax(-1)
        for _ in range(_SWEEPS):
            for variable in range(self.variables):
                code[:, variable] = self._conditional(code, variable, error).argmin(-1)
        return self._one_hot(code)

    def _conditional(self, code: Tensor, variable: int, error: Error) -> Tensor:
        """The errors [M k] of each code of one variable, the others being as in `code` [M n]."""
        tried = code.unsqueeze(1).repeat(1, self.codes, 1)
        tried[:, :, variable] = torch.arange(self.codes)
        row = torch.arange(len(code)).repeat_interleave(self.codes)
        return error(self._one_hot(tried.flatten(0, 1)), row).view(len(code), self.codes)

    # -- learning ---------------------------------------------------------------------------

    def _sigma(self) -> float:
        """σ now."""
        config = self.config
        if not config.anneal_updates:
            return config.noise
        done = min(float(self.updates) / config.anneal_updates, 1.0)
        return float(config.noise_start * (config.noise / config.noise_start) ** done)

    def explain(
        self, inputs: Tensor, tokens: Tensor | None, outcome: Tensor, error: Error, key: Tensor
    ) -> Explained:
        """A draw from the posterior, and `latent`, the cross entropy of the prior about it: its
        gradient is that of the free energy.
        """
        log_probs = self._log_probs(inputs, tokens)
        with torch.no_grad():
            if (every := self.all_codes()) is not None:
                log_q, _ = self._posterior(log_probs, every, error)
                noise = chance.gumbel(key, "posterior", *log_q.shape)[0]
                z = every[(log_q + noise).argmax(-1)]
                marginal = (log_q.exp() @ every).view(log_probs.shape)
            else:
                z, marginal = self._gibbs(log_probs, error, key)
        return Explained(z, {"latent": -(marginal * log_probs).sum((1, 2))})

    def _gibbs(self, log_probs: Tensor, error: Error, key: Tensor) -> tuple[Tensor, Tensor]:
        """A draw [M Z] by Gibbs sampling, each variable given the others, and the last conditional
        distribution of each variable, [M n k].
        """
        code, marginal = log_probs.argmax(-1), torch.zeros_like(log_probs)
        for sweep in range(_SWEEPS):
            for variable in range(self.variables):
                errors = self._conditional(code, variable, error)
                log_q = log_probs[:, variable] - errors / (2 * self._sigma() ** 2)
                noise = chance.gumbel(key, f"gibbs {sweep} {variable}", *log_q.shape)[0]
                code[:, variable] = (log_q + noise).argmax(-1)
                marginal[:, variable] = torch.softmax(log_q, -1)
        return self._one_hot(code), marginal

    def on_update(self) -> None:
        """σ falls."""
        self.updates += 1

    def on_reset(self) -> None:
        """σ begins again."""
        self.updates.zero_()


def _log(probability: float) -> float:
    """The logarithm of a probability, a large negative number of 0."""
    return float(torch.tensor(max(probability, 1e-30)).log())
