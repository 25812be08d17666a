"""What a critic's value depends on: the state alone, or the state and a discrete action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from modules.messages import ConfigError, WorldSpec


class ValueFunction(Protocol):
    """How network outputs are arranged as values, and which of them a transition trains.

    E ensemble members, M states (or B T), A actions, L heads, Z numbers that encode one value.
    """

    shape: tuple[int, ...]
    """Axes of the values of one state: [L] or [A L]."""

    def __init__(self, world: WorldSpec, heads: tuple[str, ...]) -> None: ...

    def output_size(self, head_size: int) -> int:
        """Outputs of a network whose values take `head_size` numbers each."""

    def arrange(self, output: Tensor, head_size: int) -> Tensor:
        """Network outputs [... output_size] as logits [... *shape Z]."""

    def of_transition(self, logits: Tensor, action: Tensor) -> Tensor:
        """The logits [E B T L Z] that recorded actions [B T A] train; `logits` [E B T *shape Z]."""

    def of_bootstrap(
        self, logits: Tensor, online_values: Callable[[], Tensor], weights: Tensor
    ) -> Tensor:
        """The logits [E B T L Z] of the target networks that continue a return.

        `logits` [E B T *shape Z]; `online_values` computes [B T *shape], `weights` [... L].
        """

    def best(self, values: Tensor, v: Tensor) -> Tensor:
        """v·TC [M] of values [M *shape] under weights `v` [M L], at the best action."""

    def per_action(self, values: Tensor) -> Tensor | None:
        """Values [M A L]; None where the function does not depend on the action."""

    def disagreement(self, values: Tensor) -> Tensor:
        """Standard deviation [M], over members [E M *shape], of the summed heads."""


class StateValues(nn.Module):
    """TC_j(s): the value of continuing with the present behaviour (LeCun 2022, eq. 3)."""

    def __init__(self, world: WorldSpec, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = (len(heads),)

    def output_size(self, head_size: int) -> int:
        """L·Z."""
        return self.shape[0] * head_size

    def arrange(self, output: Tensor, head_size: int) -> Tensor:
        """[... L Z]."""
        return output.view(*output.shape[:-1], *self.shape, head_size)

    def of_transition(self, logits: Tensor, action: Tensor) -> Tensor:
        """All of them."""
        return logits

    def of_bootstrap(
        self, logits: Tensor, online_values: Callable[[], Tensor], weights: Tensor
    ) -> Tensor:
        """All of them."""
        return logits

    def best(self, values: Tensor, v: Tensor) -> Tensor:
        """v·TC(s)."""
        return (values * v).sum(-1)

    def per_action(self, values: Tensor) -> Tensor | None:
        """None."""
        return None

    def disagreement(self, values: Tensor) -> Tensor:
        """Of the summed heads."""
        return values.sum(-1).std(0, correction=0)


OWN_TERM = 0.3
"""Scale of an action's own advantage term relative to the terms of its factors."""


class ActionValues(nn.Module):
    """TC_j(s, a) of each discrete action, as a dueling network (Wang et al. 2016).

    The value of an action = a value shared by all actions + the action's advantage, with zero mean
    over actions. Where actions have factors (a joystick's direction and button), the advantage is
    the sum of the factors' terms and a smaller own term: a sample of one action also trains the
    actions that share a factor. With 18 actions, each alone is sampled too rarely.

    All heads bootstrap from the same action, that of least energy under the weights (double
    Q-learning, van Hasselt et al. 2016): so the heads remain parts of one future, and changing
    their weights is one step of policy improvement. Recorded energies are not corrected for
    actions that the agent would no longer take. Raises ConfigError where actions are continuous.
    """

    terms: Tensor

    def __init__(self, world: WorldSpec, heads: tuple[str, ...]) -> None:
        super().__init__()
        if not world.actions.discrete:
            raise ConfigError(
                f"config cost.critic.kind: expected discrete actions, got {world.id}, whose "
                "actions are continuous; try cost.critic.kind=scalar"
            )
        self.shape: tuple[int, ...] = (world.actions.size, len(heads))
        factors = world.actions.factor_matrix()
        own = torch.eye(world.actions.size) * (OWN_TERM if factors.shape[1] else 1.0)
        terms = torch.cat([factors, own], 1)
        self.register_buffer("terms", terms - terms.mean(0), persistent=False)

    def output_size(self, head_size: int) -> int:
        """(1 + advantage terms)·L·Z."""
        return (1 + self.terms.shape[1]) * self.shape[1] * head_size

    def arrange(self, output: Tensor, head_size: int) -> Tensor:
        """Shared value plus advantages, [... A L Z]."""
        parts = output.view(*output.shape[:-1], 1 + self.terms.shape[1], -1)
        advantages = self.terms @ parts[..., 1:, :]
        return (parts[..., :1, :] + advantages).view(*output.shape[:-1], *self.shape, head_size)

    def of_transition(self, logits: Tensor, action: Tensor) -> Tensor:
        """Those of the recorded action."""
        return _at(logits, action.argmax(-1))

    def of_bootstrap(
        self, logits: Tensor, online_values: Callable[[], Tensor], weights: Tensor
    ) -> Tensor:
        """Those of the action that the online networks' mean prefers under `weights`."""
        energy = (online_values() * weights.unsqueeze(-2)).sum(-1)
        return _at(logits, energy.argmin(-1))

    def best(self, values: Tensor, v: Tensor) -> Tensor:
        """min_a v·TC(s, a)."""
        return (values * v.unsqueeze(1)).sum(-1).amin(-1)

    def per_action(self, values: Tensor) -> Tensor | None:
        """The values themselves."""
        return values

    def disagreement(self, values: Tensor) -> Tensor:
        """Of the summed heads at each member's best action."""
        return values.sum(-1).amin(-1).std(0, correction=0)


def _at(logits: Tensor, action: Tensor) -> Tensor:
    """The logits [E B T A L Z] at actions [B T] (int64), [E B T L Z]."""
    index = action[None, :, :, None, None, None]
    return logits.gather(3, index.expand(len(logits), -1, -1, 1, *logits.shape[4:])).squeeze(3)
