"""Recall by similarity: a soft key-value memory (LeCun 2022, §4.9, eqs. 15-20)."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules import chance
from modules.messages import Moment, Recollection, State, WorldSpec

Floats = npt.NDArray[np.float32]

KEY_SIZE = 32
"""X. Distances among projections on 32 random directions keep within some 25 % of the true."""

_LONG = 10_000
"""Queries after which mean and spread begin to forget the first of them."""

_PLACE_OF_KEYS = 20220627
"""Seed of the projection: the same in every run, so that stored keys mean the same."""


class Recall(Protocol):
    """What a memory asks of its associative part."""

    def reset(self, rows: int) -> None:
        """Forgets everything."""

    def recall(self, state: State) -> Recollection:
        """What the state calls to mind."""

    def initial(self, rows: int) -> Recollection:
        """What is recalled where nothing is, novelty 0."""

    def write(self, moment: Moment) -> None:
        """Keeps what is worth it of a moment."""

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Remembers what `tensors` gave."""


class _Match(NamedTuple):
    """What latents match: queries [B X], e^{-m} [B V], and its sum plus γ [B 1]."""

    latent: Tensor
    query: Floats
    near: Floats
    total: Floats


class Associative:
    """Slots of keys and values, for each row its own.

    A key is a fixed random projection of a latent, so it does not go stale while networks learn.
    The dissimilarity of a query q and a key is m_j = |q - k_j|² / (2·scale·spread), where spread
    is the mean squared distance of the row's queries from their mean: two latents that have
    nothing to do with each other differ by 1/scale, whatever the encoder. (Without it all frames
    of a game seem alike to a fresh CNN, which differ by a thousandth.) Reading gives Σ c_j v_j with
    c_j = e^{-m_j} / (γ + Σ_k e^{-m_k}) (eqs. 15-17). Writing r moves every value by its
    coefficient, v_j ← c_j r + (1 - c_j) v_j (eqs. 18-20), unless the query is far from every key,
    max_j e^{-m_j} < γ: then it is given a slot of its own and touches no other; a full store
    gives up the slot whose last use is longest ago (a slot is used when it is made and when it is
    the nearest).

    A value is what was felt and done: the signals, then the encoded action (zeros where the
    episode was over). Novelty is γ / (γ + Σ e^{-m}), the part of eq. 16 that no slot claims.
    An episode's end does not empty the store: what was met in this life is not new again.

    It computes in numpy: on stores this small a call of torch costs more than its arithmetic.
    """

    class Config(BaseModel):
        """Soft key-value memory.

        `slots`: how many a row has. `bandwidth`: share of the squared distance between unrelated
        latents that counts as dissimilarity 1. `gamma`: γ. `top_k`: how many slots a
        recollection shows.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["associative"] = "associative"
        slots: int = Field(128, ge=1, le=65536)
        # Of 400 random steps with a fresh CNN, late ones novel above 0.5: Breakout 1 %, Pong and
        # MsPacman 0 % (47, 52, 128 slots); at 0.05 it is 13 %, 80 % and 76 %.
        bandwidth: float = Field(0.2, gt=0, le=1000)
        gamma: float = Field(0.1, gt=0, lt=1)
        top_k: int = Field(4, ge=1, le=64)

    def __init__(
        self,
        *,
        slots: int = 128,
        bandwidth: float = 0.2,
        gamma: float = 0.1,
        top_k: int = 4,
        world: WorldSpec,
        rows: int,
        latent_size: int,
    ) -> None:
        self.slots, self.bandwidth, self.gamma = slots, bandwidth, gamma
        self.top_k = min(top_k, slots)
        self.value_size = len(world.signals) + world.actions.size
        directions = chance.normal(
            torch.tensor([_PLACE_OF_KEYS]), "associative", latent_size, KEY_SIZE
        )
        self.projection: Floats = (directions[0] / KEY_SIZE**0.5).numpy()
        self.reset(rows)

    def reset(self, rows: int) -> None:
        """Forgets everything."""
        self.keys: Floats = np.zeros((rows, self.slots, KEY_SIZE), np.float32)
        self.centre: Floats = np.zeros((rows, KEY_SIZE), np.float32)
        self.spread: Floats = np.zeros((rows, 1), np.float32)
        self.values: Floats = np.zeros((rows, self.slots, self.value_size), np.float32)
        self.used = np.full((rows, self.slots), -1, np.int64)
        self.empty: Floats = np.full((rows, self.slots), np.inf, np.float32)
        self.time = 0
        self._every = np.arange(rows)
        self._asked: _Match | None = None

    def _match(self, latent: Tensor) -> _Match:
        """What the latents [B D] match; kept for `write`, which follows `recall` in a step."""
        if self._asked is None or self._asked.latent is not latent:
            query = latent.detach().numpy() @ self.projection
            away = self.keys - query[:, None]
            apart = np.einsum("bvx,bvx->bv", away, away)
            # While nothing is known of the spread, a thousandth is far.
            least = 1e-6 * (query * query).sum(-1, keepdims=True) + 1e-12
            apart /= np.maximum(2 * self.bandwidth * self.spread, least)
            # Beyond 50 a coefficient moves no float; denormal ones would only be slow.
            apart = np.minimum(apart, 50) + self.empty
            near = np.exp(-apart)
            total = near.sum(-1, keepdims=True) + np.float32(self.gamma)
            self._asked = _Match(latent, query, near, total)
        return self._asked

    def recall(self, state: State) -> Recollection:
        """What the state calls to mind (eqs. 15-17); remembers nothing of having been asked."""
        match = self._match(state.latent)
        coefficients = match.near / match.total
        index = np.argsort(-coefficients, -1, kind="stable")[:, : self.top_k]
        place = self._every[:, None], index
        weights = coefficients[place]
        ages = ((self.time - self.used[place]) * (weights > 0)).astype(np.float32)
        return Recollection(
            keys=torch.from_numpy(self.keys[place]),
            values=torch.from_numpy(self.values[place]),
            weights=torch.from_numpy(weights),
            ages=torch.from_numpy(ages),
            readout=torch.from_numpy((coefficients[:, None] @ self.values)[:, 0]),
            novelty=torch.from_numpy(self.gamma / match.total[:, 0]),
        )

    def initial(self, rows: int) -> Recollection:
        """What is recalled where nothing is: zeros of the usual shapes, novelty 0."""
        return Recollection(
            keys=torch.zeros(rows, self.top_k, KEY_SIZE),
            values=torch.zeros(rows, self.top_k, self.value_size),
            weights=torch.zeros(rows, self.top_k),
            ages=torch.zeros(rows, self.top_k),
            readout=torch.zeros(rows, self.value_size),
            novelty=torch.zeros(rows),
        )

    def write(self, moment: Moment) -> None:
        """Keeps signals and action under the latent's key (eqs. 18-20)."""
        match = self._match(moment.state.latent)
        signals = moment.state.signals.numpy()
        value = np.concatenate([signals, moment.plan.action.numpy()], -1)
        value[moment.observation.ended.numpy(), signals.shape[-1] :] = 0
        slot = match.near.argmax(-1)
        far = match.near[self._every, slot] < self.gamma
        coefficients = match.near / match.total
        if far.any():
            coefficients[far] = 0
            rows = far.nonzero()[0]
            place = self.used[rows].argmin(-1)
            slot[rows] = place
            self.keys[rows, place] = match.query[rows]
            self.values[rows, place] = value[rows]
            self.empty[rows, place] = 0
        if not far.all():
            moved = value[:, None] - self.values
            moved *= coefficients[:, :, None]
            self.values += moved
        self.used[self._every, slot] = self.time
        rate = np.float32(1 / min(self.time + 1, _LONG))
        error = match.query - self.centre
        self.centre += rate * error
        # Welford's step for the mean of |q - centre|².
        self.spread += rate * ((1 - rate) * (error * error).sum(-1, keepdims=True) - self.spread)
        self.time += 1
        self._asked = None

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name."""
        return {
            "keys": torch.from_numpy(self.keys.copy()),
            "values": torch.from_numpy(self.values.copy()),
            "used": torch.from_numpy(self.used.copy()),
            "centre": torch.from_numpy(self.centre.copy()),
            "spread": torch.from_numpy(self.spread.copy()),
            "time": torch.tensor(self.time),
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Remembers what `tensors` gave."""
        self.reset(len(tensors["keys"]))
        self.keys[:] = tensors["keys"].numpy()
        self.values[:] = tensors["values"].numpy()
        self.used[:] = tensors["used"].numpy()
        self.centre[:] = tensors["centre"].numpy()
        self.spread[:] = tensors["spread"].numpy()
        self.empty[self.used >= 0] = 0
        self.time = int(tensors["time"])
