"""A joint-embedding predictive world model with a latent variable (LeCun 2022, §4.4, 4.5, 4.8)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.messages import ConfigError, Directive, LatentSpec, Situation, State, WorldSpec
from modules.objectives.objective import Objective
from modules.world_model.jepa import JEPA, Prediction
from modules.world_model.latents.categorical import CategoricalLatent
from modules.world_model.latents.latent import Error, LatentVariable
from modules.world_model.predictors.predictor import Predictor
from modules.world_model.signal_heads.signal_head import SignalHead


class LatentJEPA(JEPA):
    """State, action and z → the next state: a JEPA whose predictor also takes a latent variable z,
    which stands for what state and action do not determine.

    The four criteria of §4.5: the objective keeps latents informative (1, 2), `prediction` is the
    error under the z that explains what happened (3), and the kind of z limits what it can say (4):
    a few codes, noise, or sparsity. The prior p(z | s, a) is learned, so that futures can be drawn.
    In a rollout over several steps each continues from the prediction under its own z.

    The predictor takes z beside the action.
    """

    class Config(JEPA.Config):
        """Settings of `latent-jepa`: those of `jepa`, with a single head."""

        ensemble_size: int = Field(default=1, ge=1, le=16)

    latent: LatentSpec

    def __init__(
        self,
        *,
        config: Config,
        world: WorldSpec,
        latent_size: int,
        token_shape: tuple[int, int],
        objective: Objective,
        latent: LatentVariable,
        predictor: Predictor | None = None,
        signal_head: SignalHead | None = None,
    ) -> None:
        """`predictor`: None for `MLPPredictor`."""
        super().__init__(
            config=config,
            world=world,
            latent_size=latent_size,
            token_shape=token_shape,
            objective=objective,
            predictor=predictor,
            signal_head=signal_head,
            variable_size=latent.spec.size,
        )
        self.z, self.latent = latent, latent.spec
        # What a surprise is measured from: latent, action, tokens and recurrent state.
        self._origin = [
            latent_size, world.actions.size, self._token_size + self._carried_size
        ]  # fmt: skip
        self.hidden_size = self._carried_size + sum(self._origin)

    # -- imagining --------------------------------------------------------------------------

    def _inputs(self, latent: Tensor, action: Tensor) -> Tensor:
        """A state and an action as z reads them, [M I]."""
        return torch.cat([self._standard(latent), self.with_factors(action)], -1)

    def _condition(self, action: Tensor, z: Tensor) -> Tensor:
        return torch.cat([self.with_factors(action), self.z.input_scale * z], -1)

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state after an encoded action [M A] (relaxed ones too) under `z` [M Z],
        differentiable in all; without `z` under the most likely one.
        """
        tokens, hidden = self._split(state)
        if z is None:
            luck = torch.full((len(action), self.latent.luck), 0.5)
            z = self.sample_latent(state, action, luck, torch.zeros(len(action)))
        prediction = self._predict_latent(state.latent, self._condition(action, z), tokens, hidden)
        return self._after(state, action, prediction)

    def sample_latent(
        self, state: State, action: Tensor, luck: Tensor, temperature: Tensor
    ) -> Tensor:
        """Draws z [M Z] from the learned prior (see `modules.ports.LatentVariableModel`)."""
        tokens, _ = self._split(state)
        return self.z.sample(self._inputs(state.latent, action), tokens, luck, temperature)

    def log_prior(self, state: State, action: Tensor, z: Tensor) -> Tensor:
        """The log prior, nats, [M]: of codes that of a probability, of numbers of a density."""
        return self.z.log_prior(self._inputs(state.latent, action), self._split(state)[0], z)

    def infer_latent(self, state: State, action: Tensor, outcome: State) -> tuple[Tensor, Tensor]:
        """argmin_z E [M Z] and F = min_z E [M], E the mean squared error of the predicted latent
        in units of the usual error of a step.
        """
        error = self._error_of(state.latent, action, *self._split(state), outcome.latent)
        inputs, tokens = self._inputs(state.latent, action), self._split(state)[0]
        z = self.z.infer(inputs, tokens, self._change_to(state.latent, outcome.latent), error)
        return z, error(z, torch.arange(len(z)))

    def posterior(self, state: State, action: Tensor, outcome: State) -> tuple[Tensor, Tensor]:
        """The log posterior log q(z | s, a, s') and log prior log p(z | s, a) of every code of a
        categorical z, each [M C]. Raises ConfigError for other kinds.
        """
        if not isinstance(self.z, CategoricalLatent):
            raise ConfigError(f"posterior: expected a categorical z, got {self.latent.kind}")
        error = self._error_of(state.latent, action, *self._split(state), outcome.latent)
        inputs = self._inputs(state.latent, action)
        return self.z.posterior(inputs, self._split(state)[0], error)

    def _change_to(self, latent: Tensor, outcome: Tensor) -> Tensor:
        """What happened, as inference reads it: the change in units of the usual one, [M D]."""
        return (outcome - latent) / self._delta_rms()

    def _error_of(
        self,
        latent: Tensor,
        action: Tensor,
        tokens: Tensor | None,
        hidden: Tensor,
        outcome: Tensor,
    ) -> Error:
        """E as a function of z, for `latent` [M D] followed by `outcome` [M D]."""
        unit = self._error_unit()

        def error(z: Tensor, row: Tensor) -> Tensor:
            condition = self._condition(action[row], z)
            there = None if tokens is None else tokens[row]
            prediction = self._predict_latent(latent[row], condition, there, hidden[row])
            return self.objective.error(prediction.heads, outcome[row], unit).mean(1)

        return error

    # -- expecting --------------------------------------------------------------------------

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The state [B ...] under the most likely z after the action [B A] just chosen; its
        `hidden` is the predictor's recurrent state, then where it was expected from: latent,
        action, tokens and the recurrent state before.
        """
        context = self._context(directive.tokens, situation.state)
        start = self._start_with(situation, context)
        after = self.step(start, action)
        _, carried = self._split(after)
        return after.replace(hidden=torch.cat([carried, start.latent, action, start.hidden], -1))

    def surprise(self, expected: State, state: State) -> Tensor:
        """The distance [B] of `state` from the state predicted under the z that explains it best:
        one branch instead of another is no surprise.
        """
        origin = expected.hidden[:, self._carried_size :]
        latent, action, hidden = torch.split(origin, self._origin, -1)
        start = expected.replace(latent=latent, hidden=hidden)
        z, _ = self.infer_latent(start, action, state)
        return state.distance(self.step(start, action, z))

    # -- learning ---------------------------------------------------------------------------

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
        """The prediction under a z that explains `target`, and the losses of z. The gradient of
        these losses does not reach the latents: what is easy to explain is not what matters.
        """
        explained = self.z.explain(
            self._inputs(latent, action).detach(),
            tokens,
            self._change_to(latent, target).detach(),
            self._error_of(latent, action, tokens, hidden, target),
            chance.keys(int(key), 1, step),
        )
        condition = self._condition(action, explained.z)
        prediction = self._predict_latent(latent, condition, tokens, hidden)
        return prediction._replace(terms=explained.terms)

    def on_update(self) -> None:
        """The schedule of z advances."""
        self.z.on_update()

    def on_reset(self) -> None:
        """The schedule of z begins again; running statistics continue."""
        self.z.on_reset()
