"""The trainable critic TC (LeCun 2022, §3.2 eq. 3; trained as in §3.3 and Fig. 7).

TC_j(s_t) estimates Σ_{i>=1} γ^{i-1} IC_j(s_{t+i}): the discounted sum of drive j's energies from
the next state on, excluding the present state's. A plan's cost adds TC of its last state.

A critic is composed of a value head (a number or a distribution, `value_head`), a value function
(of the state, or of state and action, `value_function`) and a schedule of n-step returns
(`n_step`). The kinds below name the combinations. The critic of LeCun (2022) is not probabilistic:
`scalar` and `actions` are not either.
"""

from __future__ import annotations

import copy
from typing import Annotated, ClassVar, NamedTuple, Protocol

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from modules.cost.n_step import (
    ReturnSchedule,
    bootstrap_step,
    known_steps,
    n_step_return,
    until_life_lost,
)
from modules.cost.value_function import ActionValues, StateValues, ValueFunction
from modules.cost.value_head import CategoricalHead, ScalarHead, ValueHead
from modules.messages import SIGNALS, Experience, Frozen, State, WorldSpec, inputs_of
from modules.nets.hat_functions import HatFunctions
from modules.nets.mlp import MLP
from modules.weights import weights as weights_of

_LIFE_LOST = SIGNALS.index("life_lost")


class Expectation(NamedTuple):
    """What a critic expects of M states.

    `critic` [M L] of a critic of states, `critic_actions` [M A L] of a critic of actions; the other
    is None. `disagreement` [M], >= 0.
    """

    critic: Tensor | None
    critic_actions: Tensor | None
    disagreement: Tensor


class Critic(Protocol):
    """TC_j(s): one head for each drive. `knows_actions`: its values are of discrete actions."""

    heads: tuple[str, ...]
    knows_actions: bool

    def expect(self, state: State) -> Expectation:
        """The values of M states."""

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC(s) of M states under weights `v` [M L], at the best action, [M]."""

    def is_initialised(self) -> bool:
        """False while the critic is untrained and exactly 0 for every state."""

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As `modules.ports.Learnable`; `energies` [B W K] are the drives' at each step."""

    def on_update(self) -> None:
        """Called after each optimiser step."""

    def on_reset(self) -> None:
        """Called after a reset of the weights."""

    def window_steps(self) -> int:
        """Steps of experience that the next losses read."""

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """As `modules.ports.Learnable`."""


class EnsembleCritic(nn.Module):
    """An ensemble of critics that differ in their initial weights, each with an EMA target.

    Their disagreement is large where they have not been trained. A kind of critic sets
    `value_function` and, in its `Config`, the value head.
    """

    updates: Tensor
    weights: Tensor

    class Config(ReturnSchedule):
        """Networks and schedule of a critic.

        `width`, `layers`: of the hidden layers. `ensemble_size`: number of members. `ema_rate`:
        weight of the online network in its EMA target at each update. `drive_weights`: weights of
        the drives, by name, in the priorities and in the choice of the action that returns
        bootstrap from; a drive not named has its default weight (`modules.weights`).
        `reads_memory`: the networks also read what memory returns (`State.readout`).
        `layer_norm`: hidden layers are normalised. `hat_functions`: the networks also read how near
        each number is to the places of a grid (`modules.nets.hat_functions`); None: they do not.
        """

        width: int = Field(256, ge=1, le=8192)
        layers: int = Field(1, ge=1, le=8)
        ensemble_size: int = Field(2, ge=1, le=32)
        ema_rate: float = Field(0.01, gt=0, le=1)
        drive_weights: dict[str, float] = Field(default_factory=dict)
        reads_memory: bool = False
        layer_norm: bool = False
        hat_functions: HatFunctions.Config | None = None

        def value_head(self) -> ValueHead:
            """How one value is encoded."""
            return ScalarHead()

    value_function: ClassVar[type[ValueFunction]]
    """What a value depends on, in a world and for these heads."""

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
        readout_size: int = 0,
    ) -> None:
        """`readout_size`: numbers of what memory returns."""
        super().__init__()
        self.config, self.heads, self.final_discount = config, heads, discount
        self.reads_memory = config.reads_memory
        self.head = config.value_head()
        self.values = self.value_function(world, heads)
        self.knows_actions = len(self.values.shape) > 1
        weights = weights_of(config.drive_weights, heads, "cost.critic.drive_weights")
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        outputs = self.values.output_size(self.head.size)
        inputs = latent_size + readout_size * self.reads_memory
        self.hat_functions: HatFunctions | None = None
        if config.hat_functions is not None:
            self.hat_functions = HatFunctions(config.hat_functions)
            inputs = self.hat_functions.output_size(inputs)
        self.members = nn.ModuleList(
            MLP(
                inputs,
                config.width,
                outputs,
                config.layers,
                zero_output=True,
                layer_norm=config.layer_norm,
            )
            for _ in range(config.ensemble_size)
        )
        self.targets = copy.deepcopy(self.members).requires_grad_(False)
        self._trained_versions: tuple[tuple[int, int], ...] = ()

    @property
    def n_steps(self) -> int:
        """The present number of steps n."""
        return self.config.n_steps_at(int(self.updates))

    @property
    def discount(self) -> float:
        """The present discount γ."""
        return self.config.discount_at(int(self.updates), self.final_discount)

    def window_steps(self) -> int:
        """Steps of experience that the next losses read."""
        return self.n_steps + 1

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps [B W] from which returns bootstrap."""
        _, mask = self._ends(experience)
        bootstrap = bootstrap_step(mask, steps, self.n_steps)
        return torch.zeros_like(experience.mask).scatter_(1, bootstrap, True)

    def _ends(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """The steps [B W] (bool) at which returns terminate, and those that returns read: up to the
        first whose signals or end are unknown.
        """
        mask = known_steps(experience)
        if not self.config.life_ends_return:
            return experience.terminated, mask
        lost = experience.signals[..., _LIFE_LOST] > 0
        return until_life_lost(lost, experience.terminated, mask)

    def _logits(self, inputs: Tensor, networks: nn.ModuleList) -> Tensor:
        """Logits of each network for inputs [... D], of `State.inputs`, [E ... *shape Z]."""
        read = inputs if self.hat_functions is None else self.hat_functions(inputs)
        return torch.stack(
            [self.values.arrange(network(read), self.head.size) for network in networks]
        )

    def _values(self, state: State) -> Tensor:
        """Values of each member for M states, [E M *shape]; exact zeros while untrained."""
        if not self.is_initialised():
            latent = state.latent
            return latent.new_zeros(len(self.members), len(latent), *self.values.shape)
        return self.head.value(self._logits(state.inputs(self.reads_memory), self.members))

    def expect(self, state: State) -> Expectation:
        """Mean over members of the values of M states, and their disagreement."""
        values = self._values(state)
        mean = values.mean(0)
        per_action = self.values.per_action(mean)
        return Expectation(
            mean if per_action is None else None, per_action, self.values.disagreement(values)
        )

    def critic_value(self, state: State, v: Tensor) -> Tensor:
        """v·TC of M states under weights `v` [M L], at the best action, [M]."""
        return self.values.best(self._values(state).mean(0), v)

    def is_initialised(self) -> bool:
        """False while the last layer of every member is exactly zero, its initial value.

        A nonzero layer is not examined again until other weights are loaded. A zero layer is
        examined at every call: a fused optimiser changes weights without raising their version.
        """
        last = [p for member in self.members for p in member.last.parameters()]  # type: ignore[union-attr]
        versions = tuple((p.data_ptr(), p._version) for p in last)
        if versions != self._trained_versions:
            self._trained_versions = versions if any(bool(p.detach().any()) for p in last) else ()
        return bool(self._trained_versions)

    @torch.no_grad()
    def on_update(self) -> None:
        """Moves the target networks towards the members by `ema_rate`."""
        torch._foreach_lerp_(
            list(self.targets.parameters()), list(self.members.parameters()), self.config.ema_rate
        )
        self.updates.add_(1)

    def on_reset(self) -> None:
        """Restarts the schedule, after a reset of the weights."""
        self.updates.zero_()

    def losses(
        self,
        energies: Tensor,
        experience: Experience,
        states: list[State],
        targets: list[State],
        head_mask: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The loss of the values of `states` for n-step returns, and priorities [B].

        `energies` [B W L]; `head_mask` [B W L] (float, 1 or 0): the heads that each step trains,
        None: all. Each member is compared with its own target network. Every head has the same
        weight in the loss, since the directive may change v; the priority of a window is the mean
        absolute error under `drive_weights`.
        """
        steps = len(states)
        terminated, mask = self._ends(experience)
        later = n_step_return(energies, terminated, mask, steps, self.discount, self.n_steps)
        if experience.action_mask is not None and self.values.per_action(self.weights) is not None:
            later = later._replace(mask=later.mask & experience.action_mask[:, :steps])
        step, weights = later.bootstrap_step.unsqueeze(-1), self.weights
        if head_mask is not None:
            weights = weights * head_mask.gather(1, step.expand(-1, -1, head_mask.shape[-1]))
        with torch.no_grad():
            inputs = inputs_of(targets, self.reads_memory)
            target = self.head.target(
                self._target_logits(
                    inputs.gather(1, step.expand(-1, -1, inputs.shape[-1])), weights
                ),
                later.energy_sum,
                later.bootstrap_discount.unsqueeze(-1),
            )
        online = inputs_of(states, self.reads_memory)
        logits = self._online_logits(online, experience.actions[:, :steps])
        error = self.head.error(logits, target)
        if head_mask is not None:
            error = error * head_mask[:, :steps]
        error = error.sum(-1).mean(0) * later.mask
        loss = (
            error * experience.importance_weights.unsqueeze(-1)
        ).sum() / later.mask.sum().clamp_min(1)
        with torch.no_grad():
            difference = (self.head.value(logits) - self.head.target_value(target)) * self.weights
            if head_mask is not None:
                difference = difference * head_mask[:, :steps]
            priority = difference.sum(-1).abs().mean(0) * later.mask
        return {"critic": loss}, priority.sum(-1) / later.mask.sum(-1).clamp_min(1)

    def _online_logits(self, inputs: Tensor, action: Tensor) -> Tensor:
        """Logits of the members for inputs [B T D] at actions [B T A], [E B T L Z]."""
        return self.values.of_transition(self._logits(inputs, self.members), action)

    def _target_logits(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """Logits of the target networks for inputs [B T D] under weights [... L], [E B T L Z]."""
        return self.values.of_bootstrap(
            self._logits(inputs, self.targets),
            lambda: self.head.value(self._logits(inputs, self.members)).mean(0),
            weights,
        )


def _odd(num_bins: int) -> int:
    if num_bins % 2 == 0:
        raise ValueError("odd, with a bin at 0")
    return num_bins


class Bins(Frozen):
    """A distribution over energies. `num_bins`: odd. `v_max`: the largest energy with a bin."""

    num_bins: Annotated[int, AfterValidator(_odd)] = Field(51, ge=3, le=1001)
    v_max: float = Field(200.0, gt=0)

    def value_head(self) -> ValueHead:
        """How one value is encoded."""
        return CategoricalHead(self.num_bins, self.v_max)


class ScalarCritic(EnsembleCritic):
    """TC_j(s) as a number."""

    value_function = StateValues


class ActionCritic(EnsembleCritic):
    """TC_j(s, a) as a number."""

    value_function = ActionValues


class CategoricalScalarCritic(EnsembleCritic):
    """TC_j(s) as a distribution."""

    class Config(Bins, EnsembleCritic.Config):
        """A distribution for each drive."""

    value_function = StateValues


class CategoricalActionCritic(EnsembleCritic):
    """TC_j(s, a) as a distribution."""

    class Config(Bins, EnsembleCritic.Config):
        """A distribution for each drive and discrete action."""

    value_function = ActionValues
