"""A world model that learns from frames alone: the latent variable z is the action (§4.10)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from modules.messages import Experience
from modules.ports import Batch
from modules.world_model.jepa import Prediction
from modules.world_model.latent_jepa import LatentJEPA

UNKNOWN = 2.0
"""In each number of a continuous action that is unknown: beyond [-1, 1], so it is none that was
taken. Unknown discrete actions are 0 in every number, where known ones have a 1.
"""


class LatentActionJEPA(LatentJEPA):
    """State and z → the next state, where z takes the place of the action.

    The predictor does not read the action, so what z must say to explain the step from one frame to
    the next is what was done: an action in codes of its own, learned from recordings without any
    (LAPO, Schmidt & Jiang 2024; Genie, Bruce et al. 2024; FICC, Ye et al. 2023). The prior
    p(z | s, a), which every latent variable has, is the adapter: at steps whose action is known it
    learns which z the action is, at others which z are usual in a state. So an agent that has
    watched needs few interactions to act: a plan is of its own actions, the prior says their codes,
    the predictor what follows. Signals and ends are predicted from action and change, as in `jepa`.
    """

    class Config(LatentJEPA.Config):
        """Settings of `latent-action-jepa`: those of `latent-jepa`.

        known_action_weight: of the losses of z at steps whose action is known, against 1 at others:
        where few are known, the adapter would hardly learn.
        """

        known_action_weight: float = Field(default=4.0, ge=0, le=1000)

    config: Config
    infers_actions = True

    def _condition(self, action: Tensor, z: Tensor) -> Tensor:
        """What the predictor reads beside the state: z, and 0 in place of the action."""
        return torch.cat([torch.zeros_like(self.with_factors(action)), self.z.input_scale * z], -1)

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """As of `latent-jepa`; every step is predicted, also where the action is unknown."""
        experience = batch.experience
        known = experience.action_mask
        if known is not None and not self.discrete:
            actions = torch.where(known.unsqueeze(-1), experience.actions, UNKNOWN)
            batch = batch._replace(experience=experience.replace(actions=actions))
        return super().losses(batch, key)

    def _explained(self, experience: Experience) -> Tensor:
        """The steps [B W] bool whose successor can be predicted: all."""
        return experience.mask

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
        """The prediction under a z that explains `target`, as in `latent-jepa`. The losses of z
        count `known_action_weight` times where the action is known.
        """
        prediction = super()._learn_step(latent, action, tokens, hidden, target, key, step)
        known = (action > 0.5).any(-1) if self.discrete else (action <= 1).all(-1)
        weight = torch.where(known, self.config.known_action_weight, 1.0)
        terms = {name: weight * term for name, term in prediction.terms.items()}
        return prediction._replace(terms=terms)
