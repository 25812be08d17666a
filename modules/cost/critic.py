"""The trainable critic TC (LeCun 2022, §3.2 eq. 3, trained as §3.3 and Fig. 7).

TC_j(s_t) estimates what drive j will yet cost: Σ_{i>=1} γ^{i-1} IC_j(s_{t+i}), the discounted sum
of later intrinsic energies, from the next state on; the present one is felt, not foretold. That is
the sum a plan's cost continues with after its last state.

The paper's critic is not probabilistic, nor is this one: a number for each head. What a head puts
out and how it errs is `Number`'s alone; a critic of another output, say a distribution over bins,
is one of these with another `output`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules.messages import ConfigError, Experience, State, WorldSpec
from modules.nets.mlp import MLP
from modules.weights import weights as weights_of


class Expectation(NamedTuple):
    """What a critic says of M states.

    `critic` [M L]; `critic_actions` [M A L] or None where it does not know actions;
    `disagreement` [M], >= 0.
    """

    critic: Tensor
    critic_actions: Tensor | None
    disagreement: Tensor


class Critic(Protocol):
    """TC_j(s): one head for each drive."""

    heads: tuple[str, ...]

    def expect(self, latent: Tensor) -> Expectation:
        """What each head expects of latents [M D]."""

    def future(self, latent: Tensor, v: Tensor) -> Tensor:
        """v·TC(s) of latents [M D] under weights `v` [M L], at the best action, [M]."""

    def speaks(self) -> bool:
        """False while it says exactly 0 of every state."""

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As `modules.ports.Learns`; `energies` [B W L] is what each step cost each drive."""

    def after_update(self) -> None:
        """Called after each optimiser step."""


def sums_to_come(
    energies: Tensor,
    beyond: Tensor,
    terminated: Tensor,
    valid: Tensor,
    discount: float,
    n_steps: int,
) -> tuple[Tensor, Tensor]:
    """What a critic should have said at each step of windows: values [.. B W L], mask [B W].

    Σ_{i=1..k} γ^{i-1} IC(s_{t+i}) + γ^k TC(s_{t+k}), where k is `n_steps` or as far as the window
    goes, and `beyond` [.. B W L] is TC there. After a `terminated` step nothing comes; a truncated
    one, or the end of a window, would have gone on, so TC speaks for the rest. The mask is true
    where at least one later step was seen.
    """
    steps, rows = energies.shape[1], torch.arange(len(valid), device=valid.device).unsqueeze(-1)
    here = torch.arange(steps, device=valid.device)
    total, reach = torch.zeros_like(energies), here.repeat(len(valid), 1)
    for i in range(1, min(n_steps, steps - 1) + 1):
        there = valid[:, i:]
        total[:, : steps - i] += discount ** (i - 1) * energies[:, i:] * there.unsqueeze(-1)
        reach[:, : steps - i] += there.long()
    ahead = reach - here
    rest = discount**ahead * ~terminated[rows, reach]
    return total + rest.unsqueeze(-1) * beyond[..., rows, reach, :], (ahead > 0) & valid


class Number:
    """A head that says one number, and errs by its squared distance (§3.3)."""

    size = 1

    def read(self, raw: Tensor) -> Tensor:
        """What was put out, [... size], as energies [...]; 0 where all of it is 0."""
        return raw.squeeze(-1)

    def error(self, raw: Tensor, wanted: Tensor) -> Tensor:
        """How wrong `raw` [... size] is about energies `wanted` [...], [...]."""
        return (raw.squeeze(-1) - wanted).square()


class _Ensemble(nn.Module):
    """Several critics that began differently and so agree only where they have learned.

    `shape` is that of what one says of a state, [L] or [A L].
    """

    output = Number()

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        width: int,
        members: int,
        n_steps: int,
        target_rate: float,
        weights: dict[str, float],
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__()
        self.shape = (*shape, self.output.size)
        self.heads, self.discount = heads, discount
        self.n_steps, self.target_rate = n_steps, target_rate
        self.weights: Tensor
        counted = weights_of(weights, heads, "cost.critic.weights")
        self.register_buffer("weights", counted, persistent=False)
        self.members = nn.ModuleList(
            MLP(latent_size, width, math.prod(self.shape), layers=1, silent=True)
            for _ in range(members)
        )
        self.targets = copy.deepcopy(self.members).requires_grad_(False)
        self._heard: tuple[tuple[int, int], ...] = ()

    def _raw(self, latent: Tensor, networks: nn.ModuleList) -> Tensor:
        """What each network puts out, [E ... *shape]."""
        return torch.stack([network(latent).unflatten(-1, self.shape) for network in networks])

    def _said(self, latent: Tensor) -> Tensor:
        """What each member says, [E M L] or [E M A L]; exact zeros, unasked, while fresh."""
        if not self.speaks():
            return latent.new_zeros(len(self.members), len(latent), *self.shape[:-1])
        return self.output.read(self._raw(latent, self.members))

    def speaks(self) -> bool:
        """False while the last layer of every member is exactly zero, as it begins.

        Once it was heard it is not examined again until other weights are loaded. While silent it
        always is: a fused optimiser changes weights without leaving a trace in their version.
        """
        last = [p for member in self.members for p in member.last.parameters()]  # type: ignore[union-attr]
        now = tuple((p.data_ptr(), p._version) for p in last)
        if now != self._heard:
            self._heard = now if any(bool(p.detach().any()) for p in last) else ()
        return bool(self._heard)

    @torch.no_grad()
    def after_update(self) -> None:
        """Lets the target networks follow by `target_rate`."""
        for target, online in zip(
            self.targets.parameters(), self.members.parameters(), strict=True
        ):
            target.lerp_(online, self.target_rate)

    def _compared(
        self, raw: Tensor, wanted: Tensor, mask: Tensor, weights: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The loss of `raw` [E B T L O], mean over members and the steps in `mask` [B W], and the
        priority of each window: how far it is from `wanted` [E B W L] under the weights.

        Only the first T <= W steps are compared, those of which there is an online encoding.
        In the loss a head counts as much as any other, whatever its weight now: it may change.
        """
        steps = raw.shape[2]
        wanted, mask = wanted[:, :, :steps], mask[:, :steps]
        each = self.output.error(raw, wanted).sum(-1).mean(0) * mask
        loss = (each * weights.unsqueeze(-1)).sum() / mask.sum().clamp_min(1)
        missed = (self.output.read(raw.detach()) - wanted) * self.weights
        far = missed.sum(-1).abs().mean(0) * mask
        return {"critic": loss}, far.sum(-1) / mask.sum(-1).clamp_min(1)


def _latents(states: Sequence[State]) -> Tensor:
    return torch.stack([state.latent for state in states], 1)


class ScalarCritic(_Ensemble):
    """TC_j(s) of a state: what follows when the agent goes on as it did."""

    class Config(BaseModel):
        """One number for each drive.

        `width`: hidden units. `members`: how many critics are asked. `n_steps`: felt energies
        before the critic's own word counts. `target_rate`: share of the online critic its target
        takes over in an update. `weights`: of the drives, in its priorities; those not named
        count as usual.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["scalar"] = "scalar"
        width: int = Field(256, ge=1, le=8192)
        members: int = Field(2, ge=1, le=32)
        n_steps: int = Field(3, ge=1, le=1000)
        target_rate: float = Field(0.01, gt=0, le=1)
        weights: dict[str, float] = Field(default_factory=dict)

    def __init__(
        self,
        *,
        width: int = 256,
        members: int = 2,
        n_steps: int = 3,
        target_rate: float = 0.01,
        weights: dict[str, float] | None = None,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__(
            shape=(len(heads),),
            width=width,
            members=members,
            n_steps=n_steps,
            target_rate=target_rate,
            weights=weights or {},
            latent_size=latent_size,
            heads=heads,
            discount=discount,
        )

    def expect(self, latent: Tensor) -> Expectation:
        """What each head expects of latents [M D]."""
        said = self._said(latent)
        return Expectation(said.mean(0), None, said.sum(-1).std(0, correction=0))

    def future(self, latent: Tensor, v: Tensor) -> Tensor:
        """v·TC(s), [M]."""
        return (self._said(latent).mean(0) * v).sum(-1)

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Squared distance from the n-step sums; each member is compared with its own target."""
        with torch.no_grad():
            beyond = self.output.read(self._raw(_latents(targets), self.targets))
            wanted, mask = sums_to_come(
                energies, beyond, experience.terminated, experience.valid,
                self.discount, self.n_steps,
            )  # fmt: skip
        raw = self._raw(_latents(states), self.members)
        seen = len(states)
        return self._compared(raw, wanted[:, :, :seen], mask[:, :seen], experience.weights)


class ActionCritic(_Ensemble):
    """TC_j(s, a) of a state and each discrete action: what follows when it is taken there.

    All heads look at one action, that of least energy under the weights; so they stay the parts
    of one future, and re-weighting them is one step of policy improvement.
    """

    class Config(BaseModel):
        """One number for each drive and action.

        `width`: hidden units. `members`: how many critics are asked. `n_steps`: felt energies
        before the critic's own word counts. `target_rate`: share of the online critic its target
        takes over in an update. `weights`: of the drives, for the action all heads learn from;
        those not named count as usual.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["actions"] = "actions"
        width: int = Field(256, ge=1, le=8192)
        members: int = Field(2, ge=1, le=32)
        n_steps: int = Field(3, ge=1, le=1000)
        target_rate: float = Field(0.01, gt=0, le=1)
        weights: dict[str, float] = Field(default_factory=dict)

    def __init__(
        self,
        *,
        width: int = 256,
        members: int = 2,
        n_steps: int = 3,
        target_rate: float = 0.01,
        weights: dict[str, float] | None = None,
        world: WorldSpec,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        if not world.actions.discrete:
            raise ConfigError(
                f"config cost.critic.kind: 'actions' wanted discrete actions, {world.id} has "
                "continuous ones; try cost.critic.kind=scalar"
            )
        super().__init__(
            shape=(world.actions.size, len(heads)),
            width=width,
            members=members,
            n_steps=n_steps,
            target_rate=target_rate,
            weights=weights or {},
            latent_size=latent_size,
            heads=heads,
            discount=discount,
        )

    def expect(self, latent: Tensor) -> Expectation:
        """What each head expects of latents [M D] and each action.

        `critic` is at the action best under equal weights; `disagreement` the members' spread
        about how good that is.
        """
        said = self._said(latent)
        heads = said.mean(0)
        best = heads.sum(-1).argmin(-1)
        return Expectation(
            heads[torch.arange(len(best)), best],
            heads,
            said.sum(-1).amin(-1).std(0, correction=0),
        )

    def future(self, latent: Tensor, v: Tensor) -> Tensor:
        """v·TC(s, a) at the action where it is least, [M]."""
        heads = self._said(latent).mean(0)
        return (heads * v.unsqueeze(1)).sum(-1).amin(-1)

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Squared distance, at the action taken, from the n-step sums.

        The rest of a sum is what the targets say of the one action the online members together
        find best there (van Hasselt et al. 2016). The felt part is not corrected for actions the
        agent would no longer take.
        """
        raw = self._raw(_latents(states), self.members)
        with torch.no_grad():
            reached = _latents(targets)
            ahead = self.output.read(self._raw(reached, self.members)).mean(0)
            best = (ahead * self.weights).sum(-1).argmin(-1)
            beyond = self.output.read(_at(self._raw(reached, self.targets), best))
            wanted, mask = sums_to_come(
                energies, beyond, experience.terminated, experience.valid,
                self.discount, self.n_steps,
            )  # fmt: skip
        taken = _at(raw, experience.actions[:, : len(states)].argmax(-1))
        return self._compared(taken, wanted, mask, experience.weights)


def _at(raw: Tensor, action: Tensor) -> Tensor:
    """What was put out, [E B W A L O], for the actions [B W] alone, [E B W L O]."""
    index = action[None, :, :, None, None, None]
    return raw.gather(3, index.expand(len(raw), -1, -1, 1, *raw.shape[4:])).squeeze(3)
