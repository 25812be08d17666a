"""A memory of the state of the world, which the world model writes to (LeCun 2022, §4.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from modules.memory.associative import Floats, Recall
from modules.memory.priority import Integers
from modules.memory.ring import Ring
from modules.messages import (
    ConfigError,
    Experience,
    MessageError,
    Moment,
    Pairs,
    Recollection,
    State,
    WorldSpec,
)
from modules.nets.mlp import MLP
from modules.ports import Batch, Recorded
from modules.tensor_file import difference

_ARRAYS = ("keys", "values", "used")


class WorldStateMemory(Ring, nn.Module):
    """A ring of moments, and V entries a row that hold what the agent knows of the world's things.

    The world model writes: a pair (q, r) moves the values of the entries that q addresses,
    v_j ← c_j r + (1 - c_j) v_j with c_j = m_j / (γ + Σ_k m_k), m_j = e^{β(q·k_j - 1)} of keys and
    queries of length 1 (eqs. 16-20). Where m_j < γ entry j does not change at all, and where that
    holds of every entry q is the key of a new one, in the place of the least recently used. So an
    event changes only the entries that it touched. Entries are those of one episode.

    Reading is learned: a network makes R queries of the state and its goal, or of the goal alone;
    what each reads is Σ c_j v_j with c_j = e^{q·k_j} / (γ + Σ_k e^{q·k_k}) (eqs. 15-17), the
    read-out [B R·2D] all of it, concatenated. The losses of the modules that read it train the
    network. Before training q = 0: all entries weigh the same. Goals that are pictures are not part
    of experience, and queries do not read them.

    Keys and values of a recollection are those of all entries, its weights the means over queries;
    its novelty is that of `recall`, as in `ring`.
    """

    windowed: ClassVar[tuple[str, ...]] = (*Ring.windowed, "recalled_keys", "recalled_values")

    class Config(Ring.Config):
        """Settings of `world-state`: those of `ring`, and of the entries.

        slots: entries V a row. reads: queries R, as heads of attention; where one has come to read
        a useless entry, another may read a useful one. gamma: γ. sharpness: β. width: of the hidden
        layer of the network that makes queries. query_reads_state: whether a query reads the
        latent; if not, it is made of the goal alone, so that what is read does not change as the
        agent walks, and the world must have goals that are numbers.
        """

        slots: int = Field(default=12, ge=1, le=1024)
        reads: int = Field(default=1, ge=1, le=16)
        gamma: float = Field(default=0.1, gt=0, lt=1)
        sharpness: float = Field(default=10.0, gt=0, le=1000)
        width: int = Field(default=64, ge=1, le=8192)
        query_reads_state: bool = True

    config: Config

    def __init__(
        self,
        *,
        config: Config,
        recall: Recall,
        world: WorldSpec,
        rows: int,
        latent_size: int,
        context_frames: int = 0,
    ) -> None:
        nn.Module.__init__(self)
        Ring.__init__(
            self, config=config, recall=recall, world=world, rows=rows,
            context_frames=context_frames,
        )  # fmt: skip
        self.latent_size, self.steps = latent_size, 0
        if not (config.query_reads_state or world.goal):
            raise ConfigError(
                "config memory.query_reads_state: expected true in a world without goals that are "
                f"numbers, got false; {world.id} has none; try memory.query_reads_state=true"
            )
        inputs = latent_size * config.query_reads_state + (world.goal or 0)
        self.query = MLP(
            inputs, config.width, config.reads * latent_size, layers=1, zero_output=True
        )
        self._clear()

    def _clear(self) -> None:
        rows, slots, size = self.rows, self.config.slots, self.latent_size
        self.keys: Floats = np.zeros((rows, slots, size), np.float32)
        self.values: Floats = np.zeros((rows, slots, 2 * size), np.float32)
        self.used = np.full((rows, slots), -1, np.int64)

    def reset(self, initial: Moment) -> None:
        """As of a ring; all entries are empty."""
        super().reset(initial)
        self._clear()

    # -- writing ----------------------------------------------------------------------------

    def write_pairs(self, pairs: Pairs) -> None:
        """Writes each value to the entries that its query addresses; pairs are written in order.

        Raises MessageError where queries or values have other sizes than keys and values.
        """
        queries, values = pairs.queries.numpy(), pairs.values.numpy()
        for name, array, own in (("queries", queries, self.keys), ("values", values, self.values)):
            if array.shape[-1] != own.shape[-1]:
                expected = f"{own.shape[-1]} numbers each"
                raise MessageError("Pairs", name, expected, f"{array.shape[-1]}")
        addressed: npt.NDArray[np.bool_] = np.any(queries, -1)
        for i in np.flatnonzero(addressed.any(0)):
            rows = np.flatnonzero(addressed[:, i])
            self._write(rows, queries[rows, i], values[rows, i])

    def _write(self, rows: Integers, query: Floats, value: Floats) -> None:
        """Writes `value` [M 2D] under `query` [M D] in `rows` [M]."""
        gamma = np.float32(self.config.gamma)
        match = np.einsum("mvx,mx->mv", self.keys[rows], query)
        similarity = np.exp(np.float32(self.config.sharpness) * (match - 1))
        similarity[(self.used[rows] < 0) | (similarity < gamma)] = 0
        near: npt.NDArray[np.bool_] = np.any(similarity, -1)
        slot = np.where(near, similarity.argmax(-1), self.used[rows].argmin(-1))
        weights = similarity / (gamma + similarity.sum(-1, keepdims=True))
        self.values[rows] += weights[:, :, None] * (value[:, None] - self.values[rows])
        new, far = rows[~near], ~near
        self.keys[new, slot[far]] = query[far]
        self.values[new, slot[far]] = value[far]
        self.used[rows, slot] = self.steps

    def write(self, moment: Moment, recorded: Recorded | None = None) -> None:
        """As of a ring; where an episode ended, entries are empty again."""
        super().write(moment, recorded)
        self._forget(moment.observation.ended.numpy())

    def cut_episodes(self) -> None:
        """As of a ring; all entries are empty again."""
        super().cut_episodes()
        self._clear()

    def _forget(self, rows: npt.NDArray[np.bool_]) -> None:
        if rows.any():
            self.keys[rows], self.values[rows], self.used[rows] = 0, 0, -1

    def _recalled(self, moment: Moment) -> dict[str, Tensor | None]:
        recollection = moment.recollection
        return super()._recalled(moment) | {
            "recalled_keys": recollection.keys,
            "recalled_values": recollection.values,
        }

    # -- reading ----------------------------------------------------------------------------

    def _read(self, latent: Tensor, goal: Tensor | None, keys: Tensor) -> Tensor:
        """The coefficients [... R V] of entries with `keys` [... V D] for states with latents
        [... D] and goals [... G]; 0 of empty ones, whose key is 0.
        """
        inputs = [latent.detach()] if self.config.query_reads_state else []
        if self.world.goal is not None:
            if goal is None:  # as in recordings
                goal = latent.new_zeros(*latent.shape[:-1], self.world.goal)
            inputs.append(goal)
        queries = self.query(torch.cat(inputs, -1)).unflatten(-1, (-1, self.latent_size))
        match = queries @ keys.transpose(-1, -2)
        match = match.masked_fill(~keys.any(-1).unsqueeze(-2), -torch.inf)
        # The largest term is 1 for every query: nothing overflows.
        largest = match.amax(-1, keepdim=True).clamp_min(0)
        terms = (match - largest).exp()
        coefficients: Tensor = terms / (
            self.config.gamma * (-largest).exp() + terms.sum(-1, keepdim=True)
        )
        return coefficients

    @torch.no_grad()
    def recall(self, state: State) -> Recollection:
        """All entries, those of largest weight first, and the read-out."""
        keys, values = torch.from_numpy(self.keys), torch.from_numpy(self.values)
        each = self._read(state.latent, state.goal, keys)
        readout, weights = (each @ values).flatten(1), each.mean(1)
        order = torch.argsort(weights, dim=-1, descending=True, stable=True)
        ages = torch.from_numpy(((self.steps - self.used) * (self.used >= 0)).astype(np.float32))
        column = order.unsqueeze(-1)
        return Recollection(
            keys=keys.gather(1, column.expand_as(keys)),
            values=values.gather(1, column.expand_as(values)),
            weights=weights.gather(1, order),
            ages=ages.gather(1, order),
            readout=readout,
            novelty=super().recall(state).novelty,
        )

    def initial(self, rows: int) -> Recollection:
        """The recollection before an episode: no entries, novelty 0."""
        slots, size, none = self.config.slots, self.latent_size, torch.zeros(rows)
        return Recollection(
            keys=torch.zeros(rows, slots, size),
            values=torch.zeros(rows, slots, 2 * size),
            weights=torch.zeros(rows, slots),
            ages=torch.zeros(rows, slots),
            readout=torch.zeros(rows, self.config.reads * 2 * size),
            novelty=none,
        )

    def reread(self, experience: Experience, latents: Tensor) -> Tensor | None:
        """What the present weights read from the entries of each step (`ports.WritableMemory`)."""
        keys, values = experience.recalled_keys, experience.recalled_values
        if keys is None or values is None or experience.readouts is None:
            return None
        steps = latents.shape[1]
        goals = None if experience.goals is None else experience.goals[:, :steps]
        weights = self._read(latents, goals, keys[:, :steps])
        return (weights @ values[:, :steps]).flatten(2)

    # -- learning ---------------------------------------------------------------------------

    def losses(self, batch: Batch, key: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
        """None of its own: what is read is trained by those who read it."""
        return {}, None

    def on_update(self) -> None:
        """No target network."""

    def on_reset(self) -> None:
        """No schedule."""

    def window_steps(self) -> int:
        """One step."""
        return 1

    def target_mask(self, experience: Experience, steps: int) -> Tensor:
        """No target state is read."""
        return torch.zeros_like(experience.mask)

    # -- checkpoints and keyframes ----------------------------------------------------------

    def acting_tensors(self) -> dict[str, Tensor]:
        """As of a ring, with the entries."""
        entries = {
            f"slots.{name}": torch.from_numpy(getattr(self, name).copy()) for name in _ARRAYS
        }
        return super().acting_tensors() | entries

    def load_acting(self, tensors: dict[str, Tensor]) -> None:
        """As of a ring. Raises MessageError where the entries are of another memory."""
        own = {name: tensors[name] for name in tensors if name.startswith("slots.")}
        if differing := difference(self._entry_forms(), own):
            raise MessageError("Recollection", "slots", "this memory's tensors", differing)
        super().load_acting(tensors)
        for name in _ARRAYS:
            getattr(self, name)[:] = own[f"slots.{name}"].numpy()

    def _entry_forms(self) -> dict[str, Tensor]:
        return {f"slots.{name}": torch.from_numpy(getattr(self, name)) for name in _ARRAYS}

    def _forms(self, entries: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super()._forms(entries, tensors) | self._entry_forms()
