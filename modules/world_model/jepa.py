"""A deterministic joint-embedding predictive world model (LeCun 2022, §4.4 and 4.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from modules import chance
from modules.messages import (
    Directive,
    Experience,
    Frozen,
    MessageError,
    Moment,
    Pairs,
    Situation,
    State,
    WorldSpec,
    latents_of,
)
from modules.nets.gradient import scale_gradient
from modules.nets.normalisation import RunningScale
from modules.objectives.objective import Objective, encodings_of
from modules.ports import Batch
from modules.world_model.deterministic import Deterministic
from modules.world_model.entities import EntityWrites
from modules.world_model.predictors.mlp import MLPPredictor
from modules.world_model.predictors.predictor import Predictor, PredictorSize
from modules.world_model.signal_heads.mlp import MLPSignals
from modules.world_model.signal_heads.signal_head import SignalHead, SignalHeadSize

_INITIAL_END_LOGIT = -5.0
"""Logit of `ended` in a fresh model: an episode ends at a step with probability .007."""


def _places(mask: Tensor) -> Tensor:
    """The indices, int64, of the true elements of `mask` [...] in its flattened form."""
    return mask.flatten().nonzero().flatten()


class Prediction(NamedTuple):
    """One predicted step of M rows.

    The latents of each of K heads [M K D], their mean [M D] and spread [M]; the mean change in
    units of the usual one [M D]; the predictor's recurrent state after the step [M R].
    `terms`: in learning, further losses of each row [M] by name.
    """

    heads: Tensor
    latent: Tensor
    uncertainty: Tensor
    change: Tensor
    hidden: Tensor
    terms: Mapping[str, Tensor] = MappingProxyType({})


class JEPA(Deterministic, nn.Module):
    """State and action → the next state, in latent space: s' = s + σ_Δ · f((s - μ) / σ, a).

    The predictor f is trained on its own predictions, `unroll_steps` deep. μ, σ and σ_Δ are running
    statistics of the target latents: mean, standard deviation, and root mean square of the change
    in one step. So each dimension is predicted with the same care at any scale, and as the error is
    measured in these units too, shrinking the latents does not lower it. A fresh model predicts
    s' = s.

    The imagined state's `hidden` holds the directive's tokens, which modulate the predictor (§6: a
    generic model, a small part of it modulated for the task), and behind them the predictor's
    recurrent state [M R], if it has one. That state is carried from step to step by
    `State.hidden` in imagination and by `Moment.expected.hidden` in acting; it is 0 at the first
    step of an episode and of a window in learning.

    With `reads_memory` what memory returned of the state that a rollout begins at stands behind the
    tokens, and modulates the predictor as they do. With `memory_writes` the model writes to memory
    what a step changed (`EntityWrites`).
    """

    class Config(Frozen):
        """Settings of `jepa`.

        width, blocks: of the predictor. ensemble_size: number of heads, whose disagreement is
        `uncertainty`; with 1 head it is 0. unroll_steps: depth of the training rollout.
        teacher_forced_steps: after these first ones of it the rollout continues from the encoded
        latent and not from the predicted one: so a recurrent predictor learns to carry what it saw,
        as in acting.
        prediction_weight, invariance_weight, signals_weight, ended_weight: of the losses.
        encoder_grad_scale: factor of the gradient that these losses and the objective send into
        the perception. batch_fraction: fraction of a batch's windows that the predictor learns
        from; encoding their later steps is the larger part of an update's cost. target_grad_scale:
        above 0, predictions are judged by the online encodings of later steps, and this fraction of
        the gradient reaches the encoder through these too, as in VICReg and PLDM: it learns to
        leave out what cannot be predicted. Needs an objective against collapse and
        `learner.online_steps` of `unroll_steps` + 1. At 0 the targets are the EMA encoder's,
        without gradient. reads_memory: predictions depend on what memory returns. memory_writes:
        pairs that are written to a memory of kind `world-state` in each step, 0: none.
        """

        width: int = Field(default=256, ge=16, le=8192)
        blocks: int = Field(default=2, ge=1, le=16)
        ensemble_size: int = Field(default=3, ge=1, le=16)
        unroll_steps: int = Field(default=5, ge=1, le=1024)
        teacher_forced_steps: int = Field(default=0, ge=0, le=1024)
        prediction_weight: float = Field(default=1.0, ge=0)
        invariance_weight: float = Field(default=0.0, ge=0)
        signals_weight: float = Field(default=1.0, ge=0)
        ended_weight: float = Field(default=1.0, ge=0)
        encoder_grad_scale: float = Field(default=1.0, ge=0, le=1)
        target_grad_scale: float = Field(default=0.0, ge=0, le=1)
        batch_fraction: float = Field(default=1.0, gt=0, le=1)
        reads_memory: bool = False
        memory_writes: int = Field(default=0, ge=0, le=256)

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
        objective: Objective,
        predictor: Predictor | None = None,
        signal_head: SignalHead | None = None,
        variable_size: int = 0,
    ) -> None:
        """`predictor`: None for `MLPPredictor`. `signal_head`: None for `MLPSignals`.
        `variable_size`: numbers of a latent variable that the predictor takes beside the action.
        `token_shape`: of the tokens, followed by what memory returns where the model reads it.
        """
        super().__init__()
        self.reads_memory, self.memory_writes = config.reads_memory, config.memory_writes
        self.config, self.objective = config, objective
        width, heads = config.width, config.ensemble_size
        self.with_factors, self.discrete = world.actions.with_factors, world.actions.discrete
        action_size = world.actions.size + world.actions.factor_matrix().shape[1]
        self.trunk = (predictor or MLPPredictor()).network(
            PredictorSize(
                latent_size, action_size + variable_size, width, config.blocks, token_shape
            )
        )
        self.hidden_size = self._carried_size = self.trunk.hidden_size
        self._token_size = math.prod(token_shape)
        self.change = self.trunk.readout(heads)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)
        inputs, outputs = 2 * latent_size + action_size, len(world.signals) + 1
        self.signal_head = (signal_head or MLPSignals()).network(
            SignalHeadSize(inputs, width, outputs, token_shape)
        )
        with torch.no_grad():
            self.signal_head.last.bias[-1] = _INITIAL_END_LOGIT
            if heads > 1:
                # Heads with equal weights stay equal where there is no data; their mean still
                # predicts no change.
                rows, fan_in = self.change.weight.shape
                noise = torch.randn(heads, rows // heads, fan_in) * 0.1 * fan_in**-0.5
                self.change.weight.copy_((noise - noise.mean(0)).flatten(0, 1))
        self.latent_stats = RunningScale(latent_size)
        self.delta_stats = RunningScale(latent_size)
        self.signal_stats = RunningScale(len(world.signals))
        self.error_stats = RunningScale(latent_size)
        self.entities = (
            EntityWrites(latent_size, self.memory_writes) if self.memory_writes else None
        )
        # Drawn last, so that it changes no initial weight; like these it follows from the seed.
        self._bootstrap_key = int(torch.randint(2**62, ()))

    # -- imagining --------------------------------------------------------------------------

    def _latent_std(self) -> Tensor:
        """Standard deviation of each dimension of the latents, [D]."""
        return self.latent_stats.deviation().clamp_min(1e-3)

    def _delta_rms(self) -> Tensor:
        """Root mean square of the change of each dimension in one step, [D]."""
        return torch.maximum(self.delta_stats.magnitude(), 1e-3 * self._latent_std())

    def _standard(self, latent: Tensor) -> Tensor:
        """Latents [M D] in units of their deviation from the mean."""
        return (latent - self.latent_stats.centre) / self._latent_std()

    def _predict_latent(
        self, latent: Tensor, condition: Tensor, tokens: Tensor | None, hidden: Tensor
    ) -> Prediction:
        """The step from `latent` [M D] under a `condition` [M C]: the action with its factors, and
        a latent variable where there is one.
        """
        features, hidden = self.trunk(self._standard(latent), condition, tokens, hidden)
        heads = self.config.ensemble_size
        change = self.change(features).unflatten(1, (heads, latent.shape[1]))
        unit = self._delta_rms()
        if heads == 1:
            mean, spread = change[:, 0], latent.new_zeros(len(latent))
        else:
            mean = change.mean(1)
            # The standard deviation, with a finite gradient where all heads agree.
            spread = ((change - mean.unsqueeze(1)).square().mean((1, 2)) + 1e-12).sqrt()
        return Prediction(
            heads=latent.unsqueeze(1) + unit * change,
            latent=latent + unit * mean,
            uncertainty=spread,
            change=mean,
            hidden=hidden,
        )

    def _predict_signals(
        self, latent: Tensor, action: Tensor, change: Tensor, tokens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Standardised signals of the next step [M S] in the unit of the signal head, and the
        logit of its end [M].

        A network of its own: in one that shares the predictor's trunk, the rare and sudden end of
        an episode makes the latents' predictions worse (CartPole, 5 steps: .13 of the error of
        `persistence` against .09).
        """
        inputs = torch.cat([self._standard(latent), self.with_factors(action), change], -1)
        outputs = self.signal_head(inputs, tokens)
        return outputs[:, :-1], outputs[:, -1]

    def start(self, situation: Situation, directive: Directive) -> State:
        """The perceived state [B ...], its `hidden` for `step`: the context (`_context`) and the
        recurrent state of `situation.previous.expected` [B C+R], without a context that is all 0
        [B R], which planning would copy for each candidate and look at in each layer.

        Raises MessageError where the recurrent state has another size.
        """
        context = self._context(directive.tokens, situation.state)
        if context.device.type == "cpu" and not bool(context.any()):
            context = context[:, :0]
        return self._start_with(situation, context)

    def _start_with(self, situation: Situation, hidden: Tensor) -> State:
        """The perceived state whose `hidden` begins with a context, [B C] or [B 0]."""
        if self._carried_size:
            carried = situation.previous.expected.hidden
            if carried.shape[1] != self.hidden_size:
                expected = f"[B {self.hidden_size}]"
                raise MessageError("State", "expected.hidden", expected, str(list(carried.shape)))
            hidden = torch.cat([hidden, carried[:, : self._carried_size]], 1)
        return situation.state.replace(hidden=hidden)

    def _context(self, tokens: Tensor, state: State) -> Tensor:
        """The context [M C] that modulates a step: the directive's tokens [M T E], and what memory
        returned of the state where the model reads it, C = T·E or T·E+U. Raises MessageError
        where that is missing.
        """
        if not self.reads_memory:
            return tokens.flatten(1)
        if state.readout is None:
            raise MessageError("State", "readout", "what memory returned, [B U]", "None")
        return torch.cat([tokens.flatten(1), state.readout], 1)

    def writes(self, previous: Moment, state: State, first: Tensor) -> Pairs:
        """What the step from `previous` to `state` [B ...] changed; nothing in the rows `first`."""
        assert self.entities is not None  # asked only of a model with `memory_writes`
        return self.entities.pairs(previous.state.latent, state.latent, self._delta_rms(), first)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after an encoded action [M A] (relaxed ones too), differentiable in both.

        `uncertainty` [M] is the standard deviation over heads in units of the usual change.
        Deterministic: there is no latent variable, `z` is not used.
        """
        tokens, hidden = self._split(state)
        condition = self.with_factors(action)
        return self._after(
            state, action, self._predict_latent(state.latent, condition, tokens, hidden)
        )

    def _split(self, state: State) -> tuple[Tensor | None, Tensor]:
        """The tokens [M T·E], None where all are 0, and the recurrent state [M R] in the `hidden`
        of a state.
        """
        size = state.hidden.shape[1] - self._carried_size
        return state.hidden[:, :size] if size else None, state.hidden[:, size:]

    def _after(self, state: State, action: Tensor, prediction: Prediction) -> State:
        """The predicted state after an action [M A] in `state`."""
        tokens, _ = self._split(state)
        signals, end = self._predict_signals(state.latent, action, prediction.change, tokens)
        scale = self.signal_stats.deviation().clamp_min(1e-2)
        return State.unchecked(
            latent=prediction.latent,
            hidden=state.hidden
            if not self._carried_size
            else prediction.hidden
            if tokens is None
            else torch.cat([tokens, prediction.hidden], 1),
            signals=self.signal_head.decode(self.signal_stats.centre + scale * signals),
            ended=end.sigmoid(),
            uncertainty=prediction.uncertainty,
            goal=state.goal,
            readout=state.readout,
        )

    def complete(self, state: State) -> State:
        """`state` itself: `step` computes every field."""
        return state

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The expected next state [B ...] after the action [B A] just chosen (§3.1.1), its `hidden`
        the predictor's recurrent state [B R], from which the next `start` continues.
        """
        after = self.step(self.start(situation, directive), action)
        return after.replace(hidden=self._split(after)[1])

    # -- learning ---------------------------------------------------------------------------

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """Named scalar losses; no priorities.

        `prediction`: the objective's error of each head's latents over up to `unroll_steps` steps
        of open-loop rollout from `states[0]`, against `targets` (no gradient), or against `states`
        where `target_grad_scale` is above 0. Its unit in
        dimension d is √(σ_d σ_Δd), or the root mean square error of one step where that is larger,
        so that noise between two views of one frame does not dominate. `invariance`: the same error
        of `states[0]` about its target, another view of the same step, in units of σ (VICReg's
        third term). `signals`: mean squared error of standardised signals, in the unit of the
        signal head; those of step t+1 are the consequence of the action at t. `ended`: cross
        entropy of `terminated`. Then the objective's penalties on the encodings of all windows,
        also of those outside `batch_fraction`: statistics of spread need many.

        Steps behind an end, or where `experience.mask` is false, do not count, nor does what a
        recording lacks: a prediction whose action is unknown, unknown signals and ends. Windows
        count by `experience.importance_weights`. Like a batch norm in training, this updates the
        running statistics.
        """
        experience, states, targets = batch
        config, grad_scale = self.config, self.config.encoder_grad_scale
        # Where steps are dropped follows from masks on the CPU: a GPU is waited for once.
        device = experience.mask.device
        over = experience.terminated | experience.truncated
        explained = self._explained(experience)
        mask, over, explained = torch.stack([experience.mask, over, explained]).cpu()
        latents = latents_of(states).flatten(0, 1)
        all_latents = scale_gradient(
            latents[_places(mask[:, : len(states)]).to(device)], grad_scale
        )
        windows = scale_gradient(latents_of(states), grad_scale)
        encodings = encodings_of(batch, all_latents, windows, mask, over)
        if self.config.batch_fraction < 1:
            subset = self._subset(mask)
            mask, over, explained = mask[subset], over[subset], explained[subset]
            chosen = subset.to(device)
            experience = experience.select(chosen)
            states, targets = ([s.select(chosen) for s in of] for of in (states, targets))
        window = self.config.unroll_steps + 1
        valid, over = mask[:, :window], over[:, :window]
        online = scale_gradient(latents_of(states), grad_scale)
        target = latents_of(targets[:window]).detach()
        if config.target_grad_scale:  # one encoder for both ends of a transition
            target = scale_gradient(online[:, :window], config.target_grad_scale)
        signals = self.signal_head.encode(experience.signals[:, :window])
        usable = valid[:, 1:] & valid[:, :-1] & ~over[:, :-1]
        first = self._first_statistics_step()
        deltas = target[:, first + 1 :] - target[:, first:-1]
        for stats, values, counted in (
            (self.latent_stats, target[:, first:], valid[:, first:]),
            (self.delta_stats, deltas, usable[:, first:]),
            self._known_signals(signals, usable, experience.signals_mask),
        ):
            stats.update(values.flatten(0, 1)[_places(counted).to(device)])
        if self.entities is not None:
            changes = deltas.flatten(0, 1)[_places(usable[:, first:]).to(device)]
            self.entities.update(changes, self._delta_rms())

        signal_scale = self.signal_stats.deviation().clamp_min(1e-2)
        head_weights = self._bootstrap_weights(experience.indices)
        reached = (usable & explained[:, : usable.shape[1]]).cumprod(1).bool()
        window_tokens = self._window_context(experience, states[0])
        latent, row_on_cpu = online[:, 0], torch.arange(len(valid))
        hidden = latent.new_zeros(len(latent), self._carried_size)
        predictions: list[Prediction] = []
        sources: list[tuple[Tensor, Tensor, Tensor]] = []
        for t in range(valid.shape[1] - 1):
            # Rows that ended are dropped, not multiplied by 0: what follows an end may be NaN.
            alive = _places(reached[row_on_cpu, t])
            row_on_cpu = row_on_cpu[alive]
            alive, row = alive.to(device), row_on_cpu.to(device)
            latent, hidden = latent[alive], hidden[alive]
            tokens = None if window_tokens is None else window_tokens[row, t + 1]
            predictions.append(
                self._learn_step(
                    latent,
                    experience.actions[row, t],
                    tokens,
                    hidden,
                    target[row, t + 1].detach(),
                    key,
                    t,
                )
            )
            # Signals shape the percept (§4.5.2) through the first latent, not the predictions.
            source = latent if t == 0 else latent.detach()
            sources.append((source, row, torch.full_like(row, t + 1)))
            latent, hidden = predictions[-1].latent, predictions[-1].hidden
            if t < config.teacher_forced_steps:
                latent = target[row, t + 1]
        # All steps' errors at once: many small products cost more than one large one.
        before, row, after = (torch.cat(parts) for parts in zip(*sources, strict=True))
        predicted, reference = torch.cat([step.heads for step in predictions]), target[row, after]
        one_step = slice(len(predictions[0].latent))
        error = predicted[one_step].detach() - reference[one_step].unsqueeze(1)
        self.error_stats.update(error.flatten(0, 1))
        predicted_signals, end = self._predict_signals(
            before,
            experience.actions[row, after - 1],
            torch.cat([step.change for step in predictions]).detach(),
            None if window_tokens is None else window_tokens[row, after],
        )
        target_signals = (signals[row, after] - self.signal_stats.centre) / signal_scale
        signal_errors = (predicted_signals - target_signals).square()
        if experience.signals_mask is None:
            signal_error = signal_errors.mean(1)
        else:
            known = experience.signals_mask[row, after]
            signal_error = (signal_errors * known).sum(1) / known.sum(1).clamp_min(1)
        ends = experience.terminated[row, after].float()
        end_error = cross_entropy(end, ends, reduction="none")
        if experience.ends_mask is not None:
            end_error = end_error * experience.ends_mask[row, after]
        head_errors = self._prediction_errors(predicted, reference, experience, row, after)
        errors = {
            "prediction": (config.prediction_weight, (head_errors * head_weights[row]).mean(1)),
            "signals": (config.signals_weight, signal_error),
            "ended": (config.ended_weight, end_error),
            **{
                name: (1.0, torch.cat([step.terms[name] for step in predictions]))
                for name in predictions[0].terms
            },
        }
        share = experience.importance_weights[row] / max(len(row), 1)
        losses = {name: weight * (share * error).sum() for name, (weight, error) in errors.items()}
        if self.config.invariance_weight:
            distance = self.objective.error(online[:, :1], target[:, 0], self._latent_std())
            weighted = experience.importance_weights * distance.squeeze(1) * experience.mask[:, 0]
            losses["invariance"] = self.config.invariance_weight * weighted.mean()
        return losses | self.objective.penalties(encodings, key), None

    def _explained(self, experience: Experience) -> Tensor:
        """The steps [B W] bool whose successor can be predicted: those with a known action."""
        return experience.mask if experience.action_mask is None else experience.action_mask

    def _known_signals(
        self, signals: Tensor, usable: Tensor, known: Tensor | None
    ) -> tuple[RunningScale, Tensor, Tensor]:
        """The running statistics of signals, the `signals` [B V-1 S] they take and in which steps
        [B V-1], on the CPU; `known` [B W S]: which are.
        """
        signals = signals[:, 1:]
        if known is None:
            return self.signal_stats, signals, usable
        known = known[:, 1 : signals.shape[1] + 1]
        # An unknown number does not move a mean that it equals.
        filled = torch.where(known, signals, self.signal_stats.centre)
        return self.signal_stats, filled, usable & known.any(-1).cpu()

    def _window_context(self, experience: Experience, start: State) -> Tensor | None:
        """What modulates the predictor at each step of windows, [B W T E], or [B W T·E+U] with what
        memory returned of their first states: as in imagination, a rollout keeps that. None: 0.
        """
        tokens = experience.tokens
        if not self.reads_memory:
            return tokens
        if start.readout is None:
            raise MessageError("State", "readout", "what memory returned, [B U]", "None")
        rows, steps = experience.mask.shape
        readout = start.readout.unsqueeze(1).expand(-1, steps, -1)
        if tokens is None:
            size = self._token_size - readout.shape[-1]
            return torch.cat([readout.new_zeros(rows, steps, size), readout], -1)
        return torch.cat([tokens.flatten(2), readout], -1)

    def _prediction_errors(
        self, predicted: Tensor, target: Tensor, experience: Experience, row: Tensor, step: Tensor
    ) -> Tensor:
        """Errors [M K] of the latents [M K D] that each head predicts of `step` [M] in the windows
        `row` [M] of `experience`, whose targets are `target` [M D].
        """
        return self.objective.error(predicted, target, self._error_unit())

    def _error_unit(self) -> Tensor:
        """The unit of an error in each dimension, [D]: √(σ_d σ_Δd), or the root mean square error
        of one step where that is larger.
        """
        usual = (self._latent_std() * self._delta_rms()).sqrt()
        return torch.maximum(usual, self.error_stats.magnitude())

    def _learn_step(
        self,
        latent: Tensor,
        action: Tensor,
        tokens: Tensor | None,
        hidden: Tensor,
        target: Tensor,
        key: Tensor,
        step: int,
    ) -> Prediction:
        """The prediction of a step in learning, where the next latents `target` [M D] are known,
        with the model's own terms; `key` [1] is the update's random key, `step` the rollout's.
        """
        return self._predict_latent(latent, self.with_factors(action), tokens, hidden)

    def _bootstrap_weights(self, index: Tensor) -> Tensor:
        """The weight of each window in each head's loss, [B K]: 0 or 2 with equal probability.

        A function of the window's `index` [B] and the run's seed, the same at each update: a head
        never learns from some windows, and heads can disagree there (Osband et al. 2016).
        """
        heads = self.config.ensemble_size
        if heads == 1:
            return torch.ones(len(index), 1, device=index.device)
        drawn = chance.uniform(index.cpu() ^ self._bootstrap_key, "bootstrap", heads)
        return ((drawn > 0.5).float() * 2).to(index.device)

    def on_update(self) -> None:
        """Nothing: there is no target network and no schedule."""

    def on_reset(self) -> None:
        """Nothing: running statistics continue."""

    def window_steps(self) -> int:
        """Steps of experience that `losses` reads, W."""
        return max(self.config.unroll_steps + 1, self.objective.online_steps)

    def _first_statistics_step(self) -> int:
        """The first step whose target enters the statistics. Step 0 may be another view of its
        frame; it counts only where there is no other pair to measure a change from.
        """
        return min(1, self.config.unroll_steps - 1)

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """The steps whose target latents `losses` reads, [B W] bool: those predicted, and step 0
        where `invariance` or the objective compares two views of it.
        """
        step = torch.arange(experience.mask.shape[1], device=experience.mask.device)
        first = 0 if self.config.invariance_weight else self._first_statistics_step()
        read = experience.mask & (step >= first) & (step <= self.config.unroll_steps)
        if self.config.target_grad_scale:
            read = read & (step == 0) & bool(self.config.invariance_weight)
        subset = self._subset(read)
        read = torch.zeros_like(read).index_copy_(0, subset, read[subset])
        if self.objective.compares_views:
            read[:, 0] = experience.mask[:, 0]
        return read

    def _subset(self, mask: Tensor) -> Tensor:
        """The windows of `mask` [B W] that the predictor learns from, int64, spread evenly."""
        count = math.ceil(self.config.batch_fraction * len(mask))
        return torch.arange(count, device=mask.device) * len(mask) // count
