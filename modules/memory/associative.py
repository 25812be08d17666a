"""Recall by similarity: a soft key-value memory (LeCun 2022, §4.9, eqs. 15-20)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.messages import ConfigError, Frozen, Moment, Recollection, State, WorldSpec

Floats = npt.NDArray[np.float32]

KEY_SIZE = 32
"""X. Projected on 32 random directions, distances stay within about 25 % of the true ones."""

_STATS_WINDOW = 10_000
"""Queries over which mean and spread are averages; beyond it they become exponential averages."""

_PROJECTION_SEED = 20220627
"""The same in every run, so that stored keys keep their meaning."""

_MOST_SLOTS = 1 << 20
"""Slots of all rows together: their keys take 128 MB, and every step compares with all of them."""

_MAX_DISSIMILARITY = 50
"""Beyond it e^{-m} changes no float32 sum; the denormal numbers further on would only be slow."""


class Recall(Protocol):
    """The associative part of a memory, for B rows."""

    def reset(self, rows: int) -> None:
        """Empties the store."""

    def recall(self, state: State) -> Recollection:
        """The slots most similar to `state`, and its novelty; changes nothing."""

    def initial(self, rows: int) -> Recollection:
        """The recollection before an episode: zeros of the usual shapes, novelty 0."""

    def write(self, moment: Moment) -> None:
        """Stores a moment."""

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the whole store, by name."""

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` returned."""


class _Match(NamedTuple):
    """A query [B X] from `latent` [B D]; e^{-m_j} of each slot [B V]; γ + Σ_j e^{-m_j} [B 1]."""

    latent: Tensor
    query: Floats
    similarity: Floats
    normaliser: Floats


class Associative:
    """V slots of keys and values per row.

    A key is a fixed random projection of a latent, so keys stay comparable while the encoder
    learns. The dissimilarity of a query q and a key is m_j = |q - k_j|² / (2·bandwidth·spread),
    where spread is the mean squared distance of the row's queries from their mean: two unrelated
    latents differ by 1/bandwidth, for any encoder. (Without it an untrained CNN, whose latents
    of different frames differ by a thousandth, would make all frames of a game alike.) Reading
    gives Σ c_j v_j with c_j = e^{-m_j} / (γ + Σ_k e^{-m_k}) (eqs. 15-17). Writing r moves each
    value by its coefficient, v_j ← c_j r + (1 - c_j) v_j (eqs. 18-20), unless the query is far from
    every key, max_j e^{-m_j} < γ: then r gets a slot of its own and no other value moves. A full
    store overwrites the least recently used slot; a slot is used when it is created and when it
    is the nearest to a query.

    A value is the signals, then the encoded action (zeros where the episode ended). Novelty is
    γ / (γ + Σ e^{-m}), the share of eq. 16 that no slot takes. The store outlives episodes: states
    seen in an earlier episode are not novel.

    Computed in numpy: on stores this small a torch call costs more than its arithmetic.
    """

    class Config(Frozen):
        """Settings of `associative`.

        slots: V per row. bandwidth: share of the squared distance between unrelated latents that
        is dissimilarity 1. gamma: γ of eq. 16. top_k: slots listed in a recollection.
        """

        slots: int = Field(default=128, ge=1, le=65536)
        # Share of 400 random steps, with an untrained CNN, whose novelty is above 0.5 late on:
        # Breakout 1 %, Pong and MsPacman 0 % (47, 52, 128 slots); at 0.05 13 %, 80 % and 76 %.
        bandwidth: float = Field(default=0.2, gt=0, le=1000)
        gamma: float = Field(default=0.1, gt=0, lt=1)
        top_k: int = Field(default=4, ge=1, le=64)

    def __init__(self, *, config: Config, world: WorldSpec, rows: int, latent_size: int) -> None:
        if rows * config.slots > _MOST_SLOTS:
            raise ConfigError(
                f"config memory.recall.slots: expected at most {_MOST_SLOTS // rows} for {rows} "
                f"rows, got {config.slots}"
            )
        self.config = config
        self.top_k = min(config.top_k, config.slots)
        self.value_size = len(world.signals) + world.actions.size
        directions = chance.normal(
            torch.tensor([_PROJECTION_SEED]), "associative", latent_size, KEY_SIZE
        )
        self.projection: Floats = (directions[0] / KEY_SIZE**0.5).numpy()
        self.reset(rows)

    def reset(self, rows: int) -> None:
        """Empties the store."""
        slots = self.config.slots
        self.keys: Floats = np.zeros((rows, slots, KEY_SIZE), np.float32)
        self.values: Floats = np.zeros((rows, slots, self.value_size), np.float32)
        self.used = np.full((rows, slots), -1, np.int64)
        # Added to dissimilarities, so that a slot never written has similarity 0.
        self.empty: Floats = np.full((rows, slots), np.inf, np.float32)
        self.centre: Floats = np.zeros((rows, KEY_SIZE), np.float32)
        self.spread: Floats = np.zeros((rows, 1), np.float32)
        self.time = 0
        self._rows = np.arange(rows)
        self._match: _Match | None = None

    def match(self, latent: Tensor) -> _Match:
        """Compares latents [B D] with the keys; cached for `write`, which follows `recall`."""
        if self._match is None or self._match.latent is not latent:
            query = latent.detach().numpy() @ self.projection
            difference = self.keys - query[:, None]
            dissimilarity = np.einsum("bvx,bvx->bv", difference, difference)
            # While the spread is unknown, a difference of a thousandth counts as far.
            floor = 1e-6 * (query * query).sum(-1, keepdims=True) + 1e-12
            dissimilarity /= np.maximum(2 * self.config.bandwidth * self.spread, floor)
            similarity = np.exp(-(np.minimum(dissimilarity, _MAX_DISSIMILARITY) + self.empty))
            normaliser = similarity.sum(-1, keepdims=True) + np.float32(self.config.gamma)
            self._match = _Match(latent, query, similarity, normaliser)
        return self._match

    def recall(self, state: State) -> Recollection:
        """The `top_k` slots most similar to `state`, the read-out and novelty (eqs. 15-17)."""
        match = self.match(state.latent)
        coefficients = match.similarity / match.normaliser
        index = np.argsort(-coefficients, -1, kind="stable")[:, : self.top_k]
        place = self._rows[:, None], index
        weights = coefficients[place]
        ages = ((self.time - self.used[place]) * (weights > 0)).astype(np.float32)
        return Recollection(
            keys=torch.from_numpy(self.keys[place]),
            values=torch.from_numpy(self.values[place]),
            weights=torch.from_numpy(weights),
            ages=torch.from_numpy(ages),
            readout=torch.from_numpy((coefficients[:, None] @ self.values)[:, 0]),
            novelty=torch.from_numpy(self.config.gamma / match.normaliser[:, 0]),
        )

    def initial(self, rows: int) -> Recollection:
        """The recollection before an episode: zeros of the usual shapes, novelty 0."""
        return Recollection(
            keys=torch.zeros(rows, self.top_k, KEY_SIZE),
            values=torch.zeros(rows, self.top_k, self.value_size),
            weights=torch.zeros(rows, self.top_k),
            ages=torch.zeros(rows, self.top_k),
            readout=torch.zeros(rows, self.value_size),
            novelty=torch.zeros(rows),
        )

    def write(self, moment: Moment) -> None:
        """Stores signals and action under the latent's key (eqs. 18-20)."""
        match = self.match(moment.state.latent)
        signals = moment.state.signals.numpy()
        value = np.concatenate([signals, moment.plan.action.numpy()], -1)
        value[moment.observation.ended.numpy(), signals.shape[-1] :] = 0
        slot = match.similarity.argmax(-1)
        far = match.similarity[self._rows, slot] < self.config.gamma
        coefficients = match.similarity / match.normaliser
        if far.any():
            coefficients[far] = 0
            rows = far.nonzero()[0]
            oldest = self.used[rows].argmin(-1)
            slot[rows] = oldest
            self.keys[rows, oldest] = match.query[rows]
            self.values[rows, oldest] = value[rows]
            self.empty[rows, oldest] = 0
        if not far.all():
            change = value[:, None] - self.values
            change *= coefficients[:, :, None]
            self.values += change
        self.used[self._rows, slot] = self.time
        rate = np.float32(1 / min(self.time + 1, _STATS_WINDOW))
        error = match.query - self.centre
        self.centre += rate * error
        # Welford's update of the mean of |q - centre|².
        self.spread += rate * ((1 - rate) * (error * error).sum(-1, keepdims=True) - self.spread)
        self.time += 1
        self._match = None

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the whole store, by name."""
        arrays = ("keys", "values", "used", "centre", "spread")
        copies = {name: torch.from_numpy(getattr(self, name).copy()) for name in arrays}
        return copies | {"time": torch.tensor(self.time)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` returned."""
        self.reset(len(tensors["keys"]))
        for name in ("keys", "values", "used", "centre", "spread"):
            getattr(self, name)[:] = tensors[name].numpy()
        self.empty[self.used >= 0] = 0
        self.time = int(tensors["time"])
