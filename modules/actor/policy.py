"""Policies: from state to action without imagination, Mode-1 (LeCun 2022, §3.1.1)."""

from __future__ import annotations

from typing import ClassVar, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from modules import chance
from modules.actor.planner import one_hot, require
from modules.messages import ConfigError, Directive, Frozen, Situation, State, WorldSpec
from modules.nets.mlp import MLP


class Policy(Protocol):
    """a[0] = A(s[0])."""

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """The encoded action of each row, [B A]."""


@runtime_checkable
class Distillable(Protocol):
    """A policy that can be trained towards actions that planning chose (§3.1.3).

    `hindsight_steps`: 0, or its inputs end with the latent of a goal [M D], and it learns which
    actions led to where the agent was up to so many steps later.
    """

    hindsight_steps: int

    def divergence(self, inputs: Tensor, target: Tensor, tokens: Tensor | None = None) -> Tensor:
        """D(ǎ, A(s)) of §3.1.3, [M] >= 0, of inputs [M D] (`State.inputs`) and target actions
        [M A], perception primed by tokens [M T E].
        """


class NetworkPolicy(nn.Module):
    """A policy by a network from what it reads of a state (`State.inputs`) and tokens [B T E] to
    [M A].

    Before training its output is exactly 0: the last layer is initialised to zero. A policy with
    `hindsight_steps` also reads the goal. It is an inverse model of several steps: every later
    state of experience is a goal that the action taken led to (hindsight: Andrychowicz et al. 2017;
    goal-conditioned supervised learning: Ghosh et al. 2021).
    """

    class Config(Frozen):
        """`width` and number of `layers` of the hidden layers. `reads_memory`: whether the network
        also reads what memory returns. `hindsight_steps`: above 0 it also reads the latent of the
        goal, and learns from states up to so many steps later.
        """

        width: int = Field(256, ge=1, le=8192)
        layers: int = Field(1, ge=0, le=8)
        reads_memory: bool = False
        hindsight_steps: int = Field(0, ge=0, le=1024)

    kind: ClassVar[str]
    discrete: ClassVar[bool]

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
        readout_size: int = 0,
    ) -> None:
        """`readout_size`: numbers of what memory returns."""
        super().__init__()
        require(self.kind, world, discrete=self.discrete)
        self.config, self.reads_memory = config, config.reads_memory
        self.hindsight_steps = config.hindsight_steps
        if config.hindsight_steps and not world.goal_pixels and world.goal != latent_size:
            raise ConfigError(
                "config actor.policy.hindsight_steps: expected a world whose goal is a picture or "
                f"has {latent_size} numbers, as latents do, {world.id} has "
                f"{world.goal or 'none'}; try 0"
            )
        self.network = MLP(
            latent_size
            + readout_size * self.reads_memory
            + latent_size * bool(self.hindsight_steps),
            config.width,
            world.actions.size,
            config.layers,
            token_shape,
            zero_output=True,
        )

    def inputs(self, state: State) -> Tensor:
        """What the network reads of a state: `State.inputs`, and the goal with hindsight."""
        inputs = state.inputs(self.reads_memory)
        if not self.hindsight_steps:
            return inputs
        assert state.goal is not None  # as the constructor requires
        return torch.cat([inputs, state.goal], -1)


class Categorical(NetworkPolicy):
    """A discrete action drawn from the softmax of a network's output.

    Exactly uniform before training: the last layer is initialised to zero.
    """

    class Config(NetworkPolicy.Config):
        """A network over discrete actions.

        `width`, `layers`: of its hidden layers. `reads_memory`: it also reads what memory returns.
        `hindsight_steps`: above 0 it also reads the goal, and learns which actions led to states
        up to so many steps later. `temperature` of the softmax that actions are drawn from; 0: the
        likeliest action.
        """

        temperature: float = Field(1.0, ge=0, le=100)

    kind, discrete = "categorical", True
    config: Config

    def logits(self, inputs: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Unnormalised log-probabilities of the actions, [M A], of inputs [M D] under [B T E]."""
        logits: Tensor = self.network(inputs, tokens)
        return logits

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """One-hot draws, [B A]."""
        logits = self.logits(self.inputs(situation.state), directive.tokens)
        noise = chance.gumbel(situation.rng_key, "policy", logits.shape[-1])
        drawn = (logits + self.config.temperature * noise).argmax(-1)
        return one_hot(drawn, logits.shape[-1])

    def divergence(self, inputs: Tensor, target: Tensor, tokens: Tensor | None = None) -> Tensor:
        """D(ǎ, A(s)) of §3.1.3, [M]: cross-entropy of the policy relative to target probabilities
        [M A], one-hot or soft.
        """
        return -(target * self.logits(inputs, tokens).log_softmax(-1)).sum(-1)


class Gaussian(NetworkPolicy):
    """Continuous actions: tanh of a network's output, with normal noise before the tanh."""

    class Config(NetworkPolicy.Config):
        """A network over continuous actions.

        `width`, `layers`: of its hidden layers. `reads_memory`: it also reads what memory returns.
        `hindsight_steps`: above 0 it also reads the goal, and learns which actions led to states
        up to so many steps later. `noise`: standard deviation of the exploration, before the tanh.
        `repeat_prob`: probability of the last action again, so that an action lasts
        1 / (1 - repeat_prob) steps in the mean (as of `Greedy`).
        """

        noise: float = Field(0.5, ge=0, le=10)
        repeat_prob: float = Field(0.0, ge=0, lt=1)

    kind, discrete = "gaussian", False
    config: Config

    def mean(self, inputs: Tensor, tokens: Tensor | None = None) -> Tensor:
        """The action without noise, [M A] in (-1, 1)."""
        action: Tensor = self.network(inputs, tokens).tanh()
        return action

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """Noisy actions, [B A] in (-1, 1), or those of the step before."""
        raw: Tensor = self.network(self.inputs(situation.state), directive.tokens)
        noise = chance.normal(situation.rng_key, "policy", raw.shape[-1])
        drawn = (raw + self.config.noise * noise).tanh()
        if not self.config.repeat_prob:
            return drawn
        repeat = chance.uniform(situation.rng_key, "policy on") < self.config.repeat_prob
        repeat &= situation.episode_step > 0
        return situation.previous.plan.action.where(repeat.unsqueeze(-1), drawn)

    def divergence(self, inputs: Tensor, target: Tensor, tokens: Tensor | None = None) -> Tensor:
        """D(ǎ, A(s)) of §3.1.3, [M]: mean squared distance of the mean from actions [M A]."""
        return (self.mean(inputs, tokens) - target).square().mean(-1)


class Greedy:
    """The action of least critic value, argmin_a v·TC(s, a); with probability ε a random one.

    Needs a critic with action values; `agent.assembly.build` refuses any other. Ties, which
    before the critic's first update are all actions, are broken at random, the last action being
    repeated with probability `repeat_prob`: where a reward is many steps away, a random walk does
    not reach it (temporally extended exploration: Dabney, Ostrovski & Barreto 2021).
    """

    class Config(Frozen):
        """ε-greedy on the critic.

        `epsilon`: probability of a random action. `repeat_prob`: probability that a tie goes to
        the last action; where all actions tie, an action lasts at least 1 / (1 - repeat_prob)
        steps in the mean.
        """

        epsilon: float = Field(0.05, ge=0, le=1)
        repeat_prob: float = Field(0.0, ge=0, lt=1)

    def __init__(self, *, config: Config, world: WorldSpec) -> None:
        require("greedy", world, discrete=True)
        self.epsilon, self.repeat_prob = config.epsilon, config.repeat_prob
        self.size = world.actions.size

    def act(self, situation: Situation, directive: Directive) -> Tensor:
        """One-hot actions, [B A]; uniform among actions of equal value."""
        values = situation.energies.action_values(directive)
        if values is None:
            values = torch.zeros(situation.batch, self.size)
        explore = chance.uniform(situation.rng_key, "policy wander") < self.epsilon
        ties = (values == values.amin(-1, keepdim=True)) | explore.unsqueeze(-1)
        order = chance.uniform(situation.rng_key, "policy", self.size)
        if self.repeat_prob:
            repeat = chance.uniform(situation.rng_key, "policy on") < self.repeat_prob
            last = (situation.previous.plan.action > 0) & (repeat & ~explore).unsqueeze(-1)
            order = order.masked_fill(last, 1)
        return one_hot(order.masked_fill(~ties, -1).argmax(-1), self.size)
