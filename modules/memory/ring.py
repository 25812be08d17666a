"""Short-term memory: the last moments of each row in a ring buffer.

Retrieval by time is the ring's (LeCun 2022, §3.3): the previous moment for the loop, windows of
past steps for the learner. Retrieval by similarity is delegated to `recall` (§4.9).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from modules import chance
from modules.memory.associative import Recall
from modules.memory.priority import Integers, SumTree
from modules.messages import (
    ConfigError,
    Experience,
    Frozen,
    Message,
    MessageError,
    Moment,
    Recollection,
    State,
    WorldSpec,
)
from modules.ports import Recorded
from modules.tensor_file import difference

Numbers = npt.NDArray[Any]

_GROWTH_BYTES = 1 << 24
_LACKING = {
    "expert": "expert_mask",
    "no_action": "action_mask",
    "no_ends": "ends_mask",
    "no_signals": "signals_mask",
}
"""Fields that tell what a recording has of a step, and the masks of experience they become."""

_TRIES = 8
"""Draws of a window's first step; the first that is not the last step of its episode is used."""


class Ring:
    """The last `capacity` steps, summed over rows, each observation stored once.

    Stored per step: the frame or vector as observed (a frame keeps its dtype), signals, goal, the
    action (int16 where discrete, float32 where continuous), whether Mode-2 chose it, `terminated`,
    `truncated`, the first step of the episode, what memory returned where a module reads that, and
    the tokens under which the observation was encoded, stored from the first step whose tokens are
    not all 0. What recordings lack of a step (`modules.ports.Recorded`) is stored from the first
    step that lacks something, and an expert's steps from the first of these. Context frames are
    gathered from
    earlier steps, not stored again; before an episode's first frame stands that frame itself, as in
    perception. Arrays grow by a half, or some megabytes, as they fill.

    The first step of a window is drawn uniformly, or in proportion to priority^`priority_exponent`
    (Schaul et al. 2016), and is never a step without a successor.
    """

    windowed: ClassVar[tuple[str, ...]] = ("vectors", "goals", "tokens", "readouts")
    """Fields of `Experience` that are stored where there is something to store."""

    class Config(Frozen):
        """Settings of `ring`.

        capacity: steps stored, all rows together. priority_exponent: 0 draws windows uniformly, 1
        in proportion to their priority. beta: exponent of the importance weights that correct for
        it, 1 fully.
        """

        capacity: int = Field(default=20_000, ge=2, le=100_000_000)
        priority_exponent: float = Field(default=0.0, ge=0, le=2)
        beta: float = Field(default=0.5, ge=0, le=1)

    def __init__(
        self,
        *,
        config: Config,
        recall: Recall,
        world: WorldSpec,
        rows: int,
        context_frames: int = 0,
    ) -> None:
        self.config = config
        self.rows, self.context = rows, context_frames if world.pixels is not None else 0
        self.slots = config.capacity // rows
        if self.slots < self.context + 2:
            raise ConfigError(
                f"config memory.capacity: expected at least {rows * (self.context + 2)} for {rows} "
                f"rows, got {config.capacity}"
            )
        self.world, self.actions, self.associative = world, world.actions, recall

    @staticmethod
    def bytes_a_step(config: Config, world: WorldSpec) -> int:
        """Main memory of one step of one row, bytes; tokens, which few runs store, are not counted.

        The same as `bytes_per_step` of a ring that holds steps of this world.
        """
        floats = (world.vector or 0) + (world.goal or 0) + len(world.signals)
        action = 2 if world.actions.discrete else 4 * world.actions.size
        flags, began = 3, 8
        priority = 16 if config.priority_exponent else 0
        return math.prod(world.pixels or (0,)) + 4 * floats + action + flags + began + priority

    # -- by time ----------------------------------------------------------------------------

    def reset(self, initial: Moment) -> None:
        """Empties the memory; `initial` is the moment before the first of an episode.

        Raises MessageError where it has another number of rows.
        """
        if initial.batch != self.rows:
            raise MessageError("Moment", "step", f"{self.rows} rows", f"{initial.batch} rows")
        self._initial = self._last = initial
        self._previous: Moment | None = initial
        self.steps = self._allocated = 0
        self._fields: dict[str, Numbers] = {}
        self._began = np.zeros(self.rows, np.int64)
        self._over = np.ones(self.rows, np.bool_)
        self._max_priority = 1.0
        prioritised = self.config.priority_exponent
        self._tree = SumTree(self.slots * self.rows) if prioritised else None
        self.associative.reset(self.rows)

    def previous(self) -> Moment:
        """The last moment of each row, the initial one where its episode ended.

        Where no episode ended it is the object that was written.
        """
        if self._previous is None:
            continues = ~self._last.observation.ended
            self._previous = (
                self._last if bool(continues.all()) else self._last.where(continues, self._initial)
            )
        return self._previous

    def last_written(self) -> Moment:
        """The last moment as it was written, also where its episode ended."""
        return self._last

    @torch.no_grad()
    def write(self, moment: Moment, recorded: Recorded | None = None) -> None:
        """Stores a moment; in a full ring the oldest step of each row is overwritten. `recorded`:
        what is known of it, where it comes from a recording.
        """
        observation, action = moment.observation, moment.plan.action
        begins = self._over | observation.first.numpy()
        self._began = np.where(begins, self.steps, self._began)
        tensors = {
            "frames": observation.pixels,
            "vectors": observation.vector,
            "goals": observation.goal,
            "signals": moment.state.signals,
            "actions": action.argmax(-1).short() if self.actions.discrete else action,
            "planned": moment.plan.mode == 2,
            "terminated": observation.terminated,
            "truncated": observation.truncated,
            **self._recalled(moment),
        }
        values: dict[str, Numbers]
        values = {name: value.numpy() for name, value in tensors.items() if value is not None}
        values["began"] = self._began
        if self.steps == self._allocated and self._allocated < self.slots:
            self._grow(values)
        place = (self.steps % self.slots) * self.rows
        rare = {"tokens": self.previous().directive.tokens.numpy(), **self._lacking(recorded)}
        for name, value in rare.items():
            if name in self._fields or value.any():
                values[name] = value
                if name not in self._fields:
                    self._fields[name] = self._zeros(value)
        for name, value in values.items():
            self._fields[name][place : place + self.rows] = value
        self.steps += 1
        if self._tree is not None:
            self._open_windows(self._tree, ~begins)
        self._over = observation.ended.numpy()
        self._last, self._previous = moment, None
        self.associative.write(moment)

    def _lacking(self, recorded: Recorded | None) -> dict[str, Numbers]:
        """The fields `_LACKING` of one step, [B ...] each; all False of a step of the agent's."""
        if recorded is None:
            if not self._fields.keys() & _LACKING.keys():
                return {}
            known = torch.ones(len(self.world.signals), dtype=torch.bool)
            recorded = Recorded(expert=False, action=True, ends=True, signals=known)
        marks = (recorded.expert, not recorded.action, not recorded.ends, ~recorded.signals)
        return {
            name: np.repeat(np.asarray(mark)[None], self.rows, 0)
            for name, mark in zip(_LACKING, marks, strict=True)
        }

    def _recalled(self, moment: Moment) -> dict[str, Tensor | None]:
        """What is stored of what memory returned."""
        return {"readouts": moment.state.readout}

    def cut_episodes(self) -> None:
        """Marks the last step of every row as truncated, unless its episode ended with it."""
        observation = self._last.observation
        truncated = ~observation.terminated
        self._last = self._last.replace(observation=observation.replace(truncated=truncated))
        self._over, self._previous = observation.ended.numpy() | truncated.numpy(), None
        place = ((self.steps - 1) % self.slots) * self.rows
        self._fields["truncated"][place : place + self.rows] = truncated.numpy()

    def _grow(self, values: dict[str, Numbers]) -> None:
        """Allocates more steps, each of the size of one step's `values`."""
        size = sum(value.nbytes for value in values.values())
        more = max(self._allocated // 2, _GROWTH_BYTES // size, 1)
        self._allocated = min(self._allocated + more, self.slots)
        for field in self._fields.values():
            # In place, so that pages move and nothing is copied; no view of a field is ever held.
            field.resize((self._allocated * self.rows, *field.shape[1:]), refcheck=False)
        for name in values.keys() - self._fields.keys():
            self._fields[name] = self._zeros(values[name])

    def _zeros(self, value: Numbers) -> Numbers:
        """Zeros for all allocated steps of a field whose value at one step is `value` [B ...]."""
        return np.zeros((self._allocated * self.rows, *value.shape[1:]), value.dtype)

    def _place(self, time: Integers, row: Integers) -> Integers:
        """Index into the fields of step `time` of `row`."""
        return (time % self.slots) * self.rows + row

    @property
    def _earliest(self) -> int:
        """The first step from which a window may begin, with all its context still stored."""
        oldest = self.steps - self.slots
        return oldest + self.context if oldest > 0 else 0

    def _open_windows(self, tree: SumTree, continued: npt.NDArray[np.bool_]) -> None:
        """After a write, windows may begin at the step before it in the rows `continued` [B]
        (bool), and no longer at steps whose context was overwritten.
        """
        rows = np.arange(self.rows)
        overwritten = np.arange(max(0, self.steps - self.slots), self._earliest)
        closed = np.append(overwritten, self.steps - 1)
        tree.put(self._place(closed[:, None], rows).ravel(), 0.0)
        if self.steps > 1:
            place = self._place(np.array(self.steps - 2), rows[continued])
            tree.put(place, self._max_priority)

    def sample(self, batch: int, window: int, key: Tensor) -> Experience:
        """`batch` windows of up to `window` steps, drawn by `key` [1] (int64).

        Behind its end a window repeats the last observation, with signals, actions and ends 0.
        Raises MessageError where the memory is empty.
        """
        if not self.steps:
            raise MessageError("Experience", "indices", "a memory with steps in it", "an empty one")
        if self._tree is not None and self._tree.total > 0:
            start, row, weights = self._prioritised(self._tree, batch, key)
        else:
            start, row = self._uniform(batch, window, key)
            weights = np.ones(batch, np.float32)
        times = start[:, None] + np.arange(window)
        place = self._place(np.minimum(times, self.steps - 1), row[:, None])
        began = self._fields["began"]
        inside = (times < self.steps) & (began[place] <= start[:, None])
        stop = start + inside.sum(1) - 1
        place = self._place(np.minimum(times, stop[:, None]), row[:, None])
        frames = None
        if "frames" in self._fields:
            times = start[:, None] + np.arange(-self.context, window)
            times = np.minimum(np.maximum(times, began[place[:, :1]]), stop[:, None])
            frames = self._gather("frames", self._place(times, row[:, None]))
        optional = {
            name: self._gather(name, place) if name in self._fields else None
            for name in self.windowed
        }
        mask = torch.from_numpy(inside)
        stored = {name: self._gather(name, place) for name in _LACKING if name in self._fields}
        marks = {
            _LACKING[name]: mask & value if name == "expert" else ~value
            for name, value in stored.items()
        }
        actions = self._gather("actions", place)
        if self.actions.discrete:
            actions = self.actions.encode(actions)
        known = mask & marks["action_mask"] if "action_mask" in marks else mask
        return Experience(
            frames=frames,
            **optional,
            **marks,
            actions=actions * known.unsqueeze(-1),
            signals=self._gather("signals", place) * mask.unsqueeze(-1),
            mode2_mask=self._gather("planned", place) & mask,
            terminated=self._gather("terminated", place) & mask,
            truncated=self._gather("truncated", place) & mask,
            mask=mask,
            importance_weights=torch.from_numpy(weights),
            indices=torch.from_numpy(start * self.rows + row),
        )

    def _gather(self, name: str, place: Integers) -> Tensor:
        return torch.from_numpy(self._fields[name].take(place, 0))

    def _uniform(self, batch: int, window: int, key: Tensor) -> tuple[Integers, Integers]:
        """First steps and rows [batch] of windows, drawn uniformly.

        A whole window is preferred to one cut short by the present.
        """
        low, last = self._earliest, self.steps - 1
        high = next((t for t in (last - window + 1, last - 1) if t >= low), last)
        drawn = chance.uniform(key, "memory", 2, batch, _TRIES)[0].double().numpy()
        times = low + (drawn[0] * (high - low + 1)).astype(np.int64)
        rows = (drawn[1] * self.rows).astype(np.int64)
        place = self._place(times, rows)
        over = self._fields["terminated"][place] | self._fields["truncated"][place]
        choice = (np.arange(batch), over.argmin(1))
        return times[choice], rows[choice]

    def _prioritised(
        self, tree: SumTree, batch: int, key: Tensor
    ) -> tuple[Integers, Integers, npt.NDArray[np.float32]]:
        """First steps, rows and importance weights [batch] of windows drawn by priority, one from
        each of `batch` equal parts of the total.
        """
        drawn = chance.uniform(key, "memory", batch)[0].double().numpy()
        place = tree.draw((np.arange(batch) + drawn) / batch)
        slot, last = place // self.rows, self.steps - 1
        priority = tree.values(place)
        weights = (priority / priority.min()) ** -self.config.beta
        return (
            last - (last - slot) % self.slots,
            place % self.rows,
            weights.astype(np.float32),
        )

    def update_priorities(self, indices: Tensor, priorities: Tensor) -> None:
        """Sets the priorities [B], >= 0, of the windows at `Experience.indices` [B].

        No effect where windows are drawn uniformly, and on windows overwritten since.
        """
        if self._tree is None:
            return
        time, row = np.divmod(indices.numpy(), self.rows)
        place = self._place(time, row)
        stored = (time >= self._earliest) & (self._tree.values(place) > 0)
        exponent = self.config.priority_exponent
        values = (priorities.detach().double().cpu().numpy() + 1e-6) ** exponent
        if stored.any():
            self._tree.put(place[stored], values[stored])
            self._max_priority = max(self._max_priority, float(values[stored].max()))

    # -- by similarity ----------------------------------------------------------------------

    def recall(self, state: State) -> Recollection:
        """The slots most similar to `state`, and its novelty (§4.9)."""
        return self.associative.recall(state)

    def initial(self, rows: int) -> Recollection:
        """The recollection before an episode: zeros of the usual shapes, novelty 0."""
        return self.associative.initial(rows)

    # -- checkpoints and keyframes ----------------------------------------------------------

    @property
    def bytes_per_step(self) -> float:
        """Main memory of the ring per allocated step, bytes."""
        allocated = sum(field.nbytes for field in self._fields.values())
        tree = 0 if self._tree is None else self._tree.nodes.nbytes / (self.slots * self.rows)
        return allocated / max(1, self._allocated * self.rows) + tree

    def tensors(self) -> dict[str, Tensor]:
        """A copy of all that is stored, by name: what a checkpoint holds.

        Names with a dot are state of the memory, the others fields with one entry per step.
        """
        filled = min(self.steps, self.slots) * self.rows
        fields = {name: torch.from_numpy(f[:filled].copy()) for name, f in self._fields.items()}
        fields |= {
            "now.began": torch.from_numpy(self._began.copy()),
            "now.over": torch.from_numpy(self._over.copy()),
            "now.steps": torch.tensor(self.steps),
        }
        if self._tree is not None:
            fields["priorities"] = torch.from_numpy(self._tree.values(np.arange(filled)))
            fields["now.top"] = torch.tensor(self._max_priority, dtype=torch.float64)
        return fields | self.acting_tensors()

    def acting_tensors(self) -> dict[str, Tensor]:
        """The part of `tensors` that acting needs, without experience: what a keyframe holds."""
        return {
            "now.last": torch.frombuffer(bytearray(self._last.to_bytes()), dtype=torch.uint8),
            **{f"recall.{name}": t for name, t in self.associative.tensors().items()},
        }

    def load_acting(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `acting_tensors` returned, after `reset`: acting continues exactly, and
        experience begins empty.

        Raises MessageError where they are of another memory.
        """
        recalled = {
            name.removeprefix("recall."): tensor
            for name, tensor in tensors.items()
            if name.startswith("recall.")
        }
        if differing := difference(self.associative.tensors(), recalled):
            raise MessageError("Recollection", "recall", "this memory's tensors", differing)
        packed = tensors.get("now.last", torch.empty(0))
        if packed.dtype != torch.uint8 or packed.dim() != 1:
            raise MessageError("Moment", "now.last", "bytes", f"{packed.dtype} {packed.dim()}-d")
        last = Message.from_bytes(packed.numpy().tobytes())
        if not isinstance(last, Moment):
            raise MessageError("Moment", "now.last", "Moment", type(last).__name__)
        if last.batch != self.rows:
            raise MessageError("Moment", "now.last", f"{self.rows} rows", f"{last.batch} rows")
        self.reset(self._initial)
        self._last, self._previous = last, None
        self._over = last.observation.ended.numpy().copy()
        self.associative.load_tensors(recalled)

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restores what `tensors` returned, after `reset`.

        Raises MessageError where it is of a memory of other rows, capacity or world.
        """
        self.require(tensors)
        steps = int(tensors["now.steps"])
        filled = min(steps, self.slots) * self.rows
        self._require_values(tensors, steps)
        self.load_acting(tensors)
        self.steps, self._allocated = steps, min(steps, self.slots)
        self._began = tensors["now.began"].numpy().copy()
        self._over = tensors["now.over"].numpy().copy()
        self._fields = {
            name: tensor.numpy().copy()
            for name, tensor in tensors.items()
            if "." not in name and name != "priorities"
        }
        if self._tree is not None and "priorities" in tensors:
            self._tree.put(np.arange(filled), tensors["priorities"].numpy())
            self._max_priority = float(tensors["now.top"])

    def require(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises MessageError where the names, shapes or types of `tensors` are not those of this
        memory; forms suffice (`modules.tensor_file`).
        """
        entries = len(tensors["signals"]) if tensors.get("signals", _NONE).dim() else 0
        if entries > self.slots * self.rows or entries % self.rows:
            expected = f"at most {self.slots * self.rows} steps ({self.rows} rows)"
            raise MessageError("Experience", "signals", expected, f"{entries}")
        forms = self._forms(entries, tensors)
        stored = {name: t for name, t in tensors.items() if not name.startswith("recall.")}
        stored.pop("now.last", None)
        if differing := difference(forms, stored):
            raise MessageError("Experience", "memory", "the tensors of this memory", differing)

    def _forms(self, entries: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The form of each field with `entries` entries, and of the state of the memory."""

        def form(kind: torch.dtype, *shape: int) -> Tensor:
            return torch.empty(shape, dtype=kind, device="meta")

        world, number = self.world, torch.float32
        forms = {
            "now.began": form(torch.int64, self.rows),
            "now.over": form(torch.bool, self.rows),
            "now.steps": form(torch.int64),
        }
        if self._tree is not None and "priorities" in tensors:
            forms |= {
                "priorities": form(torch.float64, entries),
                "now.top": form(torch.float64),
            }
        if not entries:
            return forms
        discrete = self.actions.discrete
        forms |= {
            "signals": form(number, entries, len(world.signals)),
            "actions": form(torch.int16, entries)
            if discrete
            else form(number, entries, self.actions.size),
            "began": form(torch.int64, entries),
            **{name: form(torch.bool, entries) for name in ("planned", "terminated", "truncated")},
        }
        if world.pixels is not None:
            kind = tensors.get("frames", _NONE).dtype
            forms["frames"] = form(kind, entries, *world.pixels)
        for name, size in (("vectors", world.vector), ("goals", world.goal)):
            if size is not None:
                forms[name] = form(number, entries, size)
        for name in _LACKING.keys() & tensors.keys():
            each = (len(world.signals),) if name == "no_signals" else ()
            forms[name] = form(torch.bool, entries, *each)
        if "tokens" in tensors:
            tokens = self._initial.directive.tokens
            forms["tokens"] = form(tokens.dtype, entries, *tokens.shape[1:])
        recalled = self._recalled(self._initial)
        for name, value in recalled.items():
            if value is not None:
                forms[name] = form(number, entries, *value.shape[1:])
        return forms

    def _require_values(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Raises MessageError where a number of `tensors` could not be one of this memory."""
        filled = min(steps, self.slots) * self.rows
        entries = len(tensors["signals"]) if "signals" in tensors else 0
        actions = tensors.get("actions", _NONE)
        places = {
            "now.steps": steps >= 0 and entries == filled,
            "now.began": _between(tensors["now.began"], 0, steps),
            "began": _between(tensors.get("began", _NONE), 0, steps),
            "actions": not self.actions.discrete or _between(actions, 0, self.actions.size - 1),
            "priorities": _between(tensors.get("priorities", _NONE), 0, math.inf),
            "recall.used": _between(tensors.get("recall.used", _NONE), -1, 2**53),
        }
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and "." not in name:
                places[name] = places.get(name, True) and bool(tensor.isfinite().all())
        for name, holds in places.items():
            if not holds:
                expected = f"what a memory of {filled} entries after {steps} steps can hold"
                raise MessageError("Experience", name, expected, "other numbers")


_NONE = torch.empty(0)
"""In place of a tensor that is not there."""


def _between(values: Tensor, least: float, most: float) -> bool:
    """Whether all numbers lie between two."""
    return not values.numel() or bool(((values >= least) & (values <= most)).all())
