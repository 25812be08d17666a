"""Short-term memory: the last moments of each row in a ring, and what they call to mind.

Retrieval by time is the ring's (LeCun 2022, §3.3): the last moment for the loop, windows of past
steps for the learner. Retrieval by similarity is that of `recall` (§4.9).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from modules import chance
from modules.memory.associative import Recall
from modules.memory.priority import SumTree, Whole
from modules.messages import (
    ConfigError,
    Experience,
    Message,
    MessageError,
    Moment,
    Recollection,
    State,
    WorldSpec,
)

Numbers = npt.NDArray[Any]

_GROWTH_BYTES = 1 << 24
_TRIES = 8


class Ring:
    """The last `capacity` steps, summed over rows, each observation stored once.

    Stored of a step: its frame or vector as observed (a frame keeps its dtype; bytes stay bytes),
    the signals felt, the goal, the action (int16 where discrete, float32 where continuous), how
    the episode stood, when it began, and the tokens that primed its percept, these only once any
    were not 0. Context frames are not stored again but gathered; before
    an episode's first frame stands that frame itself, as perception has it. Room is taken as it
    is filled, by a half or some megabytes at a time.

    A window begins anywhere with equal chance, or in proportion to priority^`priority_exponent`;
    never at a step after which nothing came.
    """

    class Config(BaseModel):
        """A ring of moments.

        `capacity`: steps kept, all rows together. `priority_exponent`: 0 draws windows with
        equal chance, 1 in proportion to their priority. `beta`: how far weights
        make up for that, 1 wholly.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)
        kind: Literal["ring"] = "ring"
        capacity: int = Field(20_000, ge=2, le=100_000_000)
        priority_exponent: float = Field(0.0, ge=0, le=2)
        beta: float = Field(0.5, ge=0, le=1)

    def __init__(
        self,
        *,
        capacity: int = 20_000,
        priority_exponent: float = 0.0,
        beta: float = 0.5,
        recall: Recall,
        world: WorldSpec,
        rows: int,
        context_frames: int = 0,
    ) -> None:
        self.rows, self.context = rows, context_frames if world.pixels is not None else 0
        self.slots = capacity // rows
        if self.slots < self.context + 2:
            raise ConfigError(
                f"config memory.capacity: expected at least {rows * (self.context + 2)} for {rows} "
                f"rows, got {capacity}"
            )
        self.priority_exponent, self.beta = priority_exponent, beta
        self.actions, self.associative = world.actions, recall

    # -- by time ----------------------------------------------------------------------------

    def reset(self, neutral: Moment) -> None:
        """Forgets everything; `neutral` is what comes before the first moment of an episode.

        Raises MessageError where it has another number of rows than this memory was made for.
        """
        if neutral.batch != self.rows:
            raise MessageError("Moment", "step", f"{self.rows} rows", f"{neutral.batch} rows")
        self._neutral = self._last = neutral
        self._latest: Moment | None = neutral
        self.steps = self._room = 0
        self._fields: dict[str, Numbers] = {}
        self._began = np.zeros(self.rows, np.int64)
        self._over = np.ones(self.rows, np.bool_)
        self._top = 1.0
        self._tree = SumTree(self.slots * self.rows) if self.priority_exponent else None
        self.associative.reset(self.rows)

    def previous(self) -> Moment:
        """The last moment of each row, neutral where its episode was over: that begins anew.

        Where none was over it is the very message written.
        """
        if self._latest is None:
            lives_on = ~self._last.observation.ended
            self._latest = (
                self._last if bool(lives_on.all()) else self._last.where(lives_on, self._neutral)
            )
        return self._latest

    def last_written(self) -> Moment:
        """The last moment as it was written, also where its episode was over."""
        return self._last

    @torch.no_grad()
    def write(self, moment: Moment) -> None:
        """Keeps a moment; the oldest step of each row makes room where the ring is full."""
        seen, action = moment.observation, moment.plan.action
        begins = self._over | seen.first.numpy()
        self._began = np.where(begins, self.steps, self._began)
        stored: dict[str, Numbers | None] = {
            "frames": None if seen.pixels is None else seen.pixels.numpy(),
            "vectors": None if seen.vector is None else seen.vector.numpy(),
            "goals": None if seen.goal is None else seen.goal.numpy(),
            "signals": moment.state.signals.numpy(),
            "actions": (
                action.argmax(-1).numpy().astype(np.int16)
                if self.actions.discrete
                else action.numpy()
            ),
            "planned": (moment.plan.mode == 2).numpy(),
            "terminated": seen.terminated.numpy(),
            "truncated": seen.truncated.numpy(),
            "began": self._began,
        }
        known = {name: value for name, value in stored.items() if value is not None}
        if self.steps == self._room and self._room < self.slots:
            self._grow(known)
        at = (self.steps % self.slots) * self.rows
        primes = self.previous().directive.tokens
        if "tokens" in self._fields or bool(primes.any()):
            known["tokens"] = primes.numpy()
            if "tokens" not in self._fields:
                self._fields["tokens"] = self._room_for(known["tokens"])
        for name, value in known.items():
            self._fields[name][at : at + self.rows] = value
        self.steps += 1
        if self._tree is not None:
            self._admit(self._tree, ~begins)
        self._over = seen.ended.numpy()
        self._last, self._latest = moment, None
        self.associative.write(moment)

    def _grow(self, stored: dict[str, Numbers]) -> None:
        """Makes room for more steps of what is `stored` of one."""
        size = sum(value.nbytes for value in stored.values())
        more = max(self._room // 2, _GROWTH_BYTES // size, 1)
        self._room = min(self._room + more, self.slots)
        for field in self._fields.values():
            # In place: pages move and nothing is copied. No view of a field is ever kept.
            field.resize((self._room * self.rows, *field.shape[1:]), refcheck=False)
        for name in stored.keys() - self._fields.keys():
            self._fields[name] = self._room_for(stored[name])

    def _room_for(self, value: Numbers) -> Numbers:
        """Zeros for every step there is room for, of what is `value` [B ...] of one."""
        return np.zeros((self._room * self.rows, *value.shape[1:]), value.dtype)

    def _flat(self, time: Whole, row: Whole) -> Whole:
        """Where a step is stored."""
        return (time % self.slots) * self.rows + row

    @property
    def _earliest(self) -> int:
        """The first time from which a window may begin: all its context is still there."""
        oldest = self.steps - self.slots
        return oldest + self.context if oldest > 0 else 0

    def _admit(self, tree: SumTree, continued: npt.NDArray[np.bool_]) -> None:
        """The step before the last may now begin a window in the rows `continued` [B]; the last
        may not yet, and those whose context has been overwritten no more.
        """
        rows = np.arange(self.rows)
        gone = np.arange(max(0, self.steps - self.slots), self._earliest)
        closed = np.append(gone, self.steps - 1)
        tree.put(self._flat(closed[:, None], rows).ravel(), 0.0)
        if self.steps > 1:
            tree.put(self._flat(np.array(self.steps - 2), rows[continued]), self._top)

    def sample(self, batch: int, window: int, key: Tensor) -> Experience:
        """`batch` windows of up to `window` steps; `key` [1] int64 derives the choice.

        Behind its end a window repeats what was last observed; signals, actions and ends are 0
        there. Raises MessageError where nothing has been written yet.
        """
        if not self.steps:
            raise MessageError("Experience", "indices", "a memory with steps in it", "an empty one")
        if self._tree is not None and self._tree.total > 0:
            start, row, weights = self._preferred(self._tree, batch, key)
        else:
            start, row = self._any(batch, window, key)
            weights = np.ones(batch, np.float32)
        times = start[:, None] + np.arange(window)
        place = self._flat(np.minimum(times, self.steps - 1), row[:, None])
        began = self._fields["began"]
        valid = (times < self.steps) & (began[place] <= start[:, None])
        stop = start + valid.sum(1) - 1
        place = self._flat(np.minimum(times, stop[:, None]), row[:, None])
        frames = vectors = goals = tokens = None
        if "frames" in self._fields:
            shown = start[:, None] + np.arange(-self.context, window)
            first = began[place[:, :1]]
            shown = np.minimum(np.maximum(shown, first), stop[:, None])
            frames = torch.from_numpy(
                self._fields["frames"].take(self._flat(shown, row[:, None]), 0)
            )
        if "vectors" in self._fields:
            vectors = torch.from_numpy(self._fields["vectors"].take(place, 0))
        if "goals" in self._fields:
            goals = torch.from_numpy(self._fields["goals"].take(place, 0))
        if "tokens" in self._fields:
            tokens = torch.from_numpy(self._fields["tokens"].take(place, 0))
        real = torch.from_numpy(valid)
        actions = torch.from_numpy(self._fields["actions"].take(place, 0))
        if self.actions.discrete:
            actions = self.actions.encode(actions)
        return Experience(
            frames=frames,
            vectors=vectors,
            actions=actions * real.unsqueeze(-1),
            signals=torch.from_numpy(self._fields["signals"].take(place, 0)) * real.unsqueeze(-1),
            goals=goals,
            tokens=tokens,
            mode2_mask=torch.from_numpy(self._fields["planned"].take(place, 0)) & real,
            terminated=torch.from_numpy(self._fields["terminated"].take(place, 0)) & real,
            truncated=torch.from_numpy(self._fields["truncated"].take(place, 0)) & real,
            mask=real,
            importance_weights=torch.from_numpy(weights),
            indices=torch.from_numpy(start * self.rows + row),
        )

    def _any(self, batch: int, window: int, key: Tensor) -> tuple[Whole, Whole]:
        """Times and rows [batch] at which windows begin, each with the same chance.

        A whole window is preferred to one cut short by the present. Of some tries the first that
        is not the last step of its episode.
        """
        low, last = self._earliest, self.steps - 1
        high = next((t for t in (last - window + 1, last - 1) if t >= low), last)
        drawn = chance.uniform(key, "memory", 2, batch, _TRIES)[0].double().numpy()
        times = low + (drawn[0] * (high - low + 1)).astype(np.int64)
        rows = (drawn[1] * self.rows).astype(np.int64)
        place = self._flat(times, rows)
        over = self._fields["terminated"][place] | self._fields["truncated"][place]
        choice = (np.arange(batch), over.argmin(1))
        return times[choice], rows[choice]

    def _preferred(
        self, tree: SumTree, batch: int, key: Tensor
    ) -> tuple[Whole, Whole, npt.NDArray[np.float32]]:
        """Times, rows and corrections [batch] of windows drawn by priority, one from each of
        `batch` equal parts of the total.
        """
        drawn = chance.uniform(key, "memory", batch)[0].double().numpy()
        place = tree.draw((np.arange(batch) + drawn) / batch)
        slot, last = place // self.rows, self.steps - 1
        share = tree.values(place)
        weights = (share / share.min()) ** -self.beta
        return (
            last - (last - slot) % self.slots,
            place % self.rows,
            weights.astype(np.float32),
        )

    def update_priorities(self, index: Tensor, priorities: Tensor) -> None:
        """Takes back, for the windows `index` [B], how much is to be learned there [B], >= 0.

        Without effect where windows are drawn with equal chance, and on windows since forgotten.
        """
        if self._tree is None:
            return
        time, row = np.divmod(index.numpy(), self.rows)
        place = self._flat(time, row)
        there = (time >= self._earliest) & (self._tree.values(place) > 0)
        values = (priorities.detach().double().cpu().numpy() + 1e-6) ** self.priority_exponent
        if there.any():
            self._tree.put(place[there], values[there])
            self._top = max(self._top, float(values[there].max()))

    # -- by similarity ----------------------------------------------------------------------

    def recall(self, state: State) -> Recollection:
        """What the state calls to mind (§4.9)."""
        return self.associative.recall(state)

    def initial(self, rows: int) -> Recollection:
        """What is recalled where nothing is: zeros of the usual shapes, novelty 0."""
        return self.associative.initial(rows)

    # -- to be kept -------------------------------------------------------------------------

    @property
    def bytes_per_step(self) -> float:
        """What the ring has taken of main memory for each step it has room for."""
        taken = sum(field.nbytes for field in self._fields.values())
        tree = 0 if self._tree is None else self._tree.nodes.nbytes / (self.slots * self.rows)
        return taken / max(1, self._room * self.rows) + tree

    def tensors(self) -> dict[str, Tensor]:
        """All that is remembered, by name: what a checkpoint holds, and what a fork is given."""
        lived = min(self.steps, self.slots) * self.rows
        kept = {name: torch.from_numpy(f[:lived].copy()) for name, f in self._fields.items()}
        kept |= {
            "now.began": torch.from_numpy(self._began.copy()),
            "now.over": torch.from_numpy(self._over.copy()),
            "now.steps": torch.tensor(self.steps),
            "now.last": torch.frombuffer(bytearray(self._last.to_bytes()), dtype=torch.uint8),
        }
        if self._tree is not None:
            place = np.arange(lived)
            kept["priorities"] = torch.from_numpy(self._tree.values(place))
            kept["now.top"] = torch.tensor(self._top, dtype=torch.float64)
        return kept | {f"recall.{name}": t for name, t in self.associative.tensors().items()}

    def acting_tensors(self) -> dict[str, Tensor]:
        """What acting needs of all that: the last moment and what calls to mind, no experience."""
        return {
            "now.last": torch.frombuffer(bytearray(self._last.to_bytes()), dtype=torch.uint8),
            **{f"recall.{name}": t for name, t in self.associative.tensors().items()},
        }

    def load_acting(self, tensors: dict[str, Tensor]) -> None:
        """Stands where `acting_tensors` were taken, to act on exactly from there; after `begin`.

        There is no experience from before: what is sampled begins here.
        """
        self.reset(self._neutral)
        self._last, self._latest = _last_moment(tensors), None
        self._over = self._last.observation.ended.numpy().copy()
        self._recollect(tensors)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Remembers what `tensors` gave, to go on exactly from there; after `begin`.

        Raises MessageError where they come from a memory of other rows or capacity.
        """
        self.reset(self._neutral)
        steps = int(tensors["now.steps"])
        lived = min(steps, self.slots) * self.rows
        for name, tensor in tensors.items():
            if "." not in name and len(tensor) != lived:
                wanted = f"{lived} steps ({self.rows} rows, {self.slots} each)"
                raise MessageError("Experience", name, wanted, f"{len(tensor)}")
        last = _last_moment(tensors)
        self.steps, self._room = steps, min(steps, self.slots)
        self._last, self._latest = last, None
        self._began = tensors["now.began"].numpy().copy()
        self._over = tensors["now.over"].numpy().copy()
        self._fields = {
            name: tensor.numpy().copy()
            for name, tensor in tensors.items()
            if "." not in name and name != "priorities"
        }
        if self._tree is not None and "priorities" in tensors:
            self._tree.put(np.arange(lived), tensors["priorities"].numpy())
            self._top = float(tensors["now.top"])
        self._recollect(tensors)

    def _recollect(self, tensors: dict[str, Tensor]) -> None:
        self.associative.load_tensors(
            {n.removeprefix("recall."): t for n, t in tensors.items() if n.startswith("recall.")}
        )


def _last_moment(tensors: dict[str, Tensor]) -> Moment:
    last = Message.from_bytes(tensors["now.last"].numpy().tobytes())
    if not isinstance(last, Moment):
        raise MessageError("Moment", "now.last", "Moment", type(last).__name__)
    return last
