"""A deterministic joint-embedding predictive model of the world (LeCun 2022, §4.4 and 4.5)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from modules import chance
from modules.messages import Directive, Experience, Situation, State, WorldSpec, latents_of
from modules.nets.mlp import MLP, ResidualMLP
from modules.nets.normalisation import RunningScale, symexp, symlog
from modules.objectives.objective import Objective
from modules.ports import Batch

_RARE = -5.0
"""Where the logit of an end begins: a fresh model expects to live on (probability .007)."""


def _passing(x: Tensor, share: float) -> Tensor:
    """`x`, through which that share of a gradient goes on."""
    return x if share == 1 else x * share + x.detach() * (1 - share)


class _Step(NamedTuple):
    """One prediction, M rows.

    The latents of each of K heads [M K D], their mean [M D] and spread [M]; the mean change in
    strides [M D].
    """

    heads: Tensor
    latent: Tensor
    uncertainty: Tensor
    change: Tensor


class JEPA(nn.Module):
    """State and action → the next state, in latent space: s' = s + stride·f(s, a).

    It learns by predicting `unroll_steps` ahead from its own predictions. Inputs are standardised
    and changes are predicted in units of their usual size, both from running statistics of the
    target latents, so that any perception is predicted with the same care in every dimension;
    and as the error is measured in those units too, shrinking the latents gains nothing.
    Fresh, it expects that nothing changes.

    The state it imagines carries the directive's tokens, which modulate the predictor (§6: a
    generic model, a small part of it modulated for the task).
    """

    class Config(BaseModel):
        """Settings of `jepa`.

        width, blocks: of the predictor. ensemble: heads whose disagreement is `uncertainty`; 1
        is certain of everything. unroll_steps: how far predictions are compared in learning.
        prediction_weight, invariance_weight, signals_weight, ended_weight: of the losses.
        shaping: share of their gradient, and the objective's, that goes on into the perception.
        windows: share of a batch it learns from; most of what is encoded is for it alone.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["jepa"] = "jepa"
        width: int = Field(default=256, ge=16)
        blocks: int = Field(default=2, ge=1, le=16)
        ensemble_size: int = Field(default=3, ge=1, le=16)
        unroll_steps: int = Field(default=5, ge=1)
        prediction_weight: float = Field(default=1.0, ge=0)
        invariance_weight: float = Field(default=0.0, ge=0)
        signals_weight: float = Field(default=1.0, ge=0)
        ended_weight: float = Field(default=1.0, ge=0)
        encoder_grad_scale: float = Field(default=1.0, ge=0, le=1)
        batch_fraction: float = Field(default=1.0, gt=0, le=1)

    updates: Tensor

    def __init__(
        self,
        *,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
        objective: Objective,
        width: int = 256,
        blocks: int = 2,
        ensemble_size: int = 3,
        unroll_steps: int = 5,
        prediction_weight: float = 1.0,
        invariance_weight: float = 0.0,
        signals_weight: float = 1.0,
        ended_weight: float = 1.0,
        encoder_grad_scale: float = 1.0,
        batch_fraction: float = 1.0,
    ) -> None:
        super().__init__()
        self.objective, self.ensemble_size, self.unroll_steps = (
            objective,
            ensemble_size,
            unroll_steps,
        )
        self.prediction_weight, self.signals_weight = prediction_weight, signals_weight
        self.invariance_weight, self.ended_weight = invariance_weight, ended_weight
        self.encoder_grad_scale, self.batch_fraction = encoder_grad_scale, batch_fraction
        self.with_factors = world.actions.with_factors
        told = world.actions.size + world.actions.factor_matrix().shape[1]
        self.trunk = ResidualMLP(latent_size + told, width, blocks, token_shape)
        self.change = nn.Linear(width, ensemble_size * latent_size)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)
        inputs = 2 * latent_size + told
        self.felt = MLP(inputs, width, len(world.signals) + 1, 2, token_shape, silent=True)
        with torch.no_grad():
            self.felt.last.bias[-1] = _RARE
            if ensemble_size > 1:
                # Heads that begin alike would stay alike where no data tells them apart; their
                # mean still begins at no change.
                apart = torch.randn(ensemble_size, latent_size, width) * 0.1 * width**-0.5
                self.change.weight.copy_((apart - apart.mean(0)).flatten(0, 1))
        self.latents = RunningScale(latent_size)
        self.strides = RunningScale(latent_size)
        self.feelings = RunningScale(len(world.signals))
        self.misses = RunningScale(latent_size)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    # -- imagining --------------------------------------------------------------------------

    def _scale(self) -> Tensor:
        """How much each dimension of a latent varies, [D]."""
        return self.latents.deviation().clamp_min(1e-3)

    def _stride(self) -> Tensor:
        """How much each dimension changes in one step, [D]."""
        return torch.maximum(self.strides.magnitude(), 1e-3 * self._scale())

    def _advance(self, latent: Tensor, action: Tensor, tokens: Tensor | None) -> _Step:
        standard = (latent - self.latents.centre) / self._scale()
        features = self.trunk(torch.cat([standard, self.with_factors(action)], -1), tokens)
        change = self.change(features).unflatten(1, (self.ensemble_size, latent.shape[1]))
        stride = self._stride()
        if self.ensemble_size == 1:
            mean, spread = change[:, 0], latent.new_zeros(len(latent))
        else:
            mean = change.mean(1)
            # Of standard form but with a gradient that is finite where all heads agree.
            spread = ((change - mean.unsqueeze(1)).square().mean((1, 2)) + 1e-12).sqrt()
        return _Step(
            heads=latent.unsqueeze(1) + stride * change,
            latent=latent + stride * mean,
            uncertainty=spread,
            change=mean,
        )

    def _feel(
        self, latent: Tensor, action: Tensor, change: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What a step does to the body: standardised symlog signals [M S], logit of an end [M].

        A network of its own: sharing the predictor's, the rare and sudden end of an episode
        costs the prediction of all else (CartPole, 5 steps: .13 of persistence's error, not .09).
        """
        standard = (latent - self.latents.centre) / self._scale()
        felt = self.felt(torch.cat([standard, self.with_factors(action), change], -1), tokens)
        return felt[:, :-1], felt[:, -1]

    def start(self, situation: Situation, directive: Directive) -> State:
        """The perceived state [B ...], its carry the directive's tokens [B T·E] for `step`."""
        return State.unchecked(
            **{**situation.state.__dict__, "hidden": directive.tokens.flatten(1)}
        )

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after an encoded action [M A] (relaxed ones too), differentiable in both.

        `uncertainty` [M] is the standard deviation over heads in units of a usual change.
        Deterministic: there is no latent variable, `z` is not used.
        """
        made = self._advance(state.latent, action, state.hidden)
        felt, end = self._feel(state.latent, action, made.change, state.hidden)
        scale = self.feelings.deviation().clamp_min(1e-2)
        return State.unchecked(
            latent=made.latent,
            hidden=state.hidden,
            signals=symexp(self.feelings.centre + scale * felt),
            ended=end.sigmoid(),
            uncertainty=made.uncertainty,
            goal=state.goal,
        )

    def complete(self, state: State) -> State:
        """Itself: `step` leaves nothing for later."""
        return state

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """What is expected after the action [B A] just chosen (§3.1.1); its carry is empty."""
        after = self.step(self.start(situation, directive), action)
        return after.replace(hidden=after.latent.new_zeros(len(action), 0))

    # -- learning ---------------------------------------------------------------------------

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Named scalar losses; no priorities.

        `prediction`: the objective's error of each head's latents over up to `unroll_steps` steps
        open-loop from `states[0]`, against `targets` (no gradient). Its unit in a dimension is
        √(deviation · usual change), or the usual error of one step where that is larger: what
        varies between two views of one frame is not to be chased. `invariance`: the same error of
        `states[0]` about its target, another view of the same step, in units of the deviation
        (VICReg's third term). `signals`: mean
        squared error of standardised symlog signals; those felt on step t+1 are the consequence
        of the action at t. `ended`: cross entropy of `terminated`. Then the objective's penalties
        on all valid online latents, also of windows not learned from: spread needs many.

        Nothing beyond an end, or where `valid` is false, counts; rows count by
        `experience.weights`. Like a batch norm in training, it also updates the running scales.
        """
        experience, states, targets = batch
        whole = _passing(
            latents_of(states)[experience.mask[:, : len(states)]], self.encoder_grad_scale
        )
        if self.batch_fraction < 1:
            few = self._few(experience)
            experience = experience.select(few)
            states, targets = ([s.select(few) for s in given] for given in (states, targets))
        window = self.window_steps()
        valid = experience.mask[:, :window]
        online = _passing(latents_of(states), self.encoder_grad_scale)
        target = latents_of(targets[:window]).detach()
        signals = symlog(experience.signals[:, :window])
        over = (experience.terminated | experience.truncated)[:, :window]
        usable = valid[:, 1:] & valid[:, :-1] & ~over[:, :-1]
        first = self._first()
        self.latents.update(target[:, first:][valid[:, first:]])
        strides = target[:, first + 1 :] - target[:, first:-1]
        self.strides.update(strides[usable[:, first:]])
        self.feelings.update(signals[:, 1:][usable])

        felt_scale = self.feelings.deviation().clamp_min(1e-2)
        heard = self._heard(experience.indices)
        reached = usable.cumprod(1).bool()
        primes = experience.tokens
        latent, row = online[:, 0], torch.arange(len(valid), device=online.device)
        made: list[_Step] = []
        given: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(valid.shape[1] - 1):
            # Rows that end are dropped, not multiplied by 0: beyond an end may stand anything.
            alive = reached[row, t]
            latent, row = latent[alive], row[alive]
            tokens = None if primes is None else primes[row, t + 1]
            made.append(self._advance(latent, experience.actions[row, t], tokens))
            # Signals shape the percept (§4.5.2) through the first latent, not the predictions.
            given.append((latent if t == 0 else latent.detach(), row, torch.full_like(row, t + 1)))
            latent = made[-1].latent
        # All steps' errors at once: many small products cost more than one large one.
        before, row, after = (torch.cat(parts) for parts in zip(*given, strict=True))
        foretold, came = torch.cat([step.heads for step in made]), target[row, after]
        soon = slice(len(made[0].latent))
        missed = foretold[soon].detach() - came[soon].unsqueeze(1)
        self.misses.update(missed.flatten(0, 1))
        unit = torch.maximum((self._scale() * self._stride()).sqrt(), self.misses.magnitude())
        felt, end = self._feel(
            before,
            experience.actions[row, after - 1],
            torch.cat([step.change for step in made]).detach(),
            None if primes is None else primes[row, after],
        )
        wanted = (signals[row, after] - self.feelings.centre) / felt_scale
        ends = experience.terminated[row, after].float()
        each = {
            "prediction": (self.objective.error(foretold, came, unit) * heard[row]).mean(1),
            "signals": (felt - wanted).square().mean(1),
            "ended": cross_entropy(end, ends, reduction="none"),
        }
        share = experience.importance_weights[row] / max(len(row), 1)
        losses = {
            "prediction": self.prediction_weight * (share * each["prediction"]).sum(),
            "signals": self.signals_weight * (share * each["signals"]).sum(),
            "ended": self.ended_weight * (share * each["ended"]).sum(),
        }
        if self.invariance_weight:
            apart = self.objective.error(online[:, :1], target[:, 0], self._scale()).squeeze(1)
            counted = experience.importance_weights * apart * valid[:, 0]
            losses["invariance"] = self.invariance_weight * counted.mean()
        key = chance.keys(0, 1, int(self.updates))
        return losses | self.objective.penalties(whole, key), None

    def _heard(self, index: Tensor) -> Tensor:
        """How much each head learns from each window, [B K]: twice or not, half and half.

        A bootstrap that follows from the window's `index` [B], so that a head never sees some
        windows and heads can disagree about what they have not seen.
        """
        if self.ensemble_size == 1:
            return torch.ones(len(index), 1, device=index.device)
        drawn = chance.uniform(index.cpu(), "bootstrap", self.ensemble_size)
        return ((drawn > 0.5).float() * 2).to(index.device)

    def on_update(self) -> None:
        """Counts the update; the objective's luck follows from the count."""
        self.updates.add_(1)

    def on_reset(self) -> None:
        """Nothing: running scales and the count of updates go on."""

    def window_steps(self) -> int:
        """Steps of experience that losses ask for."""
        return self.unroll_steps + 1

    def _first(self) -> int:
        """The first step whose target says what is usual. The one that predictions begin from may
        be another view; it counts only where there is no other pair to see a change in.
        """
        return min(1, self.unroll_steps - 1)

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps [B W] whose target states are read: those predicted, and the first where it is
        another view of what the perception saw.
        """
        within = torch.arange(experience.mask.shape[1], device=experience.mask.device)
        first = 0 if self.invariance_weight else self._first()
        read = experience.mask & (within >= first) & (within <= self.unroll_steps)
        few = self._few(experience)
        return torch.zeros_like(read).index_copy_(0, few, read[few])

    def _few(self, experience: Experience) -> Tensor:
        """The windows of a batch it learns from, int64, spread evenly over it."""
        whole = len(experience.mask)
        few = math.ceil(self.batch_fraction * whole)
        return torch.arange(few, device=experience.mask.device) * whole // few
