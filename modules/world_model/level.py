"""One level of a hierarchical world model above another (LeCun 2022, §4.6, Fig. 15)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from modules.messages import ActionSpec, Experience, Frozen, WorldSpec, latents_of
from modules.nets.mlp import MLP
from modules.nets.normalisation import RunningScale
from modules.objectives.objective import masked_mean
from modules.objectives.vicreg import VICReg
from modules.ports import Batch, encoded_states
from modules.world_model.jepa import JEPA


class LevelSettings(Frozen):
    """Settings of each level above the lowest.

    pool_steps: steps of the level below in one step of a level, k. macro_size: numbers of a
    macro-action. coarse_size: numbers of a coarser latent. coarse_width, coarse_blocks: of the
    predictor. coarse_unroll: steps in the training rollout. coarse_std_coeff, coarse_cov_coeff: of
    VICReg on the latents. bound_share: share of the macro-actions of experience beyond each bound
    of those that are planned with.
    """

    pool_steps: int = Field(default=10, ge=2, le=100)
    macro_size: int = Field(default=3, ge=2, le=8)
    coarse_size: int = Field(default=16, ge=2, le=8192)
    coarse_width: int = Field(default=256, ge=16, le=8192)
    coarse_blocks: int = Field(default=2, ge=1, le=16)
    coarse_unroll: int = Field(default=3, ge=1, le=100)
    coarse_std_coeff: float = Field(default=16.0, ge=0)
    coarse_cov_coeff: float = Field(default=16.0, ge=0)
    bound_share: float = Field(default=0.01, ge=0, lt=0.5)


class Bounds(nn.Module):
    """Running percentiles of each of A numbers, which map their usual range to [-1, 1].

    The average over batches for the first 1/(1-decay) updates, an exponential moving average from
    then on. Before the first update the range is [-1, 1].
    """

    low: Tensor
    high: Tensor
    count: Tensor

    def __init__(self, size: int, share: float, decay: float = 0.99) -> None:
        """`share`: of the numbers below the lower bound, and above the upper one."""
        super().__init__()
        self.share, self.decay = share, decay
        self.register_buffer("low", -torch.ones(size))
        self.register_buffer("high", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, values: Tensor) -> None:
        """Updates the bounds with `values` [M A]; no effect if M is 0."""
        if not len(values):
            return
        rate = (1 / (self.count + 1)).clamp_min(1 - self.decay)
        shares = torch.tensor([self.share, 1 - self.share], device=values.device)
        low, high = values.float().quantile(shares, dim=0)
        self.low.lerp_(low, rate)
        self.high.lerp_(high, rate)
        self.count.add_(1)

    def scaled(self, values: Tensor) -> Tensor:
        """Values [... A] such that the bounds are -1 and 1."""
        return 2 * (values - self.low) / (self.high - self.low).clamp_min(1e-6) - 1


class Level(JEPA):
    """A level above another: a JEPA whose step is k steps of the level below.

    s' = Enc(s) encodes the latent with which a step begins. The macro-action is a function of the k
    actions in between, of few numbers, learned with the predictor: it holds of these actions what
    the predictor needs. Scaled such that -1 and 1 are percentiles of experience it is an action
    like any other, and planners try none beyond them. The losses are those of `JEPA`, with VICReg
    against collapse. The read-out estimates the latent below of a coarser one: a sub-goal that is
    planned here is a state to reach there.

    `actions` describes the macro-actions.
    """

    def __init__(
        self,
        *,
        settings: LevelSettings,
        world: WorldSpec,
        latent_size: int,
        action_size: int,
        token_shape: tuple[int, int],
    ) -> None:
        """`latent_size` D and `action_size` A: of the level below."""
        size, width, macros = settings.coarse_size, settings.coarse_width, settings.macro_size
        actions = ActionSpec(
            discrete=False, size=macros, low=(-1.0,) * macros, high=(1.0,) * macros
        )
        super().__init__(
            config=JEPA.Config(
                width=width,
                blocks=settings.coarse_blocks,
                ensemble_size=1,
                unroll_steps=settings.coarse_unroll,
                target_grad_scale=1.0,
            ),
            world=world.model_copy(update={"actions": actions}),
            latent_size=size,
            token_shape=token_shape,
            objective=VICReg(
                config=VICReg.Config(
                    std_coeff=settings.coarse_std_coeff, cov_coeff=settings.coarse_cov_coeff
                )
            ),
        )
        self.pool_steps, self.actions = settings.pool_steps, actions
        self.below = RunningScale(latent_size)
        self.encoder = MLP(latent_size, width, size, layers=1)
        self.macro = MLP(settings.pool_steps * action_size, width, macros, layers=1)
        self.bounds = Bounds(macros, settings.bound_share)
        self.reader = MLP(size, width, latent_size, layers=2)

    # -- between levels ---------------------------------------------------------------------

    def _spread_below(self) -> Tensor:
        """Standard deviation of each dimension of the latents below, [D]."""
        return self.below.deviation().clamp_min(1e-3)

    def _standard_below(self, latent: Tensor) -> Tensor:
        """Latents below [... D] in units of their deviation from the mean."""
        return (latent - self.below.centre) / self._spread_below()

    def encode(self, latent: Tensor) -> Tensor:
        """Coarser latents [... I] of latents below [... D]."""
        coarser: Tensor = self.encoder(self._standard_below(latent))
        return coarser

    def read_out(self, coarser: Tensor) -> Tensor:
        """The latents below [M D] that coarser ones [M I] stand for."""
        standard: Tensor = self.reader(self._standard(coarser))
        return self.below.centre + self._spread_below() * standard

    def macro_action(self, actions: Tensor) -> Tensor:
        """The macro-actions [... A'] of sequences of k actions below [... k A], -1 and 1 being the
        bounds.
        """
        return self.bounds.scaled(self.macro(actions.flatten(-2)))

    def steps_between(self, first: Tensor, second: Tensor) -> Tensor:
        """The root mean square difference of coarser latents [M I], [M], in units of what one
        step changes.
        """
        return ((first - second) / self._delta_rms()).square().mean(-1).sqrt()

    # -- learning ---------------------------------------------------------------------------

    def places(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """The steps [B J] below at which steps of this level begin, and which of them count, [B J]
        bool. A step that the end of the episode cuts short ends where the episode does.
        """
        mask = experience.mask
        step = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(experience.terminated & mask, step, mask.shape[1] - 1).amin(1)
        place = step[:: self.pool_steps].minimum(last[:, None])
        counts = mask.gather(1, place)
        counts[:, 1:] &= place[:, 1:] > place[:, :-1]
        return place, counts.cumprod(1).bool()

    def learn(self, batch: Batch, key: Tensor) -> tuple[Batch, dict[str, Tensor]]:
        """The `batch` of the level below as this level sees it, without gradient, and the losses:
        those of `JEPA.losses`, and `read-out`, the mean squared error of the latents below that are
        read out, in units of their deviation. The read-out does not shape the latents.
        """
        below = latents_of(batch.targets).detach()
        place, mask = self.places(batch.experience)
        if place.shape[1] < 2:  # windows of less than one step
            return batch, {}
        below = below.gather(1, place.unsqueeze(-1).expand(-1, -1, below.shape[2]))
        self.below.update(below[mask])
        latents, experience = self.encode(below), self._pooled(batch.experience, place, mask)
        states, fixed = encoded_states(experience, latents), latents.detach()
        targets = encoded_states(experience, fixed)
        losses, _ = self.losses(Batch(experience, states, targets), key)
        error = self.reader(self._standard(fixed)) - self._standard_below(below)
        losses["read-out"] = masked_mean(error.square().mean(-1), mask)
        fields = {**experience.__dict__, "actions": experience.actions.detach()}
        return Batch(Experience.unchecked(**fields), targets, targets), losses

    def _pooled(self, experience: Experience, place: Tensor, mask: Tensor) -> Experience:
        """Experience [B J ...] whose steps are at the places [B J] of that below, as far as `mask`
        [B J] says: its actions are macro-actions, its signals means over what lies between.
        """
        k, count = self.pool_steps, place.shape[1] - 1
        actions = experience.actions[:, : k * count].reshape(
            len(place), count, k, experience.actions.shape[2]
        )
        # No action is taken behind the end of an episode or of a window.
        step = place[:, :-1, None] + torch.arange(k, device=place.device)
        taken = (step < place[:, 1:, None]) & mask[:, 1:, None]
        macros = self.macro(torch.where(taken.unsqueeze(-1), actions, 0.0).flatten(2))
        self.bounds.update(macros.detach()[mask[:, 1:]])
        macros = self.bounds.scaled(macros)
        row = torch.arange(len(place), device=place.device).unsqueeze(1)
        total = experience.signals.cumsum(1)[row, place]
        mean = total.diff(dim=1) / place.diff(dim=1).clamp_min(1).unsqueeze(-1)
        tokens, known = experience.tokens, experience.action_mask
        if known is not None:
            # A macro-action is known where all actions that it stands for are.
            known = (known[:, : k * count].view(len(place), count, k) | ~taken).all(2)
            known = torch.cat([known, torch.ones_like(known[:, :1])], 1)
        seen = experience.signals_mask
        if seen is not None:
            missing = (~seen).long().cumsum(1)[row, place].diff(dim=1) > 0
            seen = torch.cat([seen[:, :1], ~missing], 1)
        ends = experience.ends_mask
        return Experience.unchecked(
            action_mask=known,
            signals_mask=seen,
            ends_mask=None if ends is None else ends[row, place],
            frames=None,
            vectors=None,
            actions=torch.cat([macros, torch.zeros_like(macros[:, :1])], 1),
            signals=torch.cat([experience.signals[:, :1], mean], 1),
            tokens=None if tokens is None else tokens[row, place],
            terminated=experience.terminated[row, place] & mask,
            truncated=torch.zeros_like(mask),
            mask=mask,
            importance_weights=experience.importance_weights,
            indices=experience.indices,
        )
