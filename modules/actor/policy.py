"""Policies: from state to action without imagining, Mode-1 (LeCun 2022, §3.1.1)."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules import chance
from modules.actor.planner import one_hot, require
from modules.messages import Directive, Situation, WorldSpec
from modules.nets.mlp import MLP


class Policy(Protocol):
    """a[0] = A(s[0])."""

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """The encoded action of each row, [B A]."""


@runtime_checkable
class Follows(Protocol):
    """A policy that can learn to do what was chosen for it."""

    def divergence(self, latent: Tensor, target: Tensor, tokens: Tensor | None = None) -> Tensor:
        """D(ǎ, A(s)) of §3.1.3, [M] >= 0, of latents [M D] and chosen actions [M A]."""


class Categorical(nn.Module):
    """One of several actions, drawn from the softmax of a network's output.

    Fresh, it is exactly uniform: its last layer begins at zero.
    """

    class Config(BaseModel):
        """A network over discrete actions.

        `width`, `layers`: of its hidden part. `temperature`: of the softmax actions are drawn
        from; 0: the likeliest is taken.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["categorical"] = "categorical"
        width: int = Field(256, ge=1, le=8192)
        layers: int = Field(1, ge=0, le=8)
        temperature: float = Field(1.0, ge=0, le=100)

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        temperature: float = 1.0,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        self.temperature = temperature
        require("categorical", world, discrete=True)
        self.network = MLP(
            latent_size, width, world.actions.size, layers, token_shape, zero_output=True
        )

    def logits(self, latent: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities of the actions, [M A], of latents [M D] under [B T E]."""
        logits: Tensor = self.network(latent, tokens)
        return logits

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """One-hot draws, [B A]."""
        logits = self.logits(situation.state.latent, directive.tokens)
        luck = chance.gumbel(situation.rng_key, "policy", logits.shape[-1])
        drawn = (logits + self.temperature * luck).argmax(-1)
        return one_hot(drawn, logits.shape[-1])

    def divergence(self, latent: Tensor, target: Tensor, tokens: Tensor | None = None) -> Tensor:
        """D(ǎ, A(s)) of §3.1.3, [M]: cross-entropy of target probabilities [M A] (one-hot, or
        soft); 0 where the policy is certain of a certain target.
        """
        return -(target * self.logits(latent, tokens).log_softmax(-1)).sum(-1)


class Gaussian(nn.Module):
    """Continuous actions: tanh of a network's output, with normal noise before the tanh."""

    class Config(BaseModel):
        """A network over continuous actions.

        `width`, `layers`: of its hidden part. `noise`: standard deviation of the exploration,
        before the tanh.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["gaussian"] = "gaussian"
        width: int = Field(256, ge=1, le=8192)
        layers: int = Field(1, ge=0, le=8)
        noise: float = Field(0.5, ge=0, le=10)

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        noise: float,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
    ) -> None:
        super().__init__()
        require("gaussian", world, discrete=False)
        self.noise = noise
        self.network = MLP(
            latent_size, width, world.actions.size, layers, token_shape, zero_output=True
        )

    def mean(self, latent: Tensor, tokens: Tensor | None = None) -> Tensor:
        """The action without noise, [M A] in (-1, 1)."""
        action: Tensor = self.network(latent, tokens).tanh()
        return action

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """Noisy actions, [B A] in (-1, 1)."""
        raw: Tensor = self.network(situation.state.latent, directive.tokens)
        return (raw + self.noise * chance.normal(situation.rng_key, "policy", raw.shape[-1])).tanh()

    def divergence(self, latent: Tensor, target: Tensor, tokens: Tensor | None = None) -> Tensor:
        """D(ǎ, A(s)) of §3.1.3, [M]: mean squared distance of the mean from actions [M A]."""
        return (self.mean(latent, tokens) - target).square().mean(-1)


class Greedy:
    """The action the critic expects least energy from, argmin_a v·TC(s, a); sometimes any.

    Needs a critic of actions; `agent.assembly.build` refuses any other. Ties, and so a fresh
    critic, are broken by chance, but what was done last goes on for a while: where a reward is
    many steps away, a new direction at every step never gets there (temporally extended
    exploration: Dabney, Ostrovski & Barreto 2021).
    """

    class Config(BaseModel):
        """ε-greedy on the critic.

        `epsilon`: share of steps in which any action is taken. `repeat_prob`: chance that of
        actions the critic does not tell apart the last one taken is taken again; without a critic
        an action so lasts for 1 / (1 - persistence) steps, or a little longer.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["greedy"] = "greedy"
        epsilon: float = Field(0.05, ge=0, le=1)
        repeat_prob: float = Field(0.0, ge=0, lt=1)

    def __init__(self, *, epsilon: float, repeat_prob: float = 0.0, world: WorldSpec) -> None:
        require("greedy", world, discrete=True)
        self.epsilon, self.repeat_prob, self.size = epsilon, repeat_prob, world.actions.size

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """One-hot actions, [B A]; uniform where the critic does not tell actions apart."""
        heads, rows = situation.energies.critic_actions, situation.batch
        if heads is None:
            expected = torch.zeros(rows, self.size)
        else:
            expected = (heads * directive.v.unsqueeze(1)).sum(-1)
        wander = chance.uniform(situation.rng_key, "policy wander") < self.epsilon
        equal = (expected == expected.amin(-1, keepdim=True)) | wander.unsqueeze(-1)
        luck = chance.uniform(situation.rng_key, "policy", self.size)
        if self.repeat_prob:
            on = chance.uniform(situation.rng_key, "policy on") < self.repeat_prob
            last = (situation.previous.plan.action > 0) & (on & ~wander).unsqueeze(-1)
            luck = luck.masked_fill(last, 1)
        return one_hot(luck.masked_fill(~equal, -1).argmax(-1), self.size)
