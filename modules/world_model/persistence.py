"""The baseline of every world model: nothing changes."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.messages import SIGNALS, Directive, Frozen, Situation, State
from modules.world_model.deterministic import Deterministic

_LIVES = SIGNALS.index("lives")


class Persistence(Deterministic):
    """Predicts the present state, and signals of 0 except `lives`.

    The baseline of a learned world model, and the world model of a model-free agent.
    """

    class Config(Frozen):
        """`persistence` has no settings."""

    def start(self, situation: Situation, directive: Directive) -> State:
        """The perceived state [B ...] with an empty `hidden` [B 0]."""
        state = situation.state
        return state.replace(hidden=state.latent.new_zeros(state.batch, 0))

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state [M ...] itself, its signals 0 except `lives`; `z` is not used."""
        signals = torch.zeros_like(state.signals)
        signals[:, _LIVES] = state.signals[:, _LIVES]
        return state.replace(signals=signals)

    def complete(self, state: State) -> State:
        """`state` itself."""
        return state

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """The expected state after the action [B A]: the present one, with `ended` 0."""
        expected = self.step(self.start(situation, directive), action)
        return expected.replace(ended=torch.zeros_like(expected.ended))
