"""The trainable critic TC (LeCun 2022, §3.2 eq. 3, trained as §3.3 and Fig. 7).

TC_j(s_t) estimates what drive j will yet cost: Σ_{i>=1} γ^{i-1} IC_j(s_{t+i}), the discounted sum
of later intrinsic energies, from the next state on; the present one is felt, not foretold. That is
the sum a plan's cost continues with after its last state.

The paper's critic is not probabilistic, nor are `scalar` and `actions`: a number for each head.
`scalar-categorical` and `actions-categorical` are the same critics with another `Output`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal, NamedTuple, Protocol

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from modules.cost.value_head import Distribution, Number, Output
from modules.messages import ConfigError, Experience, State, WorldSpec, latents_of
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

    def critic_value(self, latent: Tensor, v: Tensor) -> Tensor:
        """v·TC(s) of latents [M D] under weights `v` [M L], at the best action, [M]."""

    def is_initialised(self) -> bool:
        """False while it says exactly 0 of every state."""

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """As `modules.ports.Learnable`; `energies` [B W L] is what each step cost each drive."""

    def on_update(self) -> None:
        """Called after each optimiser step."""

    def on_reset(self) -> None:
        """Called after a reset of the weights."""

    def window_steps(self) -> int:
        """Steps of experience that the next losses ask for."""

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """As `modules.ports.Learnable`."""


class Ahead(NamedTuple):
    """What followed the first T steps of windows, and how far it was seen.

    `felt` [B T L]: discounted energies of the steps seen; `rest` [B T]: how much what comes after
    them counts, 0 where an episode was over; `reach` [B T]: the step at which that begins; `seen`
    [B T]: whether there was a later step at all.
    """

    felt: Tensor
    rest: Tensor
    reach: Tensor
    seen: Tensor


def ahead(
    energies: Tensor, terminated: Tensor, valid: Tensor, steps: int, discount: float, n_steps: int
) -> Ahead:
    """What a critic should say at the first `steps` of windows is felt + rest·TC(s at reach).

    That is Σ_{i=1..k} γ^{i-1} IC(s_{t+i}) + γ^k TC(s_{t+k}), where k is `n_steps` or as far as the
    window goes. `energies` [B W L]. After a `terminated` step nothing comes; a truncated one, or
    the end of a window, would have gone on, so TC speaks for the rest.
    """
    here = torch.arange(steps, device=valid.device)
    felt = torch.zeros_like(energies[:, :steps])
    for i in range(1, min(n_steps, valid.shape[1] - 1) + 1):
        there = valid[:, i : i + steps]
        few = there.shape[1]
        felt[:, :few] += discount ** (i - 1) * energies[:, i : i + few] * there.unsqueeze(-1)
    reach = reaches(valid, steps, n_steps)
    rest = discount ** (reach - here) * ~terminated.gather(1, reach)
    return Ahead(felt, rest, reach, (reach > here) & valid[:, :steps])


def reaches(valid: Tensor, steps: int, n_steps: int) -> Tensor:
    """The last valid step [B T] within `n_steps` of each of the first `steps` of windows [B W]."""
    reach = torch.arange(steps, device=valid.device).repeat(len(valid), 1)
    for i in range(1, min(n_steps, valid.shape[1] - 1) + 1):
        there = valid[:, i : i + steps]
        reach[:, : there.shape[1]] += there.long()
    return reach


class Annealing(BaseModel):
    """How a critic looks ahead, and how that changes while it learns.

    `n_steps`: felt energies before the critic's own word counts. `n_step_start`,
    `discount_start`: what these are at first, None: the same; over `annealing_updates` they
    become what they are to be, by equal ratios (Fedus et al. 2019; Schwarzer et al. 2023): a
    young critic is better not asked much.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    n_steps: int = Field(3, ge=1, le=1000)
    n_step_start: int | None = Field(None, ge=1, le=1000)
    discount_start: float | None = Field(None, gt=0, lt=1)
    annealing_updates: int = Field(10_000, ge=1)


_ALONE = 0.3
"""How much what an action has for itself counts beside the parts it shares with others."""


def _odd(num_bins: int) -> int:
    if num_bins % 2 == 0:
        raise ValueError("odd, with a bin at 0")
    return num_bins


class _Ensemble(nn.Module, ABC):
    """Several critics that began differently and so agree only where they have learned.

    `shape` is that of what one says of a state, [L] or [A L].
    """

    updates: Tensor
    weights: Tensor

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        width: int,
        ensemble_size: int,
        n_steps: int,
        n_step_start: int | None,
        discount_start: float | None,
        annealing_updates: int,
        ema_rate: float,
        drive_weights: dict[str, float],
        num_bins: int | None,
        v_max: float,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__()
        self.output: Output = Number() if num_bins is None else Distribution(num_bins, v_max)
        self.shape = (*shape, self.output.size)
        self.heads, self.ema_rate = heads, ema_rate
        self.discounts = (discount if discount_start is None else discount_start, discount)
        self.reaches = (n_steps if n_step_start is None else n_step_start, n_steps)
        self.annealing_updates = annealing_updates
        counted = weights_of(drive_weights, heads, "cost.critic.drive_weights")
        self.register_buffer("weights", counted, persistent=False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.members = nn.ModuleList(
            MLP(latent_size, width, self._outputs(), layers=1, zero_output=True)
            for _ in range(ensemble_size)
        )
        self.targets = copy.deepcopy(self.members).requires_grad_(False)
        self._heard: tuple[tuple[int, int], ...] = ()

    def _annealed(self) -> float:
        """How far the annealing has come, 0 to 1."""
        return min(1.0, int(self.updates) / self.annealing_updates)

    @property
    def n_steps(self) -> int:
        """Felt energies before the critic's own word counts, now."""
        first, last = self.reaches
        ratio: float = (last / first) ** self._annealed()
        return round(first * ratio)

    @property
    def discount(self) -> float:
        """γ now. Its distance from 1 shrinks by equal ratios."""
        first, last = (1 - γ for γ in self.discounts)
        return self.discounts[1] if last <= 0 else 1 - first * (last / first) ** self._annealed()

    def window_steps(self) -> int:
        """Steps of experience that the next losses ask for."""
        return self.n_steps + 1

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps [B W] at which it takes over from what was felt."""
        reach = reaches(experience.mask, steps, self.n_steps)
        return torch.zeros_like(experience.mask).scatter_(1, reach, True)

    def _outputs(self) -> int:
        """How many numbers a network puts out."""
        return math.prod(self.shape)

    def _formed(self, out: Tensor) -> Tensor:
        """What a network put out [... outputs] in the form of `shape`, [... *shape]."""
        return out.view(*out.shape[:-1], *self.shape)

    def _raw(self, latent: Tensor, networks: nn.ModuleList) -> Tensor:
        """What each network says before it is read, [E ... *shape]."""
        return torch.stack([self._formed(network(latent)) for network in networks])

    def _said(self, latent: Tensor) -> Tensor:
        """What each member says, [E M L] or [E M A L]; exact zeros, unasked, while fresh."""
        if not self.is_initialised():
            return latent.new_zeros(len(self.members), len(latent), *self.shape[:-1])
        return self.output.read(self._raw(latent, self.members))

    def is_initialised(self) -> bool:
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
    def on_update(self) -> None:
        """Lets the target networks follow by `ema_rate`."""
        torch._foreach_lerp_(
            list(self.targets.parameters()), list(self.members.parameters()), self.ema_rate
        )
        self.updates.add_(1)

    def on_reset(self) -> None:
        """Anneals once more, after a reset of the weights."""
        self.updates.zero_()

    def losses(
        self, energies: Tensor, experience: Experience, states: list[State], targets: list[State]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """How far what is said of `states` is from what came, and how far that is, by window.

        Each member is compared with its own target network. In the loss a head counts as much as
        any other, whatever its weight now: it may change. The priority of a window is how far it
        is off under the weights.
        """
        steps = len(states)
        later = ahead(
            energies, experience.terminated, experience.mask, steps, self.discount, self.n_steps
        )
        with torch.no_grad():
            index = later.reach.unsqueeze(-1).expand(-1, -1, targets[0].latent.shape[-1])
            reached = latents_of(targets).gather(1, index)
            wanted = self.output.wanted(self._beyond(reached), later.felt, later.rest.unsqueeze(-1))
        said = self._here(latents_of(states), experience.actions[:, :steps])
        each = self.output.error(said, wanted).sum(-1).mean(0) * later.seen
        loss = (
            each * experience.importance_weights.unsqueeze(-1)
        ).sum() / later.seen.sum().clamp_min(1)
        with torch.no_grad():
            missed = (self.output.read(said) - self.output.mean(wanted)) * self.weights
            far = missed.sum(-1).abs().mean(0) * later.seen
        return {"critic": loss}, far.sum(-1) / later.seen.sum(-1).clamp_min(1)

    @abstractmethod
    def _here(self, latent: Tensor, action: Tensor) -> Tensor:
        """What the members put out of latents [B T D] and actions [B T A], [E B T L O]."""

    @abstractmethod
    def _beyond(self, latent: Tensor) -> Tensor:
        """What the target networks put out of latents [B T D], [E B T L O]."""


class ScalarCritic(_Ensemble):
    """TC_j(s) of a state: what follows when the agent goes on as it did."""

    class Config(Annealing):
        """One number for each drive.

        `width`: hidden units. `ensemble_size`: how many critics are asked. `ema_rate`: share of the
        online critic its target takes over in an update. `drive_weights`: of the drives, in its
        priorities; those not named count as usual.
        """

        kind: Literal["scalar"] = "scalar"
        width: int = Field(256, ge=1, le=8192)
        ensemble_size: int = Field(2, ge=1, le=32)
        ema_rate: float = Field(0.01, gt=0, le=1)
        drive_weights: dict[str, float] = Field(default_factory=dict)

    def __init__(
        self,
        *,
        width: int,
        ensemble_size: int,
        n_steps: int,
        n_step_start: int | None,
        discount_start: float | None,
        annealing_updates: int,
        ema_rate: float,
        drive_weights: dict[str, float],
        num_bins: int | None = None,
        v_max: float = 0.0,
        latent_size: int,
        heads: tuple[str, ...],
        discount: float,
    ) -> None:
        super().__init__(
            shape=(len(heads),),
            width=width,
            ensemble_size=ensemble_size,
            n_steps=n_steps,
            n_step_start=n_step_start,
            discount_start=discount_start,
            annealing_updates=annealing_updates,
            ema_rate=ema_rate,
            drive_weights=drive_weights,
            num_bins=num_bins,
            v_max=v_max,
            latent_size=latent_size,
            heads=heads,
            discount=discount,
        )

    def expect(self, latent: Tensor) -> Expectation:
        """What each head expects of latents [M D]."""
        said = self._said(latent)
        return Expectation(said.mean(0), None, said.sum(-1).std(0, correction=0))

    def critic_value(self, latent: Tensor, v: Tensor) -> Tensor:
        """v·TC(s), [M]."""
        return (self._said(latent).mean(0) * v).sum(-1)

    def _here(self, latent: Tensor, action: Tensor) -> Tensor:
        return self._raw(latent, self.members)

    def _beyond(self, latent: Tensor) -> Tensor:
        return self._raw(latent, self.targets)


class ActionCritic(_Ensemble):
    """TC_j(s, a) of a state and each discrete action: what follows when it is taken there.

    All heads look at one action, that of least energy under the weights; so they stay the parts
    of one future, and re-weighting them is one step of policy improvement.

    Where actions are made of parts, as a joystick's are, what is learned of one tells of all that
    share a part with it: how an action is off the mean is a sum over its parts, and a smaller term
    of its own. With 18 actions each is tried too seldom to be learned alone.
    """

    class Config(ScalarCritic.Config):
        """One number for each drive and action.

        As `scalar`; `drive_weights` also choose the action all heads learn from.
        """

        kind: Literal["actions"] = "actions"  # type: ignore[assignment]

    made: Tensor

    def __init__(
        self,
        *,
        width: int,
        ensemble_size: int,
        n_steps: int,
        n_step_start: int | None,
        discount_start: float | None,
        annealing_updates: int,
        ema_rate: float,
        drive_weights: dict[str, float],
        num_bins: int | None = None,
        v_max: float = 0.0,
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
        parts = world.actions.factor_matrix()
        alone = torch.eye(world.actions.size) * (_ALONE if parts.shape[1] else 1.0)
        made = torch.cat([parts, alone], 1)
        self.terms = made.shape[1]
        super().__init__(
            shape=(world.actions.size, len(heads)),
            width=width,
            ensemble_size=ensemble_size,
            n_steps=n_steps,
            n_step_start=n_step_start,
            discount_start=discount_start,
            annealing_updates=annealing_updates,
            ema_rate=ema_rate,
            drive_weights=drive_weights,
            num_bins=num_bins,
            v_max=v_max,
            latent_size=latent_size,
            heads=heads,
            discount=discount,
        )
        self.register_buffer("made", made - made.mean(0), persistent=False)

    def _outputs(self) -> int:
        return math.prod(self.shape[1:]) * (1 + self.terms)

    def _formed(self, out: Tensor) -> Tensor:
        """What all actions share, and how each is off the mean of all (Wang et al. 2016)."""
        parts = out.view(*out.shape[:-1], 1 + self.terms, -1)
        off = self.made @ parts[..., 1:, :]
        return (parts[..., :1, :] + off).view(*out.shape[:-1], *self.shape)

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

    def critic_value(self, latent: Tensor, v: Tensor) -> Tensor:
        """v·TC(s, a) at the action where it is least, [M]."""
        heads = self._said(latent).mean(0)
        return (heads * v.unsqueeze(1)).sum(-1).amin(-1)

    def _here(self, latent: Tensor, action: Tensor) -> Tensor:
        return _at(self._raw(latent, self.members), action.argmax(-1))

    def _beyond(self, latent: Tensor) -> Tensor:
        """What the targets say of the one action the online members together find best (van
        Hasselt et al. 2016). The felt part is not corrected for actions the agent would no longer
        take.
        """
        said = self.output.read(self._raw(latent, self.members)).mean(0)
        best = (said * self.weights).sum(-1).argmin(-1)
        return _at(self._raw(latent, self.targets), best)


def _at(raw: Tensor, action: Tensor) -> Tensor:
    """What was put out, [E B T A L O], for the actions [B T] alone, [E B T L O]."""
    index = action[None, :, :, None, None, None]
    return raw.gather(3, index.expand(len(raw), -1, -1, 1, *raw.shape[4:])).squeeze(3)


class CategoricalScalarCritic(ScalarCritic):
    """TC_j(s) as a distribution over bins of energy."""

    class Config(ScalarCritic.Config):
        """As `scalar`. `num_bins`: how many, odd. `v_max`: the largest energy that has a bin."""

        kind: Literal["scalar-categorical"] = "scalar-categorical"  # type: ignore[assignment]
        num_bins: Annotated[int, AfterValidator(_odd)] = Field(51, ge=3, le=1001)
        v_max: float = Field(200.0, gt=0)


class CategoricalActionCritic(ActionCritic):
    """TC_j(s, a) as a distribution over bins of energy."""

    class Config(ActionCritic.Config):
        """As `actions`. `num_bins`: how many, odd. `v_max`: the largest energy that has a bin."""

        kind: Literal["actions-categorical"] = "actions-categorical"  # type: ignore[assignment]
        num_bins: Annotated[int, AfterValidator(_odd)] = Field(51, ge=3, le=1001)
        v_max: float = Field(200.0, gt=0)
