"""What the page knows of a run: its series as plain numbers, frames and moments on demand.

Of a damaged run it knows what can still be read, and says what cannot.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from agent.recording.episode_stats import returns_so_far
from agent.recording.trace import SalvagedTrace, Trace
from modules.messages import Message, Moment, TraceError

Floats = NDArray[np.float32]

SERIES = (
    "surprise",
    "observation.signals",
    "observation.first",
    "observation.terminated",
    "observation.truncated",
    "recollection.novelty",
    "energies.intrinsic",
    "energies.critic",
    "energies.disagreement",
    "directive.horizon_steps",
    "directive.u",
    "plan.mode",
    "plan.model_calls",
)
"""What is kept of every step."""

_UNREADABLE = "(this step is damaged)"
_SHOWN = 4096
"""A tensor of more numbers than this is shown by its beginning."""


class Pack(NamedTuple):
    """Arrays and a few facts on their way to the page."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """uint32 length of a JSON header padded to 8 bytes, the header, the arrays end to end."""
        listed, at = [], 0
        for name, array in self.arrays.items():
            listed.append([name, array.dtype.name, list(array.shape), at])
            at += -(-array.nbytes // 8) * 8
        header = json.dumps({**self.facts, "arrays": listed}, allow_nan=False).encode()
        header += b" " * (-(len(header) + 4) % 8)
        parts = [struct.pack("<I", len(header)), header]
        for array in self.arrays.values():
            raw = np.ascontiguousarray(array).tobytes()
            parts += [raw, bytes(-len(raw) % 8)]
        return b"".join(parts)


class Recording:
    """One recorded run, also one that is still being written or that is damaged in places.

    Raises TraceError, one line, where nothing of it can be read or its format is a newer one.
    Safe to ask from several threads.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.trace = Trace.open(path)
        trace = self.trace
        self.path, self.file = path, trace.path
        self.world, self.config, self.rows = trace.world, trace.config, trace.rows
        self.drives, self.heads = trace.drives, trace.heads
        self.name = name or path.resolve().name
        self._lock = threading.RLock()
        self._readable: SalvagedTrace | None = None
        self._columns: dict[str, Floats] = {}
        self._reasons: list[Sequence[str]] = []
        self.first, self.steps = 0, 0
        self.missing: list[str] = list(trace.damage)
        self.grow()

    def close(self) -> None:
        """Frees the file."""
        with self._lock:
            self.trace.close()

    # -- reading ----------------------------------------------------------------------------

    def grow(self) -> int:
        """Takes in what was written since; the number of steps now."""
        with self._lock:
            if self._readable is not None:
                return self.steps  # who damaged it does not go on writing it
            try:
                if not self.trace.damage:
                    there = self.trace.steps
                    if there == self.steps:
                        return self.steps
                    self._take_whole(there)
                    return self.steps
            except TraceError:
                pass
            self._take_rest()
            return self.steps

    def _take_whole(self, there: int) -> None:
        """All series of an undamaged trace. Raises TraceError where it is not."""
        reasons = self.trace.reasons()
        if len(reasons) < there:
            raise TraceError(f"trace {self.file}: steps are missing")
        columns = {name: self.trace.series(name) for name in SERIES}
        steps = min(len(reasons), *map(len, columns.values()))
        self._columns = {name: _floats(values[:steps]) for name, values in columns.items()}
        self._reasons = list(reasons[:steps])
        if not self.steps and steps:
            self.first = next(iter(self.trace)).step
        self.steps = steps

    def _take_rest(self) -> None:
        """What can be read of a damaged trace; NaN where nothing can."""
        readable = self._readable = SalvagedTrace(self.trace)
        self.missing = [str(gap) for gap in readable.missing]
        if not len(readable):
            raise TraceError(f"trace {self.file}: no step of it can be read")
        self.first = (
            0 if any(gap.first == 0 for gap in readable.missing) else int(readable.steps[0])
        )
        last = max([int(readable.steps[-1]), *(gap.last for gap in readable.missing)])
        self.steps = last + 1 - self.first
        places = readable.steps - self.first
        for name in SERIES:
            try:
                values = _floats(readable.series(name))
            except TraceError:
                continue
            whole = np.full((self.steps, *values.shape[1:]), np.nan, np.float32)
            whole[places] = values
            self._columns[name] = whole
        self._reasons = [(_UNREADABLE,) * self.rows] * self.steps
        for place, lines in zip(places.tolist(), readable.reasons(), strict=True):
            self._reasons[place] = lines

    # -- what the page asks -----------------------------------------------------------------

    def kind(self, slot: str) -> str:
        """The kind of a module, from the configuration; empty where that does not say."""
        found = self.config.get(slot)
        return str(found.get("kind", "")) if isinstance(found, dict) else ""

    def about(self) -> dict[str, Any]:
        """What was run, and how much of it is here."""
        pixels = self.world.pixels
        return {
            "name": self.name,
            "world": self.world.id,
            "protocol": self.world.protocol,
            "seed": self.config.get("seed"),
            "kinds": {slot: self.kind(slot) for slot in
                      ("perception", "world_model", "cost", "memory", "actor", "configurator")},
            "rows": self.rows,
            "first": self.first,
            "steps": self.steps,
            "drives": list(self.drives),
            "heads": list(self.heads),
            "pixels": None if pixels is None else list(pixels),
            "actions": list(self.world.actions.names),
            "missing": _few(self.missing),
        }  # fmt: skip

    def series(self, row: int, start: int = 0) -> Pack:
        """All series of a row from the `start`-th recorded step on, with reasons as codes."""
        self.allows(row)
        with self._lock:
            end = self.steps
            part = {name: self._column(name)[start:end, row] for name in SERIES}
            signals = part["observation.signals"]
            ended = part["observation.terminated"] + part["observation.truncated"]
            lines = [r[row] if row < len(r) else _UNREADABLE for r in self._reasons[start:end]]
            table: dict[str, int] = {}
            codes = np.array([table.setdefault(line, len(table)) for line in lines], np.uint32)
            arrays: dict[str, NDArray[Any]] = {
                "mode": part["plan.mode"],
                "horizon": part["directive.horizon_steps"],
                "surprise": part["surprise"],
                "novelty": part["recollection.novelty"],
                "disagreement": part["energies.disagreement"],
                "calls": part["plan.model_calls"],
                "first": part["observation.first"],
                "ended": ended,
                "score": self._signal(signals, "reward"),
                "lost": self._signal(signals, "life_lost"),
                "lives": self._signal(signals, "lives"),
                "return": self._returns(row)[start:end],
                "reason": codes,
            }
            for prefix, path in (("u", "directive.u"), ("energy", "energies.intrinsic"),
                                 ("critic", "energies.critic")):  # fmt: skip
                for i in range(part[path].shape[1]):
                    arrays[f"{prefix}.{i}"] = part[path][:, i]
            return Pack({"start": start, "steps": end, "reasons": list(table)}, arrays)

    def _column(self, name: str) -> Floats:
        """One series, [steps B ...]; NaN where it was not recorded or cannot be read."""
        if name in self._columns:
            return self._columns[name]
        widths = {
            "observation.signals": len(self.world.signals),
            "energies.intrinsic": len(self.drives),
            "directive.u": len(self.drives),
            "energies.critic": len(self.heads),
        }
        wide = (widths[name],) if name in widths else ()
        return np.full((self.steps, self.rows, *wide), np.nan, np.float32)

    def _signal(self, signals: Floats, name: str) -> Floats:
        if name not in self.world.signals:
            return np.zeros(len(signals), np.float32)
        return signals[:, self.world.signals.index(name)]

    def _returns(self, row: int) -> Floats:
        """The return of the running episode, [steps]; a missing step adds nothing."""
        signals = self._column("observation.signals")[:, row]
        truncated = self._column("observation.truncated")[:, row]
        over = (self._signal(signals, "end") > 0) | (truncated > 0)
        return _floats(returns_so_far(self._signal(signals, "reward"), over))

    def allows(self, row: int) -> None:
        """Raises TraceError where there is no such row."""
        if not 0 <= row < self.rows:
            raise TraceError(f"trace {self.file}: expected a row below {self.rows}, got {row}")

    def frame(self, step: int, row: int) -> NDArray[np.uint8] | None:
        """What a row observed at a step, [H W C] uint8; None where there is nothing to show."""
        with self._lock:
            try:
                return as_bytes(self.trace.frame(step, row))
            except TraceError:
                return None

    def frames(self, row: int, steps: Iterable[int]) -> Pack:
        """The frames of some steps, [N H W C] uint8; a missing one is left out of `steps`."""
        found = [(step, self.frame(step, row)) for step in steps]
        return pack_frames([(step, shown) for step, shown in found if shown is not None])

    def moment(self, step: int) -> Moment:
        """The moment of a step, also without its pixels where those are damaged.

        Raises TraceError where it cannot be read.
        """
        with self._lock:
            if self._readable is None:
                return self.trace.moment(step)
            return self._readable.moment(step)

    def actions(self, start: int, stop: int) -> dict[int, torch.Tensor]:
        """The encoded actions [B A] done at the steps from `start` up to `stop`, where readable."""
        done = {}
        for step in range(start, stop):
            try:
                done[step] = self.moment(step).plan.action
            except TraceError:
                break
        return done

    def latents(self, row: int) -> tuple[NDArray[np.int64], Floats]:
        """The steps whose state can be read and those states, [N] and [N D]."""
        with self._lock:
            if self._readable is None:
                values = self.trace.series("state.latent")
                steps = np.arange(self.first, self.first + len(values))
            else:
                values, steps = self._readable.series("state.latent"), self._readable.steps
        mine = values[:, row]
        there = np.isfinite(mine).all(-1)
        return steps[there], mine[there]

    def keyframe(self, step: int) -> tuple[int, bytes] | None:
        """The last whole snapshot of the world at or before a step, and its step."""
        with self._lock:
            try:
                return self.trace.keyframe_before(step)
            except TraceError:
                kept = next(self.trace.keyframes_before(step), None)
                return None if kept is None else (kept.step, kept.world)

    # -- a moment in full -------------------------------------------------------------------

    def tree(self, step: int, row: int) -> dict[str, Any]:
        """Every message of a moment: its fields with axes, dtype and numbers of one row."""
        self.allows(row)
        try:
            moment = self.moment(step)
        except TraceError as error:
            return {"step": step, "readable": False, "why": str(error), "own": [], "parts": []}
        parts = []
        for name in moment._nested:
            message: Message = getattr(moment, name)
            fields = [
                self._field(name, field, shape.axes, getattr(message, field), row)
                for field, shape in message._tensors
            ]
            if name == "directive":
                fields.insert(0, {"name": "reason", "text": moment.directive.reason[row]})
            parts.append({"name": name, "fields": fields})
        own = [
            self._field("", name, shape.axes, getattr(moment, name), row)
            for name, shape in moment._tensors
        ]
        return {"step": step, "readable": True, "own": own, "parts": parts}

    def _field(
        self, part: str, name: str, axes: Sequence[str], value: torch.Tensor | None, row: int
    ) -> dict[str, Any]:
        if part in ("state", "expected") and name == "hidden":
            return {"name": name, "note": "not kept in a trace"}
        if name == "pixels" and self.world.pixels is not None:
            return {"name": name, "note": "damaged" if value is None else "shown as the frame"}
        if value is None:
            return {"name": name, "note": "none"}
        mine = value[row].numpy()
        told: dict[str, Any] = {
            "name": name,
            "dtype": str(mine.dtype),
            "axes": [[axis, n] for axis, n in zip(axes[1:], mine.shape, strict=True)],
            "values": [plain(v) for v in mine.reshape(-1)[:_SHOWN].tolist()],
        }
        if mine.size > _SHOWN:
            told["more"] = int(mine.size - _SHOWN)
        if labels := self._labels(axes[-1] if mine.ndim else ""):
            told["labels"] = labels
        return told

    def _labels(self, axis: str) -> list[str]:
        """The names of the places along an axis, where they have names."""
        named = {
            "S": self.world.signals,
            "K": self.drives,
            "L": self.heads,
            "A": self.world.actions.names,
        }
        return list(named.get(axis, ()))


def _floats(values: NDArray[Any]) -> Floats:
    return values.astype(np.float32)


def _few(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    return list(lines) if len(lines) <= 8 else [*lines[:7], f"and {len(lines) - 7} more"]


def pack_frames(frames: Sequence[tuple[int, NDArray[np.uint8]]]) -> Pack:
    """Frames of one form with their steps; those of another form than the first are left out."""
    alike = [(step, f) for step, f in frames if f.shape == frames[0][1].shape]
    if not alike:
        return Pack({"steps": []}, {"frames": np.zeros((0, 0, 0, 1), np.uint8)})
    return Pack({"steps": [step for step, _ in alike]}, {"frames": np.stack([f for _, f in alike])})


def as_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels of any dtype as 0 to 255: those of 0 to 1 are scaled, larger ones stretched."""
    if pixels.dtype == np.uint8:
        return pixels
    numbers = np.nan_to_num(pixels.astype(np.float32))
    top = float(numbers.max(initial=0.0))
    scale = 255.0 if top <= 1.0 else 255.0 / top
    return (numbers.clip(0) * scale).round().clip(0, 255).astype(np.uint8)


def plain(value: float | bool) -> float | int | str | bool:
    """A number as JSON can say it, in four figures."""
    if isinstance(value, bool | int):
        return value
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return float(f"{value:.4g}")
