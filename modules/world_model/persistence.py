"""The baseline of every world model: nothing changes."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from modules.messages import SIGNALS, Directive, Situation, State

_LIVES = SIGNALS.index("lives")


class Persistence:
    """Expects the state to stay as it is and nothing to be felt but the lives that are left.

    What a learned model must beat, and the world model of an agent that does without one.
    """

    class Config(BaseModel):
        """It has no settings."""

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["persistence"] = "persistence"

    def start(self, situation: Situation, directive: Directive) -> State:
        """The perceived state [B ...], its carry empty."""
        state = situation.state
        return State.unchecked(
            **{**state.__dict__, "hidden": state.latent.new_zeros(state.batch, 0)}
        )

    def step(self, state: State, action: Tensor, z: Tensor | None = None) -> State:
        """The state itself [M ...], with no signal felt but `lives`."""
        signals = torch.zeros_like(state.signals)
        signals[:, _LIVES] = state.signals[:, _LIVES]
        return State.unchecked(**{**state.__dict__, "signals": signals})

    def complete(self, state: State) -> State:
        """Itself."""
        return state

    def predict(self, situation: Situation, action: Tensor, directive: Directive) -> State:
        """What is expected after the action [B A]: the present state."""
        expected = self.step(self.start(situation, directive), action)
        return expected.replace(ended=torch.zeros_like(expected.ended))
