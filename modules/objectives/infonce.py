"""Contrast of two views within a batch (van den Oord et al. 2018)."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from modules.messages import Frozen
from modules.objectives.objective import Encodings, Squared, masked_mean


class InfoNCE(Squared):
    """A latent is nearer to the other view of itself than to those of the batch's other windows.

    -ln (e^{c_bb / τ} / Σ_k e^{c_bk / τ}), the mean over windows b, with c_bk the cosine of the
    online encoding of step 0 of window b and the target encoding of that of window k, and τ the
    temperature: eq. 4 of van den Oord et al. 2018 with the similarity of SimCLR (Chen et al. 2020)
    and, as in MoCo (He et al. 2020), no gradient through the second view. The contrastive
    alternative to the regularised methods that LeCun 2022 prefers (§4.5): it needs many windows.
    """

    class Config(Frozen):
        """Settings of `infonce`.

        weight: of the loss. temperature: τ, .1 in most of SimCLR's figures.
        """

        weight: float = Field(default=1.0, ge=0)
        temperature: float = Field(default=0.1, ge=1e-3, le=100)

    compares_views: ClassVar = True

    def __init__(self, *, config: Config) -> None:
        self.config = config

    def penalties(self, encodings: Encodings, key: Tensor) -> dict[str, Tensor]:
        """`infonce`, a weighted scalar, of the two views of step 0 [B D]; 0 with fewer than 2."""
        mask = encodings.mask[:, 0]
        online = normalize(encodings.windows[:, 0], dim=1)
        similarity = online @ normalize(encodings.other_view, dim=1).T / self.config.temperature
        losses = similarity.masked_fill(~mask, -torch.inf).logsumexp(1) - similarity.diagonal()
        return {"infonce": self.config.weight * masked_mean(losses, mask)}
